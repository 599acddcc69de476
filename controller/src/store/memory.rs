//! A store that forgets.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;

use super::{Event, Store, StoreError, Versioned, Watchers, Write};

/// A store in memory, for tests.
#[derive(Debug, Default)]
pub struct Memory {
    entries: BTreeMap<String, Versioned>,
    revision: u64,
    watchers: Watchers,
}

impl Store for Memory {
    fn revision(&self) -> Result<u64, StoreError> {
        Ok(self.revision)
    }

    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        Ok(self.entries.get(key).cloned())
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        let from = self.entries.range(prefix.to_owned()..);
        Ok(from
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect())
    }

    fn commit(&mut self, writes: &[Write]) -> Result<u64, StoreError> {
        for write in writes {
            let Write::Compare(key, expected) = write else {
                continue;
            };
            let actual = self.entries.get(key).map_or(0, |entry| entry.revision);
            if actual != *expected {
                let (key, expected) = (key.clone(), *expected);
                return Err(StoreError::Conflict {
                    key,
                    expected,
                    actual,
                });
            }
        }
        self.revision += 1;
        let revision = self.revision;
        for write in writes {
            match write {
                Write::Put(key, value) => {
                    let value = value.clone();
                    self.entries.insert(key.clone(), Versioned { value, revision });
                }
                Write::Delete(key) => drop(self.entries.remove(key)),
                Write::Compare(..) => {}
            }
        }
        self.watchers.tell(writes, revision);
        Ok(revision)
    }

    fn watch(&mut self, prefix: &str) -> Receiver<Event> {
        self.watchers.add(prefix)
    }
}
