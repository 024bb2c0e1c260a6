//! Why a store refuses.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::key::StoreKey;

/// Folder of the database, beside the journal.
pub(super) const DATABASE: &str = "objects.sled";

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
    /// The content would be read back as something else, or not at all.
    #[error("{} cannot be stored: {reason}; change that part of the object", .key.0)]
    Unstorable {
        /// Which object.
        key: StoreKey,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk refuses.
    #[error("cannot {action} {path}: {cause}{hint}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What to do about it; begins with `; ` when not empty.
        hint: &'static str,
        /// The system's answer.
        cause: io::Error,
    },
    /// The journal is damaged, so records that were acknowledged are unreadable.
    #[error(
        "journal {path} is damaged at record {record} (byte {offset}): {reason}; restore the whole data directory from a backup, or, \
         to go on with the {record} records before the damage, run: head -c {offset} {path} > {path}.good && \
         mv {path}.good {path} && {step}",
        path = path.display()
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
        /// The command that accepts what is there.
        step: String,
    },
    /// The journal ends before a record that was acknowledged.
    #[error(
        "journal {path} ends at record {records} although record {applied} was acknowledged: {witness} has it; restore the whole \
         data directory from a backup, or, to go on with the journal's {records} records, run: {step}",
        path = path.display(), witness = witness.display()
    )]
    JournalShort {
        /// The journal.
        path: PathBuf,
        /// Its good records.
        records: u64,
        /// The last record that was acknowledged.
        applied: u64,
        /// The file that proves it.
        witness: PathBuf,
        /// The command that accepts what is there.
        step: String,
    },
    /// The journal is another one than the one whose records were acknowledged.
    #[error(
        "journal {path} has another record {seq} than the one that was acknowledged, which {witness} has; restore the whole data \
         directory from a backup, or, to go on with the journal's {records} records, run: {step}",
        path = path.display(), witness = witness.display()
    )]
    JournalForeign {
        /// The journal.
        path: PathBuf,
        /// The record that is another.
        seq: u64,
        /// How many records it has.
        records: u64,
        /// The file that proves it.
        witness: PathBuf,
        /// The command that accepts what is there.
        step: String,
    },
    /// The store is another one than this data directory had.
    #[error(
        "the store with the journal of {records} records is not the one of this data directory: {path} {found}, and {witness} expects \
         {expected}; restore the whole data directory from a backup, or, to go on with these records, run: {step}",
        path = path.display(), witness = witness.display()
    )]
    Foreign {
        /// The file that names the store.
        path: PathBuf,
        /// What it says.
        found: Box<str>,
        /// What it said.
        expected: Box<str>,
        /// The file that proves it.
        witness: PathBuf,
        /// How many records the journal has.
        records: u64,
        /// The command that accepts what is there.
        step: String,
    },
    /// The mark of the last acknowledged record is from another moment than the journal.
    #[error(
        "journal {path} has {records} records, and {witness} says that record {marked} was acknowledged last: they are from \
         different moments; restore the whole data directory from a backup, or, to go on with the journal's {records} records, \
         run: {step}",
        path = path.display(), witness = witness.display()
    )]
    MarkBehind {
        /// The journal.
        path: PathBuf,
        /// Its good records.
        records: u64,
        /// The file of the mark.
        witness: PathBuf,
        /// What it says.
        marked: u64,
        /// The command that accepts what is there.
        step: String,
    },
    /// Nothing proves that the journal has every acknowledged record.
    #[error(
        "{witness} is {state}, so that nobody knows which record of journal {path} was acknowledged last; restore the whole data \
         directory from a backup, or, to go on with the journal's {records} records, run: {step}",
        path = path.display(), witness = witness.display()
    )]
    Unproven {
        /// The journal.
        path: PathBuf,
        /// How many records it has.
        records: u64,
        /// The file that should prove it.
        witness: PathBuf,
        /// `missing` or `damaged`.
        state: &'static str,
        /// The command that accepts what is there.
        step: String,
    },
    /// The journal is gone although this is no first start.
    #[error(
        "journal {path} is missing, but this control plane has run before; restore the whole data directory from a backup, or, \
         to begin with no objects, run: {step}",
        path = path.display()
    )]
    JournalMissing {
        /// Where it should be.
        path: PathBuf,
        /// The command that accepts what is there.
        step: String,
    },
    /// The database fails while running. The journal has the write.
    #[error("the store's database failed: {0}; restart to rebuild it from the journal")]
    Database(String),
    /// Another process has the store open.
    #[error("store {path} is in use by another process; stop it, or choose another --data-dir", path = .0.display())]
    InUse(PathBuf),
}

/// A refusal of the disk, with what can be done about it.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| {
        let hint = match cause.kind() {
            io::ErrorKind::StorageFull => "; free some space, nothing was changed",
            io::ErrorKind::ReadOnlyFilesystem => {
                "; mount the disk writable, or choose another --data-dir"
            }
            io::ErrorKind::PermissionDenied => {
                "; run as the owner of the data directory, or choose another --data-dir"
            }
            // What stands in the way is named, with what to do.
            io::ErrorKind::InvalidInput => "",
            _ => "; choose another --data-dir if this disk cannot be used",
        };
        StoreError::Io { action, path, hint, cause }
    }
}
