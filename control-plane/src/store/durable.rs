//! Journal and database together: the store that survives kill -9.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    path::Path,
    sync::Mutex,
};

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    DATABASE, Entry, Expect, Store, StoreError, StoreKey, check,
    journal::{Journal, Record},
    sled::{Contents, Database, in_use_or},
};

/// Objects on the disk.
pub struct Durable {
    state: Mutex<State>,
    /// Held for as long as the store is open, so that two processes never write one journal.
    _lock: File,
}

struct State {
    journal: Journal,
    database: Database,
    entries: BTreeMap<StoreKey, Entry>,
}

/// What had to be put right when the store was opened; say it to the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recovery {
    /// Nothing.
    Clean,
    /// The journal's last line was incomplete and was dropped: a write that nobody was told of.
    TornTail,
    /// The database was rebuilt from the journal, for this reason.
    Rebuilt(String),
}

const POISONED: &str = "no code panics while it holds this lock";

impl Durable {
    /// Opens or makes the store in `dir`.
    ///
    /// # Errors
    /// The directory cannot be used, another process has it, the journal is damaged before its last record, or it lacks records
    /// that the database proves. A damaged, lagging or missing database is not an error: it is rebuilt, unless the journal
    /// is empty too. On an error nothing in either was changed.
    pub fn open(dir: &Path) -> Result<(Self, Recovery), StoreError> {
        let io = |action| {
            move |source| StoreError::Io { action, path: dir.to_owned(), hint: "; choose another --data-dir", source }
        };
        fs::create_dir_all(dir).map_err(io("make"))?;
        let lock = lock(dir)?;
        let (journal_path, database_path) = (dir.join("journal"), dir.join(DATABASE));
        let journal_is_new = !journal_path.exists();
        let (mut journal, mut replay) = Journal::open(&journal_path)?;
        let indexed = database_path.exists();
        let opened = if indexed { Database::open(&database_path) } else { Err("it is missing".to_owned()) };
        if let Err(reason) = &opened
            && let error @ StoreError::InUse(_) = in_use_or(&database_path, reason.clone())
        {
            return Err(error);
        }
        let proof = Proof { journal: &journal_path, database: &database_path, journal_is_new, indexed };
        if let Err(error) = proof.check(&replay.records, opened.as_ref().map(|(_, contents)| contents)) {
            if journal_is_new {
                // The empty file that was just made must not make the next start look like a damaged one.
                let _ = fs::remove_file(&journal_path);
            }
            return Err(error);
        }
        journal.drop_tail()?;
        if let Ok((_, contents)) = &opened {
            restore_tail(&mut journal, &mut replay.records, contents)?;
        }
        let entries = fold(&replay.records);
        let applied = journal.next_seq() - 1;
        let last = replay.records.last().map(text);
        let (database, recovery) = match opened {
            Ok((database, contents)) if contents.applied == applied && contents.entries == entries => {
                (database, Recovery::Clean)
            }
            found => {
                let reason = match found {
                    Ok((database, contents)) => {
                        drop(database);
                        format!("it is at record {} and the journal at {applied}", contents.applied)
                    }
                    Err(reason) => reason,
                };
                (Database::rebuild(&database_path, &entries, applied, last.as_deref())?, Recovery::Rebuilt(reason))
            }
        };
        let recovery = match recovery {
            Recovery::Rebuilt(_) if journal_is_new => Recovery::Clean,
            Recovery::Clean if replay.torn_tail => Recovery::TornTail,
            other => other,
        };
        Ok((Self { state: Mutex::new(State { journal, database, entries }), _lock: lock }, recovery))
    }

    /// Whether `dir` holds, or ever held, a store: then a missing certificate authority must not be made anew.
    pub fn existed(dir: &Path) -> bool {
        ["journal", DATABASE].iter().any(|name| dir.join(name).exists())
    }
}

/// What a journal must hold, as far as the database knows.
struct Proof<'a> {
    journal: &'a Path,
    database: &'a Path,
    journal_is_new: bool,
    /// Whether there is a database at all.
    indexed: bool,
}

