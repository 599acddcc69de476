//! Where the controller keeps what must survive it: one trait, an embedded database, and memory for tests.

mod embedded;
mod memory;

use std::sync::mpsc::{Receiver, Sender, channel};

pub use embedded::Embedded;
pub use memory::Memory;

/// An entry with the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Vec<u8>,
    /// The store's revision after the commit that wrote it.
    pub revision: u64,
}

/// One step of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The key gets this value.
    Put(String, Vec<u8>),
    /// The key is gone; no matter whether it was there.
    Delete(String),
    /// The commit fails unless the key was last written at this revision; 0: unless it is absent.
    Compare(String, u64),
}

/// A key that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: String,
    /// Its value; `None`: deleted.
    pub value: Option<Vec<u8>>,
    /// The store's revision since.
    pub revision: u64,
}

/// Keys and values under one revision that grows with each commit.
pub trait Store: Send {
    /// The revision of the last commit; 0: none yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn revision(&self) -> Result<u64, StoreError>;

    /// The entry of a key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError>;

    /// The entries whose keys begin so, ordered by key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError>;

    /// All of it or nothing, durable when this returns. Returns the new revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where a comparison fails; else when the store cannot be written.
    fn commit(&mut self, writes: &[Write]) -> Result<u64, StoreError>;

    /// What changes from now on under keys that begin so.
    fn watch(&mut self, prefix: &str) -> Receiver<Event>;
}

/// The store fails.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote the key.
    #[error("{key} was written at revision {actual}, not at {expected}")]
    Conflict {
        /// The key.
        key: String,
        /// What the comparison wants.
        expected: u64,
        /// What is.
        actual: u64,
    },
    /// The file cannot be opened.
    #[error("{path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The controller is stopping.
    #[error("the store is closed: the controller is stopping")]
    Closed,
    /// The database fails.
    #[error("store: {0}")]
    Database(#[from] Box<redb::Error>),
}

/// Those who watch.
#[derive(Debug, Default)]
struct Watchers(Vec<(String, Sender<Event>)>);

impl Watchers {
    fn add(&mut self, prefix: &str) -> Receiver<Event> {
        let (sender, receiver) = channel();
        self.0.push((prefix.to_owned(), sender));
        receiver
    }

    fn tell(&mut self, writes: &[Write], revision: u64) {
        let events = writes.iter().filter_map(|write| match write {
            Write::Put(key, value) => Some((key, Some(value))),
            Write::Delete(key) => Some((key, None)),
            Write::Compare(..) => None,
        });
        for (key, value) in events {
            self.0.retain(|(prefix, sender)| {
                let event = || Event {
                    key: key.clone(),
                    value: value.cloned(),
                    revision,
                };
                !key.starts_with(prefix) || sender.send(event()).is_ok()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(test: impl Fn(&mut dyn Store)) {
        test(&mut Memory::default());
        let directory = tempfile::tempdir().unwrap();
        test(&mut Embedded::open(&directory.path().join("store.redb")).unwrap());
    }

    fn put(key: &str, value: &str) -> Write {
        Write::Put(key.to_owned(), value.as_bytes().to_vec())
    }

    #[test]
    fn commits_are_versioned_and_listed_by_prefix() {
        both(|store| {
            assert_eq!(store.revision().unwrap(), 0);
            assert_eq!(
                store
                    .commit(&[put("a/1", "x"), put("a/2", "y"), put("b", "z")])
                    .unwrap(),
                1
            );
            assert_eq!(
                store
                    .commit(&[Write::Delete("a/1".to_owned()), put("a/3", "w")])
                    .unwrap(),
                2
            );
            let keys: Vec<_> = store
                .list("a/")
                .unwrap()
                .into_iter()
                .map(|(key, entry)| (key, entry.revision))
                .collect();
            assert_eq!(keys, [("a/2".to_owned(), 1), ("a/3".to_owned(), 2)]);
            assert_eq!(store.get("a/1").unwrap(), None);
            assert_eq!(store.get("b").unwrap().unwrap().value, b"z");
        });
    }

    #[test]
    fn a_failed_comparison_changes_nothing() {
        both(|store| {
            store.commit(&[put("a", "1")]).unwrap();
            let writes = [put("b", "2"), Write::Compare("a".to_owned(), 0)];
            assert!(matches!(
                store.commit(&writes),
                Err(StoreError::Conflict { actual: 1, .. })
            ));
            assert_eq!((store.revision().unwrap(), store.get("b").unwrap()), (1, None));
            store
                .commit(&[Write::Compare("a".to_owned(), 1), put("a", "3")])
                .unwrap();
        });
    }

    #[test]
    fn watchers_see_what_changes_under_their_prefix() {
        both(|store| {
            let events = store.watch("a/");
            store.commit(&[put("a/1", "x"), put("b", "y")]).unwrap();
            store.commit(&[Write::Delete("a/1".to_owned())]).unwrap();
            let seen: Vec<_> = events
                .try_iter()
                .map(|event| (event.value.is_some(), event.revision))
                .collect();
            assert_eq!(seen, [(true, 1), (false, 2)]);
        });
    }

    #[test]
    fn the_file_keeps_what_was_committed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        Embedded::open(&path).unwrap().commit(&[put("a", "1")]).unwrap();
        let store = Embedded::open(&path).unwrap();
        assert_eq!(store.get("a").unwrap().unwrap().value, b"1");
        assert_eq!(store.revision().unwrap(), 1);
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds the keys of all legs");
    }
}
