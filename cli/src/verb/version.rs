//! `kuafu version`.

use serde::Serialize;

use crate::doctor::KERNEL;
use crate::failure::Result;
use crate::out::Output;

/// Print the version, and what it runs on
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  kuafu version -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    architecture: &'static str,
    /// The oldest kernel that it runs on.
    kernel: String,
}

pub(crate) fn run(args: Args) -> Result {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        architecture: std::env::consts::ARCH,
        kernel: format!("{}.{}", KERNEL.0, KERNEL.1),
    };
    args.output.print(&version, |v| {
        format!(
            "kuafu {} for {}, Linux {} or later\n",
            v.version, v.architecture, v.kernel
        )
    })
}
