//! `kuafu status`.

mod backbone;
mod fault;
mod shield;
mod table;

use kuafu_model::kinds::ObjectRef;
use kuafu_proto::v1::{ClusterStatus, ClusterStatusRequest, HostEntry, HostStatus, LegInfo, StatusQuery};

use crate::args::Global;
use crate::ask::{self, Whom};
use crate::failure::{Failure, Result};
use crate::out::Output;

/// Print how the hosts are: programs, legs, announced addresses, limits, and each fault once with its cause
///
/// What follows from a fault is below it: a host that is down, then its legs, and the pairs that are on their backups.
/// With -v also ports, paths, the servers that are checked, and every map's limit.
///
/// Of a service or an accelerator with a shield: whether that is up at each host and since when, what it does and why,
/// what it has counted, and who sends most.
///
/// Exit status: 0, with --check 4 where there is a fault; 1 where nobody answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu status
  kuafu status -v --node osaka
  kuafu status accelerator/arena
  kuafu status --check > /dev/null || systemd-cat kuafu status
  kuafu status -o json")]
pub(crate) struct Args {
    /// The shield of this object, such as service/web or accelerator/arena
    #[arg(value_name = "OBJECT", conflicts_with = "check")]
    object: Option<ObjectRef>,
    /// Only this host
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Exit with status 4 where there is a fault
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    if let Some(object) = &args.object {
        return shield::run(global, object.to_string(), args.node.as_deref(), args.output).await;
    }
    let mut status = match Whom::find(global).await? {
        Whom::Controller(mut controller) => {
            let answer = controller
                .api
                .status(ClusterStatusRequest { details: true })
                .await;
            controller.unwrap(answer)?
        }
        Whom::Agent(mut agent) => of_host(ask::unwrap_local(agent.status(StatusQuery {}).await)?),
    };
    // What stands behind a host's faults is seen by all.
    status.faults = fault::of(&status);
    if let Some(node) = &args.node {
        status.hosts.retain(|host| host.node == *node);
        status.faults.retain(|fault| fault.host == *node);
        status.fallbacks.retain(|fallback| fallback.entry == *node);
        if status.hosts.is_empty() {
            return Err(anyhow::anyhow!("no host is called {node}").into());
        }
    }
    args.output
        .print(&status, |status| table::cluster(status, global.verbose > 0))?;
    if args.check && !status.faults.is_empty() {
        return Err(Failure::Faulty);
    }
    Ok(())
}

/// A host's own answer, in the form of the cluster's.
fn of_host(status: HostStatus) -> ClusterStatus {
    ClusterStatus {
        cluster: status.cluster.clone(),
        revision: status.revision,
        hosts: vec![HostEntry {
            node: status.node.clone(),
            connected: true,
            revision: status.revision,
            acked: status.revision,
            refused: String::new(),
            liveness: Some(status.liveness),
            incarnation: status.incarnation,
            version: status.version.clone(),
            legs: legs(&status),
            layout: status.layout,
            status: Some(status),
            foreign: false,
        }],
        faults: Vec::new(),
        trial: None,
        version: String::new(),
        layout: 0,
        fallbacks: Vec::new(),
        scalings: Vec::new(),
        selecting_nobody: Vec::new(),
    }
}

/// Its legs: the paths of length one.
fn legs(status: &HostStatus) -> Vec<LegInfo> {
    let legs = status
        .paths
        .iter()
        .filter(|path| path.nodes.len() == 2)
        .map(|path| {
            let lost = path.sent.saturating_sub(path.received);
            LegInfo {
                to: path.nodes.last().cloned().unwrap_or_default(),
                rtt_p50_us: path.rtt_p50_us,
                rtt_p90_us: path.rtt_p90_us,
                rtt_ewma_us: path.rtt_ewma_us,
                loss: if path.sent == 0 {
                    0.0
                } else {
                    lost as f64 / path.sent as f64
                },
                age_ms: path.last_echo_ms.unwrap_or_default(),
                unknown: false,
            }
        });
    legs.collect()
}
