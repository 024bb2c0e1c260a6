//! The ledger on disk; the only place of this crate that names `sled`.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Ledger, LedgerEntry, LedgerError, expired, key};
use crate::{
    files,
    lock::{SOON, is_held_by_database, take_soon, until_let_go},
    settings::FirstStart,
};

/// Entries number in the thousands: a small cache holds them all.
const CACHE_BYTES: u64 = 4 << 20;
const FLUSH_EVERY_MS: u64 = 500;
/// The file of a sled database that is there from the first moment.
const DATABASE: &str = "db";

/// Entries in a sled tree, keyed by time of issue. Written to disk every half second: a crash may
/// forget the entries of the last moment, whose certificates stay valid.
pub struct SledLedger {
    /// `None`: it is being closed.
    db: Option<sled::Db>,
    /// The file that it holds a lock on.
    locked: PathBuf,
}

impl SledLedger {
    /// Opens the ledger in `dir`; makes one only where `first_start` allows it.
    ///
    /// # Errors
    /// [`LedgerError::Missing`] when there is none, [`LedgerError::Open`] when it is damaged, [`LedgerError::InUse`] when another process holds
    /// it, [`LedgerError::Disk`] when the disk refuses.
    pub fn open(dir: &Path, first_start: FirstStart) -> Result<Self, LedgerError> {
        if first_start == FirstStart::Refused && is_missing(&dir.join(DATABASE)) {
            return Err(LedgerError::Missing { path: dir.display().to_string() });
        }
        let failed = |why: String| LedgerError::Open { path: dir.display().to_string(), why };
        match files::only_regular(dir) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(failed(error.to_string()));
            }
            // What else the system says, the store says too.
            _ => {}
        }
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        // sled panics on some kinds of damage instead of returning an error.
        let open =
            || take_soon(SOON, || config.open(), |error| is_held_by_database(&error.to_string()));
        match catch_unwind(AssertUnwindSafe(open)) {
            Ok(Ok(db)) => Ok(Self { db: Some(db), locked: dir.join(DATABASE) }),
            Ok(Err(sled::Error::Io(e))) => Err(refused(dir, &e)),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Err(_) => Err(failed("it is damaged".into())),
        }
    }
}

impl SledLedger {
    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("nobody uses what is being closed")
    }
}

/// Waits until the threads of the database have let go of its files.
impl Drop for SledLedger {
    fn drop(&mut self) {
        self.db = None;
        until_let_go(&self.locked);
    }
}

impl Ledger for SledLedger {
    fn append(&self, entry: &LedgerEntry) -> Result<(), LedgerError> {
        let value = serde_json::to_vec(entry).map_err(|e| LedgerError::Store(e.to_string()))?;
        self.db().insert(key(entry), value).map_err(store)?;
        Ok(())
    }

    fn newest(&self, limit: usize) -> Result<Vec<LedgerEntry>, LedgerError> {
        self.db().iter().rev().take(limit).map(|item| decode(&item.map_err(store)?.1)).collect()
    }

    fn prune(&self, time: SystemTime) -> Result<usize, LedgerError> {
        let mut dropped = 0;
        for item in self.db().iter() {
            let (key, value) = item.map_err(store)?;
            if decode(&value).is_ok_and(|entry| expired(&entry, time)) {
                self.db().remove(key).map_err(store)?;
                dropped += 1;
            }
        }
        Ok(dropped)
    }
}

/// Whether there is certainly no such file.
fn is_missing(file: &Path) -> bool {
    fs::symlink_metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The disk's refusal, by its cause.
fn refused(dir: &Path, error: &io::Error) -> LedgerError {
    let (path, why) = (dir.display().to_string(), error.to_string());
    if is_held_by_database(&why) {
        return LedgerError::InUse(path);
    }
    match error.raw_os_error() {
        Some(_) => LedgerError::Disk { path, why },
        None => LedgerError::Open { path, why },
    }
}

fn decode(value: &[u8]) -> Result<LedgerEntry, LedgerError> {
    serde_json::from_slice(value).map_err(|e| LedgerError::Store(format!("unreadable entry: {e}")))
}

fn store(error: sled::Error) -> LedgerError {
    LedgerError::Store(error.to_string())
}
