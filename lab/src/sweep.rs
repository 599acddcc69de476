//! What a killed run left behind: finding it, and removing it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::net::if_::{if_nameindex, if_nametoindex};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::netns::{NETNS_DIR, Namespace, checked, mount_point, unmount};

/// How long killed processes may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// What exists under a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Namespaces under `/run/netns`, by full name.
    pub namespaces: Vec<String>,
    /// Devices in the host's namespace.
    pub links: Vec<String>,
    /// Processes that run in one of the namespaces.
    pub processes: Vec<u32>,
}

impl Leftovers {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.links.is_empty() && self.processes.is_empty()
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespaces,
            links,
            processes,
        } = self;
        write!(
            f,
            "namespaces {namespaces:?}, links {links:?}, processes {processes:?}"
        )
    }
}

/// Lists the namespaces and links named `<prefix>-…` and the processes in those namespaces. Checks call
/// it to prove that nothing stayed.
pub fn leftovers(prefix: &str) -> Result<Leftovers> {
    let start = format!("{}-", checked(prefix)?);
    let namespaces = named_namespaces(&start)?;
    let links = if_nameindex().map_err(Error::errno("list the links"))?;
    let links = links
        .iter()
        .map(|link| link.name().to_string_lossy().into_owned());
    let links = links.filter(|name| name.starts_with(&start)).collect();
    let processes = processes_in(&namespaces);
    Ok(Leftovers {
        namespaces,
        links,
        processes,
    })
}

/// Removes what [`leftovers`] lists, and returns what it removed. The caller knows that no living run uses
/// the prefix: its processes would be killed too.
pub fn sweep(prefix: &str) -> Result<Leftovers> {
    let found = leftovers(prefix)?;
    end_processes(&found.processes);
    // Links before namespaces: the kernel removes a link, some time later, when its peer's namespace goes.
    let host = Namespace::host()?;
    for link in &found.links {
        host.ip([format!("link del {link}")])
            .or_else(|error| match if_nametoindex(link.as_str()) {
                Ok(_) => Err(error),
                Err(_) => Ok(()),
            })?;
    }
    for name in &found.namespaces {
        unmount(&mount_point(name));
    }
    Ok(found)
}

/// Sweeps every prefix `<start><process id>` whose process has ended.
pub(crate) fn sweep_ended(start: &str) -> Result<()> {
    let prefix_of_ended = |name: &String| {
        let (process, _) = name.strip_prefix(start)?.split_once('-')?;
        let process: u32 = process.parse().ok()?;
        let ended = !Path::new(&format!("/proc/{process}")).exists();
        ended.then(|| format!("{start}{process}"))
    };
    let names = named_namespaces(start)?;
    let prefixes: BTreeSet<_> = names.iter().filter_map(prefix_of_ended).collect();
    prefixes.iter().try_for_each(|prefix| sweep(prefix).map(drop))
}

/// Kills what runs in `namespaces`.
pub(crate) fn end_processes_in(namespaces: &[String]) {
    end_processes(&processes_in(namespaces));
}

/// Kills `processes`, but never the one that asks, and waits until they are gone.
fn end_processes(processes: &[u32]) {
    let others: Vec<_> = processes
        .iter()
        .copied()
        .filter(|&process| process != std::process::id())
        .collect();
    for process in &others {
        // It may have ended by itself since it was listed.
        let _ = kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL);
    }
    let deadline = Instant::now() + KILL_LIMIT;
    // An ended process that its parent has not waited for yet has no namespace any more.
    let lives = |process: &u32| fs::exists(format!("/proc/{process}/ns/net")).unwrap_or(false);
    while others.iter().any(lives) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
}

fn named_namespaces(start: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(NETNS_DIR) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io(format!("list {NETNS_DIR}")))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(start)).collect();
    names.sort_unstable();
    Ok(names)
}

/// The processes whose main thread is in one of `namespaces`.
fn processes_in(namespaces: &[String]) -> Vec<u32> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let wanted: Vec<_> = namespaces
        .iter()
        .filter_map(|name| identity(&mount_point(name)))
        .collect();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let processes = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let inside = |process: &u32| {
        identity(Path::new(&format!("/proc/{process}/ns/net"))).is_some_and(|found| wanted.contains(&found))
    };
    processes.filter(inside).collect()
}
