//! Where things lie in the checkout.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A checkout of the project.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The checkout whose `cargo xtask` this is: cargo names the folder of the crate that it runs.
    pub(crate) fn find() -> Result<Self> {
        let xtask = env::var_os("CARGO_MANIFEST_DIR").context("run it as `cargo xtask`")?;
        let root = Path::new(&xtask)
            .parent()
            .context("the xtask crate lies inside the workspace")?;
        Self::at(root)
    }

    /// The checkout whose root this folder is.
    pub(crate) fn at(root: &Path) -> Result<Self> {
        let root = fs::canonicalize(root).with_context(|| format!("cannot open {}", root.display()))?;
        Ok(Self { root })
    }

    /// The folder with the workspace's `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A file or folder, relative to the root.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Cargo's output folder.
    pub(crate) fn target(&self) -> PathBuf {
        match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => self.root.join(folder),
            None => self.root.join("target"),
        }
    }

    /// The package's version, one for the whole workspace.
    pub(crate) fn version() -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}

/// Cargo's own folder: registry and installed binaries.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(folder) => Ok(folder.into()),
        None => env::home_dir()
            .map(|home| home.join(".cargo"))
            .context("neither CARGO_HOME nor HOME is set"),
    }
}

/// Whether this process runs as root: the owner of its `/proc` entry is its effective user.
pub(crate) fn is_root() -> Result<bool> {
    let me = fs::metadata("/proc/self").context("cannot read /proc/self")?;
    Ok(me.uid() == 0)
}

/// Refuses politely when not root; `why` says what needs it, `without` what works as an ordinary user.
pub(crate) fn require_root(why: &str, without: &str) -> Result<()> {
    ensure!(
        is_root()?,
        "this needs root: {why}. As an ordinary user: {without}"
    );
    Ok(())
}
