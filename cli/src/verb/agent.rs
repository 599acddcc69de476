//! `kuafu agent`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ValueEnum;
use kuafu_dataplane::agent::{Options, run as run_agent};
use kuafu_dataplane::bpf::XdpMode;

use crate::args::Global;
use crate::failure::Result;
use crate::interrupt::Interrupt;

/// Where the pins of a host's nodes are.
pub(crate) const PIN_ROOT: &str = "/sys/fs/bpf/kuafu";

/// Run this host's agent: programs, maps, ports
///
/// Adopts what an earlier agent left in the kernel. When it ends, programs and traffic go on without it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu agent
  kuafu agent --state host.json      # without a controller")]
pub(crate) struct Args {
    /// Run this state, binary or JSON, instead of the controller's; it is read again when it changes
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Where maps, programs and links are pinned
    #[arg(long, value_name = "DIR", default_value = PIN_ROOT)]
    pin_root: PathBuf,
    /// How the edge is attached; by default as the device allows
    #[arg(long, value_enum, value_name = "MODE")]
    xdp: Option<Xdp>,
    /// Where Prometheus scrapes /metrics
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from(([127, 0, 0, 1], 7442)))]
    metrics: SocketAddr,
}

/// How XDP is attached.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Xdp {
    /// By the device's driver.
    Native,
    /// By the kernel, on any device.
    Generic,
}

impl Xdp {
    /// As it is typed.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut interrupt = Interrupt::catch()?;
    let options = Options {
        places: global.places(),
        pin_root: args.pin_root,
        state_file: args.state,
        controller: global.controller.clone(),
        xdp: args.xdp.map(|mode| match mode {
            Xdp::Native => XdpMode::Native,
            Xdp::Generic => XdpMode::Generic,
        }),
        metrics_listen: Some(args.metrics),
    };
    Ok(run_agent(options, interrupt.wait()).await?)
}
