//! `kuafu uninstall`.

use crate::args::Global;
use crate::failure::Result;

/// Not built yet
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  kuafu uninstall")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Global, _: Args) -> Result {
    Err(anyhow::anyhow!("not built yet").into())
}
