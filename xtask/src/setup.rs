//! What the tasks need on a Debian machine, why, and its installation.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::command::Run;
use crate::workspace::is_root;

/// The linker of the BPF object; another version may write other bytes.
pub(crate) const BPF_LINKER: &str = "0.10.3";

const INSTALL_LIMIT: Duration = Duration::from_secs(10 * 60);
const QUERY_LIMIT: Duration = Duration::from_secs(60);

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

struct Package {
    name: &'static str,
    needs: &'static [Need],
    why: &'static str,
}

/// The one list of Debian packages.
const PACKAGES: &[Package] = &[
    Package {
        name: "rustc-web",
        needs: BPF,
        why: "the compiler of the BPF object: its LLVM is bpf-linker's",
    },
    Package {
        name: "rust-web-src",
        needs: BPF,
        why: "core's source, built for the BPF target",
    },
    Package {
        name: "rust-web-clippy",
        needs: TEST,
        why: "lints of ebpf/, by the compiler that builds it",
    },
    Package {
        name: "llvm-22",
        needs: BPF,
        why: "llvm-strip and llvm-objdump for the BPF object",
    },
    Package {
        name: "iproute2",
        needs: WORLD,
        why: "namespaces and links of the lab",
    },
    Package {
        name: "nftables",
        needs: WORLD,
        why: "the 1:1 NAT in front of two points of presence",
    },
    Package {
        name: "chocolate-doom",
        needs: TEST,
        why: "a game that knows nothing of Kuafu: client and server",
    },
    Package {
        name: "freedm",
        needs: TEST,
        why: "the game's levels",
    },
    Package {
        name: "tshark",
        needs: TEST,
        why: "the independent decoder of VXLAN and Geneve",
    },
    Package {
        name: "qemu-system-x86",
        needs: TEST,
        why: "guests with Debian's own kernels",
    },
    Package {
        name: "busybox-static",
        needs: TEST,
        why: "the guests' root file system",
    },
];
const TEST: &[Need] = &[Need::Test];
const BPF: &[Need] = &[Need::Test, Need::Ebpf];
const WORLD: &[Need] = &[Need::Test, Need::Demo, Need::Bench];

/// `qemu-system-x86` from the release may conflict with tools of a newer qemu.
const QEMU_NOTE: &str = "note: qemu-system-x86 replaces qemu-utils where that came from backports";

/// Installs what `need` (all, when `None`) misses; refuses as an ordinary user, with the line to type.
pub(crate) fn setup(need: Option<Need>) -> Result<()> {
    let wanted: Vec<&Package> = PACKAGES
        .iter()
        .filter(|package| serves(package.needs, need))
        .collect();
    let missing = missing(&wanted, &installed(&wanted)?);
    if missing.is_empty() {
        println!("all {} Debian packages are installed", wanted.len());
    } else {
        install(&missing)?;
    }
    if serves(BPF, need) {
        install_bpf_linker()
    } else {
        Ok(())
    }
}

fn serves(needs: &[Need], need: Option<Need>) -> bool {
    need.is_none_or(|need| needs.contains(&need))
}

/// dpkg's word on each package; a package that it does not know is absent.
fn installed(wanted: &[&Package]) -> Result<String> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        let names: Vec<&str> = wanted.iter().map(|package| package.name).collect();
        bail!(
            "this is no Debian; install the like of these by hand: {}",
            names.join(" ")
        );
    }
    // Its exit status is 1 when any package is unknown, which is an answer here.
    let query = r#"dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true"#;
    let names = wanted.iter().map(|package| package.name);
    Run::within(QUERY_LIMIT, "sh")
        .args(["-c", query, "sh"].into_iter().chain(names))
        .output()
}

/// The packages that `dpkg` (lines "name status") does not call installed.
fn missing<'a>(wanted: &[&'a Package], dpkg: &str) -> Vec<&'a Package> {
    let present: BTreeSet<&str> = dpkg
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    wanted
        .iter()
        .copied()
        .filter(|package| !present.contains(package.name))
        .collect()
}

fn install(missing: &[&Package]) -> Result<()> {
    for package in missing {
        println!("missing: {:<18} {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if names.contains(&"qemu-system-x86") {
        println!("{QEMU_NOTE}");
    }
    let line = ["install", "-y", "--no-install-recommends"];
    if !is_root()? {
        bail!(
            "this needs root; type: sudo apt-get {} {}",
            line.join(" "),
            names.join(" ")
        );
    }
    apt(&["update"])?;
    apt(&[&line, names.as_slice()].concat())
}

fn apt(args: &[&str]) -> Result<()> {
    Run::within(INSTALL_LIMIT, "apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run()
}

fn install_bpf_linker() -> Result<()> {
    if has_bpf_linker() {
        println!("bpf-linker {BPF_LINKER} is installed");
        return Ok(());
    }
    let version = format!("bpf-linker@{BPF_LINKER}");
    Run::within(INSTALL_LIMIT, "cargo")
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
    use super::*;

    #[test]
    fn what_dpkg_does_not_call_installed_is_missing() {
        let wanted: Vec<&Package> = PACKAGES
            .iter()
            .filter(|p| p.why.starts_with("the game's"))
            .collect();
        assert!(missing(&wanted, "freedm installed\n").is_empty());
        assert_eq!(missing(&wanted, "freedm config-files\n").len(), 1);
        assert_eq!(missing(&wanted, "").len(), 1);
    }

    #[test]
    fn each_package_is_listed_once() {
        let names: BTreeSet<&str> = PACKAGES.iter().map(|package| package.name).collect();
        assert_eq!(names.len(), PACKAGES.len());
    }
}
