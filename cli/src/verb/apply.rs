//! `kuafu apply`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result as Any, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use kuafu_model::manifest::{Change, File, Intent, ManifestError};
use kuafu_proto::v1::{
    self, ApplyAnswer, ApplyRequest, ClusterStatusRequest, FieldError, HostEntry, ManifestFile, OnTrial,
};

use crate::args::Global;
use crate::ask::{self, Controller};
use crate::failure::{Failure, Result};
use crate::out::{self, Output};

/// Declare objects by manifests: all of them, or nothing
///
/// Each object is created, updated, or left unchanged. Errors name file, line and field, and nothing changes then.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu apply -f vpc.yaml
  kuafu apply -f nodes.yaml -f vpcs/ --wait 30
  kuafu apply -f vpc.yaml --confirm 60s    # undone by the hosts themselves unless: kuafu confirm
  kuafu get -o yaml | kuafu apply -f - --dry-run")]
pub(crate) struct Args {
    /// A manifest, a folder of manifests (*.yaml, *.yml, *.json), or - for standard input
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    file: Vec<PathBuf>,
    /// Check everything, change nothing; without a controller the files by themselves
    #[arg(long)]
    dry_run: bool,
    /// Wait at most so long until every connected host has it in force; by default not at all
    #[arg(long, value_name = "SECONDS", conflicts_with = "dry_run")]
    wait: Option<u64>,
    /// Undo it after this time, such as 60s or 10m, unless `kuafu confirm` keeps it. A host that is cut off by what was
    /// applied comes back by itself
    #[arg(long, value_name = "TIME", value_parser = window)]
    confirm: Option<u32>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let files = read(&args.file)?;
    let mut controller = match ask::controller(global).await {
        Err(Failure::Failed(why)) if args.dry_run && global.controller.is_none() => {
            return alone(&files, &why, args.output);
        }
        controller => controller?,
    };
    let request = ApplyRequest {
        files,
        dry_run: args.dry_run,
        confirm_s: args.confirm.unwrap_or_default(),
    };
    let answer = controller.api.apply(request).await;
    let answer = controller.unwrap(answer)?;
    tell(&answer, args.output)?;
    say_what_follows(&answer, args.dry_run, args.output);
    match args.wait {
        Some(seconds) => wait(&mut controller, answer.revision, Duration::from_secs(seconds)).await,
        None => Ok(()),
    }
}

/// A dry run where no controller answers: the files by themselves, as in a cluster where nothing is declared.
fn alone(files: &[ManifestFile], why: &anyhow::Error, output: Output) -> Result {
    let texts: Vec<File<'_>> = files
        .iter()
        .map(|file| File {
            name: &file.name,
            text: &file.text,
        })
        .collect();
    out::complain(&format!(
        "Checked by themselves, as if nothing else were declared: {why:#}."
    ));
    let answer = match Intent::default().apply_files(&texts) {
        Ok(applied) => ApplyAnswer {
            changes: applied.changes.iter().map(change).collect(),
            ..ApplyAnswer::default()
        },
        Err(errors) => ApplyAnswer {
            errors: errors.iter().map(field_error).collect(),
            ..ApplyAnswer::default()
        },
    };
    tell(&answer, output)?;
    say_what_follows(&answer, true, output);
    Ok(())
}

fn change(change: &Change) -> v1::Change {
    v1::Change {
        kind: change.object.kind.word().to_owned(),
        name: change.object.name.to_string(),
        change: change.outcome.word().to_owned(),
    }
}

fn field_error(error: &ManifestError) -> FieldError {
    FieldError {
        file: error.file.to_string(),
        line: error.line,
        field: error.field.clone(),
        message: error.problem.to_string(),
    }
}

/// A time on the command line, in seconds: 90, 90s or 10m.
pub(super) fn window(text: &str) -> std::result::Result<u32, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds = number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(unit));
    seconds
        .filter(|seconds| (5..=86_400).contains(seconds))
        .ok_or_else(|| "a time from 5s to 1440m, such as 60s or 10m".to_owned())
}

/// That nothing was changed, or that it is on trial.
pub(super) fn say_what_follows(answer: &ApplyAnswer, dry_run: bool, output: Output) {
    if output.format != out::Format::Table {
        return;
    }
    if dry_run {
        out::complain("Nothing was changed: this was a dry run.");
    }
    if let Some(trial) = &answer.trial {
        out::complain(&on_trial(trial));
    }
}

/// A trial in a line.
pub(super) fn on_trial(trial: &OnTrial) -> String {
    format!(
        "Change {} is on trial for {} s: `kuafu confirm` keeps it, else every host goes back to what was before.",
        trial.revision,
        trial.left_ms.div_ceil(1_000)
    )
}

