//! Where maps, programs and links outlive the process that made them.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::map::Shape;
use crate::error::{Error, Result};
use crate::sys;

/// Version of the maps' layouts; part of the path, so that two versions never meet in one map. A new one appends fields
/// whose zero means what was so before: then what the maps hold is carried over (`layout`).
pub const LAYOUT: u32 = 6;

/// Where the BPF file system usually is.
const BPFFS: &str = "/sys/fs/bpf";

/// The pins of one node: `<root>/<node>/links` and `<root>/<node>/v<layout>/{maps,progs}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    node: PathBuf,
    layout: u32,
}

impl Pins {
    /// Of a node under a root such as `/sys/fs/bpf/kuafu`.
    #[must_use]
    pub fn new(root: &Path, node: &str) -> Self {
        Self::of_layout(root, node, LAYOUT)
    }

    /// The same, with maps of another layout.
    #[must_use]
    pub fn of_layout(root: &Path, node: &str, layout: u32) -> Self {
        Self {
            node: root.join(node),
            layout,
        }
    }

    /// The node's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.node
    }

    fn version(&self) -> PathBuf {
        self.node.join(format!("v{}", self.layout))
    }

    /// A map's pin.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.version().join("maps").join(name)
    }

    /// A program's pin.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.version().join("progs").join(name)
    }

    /// The folder of links.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.node.join("links")
    }

    /// Whether maps of this layout are there.
    #[must_use]
    pub fn has_maps(&self) -> bool {
        self.map("node").exists()
    }

    /// The same node's pins of other layouts, the newest last.
    pub(super) fn of_other_layouts(&self) -> Result<Vec<Self>> {
        let layouts = names(&self.node)?;
        let layouts = layouts
            .iter()
            .filter_map(|name| name.strip_prefix('v')?.parse().ok());
        let mut others: Vec<u32> = layouts.filter(|layout| *layout != self.layout).collect();
        others.sort_unstable();
        let pins = others.into_iter().map(|layout| Self {
            node: self.node.clone(),
            layout,
        });
        Ok(pins.filter(Self::has_maps).collect())
    }

    /// Whether maps of another layout are there.
    ///
    /// # Errors
    /// `Io`.
    pub fn has_other_layouts(&self) -> Result<bool> {
        Ok(!self.of_other_layouts()?.is_empty())
    }

    /// Names of the pinned maps.
    pub(super) fn map_names(&self) -> Result<Vec<String>> {
        names(&self.version().join("maps"))
    }

    /// Removes maps and programs of this layout; links stay.
    pub(super) fn remove_layout(&self) -> Result<()> {
        let folder = self.version();
        fs::remove_dir_all(&folder).map_err(Error::io(format!("remove {}", folder.display())))
    }

    /// Makes the folders; where each map is to be pinned.
    pub(super) fn prepare(&self) -> Result<Vec<(&'static str, PathBuf)>> {
        self.make_folders()?;
        Ok(super::Maps::NAMES
            .iter()
            .map(|name| (*name, self.map(name)))
            .collect())
    }

    fn make_folders(&self) -> Result<()> {
        self.mount()?;
        for folder in [
            self.version().join("maps"),
            self.version().join("progs"),
            self.links(),
        ] {
            fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
        }
        if super::is_bpffs(&self.node) {
            return Ok(());
        }
        let source = std::io::Error::other("not on a BPF file system: mount -t bpf bpf /sys/fs/bpf");
        Err(Error::io(format!("pin under {}", self.node.display()))(source))
    }

    /// Mounts the usual BPF file system where nobody has: systemd does, containers and small systems may not.
    fn mount(&self) -> Result<()> {
        let usual = Path::new(BPFFS);
        if !self.node.starts_with(usual) || super::is_bpffs(usual) {
            return Ok(());
        }
        let mounted = nix::mount::mount(
            Some("bpf"),
            usual,
            Some("bpf"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        );
        mounted.map_err(|errno| Error::io(format!("mount {BPFFS}"))(errno.into()))
    }

    /// Pins in the place of what was pinned there.
    pub(crate) fn replace(&self, object: &impl AsFd, path: &Path) -> Result<()> {
        let fresh = path.with_file_name(format!(
            "{}-kuafu-new",
            path.file_name().unwrap_or_default().to_string_lossy()
        ));
        let action = || format!("pin {}", path.display());
        remove(&fresh)?;
        sys::pin(object.as_fd(), &fresh).map_err(Error::io(action()))?;
        // bpffs renames over nothing only.
        remove(path)?;
        fs::rename(&fresh, path).map_err(Error::io(action()))
    }

    /// Refuses pinned maps whose keys or values are not those of the object's maps.
    pub(super) fn refuse_foreign(&self, shapes: &[Shape]) -> Result<()> {
        for (name, key, value) in shapes.iter().copied() {
            let path = self.map(name);
            let Ok(fd) = sys::open_pin(&path) else {
                continue;
            };
            let map = sys::RawMap::new(fd).map_err(Error::io(format!("read {}", path.display())))?;
            let pairs = [
                ("keys of octets:", map.info.key_size, key),
                ("values of octets:", map.info.value_size, value),
            ];
            for (what, found, needed) in pairs {
                if found != needed {
                    return Err(Error::Foreign {
                        path,
                        what,
                        found,
                        needed,
                    });
                }
            }
        }
        Ok(())
    }

    /// The descriptor of what is pinned there, if something is.
    pub(crate) fn open(path: &Path) -> Option<OwnedFd> {
        sys::open_pin(path).ok()
    }

    /// Names of the pinned links.
    ///
    /// # Errors
    /// `Io` where the folder cannot be read; that there is none is no error.
    pub fn link_names(&self) -> Result<Vec<String>> {
        names(&self.links())
    }

    /// Removes everything: links are detached, maps are freed when nobody uses them.
    ///
    /// # Errors
    /// `Io`; that nothing is there is no error.
    pub fn remove_all(&self) -> Result<()> {
        // Links first: programs must not run over half of their maps.
        for name in self.link_names()? {
            detach(&self.links().join(name))?;
        }
        for folder in [&self.links(), &self.node] {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed.map_err(Error::io(format!("remove {}", folder.display())))?,
            }
        }
        // The root goes with its last node.
        if let Some(root) = self.node.parent() {
            let _ = fs::remove_dir(root);
        }
        Ok(())
    }
}

/// What a folder has; that there is none is no error.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io(format!("read {}", folder.display())))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

/// Takes a pinned link off its device, and removes the pin; that nothing is there is no error.
pub(crate) fn detach(path: &Path) -> Result<()> {
    if let Some(link) = Pins::open(path) {
        sys::link_detach(link.as_fd()).map_err(Error::io(format!("detach {}", path.display())))?;
    }
    remove(path)
}

/// Removes a pin; what is not there is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io(format!("remove {}", path.display()))),
    }
}
