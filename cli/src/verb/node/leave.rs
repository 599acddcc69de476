//! `kuafu node leave`.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use kuafu_dataplane::agent::is_running;
use kuafu_proto::client::{self, ConnectError, Identity};
use kuafu_proto::v1::LeaveRequest;
use kuafu_proto::v1::enrolment_client::EnrolmentClient;

use super::units;
use crate::args::Global;
use crate::ask;
use crate::failure::Result;
use crate::out;
use crate::verb::agent::PIN_ROOT;
use crate::verb::uninstall;

/// Take this host out of its cluster, and leave it as it was before it joined
///
/// The controller deletes the node; where other objects refer to it, it says which, and nothing is changed. Then agent
/// and prober are ended, and the host is cleaned as by `kuafu uninstall`. `kuafu drain` leads traffic around it before.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  kuafu drain node/osaka       # where the admin is; then on the host itself:
  kuafu node leave --yes")]
pub(super) struct Args {
    /// Do it
    #[arg(long)]
    yes: bool,
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
    ask_out(global, &node).await?;
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

/// Asks the controller to take the node out, with the node's own certificate.
async fn ask_out(global: &Global, node: &str) -> anyhow::Result<()> {
    let identity = Identity::load(&global.places().identity())?;
    let address = ask::address(global)?;
    let channel = client::connect(&address, &identity).await.map_err(|error| match error {
        ConnectError::Unreachable { .. } => anyhow!(
            "no controller answers at {error}; `kuafu uninstall --yes` cleans this host without it, and `kuafu delete \
             node/{node}` takes the node out later"
        ),
        error => error.into(),
    })?;
    let left = EnrolmentClient::new(channel).leave(LeaveRequest {}).await;
    left.map_err(|status| anyhow!("{}", status.message()))
        .with_context(|| format!("node/{node} cannot leave"))?;
    Ok(())
}
