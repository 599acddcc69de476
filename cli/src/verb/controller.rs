//! `kuafu controller`.

use crate::args::Global;
use crate::failure::Result;

/// Not built yet
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  kuafu controller")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Global, _: Args) -> Result {
    Err(anyhow::anyhow!("not built yet").into())
}

/// Where a controller on this host listens by default.
pub(crate) fn here() -> String {
    "127.0.0.1:4600".to_owned()
}
