//! `kuafu history` and `kuafu rollback`.

use kuafu_proto::v1::{HistoryChange, HistoryEntry, HistoryRequest, RollbackRequest};

use super::apply::{self, window};
use crate::args::Global;
use crate::ask;
use crate::failure::Result;
use crate::out::{Output, columns, when};

/// Objects that a line of the list names; the others are counted.
const NAMED: usize = 3;

/// Print what was declared when
///
/// The newest hundred changes; of one change also each object before and after. `status` shows the same revisions.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu history
  kuafu history 12
  kuafu history 12 -o json")]
pub(crate) struct Args {
    /// One change
    #[arg(value_name = "REVISION")]
    revision: Option<u64>,
    #[command(flatten)]
    output: Output,
}

/// Declare again what was declared as of a change
///
/// One new change, checked whole like any other. Objects that came later are deleted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu rollback 12 --dry-run
  kuafu rollback 12 --confirm 60s")]
pub(crate) struct RollbackArgs {
    /// The change, as `kuafu history` lists it
    #[arg(value_name = "REVISION")]
    revision: u64,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Undo it after this time unless `kuafu confirm` keeps it
    #[arg(long, value_name = "TIME", value_parser = window)]
    confirm: Option<u32>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut controller = ask::controller(global).await?;
    let revision = args.revision.unwrap_or_default();
    let answer = controller.api.history(HistoryRequest { revision }).await;
    let answer = controller.unwrap(answer)?;
    args.output.print(&answer, |answer| match args.revision {
        None => list(&answer.changes),
        Some(_) => answer.changes.iter().map(one).collect(),
    })
}

pub(crate) async fn rollback(global: &Global, args: RollbackArgs) -> Result {
    let mut controller = ask::controller(global).await?;
    let request = RollbackRequest {
        revision: args.revision,
        dry_run: args.dry_run,
        confirm_s: args.confirm.unwrap_or_default(),
    };
    let answer = controller.api.rollback(request).await;
    let answer = controller.unwrap(answer)?;
    apply::tell(&answer, args.output)?;
    apply::say_what_follows(&answer, args.dry_run, args.output);
    Ok(())
}

fn list(changes: &[HistoryEntry]) -> String {
    let row = |change: &HistoryEntry| {
        [
            change.revision.to_string(),
            when(change.at_unix_s),
            cause(change),
            change.trial.clone(),
            objects(&change.objects),
        ]
    };
    columns(
        ["REVISION", "WHEN", "BY", "TRIAL", "OBJECTS"],
        changes.iter().map(row),
    )
}

/// The change, and its objects as they were and are.
fn one(change: &HistoryEntry) -> String {
    let mut text = format!(
        "Change {} of {}, by {}",
        change.revision,
        when(change.at_unix_s),
        cause(change)
    );
    if !change.trial.is_empty() {
        text += &format!(", {}", change.trial);
    }
    text += "\n";
    for object in &change.objects {
        text += &format!("\n{}/{} {}\n", object.kind, object.name, object.change);
        for (sign, manifest) in [('-', &object.before), ('+', &object.after)] {
            let lines = manifest.iter().flat_map(|manifest| manifest.trim().lines());
            text.extend(lines.map(|line| format!("{sign} {line}\n")));
        }
    }
    text
}

fn cause(change: &HistoryEntry) -> String {
    match change.of {
        Some(of) if change.cause == "return" => format!("return from {of}"),
        Some(of) => format!("{} to {of}", change.cause),
        None => change.cause.clone(),
    }
}

fn objects(objects: &[HistoryChange]) -> String {
    let named = objects.iter().take(NAMED);
    let mut words: Vec<String> = named
        .map(|object| format!("{}/{} {}", object.kind, object.name, object.change))
        .collect();
    if objects.len() > NAMED {
        words.push(format!("{} more", objects.len() - NAMED));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, before: Option<&str>) -> HistoryChange {
        HistoryChange {
            kind: "vpc".to_owned(),
            name: name.to_owned(),
            change: "updated".to_owned(),
            before: before.map(str::to_owned),
            after: before.map(|text| text.replace('1', "2")),
        }
    }

    #[test]
    fn a_line_names_three_objects_and_counts_the_others() {
        let objects_ = ["a", "b", "c", "d", "e"].map(|name| object(name, None));
        assert_eq!(
            objects(&objects_),
            "vpc/a updated, vpc/b updated, vpc/c updated, 2 more"
        );
    }

    #[test]
    fn a_change_shows_what_was_and_what_is() {
        let change = HistoryEntry {
            revision: 12,
            at_unix_s: 1_764_000_000,
            cause: "return".to_owned(),
            of: Some(11),
            trial: String::new(),
            objects: vec![object("a", Some("spec: 1\n"))],
        };
        assert_eq!(
            one(&change),
            "Change 12 of 2025-11-24T16:00:00Z, by return from 11\n\nvpc/a updated\n- spec: 1\n+ spec: 2\n"
        );
    }
}
