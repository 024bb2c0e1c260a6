//! What nobody else would remember: the objects written through the REST API.
//!
//! Every accepted write is appended to a checksummed, fsynced [`journal`] first, then put into the embedded database,
//! then acknowledged. The journal is the truth and the audit trail; the database is an index that is rebuilt from it
//! whenever it lags, is damaged, or is gone.

mod durable;
mod journal;
mod memory;
mod sled;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use durable::{Durable, Recovery};
pub use memory::Memory;

/// Folder of the database, beside the journal.
const DATABASE: &str = "objects.sled";

/// Identifies a stored object: `Kind/namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreKey(pub String);

impl StoreKey {
    /// The key of an object; `namespace` is empty for cluster-scoped kinds.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self(format!("{kind}/{namespace}/{name}"))
    }
}

/// A stored object.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Which object.
    pub key: StoreKey,
    /// The sequence number of the write that made this version; unique in the store, rising.
    pub revision: u64,
    /// The object as its author wrote it.
    pub value: Value,
}

/// What a write must find in order to be accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Anything.
    Any,
    /// No such object.
    Absent,
    /// This revision.
    Revision(u64),
}

/// Why a store refuses, in words for an operator.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Compare-and-set failed.
    #[error("{key} is at revision {found}, expected {expected}: read it again and repeat the change", key = key.0)]
    Conflict {
        /// Which object.
        key: StoreKey,
        /// What the writer expected.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The object to delete does not exist.
    #[error("{} does not exist", .0.0)]
    NotFound(StoreKey),
    /// The disk refuses.
    #[error("cannot {action} {path}: {source}{hint}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What to do about it; begins with `; ` when not empty.
        hint: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The journal is damaged before its last record, so records that were acknowledged are unreadable.
    #[error(
        "journal {path} is damaged at record {record} (byte {offset}): {reason}; restore it from a backup, or, to go on \
         with the {record} records before the damage, run: head -c {offset} {path} > {path}.good && mv {path}.good {path} \
         && rm -r {index}",
        path = path.display(), index = path.with_file_name(DATABASE).display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Number of good records before the damage.
        record: u64,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The journal ends before a record that the database proves to have been acknowledged.
    #[error(
        "journal {path} ends at record {records} although record {applied} was acknowledged: {database} has it; restore the whole \
         data directory from a backup, or, to go on with the journal's {records} records, run: rm -r {database}",
        path = path.display(), database = database.display()
    )]
    JournalShort {
        /// The journal.
        path: PathBuf,
        /// Its good records.
        records: u64,
        /// The last record that the database has.
        applied: u64,
        /// The database.
        database: PathBuf,
    },
    /// The journal holds nothing, and what the database holds cannot be told.
    #[error(
        "journal {path} is {state} and its index {database} is unreadable ({reason}), so that nobody knows what was written; \
         restore the whole data directory from a backup, or, to start empty, run: rm -r {database}",
        path = path.display(), database = database.display()
    )]
    Unknown {
        /// The journal.
        path: PathBuf,
        /// `missing` or `empty`.
        state: &'static str,
        /// The database.
        database: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },
    /// The journal is gone although the database has data.
    #[error(
        "journal {path} is missing although the store has {entries} objects; restore it from a backup, or remove {database} to \
         start empty",
        path = path.display(), database = database.display()
    )]
    JournalMissing {
        /// Where it should be.
        path: PathBuf,
        /// How many objects the database holds.
        entries: usize,
        /// The database.
        database: PathBuf,
    },
    /// The database fails while running. The journal has the write.
    #[error("the store's database failed: {0}; restart to rebuild it from the journal")]
    Database(String),
    /// Another process has the store open.
    #[error("store {path} is in use by another process; stop it, or choose another --data-dir", path = .0.display())]
    InUse(PathBuf),
}

/// Keeps objects. Calls block for as long as a disk needs; call them off the async threads.
pub trait Store: Send + Sync {
    /// Every object, sorted by key.
    fn list(&self) -> Vec<Entry>;

    /// One object.
    fn get(&self, key: &StoreKey) -> Option<Entry>;

    /// Writes an object and returns its new revision; when this returns, the write survives a crash.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when `expect` does not hold; anything else means that the write did not happen.
    fn put(&self, key: &StoreKey, value: Value, expect: Expect, who: &str) -> Result<u64, StoreError>;

    /// Deletes an object and returns the revision of the deletion.
    ///
    /// # Errors
    /// As [`Self::put`], and [`StoreError::NotFound`].
    fn delete(&self, key: &StoreKey, expect: Expect, who: &str) -> Result<u64, StoreError>;
}

/// Checks a writer's expectation against what is there.
fn check(key: &StoreKey, expect: Expect, found: Option<u64>) -> Result<(), StoreError> {
    let holds = match expect {
        Expect::Any => true,
        Expect::Absent => found.is_none(),
        Expect::Revision(r) => found == Some(r),
    };
    if holds {
        return Ok(());
    }
    let expected = match expect {
        Expect::Revision(r) => r.to_string(),
        _ => "none".to_owned(),
    };
    let found = found.map_or("none".to_owned(), |r| r.to_string());
    Err(StoreError::Conflict { key: key.clone(), expected, found })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn behaves(store: &dyn Store) {
        let key = StoreKey::new("VirtualService", "shop", "cart");
        let first = store.put(&key, json!({"a": 1}), Expect::Absent, "test").expect("a first write");
        assert!(matches!(store.put(&key, json!({}), Expect::Absent, "test"), Err(StoreError::Conflict { .. })));
        let second = store.put(&key, json!({"a": 2}), Expect::Revision(first), "test").expect("compare and set");
        assert!(second > first);
        assert!(matches!(store.delete(&key, Expect::Revision(first), "test"), Err(StoreError::Conflict { .. })));
        assert_eq!(store.get(&key).map(|e| e.value), Some(json!({"a": 2})));
        store.delete(&key, Expect::Any, "test").expect("a deletion");
        assert!(store.list().is_empty());
        assert!(matches!(store.delete(&key, Expect::Any, "test"), Err(StoreError::NotFound(_))));
    }

    #[test]
    fn every_store_compares_and_sets() {
        behaves(&Memory::default());
        let dir = tempfile::tempdir().expect("a directory");
        behaves(&Durable::open(dir.path()).expect("a new store").0);
    }
}
