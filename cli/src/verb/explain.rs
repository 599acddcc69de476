//! `kuafu explain`.

mod frame;
mod offline;
mod path;
mod walk;

use std::path::PathBuf;

use anyhow::{Context, Result as Any, anyhow, bail};
use clap::Subcommand;
use kuafu_proto::v1::{
    ClusterStatusRequest, ExplainQuery, ExplainRequest, Explanation, HostStatus, StatusQuery,
};

use crate::args::Global;
use crate::ask::{self, Controller};
use crate::failure::Result;
use crate::out::Output;
use frame::FrameArgs;

/// Say what becomes of a packet, stage by stage, and why a path is the one in use
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu explain packet --port red-a --to 10.0.0.6
  kuafu explain path osaka cape-town --at -5m")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Walk a packet through a host's tables, stage by stage
    Packet(PacketArgs),
    /// Say why the path between two nodes is the one in use, and why no other is
    Path(path::Args),
}

/// Walk a packet through a host's tables, stage by stage
///
/// The packet is built from --from and --to, or taken from --hex or --pcap. This host's agent walks it over its live
/// tables, another's with --node; with --state it is walked here, over a state file. Nothing is sent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu explain packet --port red-a --to 10.0.0.6
  kuafu explain packet --node osaka --interface eth0 --from 198.51.100.7:40000 --to 203.0.113.10:2342 --proto udp
  kuafu explain packet --interface eth0 --pcap drops.pcap --number 3
  kuafu explain packet --state osaka.json --interface veth0 --from 10.0.0.5 --to 10.0.0.6")]
struct PacketArgs {
    /// The interface where it arrives
    #[arg(long, value_name = "INTERFACE", required_unless_present = "port")]
    interface: Option<String>,
    /// The port that sends it: the interface, and the sender's address unless --from says another
    #[arg(long, value_name = "PORT", conflicts_with = "interface")]
    port: Option<String>,
    #[command(flatten)]
    frame: FrameArgs,
    /// The socket mark that it carries
    #[arg(long, value_name = "MARK", default_value_t = 0)]
    mark: u32,
    /// The host; by default this one
    #[arg(long, value_name = "NODE", conflicts_with = "state")]
    node: Option<String>,
    /// A state file, as `kuafu agent --state` takes it: walk the packet here, without any agent
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let args = match args.what {
        What::Packet(args) => args,
        What::Path(args) => return path::run(global, args).await,
    };
    let explanation = match (&args.state, &args.node) {
        (Some(file), _) => offline(&args, file)?,
        (None, Some(node)) => by_controller(global, &args, node).await?,
        (None, None) => by_agent(global, &args).await?,
    };
    args.output.print(&explanation, walk::table)
}

async fn by_controller(global: &Global, args: &PacketArgs, node: &str) -> Any<Explanation> {
    let mut controller = Controller::dial(global).await?;
    let port = match &args.port {
        Some(port) => {
            let answer = controller
                .api
                .status(ClusterStatusRequest { details: true })
                .await;
            let hosts = controller.unwrap(answer)?.hosts;
            let host = hosts.into_iter().find(|host| host.node == *node);
            let host = host.with_context(|| format!("no host is called {node}"))?;
            let status = host.status.with_context(|| format!("{node} does not answer"))?;
            Some(place(&status, port)?)
        }
        None => None,
    };
    let query = Some(query(args, port)?);
    let answer = controller
        .api
        .explain(ExplainRequest {
            node: node.to_owned(),
            query,
        })
        .await;
    controller.unwrap(answer)
}

async fn by_agent(global: &Global, args: &PacketArgs) -> Any<Explanation> {
    let mut agent = ask::agent(&global.places().socket()).await.context(
        "no agent answers on this host; --node names another, --state walks the packet over a file",
    )?;
    let port = match &args.port {
        Some(port) => Some(place(
            &ask::unwrap_local(agent.status(StatusQuery {}).await)?,
            port,
        )?),
        None => None,
    };
    ask::unwrap_local(agent.explain(query(args, port)?).await)
}

fn offline(args: &PacketArgs, file: &std::path::Path) -> Any<Explanation> {
    let state = kuafu_dataplane::agent::read_state(file)?;
    let port = match &args.port {
        Some(name) => {
            let port = state.ports.iter().find(|port| port.name == *name);
            let port = port.with_context(|| format!("{} has no port {name}", file.display()))?;
            Some(PortPlace {
                interface: port.interface.clone(),
                address: port.address,
                mac: Some(port.mac),
            })
        }
        None => None,
    };
    offline::explain(&state, &query(args, port)?)
}

/// What a port tells of the packets that it sends.
struct PortPlace {
    interface: String,
    address: std::net::Ipv4Addr,
    mac: Option<[u8; 6]>,
}

fn place(status: &HostStatus, name: &str) -> Any<PortPlace> {
    let port = status.ports.iter().find(|port| port.name == name);
    let port = port.with_context(|| format!("{} has no port {name}", status.node))?;
    if !port.attached {
        bail!(
            "port {name} is not attached: it waits for its interface {}",
            port.interface
        );
    }
    let address = port
        .address
        .parse()
        .with_context(|| format!("the address of port {name}"))?;
    Ok(PortPlace {
        interface: port.interface.clone(),
        address,
        mac: None,
    })
}

fn query(args: &PacketArgs, port: Option<PortPlace>) -> Any<ExplainQuery> {
    let interface = match (&args.interface, &port) {
        (Some(interface), _) => interface.clone(),
        (None, Some(port)) => port.interface.clone(),
        (None, None) => return Err(anyhow!("neither --interface nor --port")),
    };
    let sender = port.map(|port| (port.address, port.mac));
    Ok(ExplainQuery {
        frame: args.frame.build(sender)?,
        interface,
        mark: args.mark,
    })
}