/// Prints what changed, or what is wrong.
pub(super) fn tell(answer: &ApplyAnswer, output: Output) -> Result {
    if answer.errors.is_empty() {
        return output.print(answer, changes);
    }
    if output.format == out::Format::Table {
        answer.errors.iter().for_each(|error| out::complain(&line(error)));
    } else {
        output.print(answer, changes)?;
    }
    Err(Failure::Told)
}

fn changes(answer: &ApplyAnswer) -> String {
    let lines = answer
        .changes
        .iter()
        .map(|change| format!("{}/{} {}\n", change.kind, change.name, change.change));
    lines.collect()
}

/// `file:line: field: message`, as far as there are such.
pub(super) fn line(error: &FieldError) -> String {
    let mut text = String::new();
    if !error.file.is_empty() {
        text += &error.file;
        text += &if error.line == 0 {
            ": ".to_owned()
        } else {
            format!(":{}: ", error.line)
        };
    }
    if !error.field.is_empty() {
        text += &error.field;
        text += ": ";
    }
    text + &error.message
}

/// The manifests' texts under the names that errors shall show.
fn read(paths: &[PathBuf]) -> Any<Vec<ManifestFile>> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            files.push(ManifestFile {
                name: "standard input".to_owned(),
                text,
            });
        } else if path.is_dir() {
            let within = manifests_in(path)?;
            ensure!(
                !within.is_empty(),
                "no *.yaml, *.yml or *.json in {}",
                path.display()
            );
            for path in within {
                files.push(manifest(&path)?);
            }
        } else {
            files.push(manifest(path)?);
        }
    }
    Ok(files)
}

/// The manifests of a folder, by name.
fn manifests_in(folder: &Path) -> Any<Vec<PathBuf>> {
    let failed = || format!("cannot read {}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let is_manifest = path
            .extension()
            .is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|e| ending == *e));
        if is_manifest && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn manifest(path: &Path) -> Any<ManifestFile> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    Ok(ManifestFile { name, text })
}

/// Waits until every connected host has a revision in force.
async fn wait(controller: &mut Controller, revision: u64, limit: Duration) -> Result {
    const PAUSE: Duration = Duration::from_millis(100);
    let deadline = Instant::now() + limit;
    let bar = progress();
    loop {
        let status = controller
            .api
            .status(ClusterStatusRequest { details: false })
            .await;
        let hosts = controller.unwrap(status)?.hosts;
        let connected: Vec<&HostEntry> = hosts.iter().filter(|host| host.connected).collect();
        let behind: Vec<&HostEntry> = connected
            .iter()
            .copied()
            .filter(|host| !has(host, revision))
            .collect();
        bar.set_length(connected.len() as u64);
        bar.set_position((connected.len() - behind.len()) as u64);
        if let Some(host) = behind.iter().find(|host| !host.refused.is_empty()) {
            return Err(anyhow::anyhow!(
                "{} refuses revision {}: {}",
                host.node,
                host.revision,
                host.refused
            )
            .into());
        }
        if behind.is_empty() {
            bar.finish_and_clear();
            return Ok(());
        }
        if Instant::now() > deadline {
            let names: Vec<&str> = behind.iter().map(|host| host.node.as_str()).collect();
            return Err(late(&names, limit).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A host whose own state did not change keeps its older revision.
const fn has(host: &HostEntry, revision: u64) -> bool {
    host.acked >= revision || host.acked == host.revision
}

fn late(names: &[&str], limit: Duration) -> anyhow::Error {
    anyhow!(
        "not in force after {} s on: {}",
        limit.as_secs(),
        names.join(", ")
    )
}

fn progress() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{spinner} in force on {pos} of {len} hosts {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_file_line_and_field_as_far_as_there_are_such() {
        let error = |file: &str, line, field: &str| FieldError {
            file: file.to_owned(),
            line,
            field: field.to_owned(),
            message: "is wrong".to_owned(),
        };
        assert_eq!(
            line(&error("a.yaml", 7, "spec.port")),
            "a.yaml:7: spec.port: is wrong"
        );
        assert_eq!(line(&error("a.yaml", 0, "")), "a.yaml: is wrong");
        assert_eq!(line(&error("", 0, "")), "is wrong");
    }

    #[test]
    fn a_time_has_a_unit_or_is_seconds() {
        assert_eq!(
            [window("60"), window("60s"), window("10m")],
            [Ok(60), Ok(60), Ok(600)]
        );
        for wrong in ["", "s", "4", "1h", "2000m", "-5", "99999999999m"] {
            assert!(window(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.json", "notes.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let files = read(&[folder.path().to_owned()]).unwrap();
        assert_eq!(
            files.iter().map(|file| file.text.as_str()).collect::<Vec<_>>(),
            ["a.yml", "b.yaml", "c.json"]
        );
    }
}
