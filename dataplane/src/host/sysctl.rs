//! The host's settings that must be others, and what they were before.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Ports that the kernel gives to nobody by itself.
const RESERVED: &str = "net/ipv4/ip_local_reserved_ports";

/// The settings that were changed, with their values before, kept in a file.
#[derive(Debug)]
pub(crate) struct Sysctls {
    path: PathBuf,
    before: BTreeMap<String, String>,
}

impl Sysctls {
    /// What was changed so far, by what is recorded in `folder`.
    pub(crate) fn recorded(folder: &Path) -> Result<Self> {
        let path = folder.join("sysctls.json");
        let before = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
            octets => {
                let octets = octets.map_err(Error::io(format!("read {}", path.display())))?;
                serde_json::from_slice(&octets).unwrap_or_default()
            }
        };
        Ok(Self { path, before })
    }

    /// Lets a device's packets be forwarded: without that the kernel answers no question about routes.
    pub(super) fn forward(&mut self, device: &str) -> Result<()> {
        self.change(&format!("net/ipv4/conf/{device}/forwarding"), |_| "1".to_owned())
    }

    /// Reserves the exit's ports beside those that were reserved before; none, where there is no range.
    pub(super) fn reserve(&mut self, range: Option<(u16, u16)>) -> Result<()> {
        if range.is_none() && !self.before.contains_key(RESERVED) {
            return Ok(());
        }
        self.change(RESERVED, |before| match range {
            None => before.to_owned(),
            Some((first, last)) if before.is_empty() => format!("{first}-{last}"),
            Some((first, last)) => format!("{before},{first}-{last}"),
        })
    }

    fn change(&mut self, key: &str, value: impl Fn(&str) -> String) -> Result<()> {
        let now = read(key)?;
        let before = self.before.get(key).unwrap_or(&now).clone();
        let value = value(&before);
        if value == now {
            return Ok(());
        }
        // Recorded first: who is interrupted in between restores what is still so.
        if self.before.insert(key.to_owned(), before).is_none() {
            self.record()?;
        }
        write(key, &value)
    }

    fn record(&self) -> Result<()> {
        let failed = || format!("write {}", self.path.display());
        let text =
            serde_json::to_vec_pretty(&self.before).map_err(|error| Error::io(failed())(error.into()))?;
        let fresh = self.path.with_extension("new");
        let written = || {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&fresh, text)?;
            fs::rename(&fresh, &self.path)
        };
        written().map_err(Error::io(failed()))
    }

    /// Makes everything what it was before, and forgets it. Returns what it did, one line each.
    pub(crate) fn restore(&self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        for (key, before) in &self.before {
            match write(key, before) {
                // The device is gone.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                written => {
                    written?;
                    done.push(format!("{} is {before:?} again", key.replace('/', ".")));
                }
            }
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(Error::io(format!("remove {}", self.path.display())))?,
        }
        Ok(done)
    }
}

fn read(key: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/sys/{key}")).map_err(Error::io(format!("read {key}")))?;
    Ok(text.trim().to_owned())
}

fn write(key: &str, value: &str) -> Result<()> {
    // An empty list is written as a line of its own: nothing at all would change nothing.
    fs::write(format!("/proc/sys/{key}"), format!("{value}\n"))
        .map_err(Error::io(format!("write {value:?} to {key}")))
}
