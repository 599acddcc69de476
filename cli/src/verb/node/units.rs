//! The host's services, where systemd runs them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::args::Global;

/// The agent's and the prober's.
const UNITS: [&str; 2] = ["kuafu-agent.service", "kuafu-probe.service"];

/// Whether systemd looks after this host: it runs, it is the host's whole (no folder is put before the host's own), and
/// this is the network where its services run.
pub(super) fn are_here(global: &Global) -> bool {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    global.root == Path::new("/")
        && Path::new("/run/systemd/system").is_dir()
        && network("self") == network("1")
}

/// Starts them now, and at each boot.
pub(super) fn enable() -> anyhow::Result<()> {
    systemctl("enable")
}

/// Ends them, now and for good.
pub(super) fn disable() -> anyhow::Result<()> {
    systemctl("disable")
}

fn systemctl(verb: &str) -> anyhow::Result<()> {
    let mut command = Command::new("systemctl");
    command.args([verb, "--now"]).args(UNITS);
    let shown = format!("systemctl {verb} --now {}", UNITS.join(" "));
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown}: {}", complaint.trim());
    Ok(())
}
