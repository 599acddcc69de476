//! Debian's kernels for the tests' guests: downloaded and unpacked, never installed.
//!
//! `<folder>/<series>/` holds the package's files as they would lie on a host: `boot/vmlinuz-…`,
//! `lib/modules/…`. The folder is `KUAFU_GUEST_KERNELS`, or `kuafu/kernels` in the user's cache.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::apt;

const FOLDER_VARIABLE: &str = "KUAFU_GUEST_KERNELS";
/// The floor, and the series before it that `kuafu doctor` must refuse.
const SERIES: [&str; 2] = ["6.12", "6.1"];

/// Brings the kernels that are not there yet; says which this release of Debian does not have.
pub(super) fn setup() -> Result<()> {
    let folder = folder()?;
    let absent = SERIES.map(|series| (series, folder.join(series)));
    let absent: Vec<_> = absent.iter().filter(|(_, place)| !place.exists()).collect();
    if absent.is_empty() {
        println!("the guests' kernels are in {}", folder.display());
        return Ok(());
    }
    apt::update()?;
    let mut found = SERIES.len() - absent.len();
    for (series, place) in absent {
        found += usize::from(bring(series, place)?);
    }
    if found == 0 {
        bail!("Debian has no cloud kernel of the series {}", SERIES.join(" or "));
    }
    Ok(())
}

fn bring(series: &str, place: &Path) -> Result<bool> {
    // A release's own kernel and those of its archives differ in the name of the meta package.
    let metas = [
        format!("linux-image-{series}-cloud-amd64"),
        "linux-image-cloud-amd64".to_owned(),
    ];
    for meta in &metas {
        if let Some(kernel) = apt::dependency(meta, &format!("linux-image-{series}."))? {
            apt::unpack(&kernel, place)?;
            println!("kernel {series}: {kernel} in {}", place.display());
            return Ok(true);
        }
    }
    println!("note: apt knows no kernel {series}: its guest is skipped");
    Ok(false)
}

fn folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os(FOLDER_VARIABLE) {
        return Ok(folder.into());
    }
    let home = env::home_dir().with_context(|| format!("neither {FOLDER_VARIABLE} nor HOME is set"))?;
    Ok(env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from))
        .map(|cache| cache.join("kuafu/kernels"))
}
