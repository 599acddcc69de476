//! `kuafu drain`.

use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use kuafu_model::kinds::{Kind, Name, ObjectRef};
use kuafu_proto::v1::{ApplyRequest, ClusterStatus, ClusterStatusRequest, GetRequest, ManifestFile};
use serde_json::{Value, json};

use super::apply;
use crate::args::Global;
use crate::ask::{self, Controller};
use crate::failure::Result;
use crate::out::{self, Format, Output};

/// Between two looks at what still passes the node.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// Lead all paths around a node, so that it can be taken away
///
/// Sets spec.drain of the node: it relays nothing more. Paths around it are complete before any traffic moves; then
/// those over it are removed. Waits until no host has one. What enters or leaves at the node itself stays there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu drain node/taipei
  kuafu drain node/taipei --undo
  kuafu drain node/taipei --wait 0    # do not wait")]
pub(crate) struct Args {
    /// A node such as node/taipei
    #[arg(value_name = "node/NAME", value_parser = node)]
    node: Name,
    /// Let it relay again
    #[arg(long)]
    undo: bool,
    /// Wait at most so long until nothing passes it
    #[arg(long, value_name = "SECONDS", default_value_t = 60, conflicts_with = "undo")]
    wait: u64,
    #[command(flatten)]
    output: Output,
}

fn node(text: &str) -> std::result::Result<Name, String> {
    match text.parse::<ObjectRef>() {
        Ok(object) if object.kind == Kind::Node => Ok(object.name),
        Ok(object) => Err(format!(
            "a {} does not drain; only a node does",
            object.kind.word()
        )),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut controller = ask::controller(global).await?;
    let request = ApplyRequest {
        files: vec![declared(&mut controller, &args.node, !args.undo).await?],
        dry_run: false,
        confirm_s: 0,
    };
    let answer = controller.api.apply(request).await;
    apply::tell(&controller.unwrap(answer)?, args.output)?;
    if args.undo || args.wait == 0 {
        return Ok(());
    }
    wait(&mut controller, &args, Duration::from_secs(args.wait)).await
}

/// The node as it is declared, but for its drain.
async fn declared(controller: &mut Controller, node: &Name, drain: bool) -> anyhow::Result<ManifestFile> {
    let request = GetRequest {
        kind: Kind::Node.word().to_owned(),
        name: node.to_string(),
    };
    let answer = controller.api.get(request).await;
    let answer = controller.unwrap(answer)?;
    ensure!(!answer.objects.is_empty(), "no node is called {node}");
    let mut object: Value = serde_json::from_str(&answer.json)?;
    let spec = object.get_mut("spec").and_then(Value::as_object_mut);
    let spec = spec.ok_or_else(|| anyhow!("the controller does not say how node/{node} is declared"))?;
    spec.insert("drain".to_owned(), json!(drain));
    Ok(ManifestFile {
        name: format!("node/{node}"),
        text: object.to_string(),
    })
}

/// Until no host has a path over the node.
async fn wait(controller: &mut Controller, args: &Args, limit: Duration) -> Result {
    let deadline = Instant::now() + limit;
    let bar = bar();
    loop {
        let answer = controller
            .api
            .status(ClusterStatusRequest { details: true })
            .await;
        let status = controller.unwrap(answer)?;
        let left = over(&status, args.node.as_str());
        let silent = unknown(&status);
        if left == 0 && silent.is_empty() {
            bar.finish_and_clear();
            if args.output.format == Format::Table {
                out::complain(&format!("Nothing passes node/{} any more.", args.node));
            }
            return Ok(());
        }
        bar.set_message(format!("{left} paths over {}", args.node));
        if Instant::now() >= deadline {
            bar.finish_and_clear();
            let more = if silent.is_empty() {
                String::new()
            } else {
                format!("; not known of {}", silent.join(", "))
            };
            return Err(anyhow!(
                "after {} s {left} paths still pass node/{}{more}: kuafu routes says why each stays",
                limit.as_secs(),
                args.node
            )
            .into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What shows that something is waited for, and its message.
pub(super) fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(LOOK / 5);
    bar
}

/// Paths in force that pass the node between their ends.
fn over(status: &ClusterStatus, node: &str) -> usize {
    let hosts = status.hosts.iter().filter_map(|host| host.status.as_ref());
    let paths = hosts.flat_map(|host| &host.paths);
    let passes = |nodes: &[String]| match nodes {
        [_, relays @ .., _] => relays.iter().any(|relay| relay == node),
        _ => false,
    };
    paths.filter(|path| passes(&path.nodes)).count()
}

/// Connected hosts that did not say how they are.
fn unknown(status: &ClusterStatus) -> Vec<String> {
    let silent = status
        .hosts
        .iter()
        .filter(|host| host.connected && host.status.is_none());
    silent.map(|host| host.node.clone()).collect()
}

#[cfg(test)]
mod tests {
    use kuafu_proto::v1::{HostEntry, HostStatus, PathStatus};

    use super::*;

    #[test]
    fn only_a_node_drains() {
        assert_eq!(node("node/taipei").unwrap().as_str(), "taipei");
        assert!(node("vpc/red").unwrap_err().contains("only a node"));
        assert!(node("taipei").is_err());
    }

    #[test]
    fn what_passes_a_node_is_counted_and_its_own_ends_are_not() {
        let path = |nodes: &[&str]| PathStatus {
            nodes: nodes.iter().map(ToString::to_string).collect(),
            ..PathStatus::default()
        };
        let host = |paths| HostEntry {
            connected: true,
            status: Some(HostStatus {
                paths,
                ..HostStatus::default()
            }),
            ..HostEntry::default()
        };
        let mut status = ClusterStatus {
            hosts: vec![
                host(vec![
                    path(&["a", "x", "b"]),
                    path(&["a", "x"]),
                    path(&["a", "y", "x", "b"]),
                ]),
                host(vec![path(&["x", "y", "b"]), path(&["b", "x", "a"])]),
            ],
            ..ClusterStatus::default()
        };
        assert_eq!(over(&status, "x"), 3);
        assert!(unknown(&status).is_empty());
        status.hosts[1].node = "b".to_owned();
        status.hosts[1].status = None;
        assert_eq!(unknown(&status), ["b"]);
    }
}
