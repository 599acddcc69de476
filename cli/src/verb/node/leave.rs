//! `kuafu node leave`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use kuafu_dataplane::agent::is_running;
use kuafu_proto::client::{self, ConnectError, Identity};
use kuafu_proto::v1::enrolment_client::EnrolmentClient;
use kuafu_proto::v1::{DrainRequest, LeaveRequest};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::units;
use crate::args::Global;
use crate::ask;
use crate::failure::Result;
use crate::out;
use crate::verb::agent::PIN_ROOT;
use crate::verb::drain::{self, LOOK};
use crate::verb::uninstall;

/// For packets that were under way to the node when the last path around it was in force.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// Take this host out of its cluster, and leave it as it was before it joined
///
/// Where other objects refer to the node, the controller says which, and nothing is changed. Else it leads all paths
/// around it, as by `kuafu drain`, and when none passes it any more it deletes the node. Then agent and prober are ended,
/// and the host is cleaned as by `kuafu uninstall`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu node leave --yes
  kuafu node leave --yes --no-drain    # at once: what passes it is lost until the kernels of others lead it away")]
pub(super) struct Args {
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Wait at most so long until nothing passes the node; after that it stays a member
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// Leave whatever passes the node
    #[arg(long, conflicts_with = "wait")]
    no_drain: bool,
    /// Where maps, programs and links are pinned
    #[arg(long, value_name = "DIR", default_value = PIN_ROOT)]
    pin_root: PathBuf,
}

pub(super) async fn run(global: &Global, args: Args) -> Result {
    let places = global.places();
    let Some(node) = uninstall::node(&places) else {
        return out::print("This host is no member of a cluster: nothing to do.\n");
    };
    if !args.yes {
        return Err(anyhow!(
            "this takes node/{node} out of its cluster and off this host; say --yes if it shall"
        )
        .into());
    }
    let by_units = units::are_here(global);
    if !by_units && is_running(&places) {
        return Err(anyhow!(
            "the agent runs, and not by systemd: end it and its prober first (Ctrl-C of `kuafu node join --run`)"
        )
        .into());
    }
    let mut enrolment = dial(global, &node).await?;
    if !args.no_drain {
        drain(&mut enrolment, &node, Duration::from_secs(args.wait)).await?;
    }
    let left = enrolment.leave(LeaveRequest {}).await;
    left.map_err(|status| refused(&status, &node))?;
    if by_units {
        units::disable()?;
    }
    let mut done = vec![format!("the controller has deleted node/{node}")];
    // The host's network is asked by a runtime of its own, which does not start within another.
    let clean = move || {
        let done = uninstall::clean(&places, &args.pin_root, &node)?;
        uninstall::forget(&places).map(|()| done)
    };
    done.extend(tokio::task::spawn_blocking(clean).await??);
    out::print(&done.iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// The controller, by the node's own certificate.
async fn dial(global: &Global, node: &str) -> anyhow::Result<EnrolmentClient<Channel>> {
    let identity = Identity::load(&global.places().identity())?;
    let address = ask::address(global)?;
    let channel = client::connect(&address, &identity).await.map_err(|error| match error {
        ConnectError::Unreachable { .. } => anyhow!(
            "no controller answers at {error}; `kuafu uninstall --yes` cleans this host without it, and `kuafu delete \
             node/{node}` takes the node out later"
        ),
        error => error.into(),
    })?;
    Ok(EnrolmentClient::new(channel))
}

fn refused(status: &Status, node: &str) -> anyhow::Error {
    let why = match status.code() {
        Code::Unimplemented => "this controller does not drain for a node; --no-drain leaves without",
        _ => status.message(),
    };
    anyhow!("node/{node} cannot leave: {why}")
}

/// Lets the controller lead all paths around the node, and waits until none passes it, nor what was under way.
async fn drain(enrolment: &mut EnrolmentClient<Channel>, node: &str, limit: Duration) -> anyhow::Result<()> {
    let (deadline, bar) = (Instant::now() + limit, drain::bar());
    let mut passed = false;
    loop {
        let answer = enrolment.drain(DrainRequest {}).await;
        let left = answer.map_err(|status| refused(&status, node))?.into_inner();
        if left.paths == 0 {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "after {} s {} paths from {} still pass node/{node}. It is still a member, and drained: `kuafu routes` says \
             why each stays, `kuafu node leave` waits again, with --no-drain it does not; `kuafu drain node/{node} \
             --undo` lets it relay again",
            limit.as_secs(),
            left.paths,
            left.from.join(", ")
        );
        passed = true;
        bar.set_message(format!("{} paths over {node}", left.paths));
        tokio::time::sleep(LOOK).await;
    }
    if passed {
        tokio::time::sleep(UNDER_WAY).await;
    }
    bar.finish_and_clear();
    Ok(())
}
