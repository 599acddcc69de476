//! `kuafu dev`: parts of Kuafu on their own, for those who build or judge them.

mod pin_edge;

use crate::failure::Result;

/// Run parts of Kuafu on their own, to build or to judge them
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  kuafu dev pin-edge --config edge.json --pin /sys/fs/bpf/edge"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Pin the edge as a balancer that needs no agent
    PinEdge(pin_edge::Args),
}

/// Does it.
pub(crate) fn run(args: &Args) -> Result {
    match &args.what {
        What::PinEdge(args) => pin_edge::run(args),
    }
}
