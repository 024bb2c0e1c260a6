//! What a store keeps, and what a write may expect.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{error::StoreError, key::StoreKey};

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
    /// Some revision of the object.
    Present,
    /// This revision.
    Revision(u64),
    /// No such object, or another revision of it.
    OtherThan(u64),
}

/// Keeps objects. Calls that write block for as long as a disk needs: make them off the async
/// threads. Those that read never wait for a disk, nor for who writes.
pub trait Store: Send + Sync {
    /// Every object, sorted by key.
    fn list(&self) -> Vec<Entry>;

    /// One object.
    fn get(&self, key: &StoreKey) -> Option<Entry>;

    /// The revision of an object; `None`: there is no such object.
    fn revision(&self, key: &StoreKey) -> Option<u64> {
        self.get(key).map(|entry| entry.revision)
    }

    /// Whether a write that expects this would be accepted now.
    ///
    /// # Errors
    /// [`StoreError::Conflict`].
    fn check(&self, key: &StoreKey, expect: Expect) -> Result<(), StoreError> {
        check(key, expect, self.revision(key))
    }

    /// Writes an object and returns its new revision; when this returns, the write survives a
    /// crash.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when `expect` does not hold; anything else means that the write did
    /// not happen.
    fn put(
        &self,
        key: &StoreKey,
        value: Value,
        expect: Expect,
        who: &str,
    ) -> Result<u64, StoreError>;

    /// Deletes an object and returns the revision of the deletion.
    ///
    /// # Errors
    /// As [`Self::put`], and [`StoreError::NotFound`].
    fn delete(&self, key: &StoreKey, expect: Expect, who: &str) -> Result<u64, StoreError>;
}

/// Checks a writer's expectation against what is there.
pub(super) fn check(key: &StoreKey, expect: Expect, found: Option<u64>) -> Result<(), StoreError> {
    let holds = match expect {
        Expect::Any => true,
        Expect::Absent => found.is_none(),
        Expect::Present => found.is_some(),
        Expect::Revision(r) => found == Some(r),
        Expect::OtherThan(r) => found != Some(r),
    };
    if holds {
        return Ok(());
    }
    let expected = match expect {
        Expect::Revision(r) => r.to_string(),
        Expect::OtherThan(_) => "another".to_owned(),
        Expect::Present => "any".to_owned(),
        Expect::Absent | Expect::Any => "none".to_owned(),
    };
    let found = found.map_or("none".to_owned(), |r| r.to_string());
    Err(StoreError::Conflict { key: key.clone(), expected, found })
}
