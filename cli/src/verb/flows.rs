//! `kuafu flows`.

use kuafu_proto::v1::{ClusterFlows, ClusterFlowsRequest, Flow, FlowsQuery};

use crate::args::Global;
use crate::ask::{self, Whom};
use crate::failure::Result;
use crate::out::{self, Output, ago, columns, octets};

/// Print accelerated flows, as their exits keep them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu flows
  kuafu flows --limit 20 -o json")]
pub(crate) struct Args {
    /// The most of each host; 0: all
    #[arg(long, value_name = "FLOWS", default_value_t = 1000)]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut flows = match Whom::find(global).await? {
        Whom::Controller(mut controller) => {
            let answer = controller
                .api
                .flows(ClusterFlowsRequest { limit: args.limit })
                .await;
            controller.unwrap(answer)?
        }
        Whom::Agent(mut agent) => {
            let answer = ask::unwrap_local(agent.flows(FlowsQuery { limit: args.limit }).await)?;
            ClusterFlows {
                flows: answer.flows,
                errors: Vec::new(),
                truncated: answer.truncated,
            }
        }
    };
    flows.flows.sort_by(|a, b| {
        (&a.accelerator, &a.client, a.protocol).cmp(&(&b.accelerator, &b.client, b.protocol))
    });
    args.output
        .print(&flows, |flows| columns(HEADINGS, flows.flows.iter().map(row)))?;
    ask::missing(&flows.errors);
    if flows.truncated {
        out::complain("There are more: see --limit.");
    }
    Ok(())
}

const HEADINGS: [&str; 10] = [
    "ACCELERATOR",
    "PROTO",
    "CLIENT",
    "ENTRY",
    "EXIT",
    "SERVICE",
    "SOURCE",
    "SERVER",
    "OUT / BACK",
    "IDLE",
];

fn row(flow: &Flow) -> [String; 10] {
    [
        flow.accelerator.clone(),
        protocol(flow.protocol),
        flow.client.clone(),
        flow.entry.clone(),
        flow.exit.clone(),
        flow.service.clone(),
        flow.source.clone(),
        flow.endpoint.clone(),
        format!(
            "{} / {}",
            octets(flow.bytes_to_server),
            octets(flow.bytes_to_client)
        ),
        ago(flow.idle_ms),
    ]
}

/// The protocol's word, or its number.
fn protocol(number: u32) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => other.to_string(),
    }
}
