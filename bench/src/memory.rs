//! What a computation takes.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};

/// The process's peak of memory while it does this and holds what comes of it, in MiB.
///
/// # Errors
/// /proc cannot be written or read.
pub(crate) fn peak_mib<T>(work: impl FnOnce() -> T) -> Result<f64> {
    // Forgets the peak so far (proc_pid_clear_refs(5)).
    std::fs::write("/proc/self/clear_refs", "5").context("resetting the peak of memory")?;
    let held = work();
    let status = std::fs::read_to_string("/proc/self/status")?;
    drop(held);
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .context("no VmHWM")?
        .trim()
        .parse()?;
    Ok(mebibytes(kib * 1024))
}

/// What a BPF map takes, in MiB, as the kernel tells it (`memlock` of its fdinfo).
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn map_mib(map: impl AsFd) -> Result<f64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(mebibytes(line.context("no memlock")?.trim().parse()?))
}

/// So many octets, in MiB.
#[allow(clippy::cast_precision_loss, reason = "a size of memory, for people")]
pub(crate) fn mebibytes(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}
