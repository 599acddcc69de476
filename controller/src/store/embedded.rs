//! The embedded database: one file.

use std::path::Path;
use std::sync::mpsc::Receiver;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Event, Store, StoreError, Versioned, Watchers, Write};

/// Key to (revision, value).
const ENTRIES: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("entries");
/// The key "revision" to the last commit's.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";

/// A store in one file, which one process has open at a time.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
    watchers: Watchers,
}

impl Embedded {
    /// Opens the file or makes it, readable by its owner alone.
    ///
    /// # Errors
    /// When it cannot be opened, is no store, or another process has it open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open = || -> Result<Database, Box<dyn std::error::Error + Send + Sync>> {
            use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
            let mut options = std::fs::OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            drop(file);
            let database = Database::create(path)?;
            // The tables are made, so that readers find them.
            let transaction = database.begin_write()?;
            transaction.open_table(ENTRIES)?;
            transaction.open_table(META)?;
            transaction.commit()?;
            Ok(database)
        };
        let opened = open().map_err(|source| StoreError::Open {
            path: path.display().to_string(),
            source,
        });
        Ok(Self {
            database: opened?,
            watchers: Watchers::default(),
        })
    }

    fn read<T>(
        &self,
        read: impl FnOnce(redb::ReadOnlyTable<&'static str, (u64, &'static [u8])>) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let table = || -> Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            Ok(transaction.open_table(ENTRIES)?)
        };
        table().and_then(read).map_err(database)
    }

    fn write(&self, writes: &[Write]) -> Result<Result<u64, StoreError>, redb::Error> {
        let transaction = self.database.begin_write()?;
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut meta = transaction.open_table(META)?;
        if let Some(conflict) = conflict(&entries, writes)? {
            // The transaction is dropped and with it aborted.
            return Ok(Err(conflict));
        }
        let revision = meta.get(REVISION)?.map_or(0, |revision| revision.value()) + 1;
        meta.insert(REVISION, revision)?;
        for write in writes {
            match write {
                Write::Put(key, value) => drop(entries.insert(key.as_str(), (revision, value.as_slice()))?),
                Write::Delete(key) => drop(entries.remove(key.as_str())?),
                Write::Compare(..) => {}
            }
        }
        drop((entries, meta));
        transaction.commit()?;
        Ok(Ok(revision))
    }
}

fn database(error: redb::Error) -> StoreError {
    StoreError::Database(Box::new(error))
}

/// The first comparison that fails.
fn conflict(
    entries: &redb::Table<'_, &'static str, (u64, &'static [u8])>,
    writes: &[Write],
) -> Result<Option<StoreError>, redb::Error> {
    for write in writes {
        let Write::Compare(key, expected) = write else {
            continue;
        };
        let actual = entries.get(key.as_str())?.map_or(0, |entry| entry.value().0);
        if actual != *expected {
            return Ok(Some(StoreError::Conflict {
                key: key.clone(),
                expected: *expected,
                actual,
            }));
        }
    }
    Ok(None)
}

fn versioned((revision, value): (u64, &[u8])) -> Versioned {
    let value = value.to_vec();
    Versioned { value, revision }
}

impl Store for Embedded {
    fn revision(&self) -> Result<u64, StoreError> {
        let read = || -> Result<u64, redb::Error> {
            let meta = self.database.begin_read()?.open_table(META)?;
            let revision = meta.get(REVISION)?;
            Ok(revision.map_or(0, |revision| revision.value()))
        };
        read().map_err(database)
    }

    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.read(|entries| Ok(entries.get(key)?.map(|entry| versioned(entry.value()))))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        self.read(|entries| {
            let mut list = Vec::new();
            for entry in entries.range(prefix..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                list.push((key.value().to_owned(), versioned(value.value())));
            }
            Ok(list)
        })
    }

    fn commit(&mut self, writes: &[Write]) -> Result<u64, StoreError> {
        let revision = self.write(writes).map_err(database)??;
        self.watchers.tell(writes, revision);
        Ok(revision)
    }

    fn watch(&mut self, prefix: &str) -> Receiver<Event> {
        self.watchers.add(prefix)
    }
}
