//! The embedded database: an index of the journal's state. The only file that names sled.
//!
//! sled 0.34 keeps no promise when its files are damaged: cut in half it opens empty, with flipped
//! bytes it panics. So every use is guarded, and whatever looks wrong is thrown away and filled
//! again from the journal.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use ferromesh_cert_authority::{
    files,
    lock::{SURELY, is_held_by_database, take_soon, until_let_go},
};

use super::{
    entry::Entry,
    error::{StoreError, failed},
    key::StoreKey,
};

/// An open database.
pub(super) struct Database {
    db: sled::Db,
    entries: sled::Tree,
}

/// The file that an open database holds a lock on.
const LOCKED: &str = "db";
const APPLIED: &[u8] = b"applied";
const LAST: &[u8] = b"last";

/// What a database says of itself.
pub(super) struct Contents {
    /// Sequence number of the last record that was put in; `None`: it says none, as one that was
    /// emptied does.
    pub(super) applied: Option<u64>,
    /// That record's own text, so that a journal with a torn tail gets it back.
    pub(super) last: Option<Vec<u8>>,
    /// Every object.
    pub(super) entries: BTreeMap<StoreKey, Entry>,
}

impl Database {
    /// Opens the database and reads it whole; the reason when it is unusable.
    pub(super) fn open(path: &Path) -> Result<(Self, Contents), String> {
        files::only_regular(path).map_err(|error| error.to_string())?;
        let opened = guarded(|| {
            let db = open_unlocked(path)?;
            let entries = db.open_tree("objects")?;
            let mut contents = Contents { applied: None, last: None, entries: BTreeMap::new() };
            if let Some(bytes) = db.get(APPLIED)? {
                let applied = bytes.as_ref().try_into().map(u64::from_be_bytes);
                contents.applied = Some(applied.unwrap_or(u64::MAX));
            }
            contents.last = db.get(LAST)?.map(|b| b.to_vec());
            for item in &entries {
                let (_, bytes) = item?;
                let entry: Entry = serde_json::from_slice(&bytes)
                    .map_err(|e| sled::Error::Unsupported(e.to_string()))?;
                contents.entries.insert(entry.key.clone(), entry);
            }
            Ok((Self { db, entries }, contents))
        })?;
        keep_private(path);
        Ok(opened)
    }

    /// Closes the database at `path` and waits until its threads have let go of its files: until
    /// then they may write to them, and to others in their folder.
    pub(super) fn close(self, path: &Path) {
        drop(self);
        until_let_go(&path.join(LOCKED));
    }

    /// Throws away what is at `path` and fills a new database.
    pub(super) fn rebuild(
        path: &Path,
        entries: &BTreeMap<StoreKey, Entry>,
        applied: u64,
        last: Option<&[u8]>,
    ) -> Result<Self, StoreError> {
        clear(path).map_err(failed("remove", path))?;
        fs::DirBuilder::new().mode(0o700).create(path).map_err(failed("make", path))?;
        let (database, _) = Self::open(path).map_err(|reason| in_use_or(path, reason))?;
        guarded(|| {
            for entry in entries.values() {
                database.entries.insert(entry.key.0.as_bytes(), text(entry))?;
            }
            database.mark(applied, last)?;
            database.db.flush()?;
            Ok(())
        })
        .map_err(StoreError::Database)?;
        Ok(database)
    }

    /// Applies one record.
    pub(super) fn apply(
        &self,
        key: &StoreKey,
        entry: Option<&Entry>,
        seq: u64,
        record: &[u8],
    ) -> Result<(), StoreError> {
        guarded(|| {
            match entry {
                Some(entry) => self.entries.insert(key.0.as_bytes(), text(entry))?,
                None => self.entries.remove(key.0.as_bytes())?,
            };
            self.mark(seq, Some(record))
        })
        .map_err(StoreError::Database)
    }

    fn mark(&self, applied: u64, last: Option<&[u8]>) -> sled::Result<()> {
        if let Some(last) = last {
            self.db.insert(LAST, last)?;
        }
        self.db.insert(APPLIED, &applied.to_be_bytes())?;
        Ok(())
    }
}

/// Removes whatever is at `path`; what a link leads to stays.
pub(super) fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Others have no rights to the files, which sled makes with those of any file.
fn keep_private(path: &Path) {
    let files = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    for file in files.chain([path.to_owned()]) {
        let _ = files::take_rights(&file);
    }
}

/// Opens the files. A database that was just dropped in this process lets go of its lock a moment
/// later, from a thread of its own; other processes are kept out by the store's own lock.
fn open_unlocked(path: &Path) -> sled::Result<sled::Db> {
    take_soon(
        SURELY,
        || sled::Config::new().path(path).cache_capacity(8 << 20).open(),
        |error| is_held_by_database(&error.to_string()),
    )
}

fn text(entry: &Entry) -> Vec<u8> {
    serde_json::to_vec(entry).expect("an entry is plain JSON")
}

fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it panicked".to_owned()),
    }
}

/// The error of a database that another process has open, or else fails for this reason.
pub(super) fn in_use_or(path: &Path, reason: String) -> StoreError {
    if is_held_by_database(&reason) {
        StoreError::InUse(PathBuf::from(path))
    } else {
        StoreError::Database(reason)
    }
}
