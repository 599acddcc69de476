//! `kuafu probe`.

use crate::args::Global;
use crate::failure::Result;

/// Run this host's prober: not built yet
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  kuafu probe")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Global, _: Args) -> Result {
    Err(anyhow::anyhow!("not built yet").into())
}
