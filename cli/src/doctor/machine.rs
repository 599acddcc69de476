//! The machine's files; a test looks at a folder instead.

use std::path::{Path, PathBuf};

/// A machine by its files.
#[derive(Debug)]
pub(super) struct Machine {
    root: PathBuf,
    /// Whether it is the one that this runs on, so that the kernel itself can be asked.
    is_this: bool,
}

impl Machine {
    /// The one that this runs on.
    pub(super) fn this() -> Self {
        Self {
            root: "/".into(),
            is_this: true,
        }
    }

    /// One that is only files.
    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            is_this: false,
        }
    }

    /// Whether the kernel itself can be asked.
    pub(super) const fn is_this(&self) -> bool {
        self.is_this
    }

    /// Where a file is.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A file's text, without blanks at its ends; nothing where it cannot be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let octets = std::fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&octets).trim().to_owned())
    }

    /// Whether a file holds these octets.
    pub(super) fn holds(&self, path: &str, what: &[u8]) -> Option<bool> {
        let octets = std::fs::read(self.path(path)).ok()?;
        Some(octets.windows(what.len()).any(|window| window == what))
    }

    /// The last word of where a link points.
    pub(super) fn points_to(&self, path: &str) -> Option<String> {
        let to = std::fs::read_link(self.path(path)).ok()?;
        Some(to.file_name()?.to_string_lossy().into_owned())
    }

    /// The folders directly below one, by name.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// The kernel's release, such as `6.12.41+deb13-amd64`.
    pub(super) fn release(&self) -> Option<String> {
        let asked = || {
            Some(
                nix::sys::utsname::uname()
                    .ok()?
                    .release()
                    .to_string_lossy()
                    .into_owned(),
            )
        };
        self.text("/proc/sys/kernel/osrelease")
            .or_else(|| self.is_this.then(asked).flatten())
    }
}

/// Whether a path is a folder of this file system.
pub(super) fn is_bpffs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC)
}
