//! Guests: another kernel with a few files and a script, in qemu without acceleration. They show function,
//! never speed.
//!
//! Kernels are packages of Debian, unpacked and not installed: `<folder>/<series>/boot/vmlinuz-…` and
//! `<folder>/<series>/lib/modules/…`, where the folder is `KUAFU_GUEST_KERNELS`, else `kuafu/kernels` in the
//! user's cache. `cargo xtask setup` brings them, with `qemu-system-x86` and `busybox-static`.

mod initramfs;
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::netns::Namespace;
use initramfs::Archive;

const FOLDER_VARIABLE: &str = "KUAFU_GUEST_KERNELS";
const QEMU: &str = "qemu-system-x86_64";
/// Where Debian's `busybox-static` puts its program.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];
/// Comes before the script's exit status on the serial line.
const MARKER: &str = "kuafu-guest-status:";

/// A kernel to boot.
#[derive(Debug, Clone)]
pub struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The kernel of `series` (`6.12`) in the folder of kernels.
    ///
    /// # Errors
    /// Why no guest can run here, for a test that is skipped: no such kernel, no qemu, no static busybox.
    pub fn find(series: &str) -> Result<Self, String> {
        if !on_path(QEMU) {
            return Err(format!("no {QEMU} (apt-get install qemu-system-x86)"));
        }
        busybox()?;
        let folder = folder()
            .ok_or("neither KUAFU_GUEST_KERNELS nor HOME is set")?
            .join(series);
        let absent = || format!("no kernel {series} in {} (cargo xtask setup)", folder.display());
        let images = fs::read_dir(folder.join("boot")).map_err(|_| absent())?;
        let images = images.filter_map(|entry| Some(entry.ok()?.path()));
        let image = images
            .filter(|path| name_starts_with(path, "vmlinuz-"))
            .max()
            .ok_or_else(absent)?;
        Ok(Self {
            image,
            modules: folder.join("lib/modules"),
        })
    }
}

/// A machine that boots, runs a script and ends.
#[derive(Debug, Clone)]
pub struct Guest {
    /// What boots.
    pub kernel: Kernel,
    /// Its memory in MiB; 192 carry a small system.
    pub memory_mib: u32,
    /// The kernel's modules to load before the script, in order, by file name without `.ko`. What one needs
    /// comes before it.
    pub modules: Vec<String>,
    /// Files of this host and where they go in the guest, as absolute paths; executable if they are so here.
    pub files: Vec<(PathBuf, String)>,
    /// What runs, by busybox's `sh`, with `/proc`, `/sys`, `/dev`, bpffs and the loopback device in place.
    pub script: String,
    /// The most time from power-on to the end.
    pub limit: Duration,
}

/// What a guest said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// All of the serial line, with plain line ends.
    pub serial: String,
    /// The script's exit status; `None` if the guest ended before it did.
    pub status: Option<i32>,
}

impl Guest {
    /// A guest with 192 MiB that runs `script`, for two minutes at most.
    pub fn new(kernel: Kernel, script: impl Into<String>) -> Self {
        Self {
            kernel,
            memory_mib: 192,
            modules: Vec::new(),
            files: Vec::new(),
            script: script.into(),
            limit: Duration::from_mins(2),
        }
    }

