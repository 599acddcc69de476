//! `kuafu uninstall`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use kuafu_dataplane::bpf::Pins;
use kuafu_proto::Places;

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
    let Some(node) = node(&places) else {
        return out::print("This host is no member of a cluster: nothing to do.\n");
    };
    if !args.yes {
        return Err(anyhow!("this takes {node} off this host; say --yes if it shall be").into());
    }
    let done = clean(&places, &args.pin_root, &node)?;
    out::print(&done.iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// The node that this host is.
pub(super) fn node(places: &Places) -> Option<String> {
    let text = std::fs::read_to_string(places.node()).ok()?;
    Some(text.trim().to_owned())
}

/// Takes everything off the host but its incarnation, which a later life of the same node goes on from. Returns what was
/// done.
pub(super) fn clean(places: &Places, pin_root: &Path, node: &str) -> anyhow::Result<Vec<String>> {
    let done = kuafu_dataplane::uninstall(&Pins::new(pin_root, node), &places.data(), &places.run())?;
    for file in [
        places.node(),
        places.cluster(),
        places.state(),
        places.state_before_trial(),
        places.controller_address(),
    ] {
        remove(&file)?;
    }
    let identity = places.identity();
    if identity.exists() {
        std::fs::remove_dir_all(&identity)
            .with_context(|| format!("cannot remove {}", identity.display()))?;
    }
    Ok(done)
}

/// Removes what is left of a node that is gone for good, and the folders that are empty then.
pub(super) fn forget(places: &Places) -> anyhow::Result<()> {
    let run = places.run();
    for file in [places.incarnation(), run.join("agent.lock"), places.socket()] {
        remove(&file)?;
    }
    for folder in [places.data(), run, places.config()] {
        match std::fs::remove_dir(&folder) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn remove(file: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}
