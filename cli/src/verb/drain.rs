//! `kuafu drain`.

mod node;
mod target;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use kuafu_model::kinds::{Kind, Moment, Name, ObjectRef};
use kuafu_proto::v1::{ApplyRequest, ClusterStatus, ClusterStatusRequest, ManifestFile};
use target::Server;

use super::apply;
use crate::args::Global;
use crate::ask::{self, Controller};
use crate::failure::Result;
use crate::out::{self, Format, Output};

/// Between two looks at what is left.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// Lead all paths around a node, or new connections around a server, so that it can be taken away
///
/// Of a node it sets spec.drain: it relays nothing more. Paths around it are complete before any traffic moves; then
/// those over it are removed. Waits until no host has one. Addresses that it announces and others may go to them; what else
/// enters or leaves at the node itself stays there.
///
/// Of a server it sets drain of each service's target with that address: it gets no new connections, and keeps those
/// that it has, unless there is a deadline: then those that are left are led to other servers, or dropped where there is
/// none. Waits until none is left.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu drain node/taipei
  kuafu drain node/taipei --undo
  kuafu drain node/taipei --wait 0               # do not wait
  kuafu drain target/198.51.100.7 --wait 3600
  kuafu drain target/198.51.100.7 --deadline 600
  kuafu drain target/198.51.100.7:2342 --undo")]
pub(crate) struct Args {
    /// A node such as node/taipei, or a server such as target/198.51.100.7 or target/198.51.100.7:2342
    #[arg(value_name = "node/NAME|target/ADDRESS", value_parser = what)]
    what: What,
    /// Use it again
    #[arg(long)]
    undo: bool,
    /// Wait at most so long until nothing is left [default: 60, or 15 more than --deadline]
    #[arg(long, value_name = "SECONDS", conflicts_with = "undo")]
    wait: Option<u64>,
    /// Of a server: lead what is left to others after so long, by each host's own clock; without, what is left stays
    /// until it ends, and a deadline that was set before is taken away
    #[arg(long, value_name = "SECONDS", conflicts_with = "undo")]
    deadline: Option<u64>,
    #[command(flatten)]
    output: Output,
}

/// How a target is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    /// Used.
    Off,
    /// Without a deadline, or with one.
    On(Option<Moment>),
}

impl Args {
    fn wait_s(&self) -> u64 {
        let after = |deadline: u64| deadline.saturating_add(15);
        self.wait.unwrap_or_else(|| self.deadline.map_or(60, after))
    }

    fn drain(&self) -> anyhow::Result<Drain> {
        if self.undo {
            return Ok(Drain::Off);
        }
        let Some(deadline) = self.deadline else {
            return Ok(Drain::On(None));
        };
        ensure!(
            matches!(self.what, What::Target(_)),
            "--deadline {deadline}: only a server's flows can be led away; leave it out for a node"
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now
            .context("this machine's clock is before 1970; set it")?
            .as_secs();
        let until = now.checked_add(deadline).and_then(Moment::new);
        let until = until.with_context(|| {
            format!("--deadline {deadline}: that is after the year 9999; give fewer seconds")
        })?;
        Ok(Drain::On(Some(until)))
    }
}

/// What is drained.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Node(Name),
    Target(Server),
}

fn what(text: &str) -> std::result::Result<What, String> {
    if let Some(server) = text.strip_prefix("target/") {
        return server.parse().map(What::Target);
    }
    match text.parse::<ObjectRef>() {
        Ok(object) if object.kind == Kind::Node => Ok(What::Node(object.name)),
        Ok(object) => Err(format!(
            "a {} does not drain; only a node does, and a server: target/ADDRESS",
            object.kind.word()
        )),
        Err(error) => Err(error.to_string()),
    }
}

impl What {
    /// The objects that declare it, with its drain as it shall be.
    async fn declared(&self, controller: &mut Controller, drain: Drain) -> anyhow::Result<Vec<ManifestFile>> {
        match self {
            Self::Node(name) => Ok(vec![node::declared(controller, name, drain != Drain::Off).await?]),
            Self::Target(server) => target::declared(controller, server, drain).await,
        }
    }

    fn left(&self, status: &ClusterStatus) -> Left {
        match self {
            Self::Node(name) => node::left(status, name),
            Self::Target(server) => target::left(status, server),
        }
    }
}

/// What is still there.
struct Left {
    count: u64,
    /// What it is, in words.
    what: String,
    /// Once nothing is.
    gone: String,
    /// How it may come to an end.
    advice: &'static str,
    /// Who is still to be heard of.
    silent: Vec<String>,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let drain = args.drain()?;
    let mut controller = ask::controller(global).await?;
    let request = ApplyRequest {
        files: args.what.declared(&mut controller, drain).await?,
        dry_run: false,
        confirm_s: 0,
    };
    let answer = controller.api.apply(request).await;
    apply::tell(&controller.unwrap(answer)?, args.output)?;
    let limit = args.wait_s();
    if args.undo || limit == 0 {
        return Ok(());
    }
    wait(&mut controller, &args, Duration::from_secs(limit)).await
}

/// Until nothing is left.
async fn wait(controller: &mut Controller, args: &Args, limit: Duration) -> Result {
    let deadline = Instant::now() + limit;
    let bar = bar();
    loop {
        let answer = controller
            .api
            .status(ClusterStatusRequest { details: true })
            .await;
        let left = args.what.left(&controller.unwrap(answer)?);
        if left.count == 0 && left.silent.is_empty() {
            bar.finish_and_clear();
            if args.output.format == Format::Table {
                out::complain(&left.gone);
            }
            return Ok(());
        }
        bar.set_message(format!("{} {}", left.count, left.what));
        if Instant::now() >= deadline {
            bar.finish_and_clear();
            let more = if left.silent.is_empty() {
                String::new()
            } else {
                format!(" (not known of {})", left.silent.join(", "))
            };
            return Err(anyhow!(
                "after {} s there are still {} {}{more}: {}",
                limit.as_secs(),
                left.count,
                left.what,
                left.advice
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_and_a_server_drain() {
        assert_eq!(
            what("node/taipei").unwrap(),
            What::Node("taipei".parse().unwrap())
        );
        assert!(matches!(what("target/198.51.100.7:80").unwrap(), What::Target(_)));
        assert!(what("vpc/red").unwrap_err().contains("only a node"));
        assert!(what("target/taipei").is_err());
        assert!(what("taipei").is_err());
    }
}
