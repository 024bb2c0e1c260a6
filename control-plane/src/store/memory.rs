//! A store without a disk, for tests and for runs that shall leave nothing behind.

use std::{collections::BTreeMap, sync::Mutex};

use serde_json::Value;

use super::{
    entry::{Entry, Expect, Store, check},
    error::StoreError,
    key::StoreKey,
};

/// Objects in memory.
#[derive(Default, Debug)]
pub struct Memory(Mutex<RevisedObjects>);

#[derive(Default, Debug)]
struct RevisedObjects {
    revision: u64,
    entries: BTreeMap<StoreKey, Entry>,
}

const POISONED: &str = "no code panics while it holds this lock";

impl Store for Memory {
    fn list(&self) -> Vec<Entry> {
        self.0.lock().expect(POISONED).entries.values().cloned().collect()
    }

    fn get(&self, key: &StoreKey) -> Option<Entry> {
        self.0.lock().expect(POISONED).entries.get(key).cloned()
    }

    fn put(
        &self,
        key: &StoreKey,
        value: Value,
        expect: Expect,
        _who: &str,
    ) -> Result<u64, StoreError> {
        let mut state = self.0.lock().expect(POISONED);
        check(key, expect, state.entries.get(key).map(|e| e.revision))?;
        state.revision += 1;
        let revision = state.revision;
        state.entries.insert(key.clone(), Entry { key: key.clone(), revision, value });
        Ok(revision)
    }

    fn delete(&self, key: &StoreKey, expect: Expect, _who: &str) -> Result<u64, StoreError> {
        let mut state = self.0.lock().expect(POISONED);
        let found = state
            .entries
            .get(key)
            .map(|e| e.revision)
            .ok_or_else(|| StoreError::NotFound(key.clone()))?;
        check(key, expect, Some(found))?;
        state.revision += 1;
        state.entries.remove(key);
        Ok(state.revision)
    }
}
