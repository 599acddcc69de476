//! `kuafu uninstall`.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use kuafu_dataplane::bpf::Pins;

use super::agent::PIN_ROOT;
use crate::args::Global;
use crate::failure::Result;
use crate::out;

/// Leave this host as if Kuafu had never run here
///
/// Detaches and removes programs, maps, pins and kuafu0, gives settings their values back, and removes the host's
/// identity and state. Needs no controller. End agent and probe before.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  systemctl stop kuafu-agent kuafu-probe && kuafu uninstall --yes")]
pub(crate) struct Args {
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Where maps, programs and links are pinned
    #[arg(long, value_name = "DIR", default_value = PIN_ROOT)]
    pin_root: PathBuf,
}

pub(crate) fn run(global: &Global, args: Args) -> Result {
    let places = global.places();
    let Ok(node) = std::fs::read_to_string(places.node()) else {
        return out::print("This host is no member of a cluster: nothing to do.\n");
    };
    let node = node.trim();
    if !args.yes {
        return Err(anyhow!("this takes {node} off this host; say --yes if it shall be").into());
    }
    let done = kuafu_dataplane::uninstall(&Pins::new(&args.pin_root, node), &places.data())?;
    for file in [places.node(), places.state(), places.controller_address()] {
        remove(&file)?;
    }
    let identity = places.identity();
    if identity.exists() {
        std::fs::remove_dir_all(&identity)
            .with_context(|| format!("cannot remove {}", identity.display()))?;
    }
    out::print(&done.iter().map(|line| format!("{line}\n")).collect::<String>())
}

fn remove(file: &std::path::Path) -> anyhow::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}
