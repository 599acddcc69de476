//! What a computation takes.

use std::collections::BTreeMap;

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

/// What this process's BPF maps take, in MiB, as the kernel tells it (`memlock` of their fdinfo).
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn maps_mib() -> Result<f64> {
    let mut maps = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        // The one by which this folder is read is gone afterwards.
        let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        if let (Some(id), Some(octets)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, octets);
        }
    }
    Ok(mebibytes(maps.values().sum()))
}

/// So many octets, in MiB.
#[allow(clippy::cast_precision_loss, reason = "a size of memory, for people")]
pub(crate) fn mebibytes(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}
