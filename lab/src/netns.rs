//! Network namespaces that exist as long as a value does.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, Result};
use crate::process::{self, Process};

/// Where iproute2 looks for named namespaces.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// The most that one run of `ip`, `nft` or `sysctl` may take.
const CONFIGURE_LIMIT: Duration = Duration::from_secs(30);

/// A network namespace, named `<prefix>-<name>` under `/run/netns`, so that `ip netns` sees it. Dropping
/// it removes the name; the kernel frees the namespace when its last process has ended. Where the process
/// is killed, or built with `panic = "abort"`, nothing is dropped: see [`sweep`](crate::sweep()).
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: OwnedFd,
    mounted: bool,
}

impl Namespace {
    /// Makes a new namespace with its loopback device up.
    ///
    /// # Errors
    /// A name with other characters than `a-z`, `0-9` and `-`; a name that exists already (left-overs of a
    /// killed run: sweep first); no permission.
    pub fn create(prefix: &str, name: &str) -> Result<Self> {
        let name = format!("{}-{}", checked(prefix)?, checked(name)?);
        ensure_netns_dir()?;
        let path = mount_point(&name);
        let mut file = OpenOptions::new();
        file.write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::io(format!("create {}", path.display())))?;
        let namespace = bind_new_namespace(&path).and_then(|()| open(&path));
        if namespace.is_err() {
            unmount(&path);
        }
        let namespace = Self {
            name,
            handle: namespace?,
            mounted: true,
        };
        namespace.ip(["link set lo up"])?;
        Ok(namespace)
    }

    /// The namespace that this process runs in, which is never removed.
    pub fn host() -> Result<Self> {
        Ok(Self {
            name: "host".into(),
            handle: open(Path::new("/proc/thread-self/ns/net"))?,
            mounted: false,
        })
    }

    /// Its full name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `ip` takes for it, also when it has no name under `/run/netns`.
    pub(crate) fn reference(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }

    /// Runs `work` on a thread of its own inside the namespace and returns what it returns; a panic goes
    /// through. Only the network is another: `/sys` stays as it is mounted, and with it the BPF pins.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let entered = scope.spawn(|| enter(&self.handle, &self.name).map(|()| work()));
            entered.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// A way in for a thread that may outlive this value.
    pub(crate) fn entrance(&self) -> Result<Entrance> {
        Ok(Entrance {
            name: self.name.clone(),
            handle: self.share()?,
        })
    }

    fn share(&self) -> Result<OwnedFd> {
        self.handle
            .try_clone()
            .map_err(Error::io(format!("share {}", self.name)))
    }

    /// Starts `command` inside the namespace.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        Process::spawn(command, self.share()?)
    }

    /// Starts `command` inside the namespace with both outputs added to the file `log`; see
    /// [`Process::await_line`].
    ///
    /// # Errors
    /// The file cannot be opened, or the program cannot be started.
    pub fn spawn_logged(&self, command: Command, log: &Path) -> Result<Process> {
        Process::spawn_logged(command, self.share()?, log)
    }

    /// Runs `command` inside the namespace to its end, at most for `limit`, and returns what it said.
    pub fn output(&self, command: Command, limit: Duration) -> Result<Output> {
        self.spawn(process::piped(command))?.finish(&[], limit)
    }

    /// The number of a device inside the namespace.
    ///
    /// # Errors
    /// There is no such device.
    pub fn index_of(&self, device: &str) -> Result<u32> {
        let index = self.run(|| nix::net::if_::if_nametoindex(device))?;
        index.map_err(Error::errno(format!("find device {device} in {}", self.name)))
    }

    /// Runs `ip` (iproute2) commands, one a line, in order; the first that fails ends it.
    pub fn ip<L: AsRef<str>>(&self, lines: impl IntoIterator<Item = L>) -> Result<()> {
        let mut batch = String::new();
        for line in lines {
            batch.push_str(line.as_ref());
            batch.push('\n');
        }
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]);
        self.configure(command, &batch)
    }

    /// Loads an nftables ruleset, whole or not at all.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        let mut command = Command::new("nft");
        command.args(["-f", "-"]);
        self.configure(command, ruleset)
    }

    fn configure(&self, command: Command, input: &str) -> Result<()> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = self
            .spawn(process::piped(command))?
            .finish(input.as_bytes(), CONFIGURE_LIMIT)?;
        process::successful(&program, output).map(drop)
    }

    /// Sets a network sysctl: `sysctl("net/ipv4/ip_forward", "1")`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        self.run(|| fs::write(&path, value))?
            .map_err(Error::io(format!("write {path} in {}", self.name)))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.mounted {
            unmount(&mount_point(&self.name));
        }
    }
}

/// A handle on a namespace, which keeps it alive.
#[derive(Debug)]
pub(crate) struct Entrance {
    name: String,
    handle: OwnedFd,
}

impl Entrance {
    /// Moves the calling thread into the namespace, for good.
    pub(crate) fn enter(&self) -> Result<()> {
        enter(&self.handle, &self.name)
    }
}

fn enter(handle: &OwnedFd, name: &str) -> Result<()> {
    setns(handle, CloneFlags::CLONE_NEWNET).map_err(Error::errno(format!("enter {name}")))
}

/// A word that can be part of a namespace's or a device's name.
pub(crate) fn checked(name: &str) -> Result<&str> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !name.is_empty() && !name.starts_with('-') && name.bytes().all(allowed) {
        return Ok(name);
    }
    Err(Error::Name {
        name: name.to_owned(),
        why: "a-z, 0-9 and - are allowed, and it may not start with -",
    })
}

pub(crate) fn mount_point(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Removes a name from `/run/netns`; what is not there is no error.
pub(crate) fn unmount(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

fn open(path: &Path) -> Result<OwnedFd> {
    File::open(path)
        .map(OwnedFd::from)
        .map_err(Error::io(format!("open {}", path.display())))
}

/// Makes `/run/netns` a shared mount, as `ip netns` does, so that a name made or removed in one mount
/// namespace is so in all.
fn ensure_netns_dir() -> Result<()> {
    let action = || format!("prepare {NETNS_DIR}");
    fs::create_dir_all(NETNS_DIR).map_err(Error::io(action()))?;
    let share = || {
        mount(
            None::<&str>,
            NETNS_DIR,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    if share().is_ok() {
        return Ok(());
    }
    // It is not a mount point yet.
    mount(
        Some(NETNS_DIR),
        NETNS_DIR,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .and_then(|()| share())
    .map_err(Error::errno(action()))
}

/// Makes a namespace on a thread that ends at once, and keeps it by mounting it at `path`.
fn bind_new_namespace(path: &Path) -> Result<()> {
    let bind = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(
            Some("/proc/thread-self/ns/net"),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
    };
    thread::scope(|scope| {
        scope
            .spawn(bind)
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
    .map_err(Error::errno(format!("make namespace {}", path.display())))
}
