//! What the tasks need on a Debian machine, why, and its installation.

mod apt;
mod kernels;
mod packages;

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use self::packages::{BPF, PACKAGES, Package};
use crate::command::Run;

/// The linker of the BPF object; another version may write other bytes.
const BPF_LINKER: &str = "0.10.3";
const LINKER_LIMIT: Duration = Duration::from_secs(8 * 60);

/// A task with needs of its own.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Need {
    /// `cargo xtask test` and `soak`
    Test,
    /// `cargo xtask demo`
    Demo,
    /// `cargo xtask bench`
    Bench,
    /// `cargo xtask ebpf`
    Ebpf,
}

/// `qemu-system-x86` from the release may conflict with tools of a newer qemu.
const QEMU_NOTE: &str = "note: qemu-system-x86 replaces qemu-utils where that came from backports";

/// Installs what `need` (all, when `None`) misses; refuses as an ordinary user, with the line to type.
pub(crate) fn setup(need: Option<Need>) -> Result<()> {
    debian(need)?;
    if serves(BPF, need) {
        bpf_linker()?;
    }
    if serves(&[Need::Test], need) {
        kernels::setup()?;
    }
    Ok(())
}

fn serves(needs: &[Need], need: Option<Need>) -> bool {
    need.is_none_or(|need| needs.contains(&need))
}

fn debian(need: Option<Need>) -> Result<()> {
    let wanted = PACKAGES.iter().filter(|package| serves(package.needs, need));
    let names: Vec<&str> = wanted.map(|package| package.name).collect();
    let missing = apt::missing(&names)?;
    if missing.is_empty() {
        println!("all {} Debian packages are installed", names.len());
        return Ok(());
    }
    for Package { name, why, .. } in PACKAGES.iter().filter(|package| missing.contains(&package.name)) {
        println!("missing: {name:<18} {why}");
    }
    if missing.contains(&"qemu-system-x86") {
        println!("{QEMU_NOTE}");
    }
    apt::install(&missing)
}

fn bpf_linker() -> Result<()> {
    if has_bpf_linker() {
        println!("bpf-linker {BPF_LINKER} is installed");
        return Ok(());
    }
    let version = format!("bpf-linker@{BPF_LINKER}");
    Run::within(LINKER_LIMIT, "cargo")
        .args(["install", &version, "--locked"])
        .run()
}

fn has_bpf_linker() -> bool {
    let output = Command::new("bpf-linker")
        .arg("--version")
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|output| {
        output
            .stdout
            .starts_with(format!("bpf-linker {BPF_LINKER}").as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_package_is_listed_once() {
        let names: BTreeSet<&str> = PACKAGES.iter().map(|package| package.name).collect();
        assert_eq!(names.len(), PACKAGES.len());
    }
}
