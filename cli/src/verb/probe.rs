//! `kuafu probe`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use kuafu_dataplane::bpf::Pins;

use super::agent::PIN_ROOT;
use crate::args::Global;
use crate::failure::Result;
use crate::interrupt::Interrupt;

/// Run this host's prober: liveness and quality of paths, and the lease of addresses
///
/// Works on the maps that the agent has pinned, and waits for them. While it is away, no path is left, and what is too
/// large for the backbone and may be cut is dropped. What the agent announces by BGP and ARP is withdrawn here once the
/// agent has been away for 10 s.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  kuafu probe")]
pub(crate) struct Args {
    /// Where the agent pins
    #[arg(long, value_name = "DIR", default_value = PIN_ROOT)]
    pin_root: PathBuf,
    /// This host's node; by default the member that `kuafu node join` made it
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut interrupt = Interrupt::catch()?;
    let node = match args.node {
        Some(node) => node,
        None => std::fs::read_to_string(global.places().node())
            .context("this host is no member of a cluster; `kuafu node join TOKEN` makes it one")?,
    };
    let pins = Pins::new(&args.pin_root, node.trim());
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, also_seen) = (Arc::clone(&stop), Arc::clone(&stop));
    let (leased, run) = (pins.clone(), global.places().run());
    // It ends with the process.
    tokio::task::spawn_blocking(move || kuafu_dataplane::announce::supervise(&run, &leased, &also_seen));
    let mut probing = tokio::task::spawn_blocking(move || kuafu_dataplane::probe::run(&pins, &seen));
    tokio::select! {
        ended = &mut probing => return Ok(ended??),
        () = interrupt.wait() => stop.store(true, Ordering::Relaxed),
    }
    Ok(probing.await??)
}
