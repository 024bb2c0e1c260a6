//! The record of what was signed: one entry per certificate, kept until a day after it expires.
//!
//! An inventory, not a security input: revocations are kept in the sealed state, so that a lost
//! ledger forgets history and never un-revokes anything.

pub mod sled;

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

/// How long an entry outlives its certificate.
pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// One signed certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Serial number, 32 lower-case hexadecimal digits; unique.
    pub serial: String,
    /// The id in the certificate.
    pub spiffe_id: String,
    /// When it was signed, in seconds since 1970.
    pub issued_at: u64,
    /// When it ends, in seconds since 1970.
    pub expires_at: u64,
}

/// Why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store under it failed.
    #[error("the ledger of issued certificates failed: {0}")]
    Store(String),
    /// Another process has it open.
    #[error(
        "the ledger of issued certificates at {0} is in use by another process; stop it, or choose another data directory"
    )]
    InUse(String),
    /// There is none, and other state proves that there was.
    #[error(
        "the ledger of issued certificates at {path} is missing, but this control plane has run before; restore the whole data \
         directory from a backup (certificates and revocations stay valid without it)"
    )]
    Missing {
        /// Where it should lie.
        path: String,
    },
    /// The disk refuses, which says nothing of the ledger.
    #[error(
        "the ledger of issued certificates at {path} cannot be opened: {why}; the disk must have room and be writable by this user"
    )]
    Disk {
        /// Where it lies.
        path: String,
        /// What the system said.
        why: String,
    },
    /// It is damaged.
    #[error(
        "the ledger of issued certificates at {path} cannot be opened: {why}; restore the whole data directory from \
         a backup, or move it away and start again: certificates and revocations stay valid, only the list of past \
         certificates is lost"
    )]
    Open {
        /// Where it lies.
        path: String,
        /// What the store said.
        why: String,
    },
}

/// Where entries are kept.
pub trait Ledger: Send + Sync {
    /// Adds an entry.
    ///
    /// # Errors
    /// [`LedgerError`] when the store fails; the certificate must then not be handed out.
    fn append(&self, entry: &LedgerEntry) -> Result<(), LedgerError>;

    /// The newest `limit` entries, newest first.
    ///
    /// # Errors
    /// [`LedgerError`] when the store fails.
    fn newest(&self, limit: usize) -> Result<Vec<LedgerEntry>, LedgerError>;

    /// Drops entries that expired before `time`; returns how many.
    ///
    /// # Errors
    /// [`LedgerError`] when the store fails.
    fn prune(&self, time: SystemTime) -> Result<usize, LedgerError>;
}

/// Key that sorts entries by age, then serial.
fn key(entry: &LedgerEntry) -> Vec<u8> {
    [&entry.issued_at.to_be_bytes(), entry.serial.as_bytes()].concat()
}

fn expired(entry: &LedgerEntry, time: SystemTime) -> bool {
    SystemTime::UNIX_EPOCH + Duration::from_secs(entry.expires_at) < time
}

/// A ledger that a restart empties: for tests and throw-away meshes.
#[derive(Default)]
pub struct MemoryLedger(Mutex<BTreeMap<Vec<u8>, LedgerEntry>>);

impl MemoryLedger {
    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<Vec<u8>, LedgerEntry>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Ledger for MemoryLedger {
    fn append(&self, entry: &LedgerEntry) -> Result<(), LedgerError> {
        self.entries().insert(key(entry), entry.clone());
        Ok(())
    }

    fn newest(&self, limit: usize) -> Result<Vec<LedgerEntry>, LedgerError> {
        Ok(self.entries().values().rev().take(limit).cloned().collect())
    }

    fn prune(&self, time: SystemTime) -> Result<usize, LedgerError> {
        let mut entries = self.entries();
        let before = entries.len();
        entries.retain(|_, entry| !expired(entry, time));
        Ok(before - entries.len())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{sled::SledLedger, *};
    use crate::settings::FirstStart;

    fn open(dir: &Path) -> Result<SledLedger, LedgerError> {
        SledLedger::open(dir, FirstStart::Allowed)
    }

    fn entry(number: u64) -> LedgerEntry {
        LedgerEntry {
            serial: format!("{number:032x}"),
            spiffe_id: "spiffe://cluster.local/ns/a/sa/b".into(),
            issued_at: 1_000 + number,
            expires_at: 2_000 + number,
        }
    }

    fn check(ledger: &dyn Ledger) {
        for number in [2, 0, 1] {
            ledger.append(&entry(number)).unwrap();
        }
        assert_eq!(ledger.newest(2).unwrap(), [entry(2), entry(1)]);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(2_002);
        assert_eq!(ledger.prune(time).unwrap(), 2);
        assert_eq!(ledger.newest(9).unwrap(), [entry(2)]);
    }

    #[test]
    fn both_ledgers_list_newest_first_and_forget_what_is_long_expired() {
        let dir = tempfile::tempdir().unwrap();
        check(&MemoryLedger::default());
        check(&open(dir.path()).unwrap());
    }

    #[test]
    fn a_ledger_that_is_missing_is_made_on_a_first_start_only() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("none")] {
            let error = SledLedger::open(&path, FirstStart::Refused).err().unwrap();
            assert!(matches!(error, LedgerError::Missing { .. }), "{error}");
            assert!(!path.join("db").exists(), "something was made");
        }
        drop(open(dir.path()).unwrap());
        SledLedger::open(dir.path(), FirstStart::Refused).expect("it is there");
    }

    #[test]
    fn a_sled_ledger_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path()).unwrap();
        ledger.append(&entry(1)).unwrap();
        drop(ledger);
        assert_eq!(open(dir.path()).unwrap().newest(9).unwrap(), [entry(1)]);
    }

    #[test]
    fn a_sled_ledger_that_cannot_be_opened_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let holder = open(dir.path()).unwrap();
        let error = open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("in use by another process"), "{error}");
        drop(holder);
        let damaged = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", damaged.path().join("db")).unwrap();
        let error = open(damaged.path()).err().unwrap().to_string();
        assert!(error.contains("move it away"), "{error}");
        // A file where its directory should be made: the disk's word, and nothing is to be moved.
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = open(&file.join("ledger")).err().unwrap().to_string();
        assert!(error.contains("the disk must have room"), "{error}");
    }
}
