//! The state on disk: what was in force last, and what an operator wrote.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kuafu_model::HostState;
use kuafu_proto::state;

use crate::error::{Error, Result};

/// A host's state in a file: binary, or JSON where the first character says so.
///
/// # Errors
/// `Io` where the file cannot be read, `State` where it says nothing that can be used.
pub fn read_state(path: &Path) -> Result<HostState> {
    let octets = fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
    let is_json = octets.iter().find(|octet| !octet.is_ascii_whitespace()) == Some(&b'{');
    let state = if is_json {
        state::from_json(&String::from_utf8_lossy(&octets))
    } else {
        state::from_bytes(&octets)
    };
    state.map_err(|source| Error::State {
        path: path.to_owned(),
        source,
    })
}

/// A file's one line; `None` where there is no file.
pub(super) fn read_line(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        text => {
            let text = text.map_err(Error::io(format!("read {}", path.display())))?;
            Ok(Some(text.trim().to_owned()))
        }
    }
}

/// A file's octets; `None` where there is no file.
pub(super) fn read_octets(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        octets => Ok(Some(
            octets.map_err(Error::io(format!("read {}", path.display())))?,
        )),
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Puts a file in its place, whole, readable by its owner alone, and waits until the disk has it.
pub(super) fn write_whole(path: &Path, octets: &[u8]) -> Result<()> {
    Staged::of(path, octets)?.keep()
}

/// Makes a folder and those above it.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io(format!("make {}", path.display())))
}

/// A state, or what is kept beside it, that is on disk but not yet in the place of the one before. Dropping it takes it back.
#[derive(Debug)]
pub(super) struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// Writes a state beside `path`, readable by its owner alone, and waits until the disk has it.
    pub(super) fn write(path: &Path, state: &HostState) -> Result<Self> {
        Self::of(path, &state::to_bytes(state))
    }

    fn of(path: &Path, octets: &[u8]) -> Result<Self> {
        let temporary = path.with_extension("new");
        let failed = || format!("write {}", temporary.display());
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        // A left-over of a crash, with whatever mode.
        let _ = fs::remove_file(&temporary);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(Error::io(failed()))?;
        let staged = Self {
            temporary: temporary.clone(),
            path: path.to_owned(),
        };
        file.write_all(octets)
            .and_then(|()| file.sync_all())
            .map_err(Error::io(failed()))?;
        Ok(staged)
    }

    /// Puts it in its place.
    pub(super) fn keep(self) -> Result<()> {
        let failed = || format!("write {}", self.path.display());
        fs::rename(&self.temporary, &self.path).map_err(Error::io(failed()))?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::io(failed()))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Nothing is there once it was kept.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Which version of a file there is.
pub(super) type Version = Option<(SystemTime, u64, u64)>;

/// The version of a file: its time, length and inode; `None` where there is none.
pub(super) fn version(path: &Path) -> Version {
    use std::os::unix::fs::MetadataExt;
    let data = fs::metadata(path).ok()?;
    Some((data.modified().ok()?, data.len(), data.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const STATE: &str = r#"{
        "cluster": "c", "revision": 7,
        "node": {"id": 1, "name": "a", "local": "192.0.2.1", "public": "192.0.2.1", "overlay": "100.64.0.1",
                 "udp_port": 6081}
    }"#;

    #[test]
    fn a_state_is_in_its_place_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let (json, path) = (folder.path().join("a.json"), folder.path().join("deep/state.pb"));
        fs::write(&json, format!("\n{STATE}")).unwrap();
        let state = read_state(&json).unwrap();
        drop(Staged::write(&path, &state).unwrap());
        assert!(read_state(&path).is_err());
        Staged::write(&path, &state).unwrap().keep().unwrap();
        assert_eq!(read_state(&path).unwrap(), state);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_state_is_said_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, "{\"node\": 3}").unwrap();
        let error = read_state(&path).unwrap_err().to_string();
        assert!(error.contains("a.json: not a state in JSON form"), "{error}");
    }
}
