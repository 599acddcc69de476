//! What tests could leave on the machine, compared before and after.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::Run;

const NAMESPACES: &str = "/run/netns";
const LINKS: &str = "/sys/class/net";
const BPF_PINS: &str = "/sys/fs/bpf";
const OURS: &str = "kuafu";
/// Programs that tests start, as the kernel names them: 15 bytes.
const STARTED: [&str; 13] = [
    OURS,
    "kuafu-bench",
    "qemu-system-x86",
    "chocolate-doom",
    "chocolate-serve",
    "iperf3",
    "tcpdump",
    "tshark",
    "dumpcap",
    "gobgpd",
    "zebra",
    "bfdd",
    "bgpd",
];
const QUERY_LIMIT: Duration = Duration::from_secs(10);
/// The kernel takes links away after the namespace of their other end: this often, this long.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);
/// Deeper than any pin lies.
const PIN_DEPTH: usize = 8;

/// The machine's network namespaces and links, our pins and nftables tables, the processes of programs that tests
/// start.
pub(super) struct Inventory(BTreeSet<String>);

impl Inventory {
    /// Looks at the machine, and names what an earlier run left.
    pub(super) fn take() -> Result<Self> {
        let inventory = Self::look()?;
        for item in inventory.0.iter().filter(|item| item.contains(OURS)) {
            println!("note: there before the tests: {item}");
        }
        Ok(inventory)
    }

    /// Waits until nothing is there that was not there before; names what stays.
    pub(super) fn settle(&self) -> Result<()> {
        for attempt in 1.. {
            let left = Self::look()?.beyond(self);
            if left.is_empty() {
                break;
            }
            if attempt == TRIES {
                bail!("the tests left behind:\n  {}", left.join("\n  "));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn beyond(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }

    fn look() -> Result<Self> {
        let mut items = BTreeSet::new();
        items.extend(
            names(Path::new(NAMESPACES))?
                .into_iter()
                .map(|name| format!("namespace {name}")),
        );
        items.extend(
            names(Path::new(LINKS))?
                .into_iter()
                .map(|name| format!("link {name}")),
        );
        items.extend(pins()?.into_iter().map(|pin| format!("pin {}", pin.display())));
        items.extend(tables()?.into_iter().map(|table| format!("nftables {table}")));
        items.extend(processes()?);
        Ok(Self(items))
    }
}

/// The names in a folder; none when it does not exist.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot list {}", folder.display()))?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Everything below the folders of the BPF file system that bear our name.
fn pins() -> Result<Vec<PathBuf>> {
    let ours = names(Path::new(BPF_PINS))?
        .into_iter()
        .filter(|name| name.starts_with(OURS));
    let mut pins = Vec::new();
    let mut level: Vec<PathBuf> = ours.map(|name| Path::new(BPF_PINS).join(name)).collect();
    for _ in 0..PIN_DEPTH {
        let mut below = Vec::new();
        for folder in level.iter().filter(|path| path.is_dir()) {
            below.extend(names(folder)?.into_iter().map(|name| folder.join(name)));
        }
        pins.extend(level);
        level = below;
    }
    Ok(pins)
}

fn tables() -> Result<Vec<String>> {
    let tables = Run::within(QUERY_LIMIT, "nft")
        .args(["list", "tables"])
        .output()?;
    Ok(tables
        .lines()
        .filter(|table| table.contains(OURS))
        .map(str::to_owned)
        .collect())
}

fn processes() -> Result<Vec<String>> {
    let mut processes = names(Path::new("/proc"))?;
    processes.retain(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()));
    let started = processes.into_iter().filter_map(|pid| {
        let name = fs::read_to_string(Path::new("/proc").join(&pid).join("comm")).ok()?;
        STARTED
            .contains(&name.trim())
            .then(|| format!("process {} {pid}", name.trim()))
    });
    Ok(started.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(items: &[&str]) -> Inventory {
        Inventory(items.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_what_is_new_was_left() {
        let before = inventory(&["link lo", "namespace old"]);
        let after = inventory(&["link lo", "link kuafu0", "namespace kuafu-a"]);
        assert_eq!(after.beyond(&before), ["link kuafu0", "namespace kuafu-a"]);
        assert!(before.beyond(&after).contains(&"namespace old".to_owned()));
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_names() {
        assert_eq!(
            names(Path::new("/nonexistent/kuafu")).unwrap(),
            Vec::<String>::new()
        );
        assert!(names(Path::new(LINKS)).unwrap().contains(&"lo".to_owned()));
    }
}
