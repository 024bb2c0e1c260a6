//! The ledger on disk; the only place of this crate that names `sled`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::SystemTime,
};

use super::{Ledger, LedgerEntry, LedgerError, expired, key};

/// Entries number in the thousands: a small cache holds them all.
const CACHE_BYTES: u64 = 4 << 20;
const FLUSH_EVERY_MS: u64 = 500;

/// Entries in a sled tree, keyed by time of issue. Written to disk every half second: a crash may forget the entries of
/// the last moment, whose certificates stay valid.
pub struct SledLedger(sled::Db);

impl SledLedger {
    /// Opens or makes a ledger in `dir`.
    ///
    /// # Errors
    /// [`LedgerError::Open`] when it is damaged or another process holds it.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let failed = |why: String| LedgerError::Open { path: dir.display().to_string(), why };
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
        // sled panics on some kinds of damage instead of returning an error.
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => Ok(Self(db)),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Err(_) => Err(failed("it is damaged".into())),
        }
    }
}

impl Ledger for SledLedger {
    fn append(&self, entry: &LedgerEntry) -> Result<(), LedgerError> {
        let value = serde_json::to_vec(entry).map_err(|e| LedgerError::Store(e.to_string()))?;
        self.0.insert(key(entry), value).map_err(store)?;
        Ok(())
    }

    fn newest(&self, limit: usize) -> Result<Vec<LedgerEntry>, LedgerError> {
        self.0.iter().rev().take(limit).map(|item| decode(&item.map_err(store)?.1)).collect()
    }

    fn prune(&self, time: SystemTime) -> Result<usize, LedgerError> {
        let mut dropped = 0;
        for item in self.0.iter() {
            let (key, value) = item.map_err(store)?;
            if decode(&value).is_ok_and(|entry| expired(&entry, time)) {
                self.0.remove(key).map_err(store)?;
                dropped += 1;
            }
        }
        Ok(dropped)
    }
}

fn decode(value: &[u8]) -> Result<LedgerEntry, LedgerError> {
    serde_json::from_slice(value).map_err(|e| LedgerError::Store(format!("unreadable entry: {e}")))
}

fn store(error: sled::Error) -> LedgerError {
    LedgerError::Store(error.to_string())
}