    /// Adds a program of this host as `to`, with the loader and the libraries that it needs at the places
    /// where it looks for them.
    ///
    /// # Errors
    /// `ldd` cannot say what it needs, or a library is missing.
    pub fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        for library in program::libraries(from)? {
            let place = library.to_string_lossy().into_owned();
            if self.files.iter().all(|(_, known)| *known != place) {
                self.files.push((library, place));
            }
        }
        self.files.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Boots it and waits for its end.
    ///
    /// # Errors
    /// A file or module that is missing, qemu refused, or the time is over (the message ends with the last of
    /// the serial line).
    pub fn run(&self) -> Result<Outcome> {
        let folder = Scratch::new()?;
        let (archive, serial) = (folder.0.join("initramfs"), folder.0.join("serial"));
        fs::write(&archive, self.initramfs()?).map_err(Error::io("write the guest's file system"))?;
        let mut process = Namespace::host()?.spawn(self.qemu(&archive, &serial))?;
        let ended = process.wait(self.limit)?;
        drop(process);
        let said = fs::read(&serial).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).replace('\r', "");
        match ended {
            Some(status) if status.success() => Ok(Outcome {
                status: status_in(&said),
                serial: said,
            }),
            Some(status) => Err(Error::Program {
                program: QEMU.into(),
                status,
                stderr: tail(&said),
            }),
            None => Err(Error::Guest {
                seconds: self.limit.as_secs(),
                serial: tail(&said),
            }),
        }
    }

    fn qemu(&self, archive: &Path, serial: &Path) -> Command {
        let mut command = Command::new(QEMU);
        command
            .args(["-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-m", &self.memory_mib.to_string()])
            .arg("-serial")
            .arg(format!("file:{}", serial.display()))
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(archive)
            // A panic ends the machine: it reboots at once, and qemu does not.
            .args(["-append", "console=ttyS0 panic=-1 quiet"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn initramfs(&self) -> Result<Vec<u8>> {
        let mut archive = Archive::new();
        archive.console();
        let busybox = busybox().map_err(Error::World)?;
        archive.file("bin/busybox", 0o755, &read(Path::new(busybox))?);
        for (index, name) in self.modules.iter().enumerate() {
            archive.file(&format!("modules/{index:03}.ko"), 0o644, &self.module(name)?);
        }
        for (from, to) in &self.files {
            archive.file(
                to.trim_start_matches('/'),
                mode(from)?,
                program::loaded(&read(from)?),
            );
        }
        archive.file("script", 0o755, self.script.as_bytes());
        archive.file("init", 0o755, INIT.replace("MARKER", MARKER).as_bytes());
        Ok(archive.finish())
    }

    /// The bytes of a module, unpacked if it is packed.
    fn module(&self, name: &str) -> Result<Vec<u8>> {
        let plain = format!("{name}.ko");
        let packed = format!("{name}.ko.xz");
        let missing = || Error::World(format!("no module {name} in {}", self.kernel.modules.display()));
        let path = find(&self.kernel.modules, &[&plain, &packed]).ok_or_else(missing)?;
        if path.extension().is_some_and(|kind| kind == "ko") {
            return read(&path);
        }
        let output = Command::new("xz")
            .arg("-dc")
            .arg(&path)
            .output()
            .map_err(Error::io("run xz"))?;
        crate::process::successful("xz", output).map(|output| output.stdout)
    }
}

const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mkdir -p /proc /sys /dev /tmp /run /root
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev 2>/dev/null
mount -t bpf none /sys/fs/bpf 2>/dev/null
ip link set lo up
for module in /modules/*.ko; do [ -e \"$module\" ] && insmod \"$module\"; done
sh /script
echo \"MARKER $?\"
sync
poweroff -f
";

fn status_in(serial: &str) -> Option<i32> {
    let line = serial.lines().rev().find_map(|line| line.strip_prefix(MARKER))?;
    line.trim().parse().ok()
}

fn tail(serial: &str) -> String {
    let lines: Vec<_> = serial.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn busybox() -> Result<&'static str, String> {
    let is_static = |path: &&str| {
        let loader = b"/ld-linux";
        fs::read(path).is_ok_and(|bytes| {
            !bytes[..bytes.len().min(4_096)]
                .windows(loader.len())
                .any(|part| part == loader)
        })
    };
    let found = BUSYBOX.into_iter().find(|path| is_static(path));
    found.ok_or_else(|| "no static busybox (apt-get install busybox-static)".into())
}

fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return Some(folder.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    cache
        .or_else(|| Some(std::env::home_dir()?.join(".cache")))
        .map(|cache| cache.join("kuafu/kernels"))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn name_starts_with(path: &Path, start: &str) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(start))
}

/// The first file below `folder` that has one of `names`.
fn find(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
        {
            if path.is_dir() {
                folders.push(path);
            } else if names
                .iter()
                .any(|name| path.file_name().is_some_and(|found| found == *name))
            {
                return Some(path);
            }
        }
    }
    None
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io(format!("read {}", path.display())))
}

fn mode(path: &Path) -> Result<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = fs::metadata(path).map_err(Error::io(format!("read {}", path.display())))?;
    Ok(metadata.permissions().mode() & 0o777)
}

/// A folder for one run of a guest.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kuafu-guest-{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(Error::io(format!("create {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
