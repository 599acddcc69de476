//! A copy of everything that a controller keeps: intent, numbers, keys, its authority.

use std::path::Path;

use kuafu_proto::v1;

use crate::store::{Embedded, Store, StoreError, Write};

/// What a restored controller leaves out of its revisions. Hosts may run states that came after the backup, and a
/// revision must not mean two things.
const LEAP: u64 = 1_000_000;
/// The version of the file's meaning.
const FORMAT: u32 = 1;
const REVISION: &str = "revision";
const CLUSTER: &str = "cluster";

/// A backup.
#[derive(Clone, PartialEq)]
pub struct Backup(v1::Backup);

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backup { (secret) }")
    }
}

/// A backup cannot be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not a backup.
    #[error("not a backup of a controller: {0}")]
    Form(String),
    /// Something is there already.
    #[error("there is a controller's store already: {path}. --force puts the backup in its place")]
    Occupied {
        /// Where.
        path: String,
    },
    /// A file cannot be written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
}

impl Backup {
    /// Everything that a store holds; `at` in seconds since 1970.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(store: &dyn Store, at: u64) -> Result<Self, StoreError> {
        let entries = store.list("")?.into_iter();
        Ok(Self(v1::Backup {
            format: FORMAT,
            at_unix_s: at,
            entries: entries
                .map(|(key, entry)| v1::BackupEntry {
                    key,
                    value: entry.value,
                })
                .collect(),
        }))
    }

    /// The store of a controller that does not run.
    ///
    /// # Errors
    /// When it cannot be read; a running controller has it open.
    pub fn of_file(store: &Path, at: u64) -> Result<Self, StoreError> {
        Self::of(&Embedded::open(store)?, at)
    }

    /// As the file holds it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// What the file holds.
    ///
    /// # Errors
    /// What is no backup, or one that this version does not know.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BackupError> {
        let backup = v1::Backup::from_bytes(bytes).map_err(|error| BackupError::Form(error.to_string()))?;
        let backup = Self(backup);
        if backup.0.format != FORMAT {
            let found = backup.0.format;
            return Err(BackupError::Form(format!(
                "it has format {found}, and this program knows {FORMAT}"
            )));
        }
        if backup.value(CLUSTER).is_none() {
            return Err(BackupError::Form("it names no cluster".to_owned()));
        }
        Ok(backup)
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> String {
        let id = self.value(CLUSTER).unwrap_or_default();
        String::from_utf8_lossy(id).into_owned()
    }

    /// When it was made, in seconds since 1970.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.0.at_unix_s
    }

    /// The message.
    #[must_use]
    pub fn into_message(self) -> v1::Backup {
        self.0
    }

    /// Puts it into an empty store.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn restore(&self, store: &mut dyn Store) -> Result<(), StoreError> {
        let put = |entry: &v1::BackupEntry| Write::Put(entry.key.clone(), entry.value.clone());
        let mut writes: Vec<Write> = self.0.entries.iter().map(put).collect();
        let revision = self
            .value(REVISION)
            .and_then(|text| serde_json::from_slice(text).ok());
        let revision = revision.unwrap_or(0_u64).saturating_add(LEAP);
        writes.push(Write::Put(REVISION.to_owned(), revision.to_string().into_bytes()));
        store.commit(&writes)?;
        Ok(())
    }

    /// Makes it the store of a controller that does not run, whole or not at all. With `force` in the place of what is
    /// there.
    ///
    /// # Errors
    /// When something is there, a controller runs over it, or it cannot be written.
    pub fn restore_file(&self, store: &Path, force: bool) -> Result<(), BackupError> {
        let shown = || store.display().to_string();
        if store.exists() {
            // Whoever has it open must not go on over a file that is gone.
            drop(Embedded::open(store)?);
            if !force {
                return Err(BackupError::Occupied { path: shown() });
            }
        }
        let failed = |source| BackupError::File {
            path: shown(),
            source,
        };
        if let Some(folder) = store.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let fresh = store.with_extension("new");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        self.restore(&mut Embedded::open(&fresh)?)?;
        std::fs::rename(&fresh, store).map_err(failed)
    }

    fn value(&self, key: &str) -> Option<&[u8]> {
        let mut entries = self.0.entries.iter();
        entries
            .find(|entry| entry.key == key)
            .map(|entry| entry.value.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Backup {
        let mut store = crate::store::Memory::default();
        let put = |key: &str, value: &str| Write::Put(key.to_owned(), value.as_bytes().to_vec());
        store
            .commit(&[put(CLUSTER, "abcd"), put(REVISION, "41"), put("ca/key", "secret")])
            .unwrap();
        Backup::of(&store, 7).unwrap()
    }

    #[test]
    fn a_store_is_not_overwritten_by_mistake_or_under_a_controller() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/store.redb");
        backup().restore_file(&path, false).unwrap();
        let occupied = backup().restore_file(&path, false).unwrap_err();
        assert!(occupied.to_string().contains("--force"), "{occupied}");
        let open = Embedded::open(&path).unwrap();
        assert_eq!(open.get("ca/key").unwrap().unwrap().value, b"secret");
        assert_eq!(open.get(REVISION).unwrap().unwrap().value, b"1000041");
        assert!(
            backup().restore_file(&path, true).is_err(),
            "a controller has it open"
        );
        drop(open);
        backup().restore_file(&path, true).unwrap();
        let copy = Backup::of_file(&path, 7).unwrap();
        assert_eq!(copy.cluster(), "abcd");
    }

    #[test]
    fn what_is_no_backup_is_said() {
        for (bytes, why) in [
            (b"no backup".as_slice(), "not a backup"),
            (b"".as_slice(), "format 0"),
        ] {
            let error = Backup::from_bytes(bytes).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(Backup::from_bytes(&backup().to_bytes()).unwrap(), backup());
    }
}