impl Proof<'_> {
    /// Refuses a journal that lacks acknowledged records; one that lacks only the last gets it back from the database.
    fn check(&self, records: &[Record], found: Result<&Contents, &String>) -> Result<(), StoreError> {
        let (path, database) = (self.journal.to_owned(), self.database.to_owned());
        let written = records.len() as u64;
        match found {
            Ok(contents) if self.journal_is_new && contents.applied > 0 => {
                Err(StoreError::JournalMissing { path, entries: contents.entries.len(), database })
            }
            Ok(contents) if contents.applied > written + u64::from(gives_back(contents, written)) => {
                Err(StoreError::JournalShort { path, records: written, applied: contents.applied, database })
            }
            Err(reason) if self.indexed && records.is_empty() => {
                let state = if self.journal_is_new { "missing" } else { "empty" };
                Err(StoreError::Unknown { path, state, database, reason: reason.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// Whether the database has the record that would follow.
fn gives_back(contents: &Contents, written: u64) -> bool {
    let last = contents.last.as_deref().and_then(|text| serde_json::from_slice::<Record>(text).ok());
    last.is_some_and(|record| record.seq == written + 1)
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let io =
        |source| StoreError::Io { action: "lock", path: path.clone(), hint: "; choose another --data-dir", source };
    let file = File::create(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// A record that the database has and the journal's torn tail has lost was acknowledged: put it back.
fn restore_tail(journal: &mut Journal, records: &mut Vec<Record>, contents: &Contents) -> Result<(), StoreError> {
    let Some(record) = contents.last.as_deref().and_then(|t| serde_json::from_slice::<Record>(t).ok()) else {
        return Ok(());
    };
    if contents.applied == record.seq && record.seq == journal.next_seq() {
        journal.append(&record)?;
        records.push(record);
    }
    Ok(())
}

fn fold(records: &[Record]) -> BTreeMap<StoreKey, Entry> {
    let mut entries = BTreeMap::new();
    for record in records {
        match &record.value {
            Some(value) => {
                let entry = Entry { key: record.key.clone(), revision: record.seq, value: value.clone() };
                entries.insert(record.key.clone(), entry);
            }
            None => drop(entries.remove(&record.key)),
        }
    }
    entries
}

fn text(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record is plain JSON")
}

impl State {
    fn write(&mut self, key: &StoreKey, value: Option<Value>, who: &str) -> Result<u64, StoreError> {
        let at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let seq = self.journal.next_seq();
        let record = Record { seq, at, who: who.to_owned(), key: key.clone(), value };
        self.journal.append(&record)?;
        let entry = record.value.clone().map(|value| Entry { key: key.clone(), revision: seq, value });
        // The write is durable now, so it stands even if the index fails: the next start rebuilds it.
        let indexed = self.database.apply(key, entry.as_ref(), seq, &text(&record));
        match entry {
            Some(entry) => drop(self.entries.insert(key.clone(), entry)),
            None => drop(self.entries.remove(key)),
        }
        if let Err(error) = indexed {
            tracing::error!(%error, "the journal has the write; the index will be rebuilt at the next start");
        }
        Ok(seq)
    }
}

impl Store for Durable {
    fn list(&self) -> Vec<Entry> {
        self.state.lock().expect(POISONED).entries.values().cloned().collect()
    }

    fn get(&self, key: &StoreKey) -> Option<Entry> {
        self.state.lock().expect(POISONED).entries.get(key).cloned()
    }

    fn put(&self, key: &StoreKey, value: Value, expect: Expect, who: &str) -> Result<u64, StoreError> {
        let mut state = self.state.lock().expect(POISONED);
        check(key, expect, state.entries.get(key).map(|e| e.revision))?;
        state.write(key, Some(value), who)
    }

    fn delete(&self, key: &StoreKey, expect: Expect, who: &str) -> Result<u64, StoreError> {
        let mut state = self.state.lock().expect(POISONED);
        let found = state.entries.get(key).map(|e| e.revision).ok_or_else(|| StoreError::NotFound(key.clone()))?;
        check(key, expect, Some(found))?;
        state.write(key, None, who)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn filled() -> (tempfile::TempDir, Vec<Entry>) {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, recovery) = Durable::open(dir.path()).expect("a new store");
        assert_eq!(recovery, Recovery::Clean);
        for i in 0..40 {
            let key = StoreKey::new("Service", "shop", &format!("s{}", i % 25));
            store.put(&key, json!({ "i": i, "text": "x".repeat(300) }), Expect::Any, "test").expect("a write");
        }
        store.delete(&StoreKey::new("Service", "shop", "s3"), Expect::Any, "test").expect("a deletion");
        let list = store.list();
        (dir, list)
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").path()) {
            if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
        }
        found
    }

    fn survives(what: &str, damage: impl Fn(&Path)) {
        let (dir, before) = filled();
        damage(&dir.path().join("objects.sled"));
        let (store, recovery) = Durable::open(dir.path()).expect(what);
        assert!(matches!(recovery, Recovery::Rebuilt(_)), "{what}: {recovery:?}");
        assert_eq!(store.list(), before, "{what}");
    }

    #[test]
    fn a_database_deleted_cut_or_damaged_is_rebuilt_without_loss() {
        survives("deleted", |db| fs::remove_dir_all(db).expect("removing"));
        survives("cut in half", |db| {
            for file in files(db) {
                let bytes = fs::read(&file).expect("reading");
                fs::write(&file, &bytes[..bytes.len() / 2]).expect("cutting");
            }
        });
        survives("flipped bytes", |db| {
            for file in files(db) {
                let mut bytes = fs::read(&file).expect("reading");
                bytes.iter_mut().step_by(97).for_each(|b| *b ^= 0x5a);
                fs::write(&file, &bytes).expect("damaging");
            }
        });
    }

    #[test]
    fn a_store_opened_again_is_the_same() {
        let (dir, before) = filled();
        let (store, recovery) = Durable::open(dir.path()).expect("the store");
        assert_eq!((store.list(), recovery), (before, Recovery::Clean));
    }

    #[test]
    fn an_acknowledged_write_survives_a_torn_tail_through_the_database() {
        let (dir, before) = filled();
        let journal = dir.path().join("journal");
        let bytes = fs::read(&journal).expect("the journal");
        fs::write(&journal, &bytes[..bytes.len() - 5]).expect("cutting");
        let (store, _) = Durable::open(dir.path()).expect("the store");
        assert_eq!(store.list(), before);
    }

    #[test]
    fn a_journal_cut_to_nothing_or_at_a_record_is_refused_untouched() {
        let (dir, before) = filled();
        let journal = dir.path().join("journal");
        let whole = fs::read(&journal).expect("the journal");
        let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
        for cut in [0, 7, ends[0], ends[20], ends[38], ends[38] + 11] {
            fs::write(&journal, &whole[..cut]).expect("cutting");
            for _ in 0..2 {
                let error = Durable::open(dir.path()).map(|_| ()).expect_err("refused");
                assert!(matches!(error, StoreError::JournalShort { applied: 41, .. }), "{cut}: {error}");
            }
            assert_eq!(fs::read(&journal).expect("the journal").len(), cut, "a backup may still be compared with it");
        }
        fs::write(&journal, &whole).expect("restoring");
        assert_eq!(Durable::open(dir.path()).expect("restored").0.list(), before);
    }

    #[test]
    fn an_empty_journal_beside_an_unreadable_database_is_refused() {
        for remove in [true, false] {
            let (dir, _) = filled();
            let journal = dir.path().join("journal");
            if remove { fs::remove_file(&journal) } else { fs::write(&journal, "") }.expect("emptying");
            for file in files(&dir.path().join("objects.sled")) {
                fs::write(&file, "not a database").expect("damaging");
            }
            let error = Durable::open(dir.path()).map(|_| ()).expect_err("refused");
            assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
        }
    }

    /// What may happen to a file, or to two.
    #[derive(Clone, Debug)]
    enum Damage {
        Cut(usize),
        Zero(usize, usize),
        Flip(usize, u8),
        Remove,
        Swap(usize),
        /// It is what it was some writes ago.
        Old,
    }

    fn damage() -> impl Strategy<Value = Damage> {
        let at = 0..100_000_usize;
        prop_oneof![
            at.clone().prop_map(Damage::Cut),
            (at.clone(), 1..5_000_usize).prop_map(|(at, length)| Damage::Zero(at, length)),
            (at, 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
            Just(Damage::Remove),
            (0..8_usize).prop_map(Damage::Swap),
            Just(Damage::Old),
        ]
    }

    /// Does it to the file with this number; the journal is number 0.
    fn inflict(dir: &Path, old: &Path, number: usize, damage: &Damage) {
        let all = |dir: &Path| {
            let mut all = vec![dir.join("journal")];
            let mut index = files(&dir.join("objects.sled"));
            index.sort();
            all.extend(index);
            all
        };
        let all_files = all(dir);
        let path = &all_files[number % all_files.len()];
        let mut bytes = fs::read(path).expect("a file");
        match *damage {
            Damage::Remove => return fs::remove_file(path).expect("removing"),
            Damage::Swap(other) => {
                let other = &all_files[other % all_files.len()];
                let theirs = fs::read(other).expect("a file");
                fs::write(other, &bytes).expect("swapping");
                bytes = theirs;
            }
            Damage::Old => {
                let relative = path.strip_prefix(dir).expect("in it");
                bytes = fs::read(old.join(relative)).unwrap_or_default();
            }
            Damage::Cut(at) => bytes.truncate(at % (bytes.len() + 1)),
            Damage::Zero(at, length) => {
                let at = at % (bytes.len() + 1);
                bytes[at..].iter_mut().take(length).for_each(|b| *b = 0);
            }
            Damage::Flip(at, bit) if !bytes.is_empty() => {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
            }
            Damage::Flip(..) => {}
        }
        fs::write(path, bytes).expect("damaging");
    }

    fn copy(from: &Path, to: &Path) {
        for file in files(from) {
            let target = to.join(file.strip_prefix(from).expect("in it"));
            fs::create_dir_all(target.parent().expect("a parent")).expect("a directory");
            fs::copy(&file, &target).expect("a copy");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn damage_to_a_file_loses_no_write_or_is_refused_with_the_way_back(
            number in prop_oneof![Just(0_usize), 0..8_usize],
            damage in damage(),
        ) {
            let (dir, old) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
            let write = |range: std::ops::Range<u64>| {
                let (store, _) = Durable::open(dir.path()).expect("the store");
                for i in range {
                    let key = StoreKey::new("Service", "shop", &format!("s{}", i % 7));
                    store.put(&key, json!({ "i": i, "text": "x".repeat(300) }), Expect::Any, "test").expect("a write");
                }
                store.list()
            };
            write(0..12);
            copy(dir.path(), old.path());
            let before = write(12..20);
            inflict(dir.path(), old.path(), number, &damage);
            match Durable::open(dir.path()) {
                Ok((store, _)) => prop_assert_eq!(store.list(), before),
                Err(error) => prop_assert!(error.to_string().contains("restore"), "{}", error),
            }
        }
    }

    #[test]
    fn a_missing_journal_is_refused_while_the_database_has_data() {
        let (dir, _) = filled();
        fs::remove_file(dir.path().join("journal")).expect("removing");
        for _ in 0..2 {
            let error = Durable::open(dir.path()).map(|_| ()).expect_err("refused");
            assert!(matches!(error, StoreError::JournalMissing { entries: 24, .. }), "{error}");
        }
    }

    #[test]
    fn a_second_process_is_told_that_the_store_is_in_use() {
        let (dir, _) = filled();
        let _first = Durable::open(dir.path()).expect("the store");
        assert!(matches!(Durable::open(dir.path()).map(|_| ()), Err(StoreError::InUse(_))));
    }
}
