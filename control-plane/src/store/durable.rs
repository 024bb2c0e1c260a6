//! Journal and database together: the store that survives kill -9.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, RwLock, RwLockReadGuard},
};

use ferromesh_cert_authority::{
    files,
    lock::{SOON, take_soon},
};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    acknowledged::{self, Acknowledged},
    entry::{Entry, Expect, Store, check},
    error::{DATABASE, StoreError, failed},
    identity::{self, Generation},
    journal::{Journal, Record, Redacted},
    key::StoreKey,
    opening::{Opening, Recovery},
    proof::{Proof, fold},
    settled::settled,
    sled::{Contents, Database, clear, in_use_or},
};

/// Objects on the disk.
pub struct Durable {
    /// Held while somebody waits for the disk.
    files: Mutex<Files>,
    /// What was acknowledged; changed by whoever holds the files, and never held while the disk is
    /// waited for: who reads must not wait for one that is slow, or hangs.
    entries: RwLock<BTreeMap<StoreKey, Entry>>,
    /// Which store it is.
    identity: String,
    /// Held for as long as the store is open, so that two processes never write one journal.
    _lock: File,
}

struct Files {
    journal: Journal,
    acknowledged: Acknowledged,
    /// `None`: it could not be made again; the next start does that.
    database: Option<Database>,
    database_path: PathBuf,
}

const POISONED: &str = "no code panics while it holds this lock";

impl Durable {
    /// Opens a store, with what had to be put right; makes what is missing only where what is there
    /// is accepted to be all.
    ///
    /// # Errors
    /// The directory cannot be used, another process has it, the journal is damaged, missing,
    /// another one than what is known, or not proved to hold every record that was acknowledged. A
    /// damaged, lagging or missing database is not an error: it is rebuilt. On an error neither
    /// journal nor database was changed.
    pub fn open(opening: &Opening<'_>) -> Result<(Self, Vec<Recovery>), StoreError> {
        let Opening { dir, mark, accept, .. } = *opening;
        make_private(dir)?;
        let lock = lock(dir)?;
        let (journal_file, database_file) = (dir.join("journal"), dir.join(DATABASE));
        let (mut journal, mut replay) = Journal::open(&journal_file, accept)?;
        let named = identity::read(dir)?;
        let found = acknowledged::read(mark)?;
        let index = open_index(&database_file)?;
        let mut recovery = Vec::new();
        let mut given_back = None;
        if !accept.stands() {
            let contents = index.as_ref().ok().map(|(_, contents)| contents);
            let proof = Proof { opening, journal: &journal, replay: &replay, index: contents };
            let proved = proof.check(found, named.as_deref())?;
            recovery.extend(proved.recovery);
            given_back = proved.given_back;
        }
        journal.drop_tail()?;
        if let Some((record, text)) = given_back {
            journal.append(&text)?;
            replay.records.push(record);
            recovery.push(Recovery::GivenBack);
        } else {
            recovery.extend(replay.torn_tail.then_some(Recovery::TornTail));
        }
        let acknowledged = Acknowledged::open(mark, found, journal.last())?;
        acknowledged::forget_former(dir)?;
        let entries = fold(&replay.records);
        let (database, rebuilt) = settle_index(index, &database_file, &replay.records, &entries)?;
        recovery.extend(rebuilt.filter(|_| !replay.records.is_empty()).map(Recovery::Rebuilt));
        let identity = named.map_or_else(|| identity::make(dir), Ok)?;
        let database = Some(database);
        let files = Files { journal, acknowledged, database, database_path: database_file };
        let (files, entries) = (Mutex::new(files), RwLock::new(entries));
        Ok((Self { files, entries, identity, _lock: lock }, recovery))
    }

    /// What it holds now at least, for a witness elsewhere.
    ///
    /// # Panics
    /// Never: no code panics while it holds the lock.
    pub fn generation(&self) -> Generation {
        let last = self.files.lock().expect(POISONED).journal.last();
        Generation::new(&self.identity, last)
    }

    /// Leaves of records that are not in force any more what `readable` says, where it says
    /// anything, and returns which objects they were about. Every record keeps its number and its
    /// hash.
    ///
    /// # Errors
    /// The disk refuses; then the records are as they were.
    ///
    /// # Panics
    /// Never: no code panics while it holds the lock.
    pub fn redact(
        &self,
        readable: impl Fn(&Value) -> Option<Value>,
    ) -> Result<BTreeSet<StoreKey>, StoreError> {
        let mut files = self.files.lock().expect(POISONED);
        let entries = self.entries().clone();
        let in_force = |r: &Record| entries.get(&r.key).is_some_and(|e| e.revision == r.seq);
        let redacted = files.journal.redacted(|record| {
            record.value.as_ref().filter(|_| !in_force(record)).and_then(&readable)
        })?;
        if !redacted.keys.is_empty() {
            files.replace_history(&redacted, &entries)?;
        }
        Ok(redacted.keys)
    }

    fn entries(&self) -> RwLockReadGuard<'_, BTreeMap<StoreKey, Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(
        &self,
        files: &mut Files,
        key: &StoreKey,
        value: Option<Value>,
        who: &str,
    ) -> Result<u64, StoreError> {
        let seq = files.journal.last().seq + 1;
        let (record, text) = settled(Record {
            seq,
            at: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            who: who.to_owned(),
            key: key.clone(),
            value,
        })?;
        let before = files.journal.append(&text)?;
        if let Err(error) = files.acknowledged.advance(files.journal.last()) {
            files.journal.take_back(before);
            return Err(error);
        }
        let entry = record.value.map(|value| Entry { key: key.clone(), revision: seq, value });
        // The write is durable now, so it stands even if the index fails: the next start rebuilds
        // it.
        let database = files.database.as_ref();
        let indexed = database.map_or(Ok(()), |db| db.apply(key, entry.as_ref(), seq, &text));
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        match entry {
            Some(entry) => drop(entries.insert(key.clone(), entry)),
            None => drop(entries.remove(key)),
        }
        drop(entries);
        if let Err(error) = indexed {
            tracing::error!(%error, "the journal has the write; the index will be rebuilt at the next start");
        }
        Ok(seq)
    }
}

type Index = Result<(Database, Contents), String>;

/// The database as it is, or why it cannot be used.
fn open_index(path: &Path) -> Result<Index, StoreError> {
    if !path.exists() {
        return Ok(Err("it is missing".to_owned()));
    }
    let opened = Database::open(path);
    if let Err(reason) = &opened
        && let error @ StoreError::InUse(_) = in_use_or(path, reason.clone())
    {
        return Err(error);
    }
    Ok(opened)
}

/// A database that says what the journal says, and why it had to be rebuilt for that.
fn settle_index(
    index: Index,
    path: &Path,
    records: &[Record],
    entries: &BTreeMap<StoreKey, Entry>,
) -> Result<(Database, Option<String>), StoreError> {
    let applied = records.len() as u64;
    let reason = match index {
        Ok((database, contents))
            if contents.applied == Some(applied) && contents.entries == *entries =>
        {
            return Ok((database, None));
        }
        Ok((database, contents)) => {
            database.close(path);
            if contents.applied == Some(applied) {
                "its objects are not its own".to_owned()
            } else {
                let at = contents.applied.unwrap_or_default();
                format!("it is at record {at} and the journal at {applied}")
            }
        }
        Err(reason) => reason,
    };
    let last = records.last().map(Record::text);
    Ok((Database::rebuild(path, entries, applied, last.as_deref())?, Some(reason)))
}

/// Makes the directory, and takes others' rights from one that is there.
fn make_private(dir: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make", dir))?;
    files::tighten(dir).map_err(failed("take others' rights to", dir))
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    // Never truncated: what is there may be another file by mistake.
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = files::open(&path, &mut options).map_err(failed("open", &path))?;
    let is_held = |error: &TryLockError| matches!(error, TryLockError::WouldBlock);
    match take_soon(SOON, || file.try_lock(), is_held) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
    }
}

impl Files {
    /// Puts the same records in the place of the journal's, of which some say less now. The
    /// database has among its files what it was told before, so it is thrown away first: one that
    /// is missing is made again at the next start.
    fn replace_history(
        &mut self,
        redacted: &Redacted,
        entries: &BTreeMap<StoreKey, Entry>,
    ) -> Result<(), StoreError> {
        self.close_database();
        let path = &self.database_path;
        clear(path).map_err(failed("remove", path))?;
        self.journal.replace(&redacted.lines)?;
        let applied = self.journal.last().seq;
        self.database = Some(Database::rebuild(path, entries, applied, redacted.last.as_deref())?);
        Ok(())
    }

    fn close_database(&mut self) {
        if let Some(database) = self.database.take() {
            database.close(&self.database_path);
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.close_database();
    }
}

impl Store for Durable {
    fn list(&self) -> Vec<Entry> {
        self.entries().values().cloned().collect()
    }

    fn get(&self, key: &StoreKey) -> Option<Entry> {
        self.entries().get(key).cloned()
    }

    fn put(
        &self,
        key: &StoreKey,
        value: Value,
        expect: Expect,
        who: &str,
    ) -> Result<u64, StoreError> {
        let mut files = self.files.lock().expect(POISONED);
        check(key, expect, self.revision(key))?;
        self.write(&mut files, key, Some(value), who)
    }

    fn delete(&self, key: &StoreKey, expect: Expect, who: &str) -> Result<u64, StoreError> {
        let mut files = self.files.lock().expect(POISONED);
        let found = self.revision(key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
        check(key, expect, Some(found))?;
        self.write(&mut files, key, None, who)
    }

    fn revision(&self, key: &StoreKey) -> Option<u64> {
        self.entries().get(key).map(|entry| entry.revision)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::store::AcceptState;

    /// Opens the store in a data directory as a control plane does that keeps nothing else there.
    fn open(data: &Path) -> Result<(Durable, Vec<Recovery>), StoreError> {
        let accept = AcceptState::at(data.join("accept-state"));
        // Something else that an earlier run left: the root, the token.
        let other = data.join("admin-token");
        accept.begin(std::slice::from_ref(&other)).expect("begun");
        fs::write(other, "").expect("made");
        let (dir, mark, witness) = (data.join("store"), mark(data), data.join("witness"));
        let known: Option<Generation> = fs::read(&witness)
            .ok()
            .map(|bytes| serde_json::from_slice(&bytes).expect("a generation"));
        let opening = Opening {
            dir: &dir,
            mark: &mark,
            witness: &witness,
            known: known.as_ref(),
            accept: &accept,
        };
        let opened = Durable::open(&opening)?;
        let seen = serde_json::to_vec(&opened.0.generation()).expect("plain JSON");
        fs::write(&witness, seen).expect("a witness");
        accept.end().expect("ended");
        Ok(opened)
    }

    fn mark(data: &Path) -> PathBuf {
        data.join("acknowledged")
    }

    /// Does the step that a refusal names, and opens the store again.
    fn go_on(data: &Path, error: &StoreError) -> (Durable, Vec<Recovery>) {
        let text = error.to_string();
        let step = text.split("run: ").nth(1).expect("a step");
        let done = std::process::Command::new("sh").args(["-c", step]).status().expect("a shell");
        assert!(done.success(), "{step}");
        open(data).expect("what is there is accepted")
    }

    fn put(store: &Durable, i: u64) {
        let key = StoreKey::new("Service", "shop", &format!("s{}", i % 7));
        let value = json!({ "i": i, "text": "x".repeat(300) });
        store.put(&key, value, Expect::Any, "test").expect("a write");
    }

    fn filled() -> (tempfile::TempDir, Vec<Entry>) {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, recovery) = open(dir.path()).expect("a new store");
        assert_eq!(recovery, []);
        for i in 0..40 {
            let key = StoreKey::new("Service", "shop", &format!("s{}", i % 25));
            store
                .put(&key, json!({ "i": i, "text": "x".repeat(300) }), Expect::Any, "test")
                .expect("a write");
        }
        store
            .delete(&StoreKey::new("Service", "shop", "s3"), Expect::Any, "test")
            .expect("a deletion");
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
        damage(&dir.path().join("store/objects.sled"));
        let (store, recovery) = open(dir.path()).expect(what);
        assert!(matches!(recovery[..], [Recovery::Rebuilt(_)]), "{what}: {recovery:?}");
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

    fn written(value: Value) -> (tempfile::TempDir, Result<u64, StoreError>, Vec<Entry>) {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, _) = open(dir.path()).expect("a new store");
        let key = StoreKey::new("Service", "shop", "any");
        let written = store.put(&key, value, Expect::Any, "test");
        let list = store.list();
        (dir, written, list)
    }

    #[test]
    fn what_would_not_be_read_back_is_refused_and_leaves_no_trace() {
        let deep = (0..200).fold(json!(1), |inner, _| json!({ "a": inner }));
        let raw = |text: &str| json!({ "status": { "$serde_json::private::RawValue": text } });
        for value in [deep, raw("["), raw("1"), raw("{}")] {
            let (dir, refused, list) = written(value);
            assert!(matches!(refused, Err(StoreError::Unstorable { .. })), "{refused:?}");
            assert_eq!((list, open(dir.path()).expect("it opens").0.list()), (vec![], vec![]));
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            Just(json!("\u{0}\u{7f}\u{2028}\u{fffd}\n\"")),
            Just(json!("x".repeat(70_000))),
        ];
        let key = prop_oneof![
            any::<String>(),
            Just(String::new()),
            Just("$serde_json::private::RawValue".to_owned()),
            Just("$serde_json::private::Number".to_owned()),
            Just("k".repeat(70_000)),
        ];
        leaf.prop_recursive(6, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_json_that_is_accepted_is_read_back_equal(value in any_json(), levels in 0..140_usize) {
            let deep = (0..levels).fold(value, |inner, _| json!([inner]));
            let (dir, _, list) = written(deep);
            let (again, recovery) = open(dir.path()).expect("it opens");
            prop_assert_eq!((again.list(), recovery), (list, vec![]));
        }
    }

    #[test]
    fn a_store_opened_again_is_the_same() {
        let (dir, before) = filled();
        let (store, recovery) = open(dir.path()).expect("the store");
        assert_eq!((store.list(), recovery), (before, vec![]));
    }

    #[test]
    fn an_acknowledged_write_survives_a_torn_tail_through_the_database() {
        let (dir, before) = filled();
        let journal = dir.path().join("store/journal");
        let bytes = fs::read(&journal).expect("the journal");
        fs::write(&journal, &bytes[..bytes.len() - 5]).expect("cutting");
        let (store, recovery) = open(dir.path()).expect("the store");
        assert_eq!((store.list(), recovery), (before, vec![Recovery::GivenBack]));
    }

    #[test]
    fn a_journal_cut_to_nothing_or_at_a_record_is_refused_untouched() {
        let (dir, before) = filled();
        let journal = dir.path().join("store/journal");
        let whole = fs::read(&journal).expect("the journal");
        let ends: Vec<usize> =
            whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
        for cut in [0, 7, ends[0], ends[20], ends[38], ends[38] + 11] {
            fs::write(&journal, &whole[..cut]).expect("cutting");
            for _ in 0..2 {
                let error = open(dir.path()).map(|_| ()).expect_err("refused");
                assert!(
                    matches!(error, StoreError::JournalShort { applied: 41, .. }),
                    "{cut}: {error}"
                );
            }
            assert_eq!(
                fs::read(&journal).expect("the journal").len(),
                cut,
                "a backup may still be compared with it"
            );
        }
        fs::write(&journal, &whole).expect("restoring");
        assert_eq!(open(dir.path()).expect("restored").0.list(), before);
    }

    /// What a tester did to the files of a store, and whether everything came back.
    #[test]
    fn whatever_is_lost_beside_other_state_is_refused_with_a_step_that_works() {
        type Damage = (&'static str, fn(&Path));
        let table: [Damage; 11] = [
            ("all", |s| fs::remove_dir_all(s).expect("removing")),
            ("an empty directory", |s| {
                fs::remove_dir_all(s).expect("removing");
                fs::create_dir(s).expect("a mount point");
            }),
            ("journal and index", |s| {
                fs::remove_file(s.join("journal")).expect("removing");
                fs::remove_dir_all(s.join("objects.sled")).expect("removing");
            }),
            ("both empty", |s| {
                fs::write(s.join("journal"), "").expect("emptying");
                fs::write(s.join("objects.sled/db"), "").expect("emptying");
            }),
            ("journal gone, index empty", |s| {
                fs::remove_file(s.join("journal")).expect("removing");
                fs::write(s.join("objects.sled/db"), "").expect("emptying");
            }),
            ("journal empty, index gone", |s| {
                fs::write(s.join("journal"), "").expect("emptying");
                fs::remove_dir_all(s.join("objects.sled")).expect("removing");
            }),
            ("journal empty, index emptied", |s| {
                fs::write(s.join("journal"), "").expect("emptying");
                fs::remove_dir_all(s.join("objects.sled")).expect("removing");
                fs::create_dir(s.join("objects.sled")).expect("a directory");
            }),
            ("cut in the middle, index gone", |s| {
                let journal = s.join("journal");
                let bytes = fs::read(&journal).expect("the journal");
                fs::write(&journal, &bytes[..bytes.len() / 2]).expect("cutting");
                fs::remove_dir_all(s.join("objects.sled")).expect("removing");
            }),
            ("zeroes to the end, index gone", |s| {
                let journal = s.join("journal");
                let mut bytes = fs::read(&journal).expect("the journal");
                let middle = bytes.len() / 2;
                bytes[middle..].fill(0);
                fs::write(&journal, &bytes).expect("damaging");
                fs::remove_dir_all(s.join("objects.sled")).expect("removing");
            }),
            ("cut at a record, index empty", |s| {
                let journal = s.join("journal");
                let bytes = fs::read(&journal).expect("the journal");
                let end = bytes[..bytes.len() - 1].iter().rposition(|b| *b == b'\n');
                fs::write(&journal, &bytes[..=end.expect("lines")]).expect("cutting");
                fs::write(s.join("objects.sled/db"), "").expect("emptying");
            }),
            ("mark and index", |s| {
                fs::remove_file(s.with_file_name("acknowledged")).expect("removing");
                fs::remove_dir_all(s.join("objects.sled")).expect("removing");
            }),
        ];
        for (what, damage) in table {
            let (dir, before) = filled();
            damage(&dir.path().join("store"));
            for _ in 0..2 {
                let error = open(dir.path()).map(|_| ()).expect_err(what);
                assert!(error.to_string().contains("restore"), "{what}: {error}");
            }
            let error = open(dir.path()).map(|_| ()).expect_err(what);
            let left = go_on(dir.path(), &error).0.list();
            let is_old = |entry: &Entry| entry.value["text"] == before[0].value["text"];
            assert!(left.len() <= 25 && left.iter().all(is_old), "{what}");
            // It holds from then on.
            put(&open(dir.path()).expect(what).0, 1);
            assert!(open(dir.path()).is_ok(), "{what}");
        }
    }

    #[test]
    fn a_lost_mark_is_made_again_where_the_database_proves_the_journal() {
        for damage in [None, Some("")] {
            let (dir, before) = filled();
            let mark = mark(dir.path());
            match damage {
                None => fs::remove_file(&mark).expect("removing"),
                Some(text) => fs::write(&mark, text).expect("damaging"),
            }
            let (store, recovery) = open(dir.path()).expect("proved");
            assert_eq!((store.list(), recovery), (before.clone(), vec![Recovery::Proven]));
            drop(store);
            assert_eq!(open(dir.path()).expect("the store").1, []);
        }
    }

    #[test]
    fn a_write_that_was_cut_off_is_dropped_and_said_even_when_the_index_is_rebuilt() {
        let (dir, before) = filled();
        let journal = dir.path().join("store/journal");
        let mut bytes = fs::read(&journal).expect("the journal");
        bytes.extend_from_slice(b"0123456789abcdef0123456789abcdef {\"seq\":42,");
        fs::write(&journal, &bytes).expect("half a line");
        fs::remove_dir_all(dir.path().join("store/objects.sled")).expect("removing");
        let (store, recovery) = open(dir.path()).expect("the store");
        assert_eq!(store.list(), before);
        assert!(matches!(recovery[..], [Recovery::TornTail, Recovery::Rebuilt(_)]), "{recovery:?}");
    }

    #[test]
    fn another_journal_than_the_acknowledged_one_is_refused() {
        let ((dir, _), (other, _)) = (filled(), filled());
        let journal = |dir: &tempfile::TempDir| dir.path().join("store/journal");
        fs::copy(journal(&other), journal(&dir)).expect("a copy");
        let error = open(dir.path()).map(|_| ()).expect_err("refused");
        assert!(matches!(error, StoreError::JournalForeign { .. }), "{error}");
    }

    /// Puts parts of a data directory in the place of those of another.
    fn swap_in(parts: &[&str], from: &Path, to: &Path) {
        for part in parts {
            let (old, new) = (from.join(part), to.join(part));
            if new.is_dir() { fs::remove_dir_all(&new) } else { fs::remove_file(&new) }
                .expect("removing");
            if old.is_dir() {
                copy(&old, &new);
            } else {
                fs::copy(&old, &new).expect("a copy");
            }
        }
    }

    #[test]
    fn a_part_of_another_mesh_is_refused_however_few_records_it_has() {
        for records in [0, 1, 9] {
            let (dir, other) =
                (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("another"));
            drop(open(dir.path()).expect("a new store"));
            let (store, _) = open(other.path()).expect("a new store");
            (0..records).for_each(|i| put(&store, i));
            drop(store);
            for parts in [&["store"][..], &["store", "acknowledged"]] {
                swap_in(parts, other.path(), dir.path());
                let error = open(dir.path()).map(|_| ()).expect_err("refused");
                assert!(matches!(error, StoreError::Foreign { .. }), "{records}: {error}");
            }
            let error = open(dir.path()).map(|_| ()).expect_err("refused");
            assert_eq!(go_on(dir.path(), &error).0.list().len() as u64, records.min(7));
        }
    }

    #[test]
    fn a_part_from_another_moment_is_refused() {
        let (dir, old) = (
            tempfile::tempdir().expect("a directory"),
            tempfile::tempdir().expect("another directory"),
        );
        let write = |range: std::ops::Range<u64>| {
            let (store, _) = open(dir.path()).expect("the store");
            range.for_each(|i| put(&store, i));
        };
        write(0..1);
        copy(dir.path(), old.path());
        write(1..9);
        let newest = tempfile::tempdir().expect("a third directory");
        copy(dir.path(), newest.path());
        type Is = fn(&StoreError) -> bool;
        let short: Is = |error| matches!(error, StoreError::JournalShort { .. });
        let behind: Is = |error| matches!(error, StoreError::MarkBehind { .. });
        for (part, is) in [("store", short), ("acknowledged", behind)] {
            swap_in(&[part], old.path(), dir.path());
            let error = open(dir.path()).map(|_| ()).expect_err(part);
            assert!(is(&error), "{part}: {error}");
            swap_in(&[part], newest.path(), dir.path());
        }
        // Both are not older than what was seen at the last start, until another start sees them.
        drop(open(dir.path()).expect("all of one moment"));
        swap_in(&["store", "acknowledged"], old.path(), dir.path());
        let error = open(dir.path()).map(|_| ()).expect_err("older than the witness");
        assert!(short(&error) && error.to_string().contains("witness"), "{error}");
    }

    /// What a control plane of the first version left: no mark, no number, no witness.
    fn of_the_first_version(data: &Path) {
        for part in ["acknowledged", "witness", "store/identity"] {
            fs::remove_file(data.join(part)).expect("removing");
        }
    }

    #[test]
    fn a_store_of_the_first_version_opens_as_it_did_there() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(dir.path()).expect("a new store"));
        of_the_first_version(dir.path());
        let (store, recovery) = open(dir.path()).expect("nothing was ever written");
        assert_eq!(recovery, [Recovery::Unmarked(0)]);
        put(&store, 0);
        drop(store);
        let index = dir.path().join("store/objects.sled");
        let lagging = tempfile::tempdir().expect("a directory");
        copy(&index, lagging.path());
        let (store, _) = open(dir.path()).expect("the store");
        (1..5).for_each(|i| put(&store, i));
        let before = store.list();
        drop(store);
        // kill -9 before the index was on the disk.
        of_the_first_version(dir.path());
        fs::remove_dir_all(&index).expect("removing");
        copy(lagging.path(), &index);
        let (store, recovery) = open(dir.path()).expect("the journal is ahead");
        assert_eq!(store.list(), before);
        assert!(
            matches!(recovery[..], [Recovery::Unmarked(4), Recovery::Rebuilt(_)]),
            "{recovery:?}"
        );
        drop(store);
        assert_eq!(open(dir.path()).expect("the store").1, [], "it is of this version now");
        of_the_first_version(dir.path());
        fs::write(dir.path().join("store/journal"), "").expect("emptying");
        let error = open(dir.path()).map(|_| ()).expect_err("the index knows of more");
        assert!(matches!(error, StoreError::JournalShort { applied: 5, .. }), "{error}");
        fs::write(index.join("db"), "").expect("emptying");
        let error = open(dir.path()).map(|_| ()).expect_err("nobody knows anything");
        assert!(matches!(error, StoreError::Unproven { .. }), "{error}");
        go_on(dir.path(), &error);
    }

    #[test]
    fn the_mark_of_a_former_version_counts_and_moves_out_of_the_store() {
        let (dir, before) = filled();
        let former = dir.path().join("store/acknowledged");
        fs::rename(mark(dir.path()), &former).expect("moving");
        fs::remove_file(dir.path().join("store/identity")).expect("removing");
        fs::remove_file(dir.path().join("witness")).expect("removing");
        let journal = dir.path().join("store/journal");
        let whole = fs::read(&journal).expect("the journal");
        fs::write(&journal, &whole[..whole.len() / 2]).expect("cutting");
        fs::remove_dir_all(dir.path().join("store/objects.sled")).expect("removing");
        let error = open(dir.path()).map(|_| ()).expect_err("refused");
        assert!(matches!(error, StoreError::JournalShort { applied: 41, .. }), "{error}");
        fs::write(&journal, &whole).expect("restoring");
        assert_eq!(open(dir.path()).expect("all is there").0.list(), before);
        assert!(!former.exists() && mark(dir.path()).exists());
        fs::remove_file(mark(dir.path())).expect("removing");
        assert_eq!(open(dir.path()).expect("proved").1, [Recovery::Proven]);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_nothing_is_written_through_it() {
        use std::os::unix::fs::symlink;
        for name in ["store/lock", "store/journal", "store/identity", "acknowledged"] {
            let (dir, before) = filled();
            let path = dir.path().join(name);
            let kept = dir.path().join("kept");
            fs::rename(&path, &kept).expect("moving");
            symlink(dir.path().join("store/journal"), &path).expect("a link");
            let journal = fs::read(dir.path().join("store/journal")).unwrap_or_default();
            let error = open(dir.path()).map(|_| ()).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains("no regular file"), "{error}");
            assert_eq!(fs::read(dir.path().join("store/journal")).unwrap_or_default(), journal);
            fs::rename(&kept, &path).expect("moving back");
            assert_eq!(open(dir.path()).expect(name).0.list(), before);
        }
    }

    #[test]
    fn nobody_else_has_rights_to_the_files() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let (dir, _) = filled();
        let store = dir.path().join("store");
        for path in [store.clone(), store.join("journal")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("chmod");
        }
        drop(open(dir.path()).expect("the store"));
        for path in files(&store).iter().chain([&store, &store.join("objects.sled")]) {
            let mode = fs::metadata(path).expect("it is there").mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
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

    /// Does it to the file with this number; the journal is number 0, the mark number 1.
    fn inflict(dir: &Path, old: &Path, number: usize, damage: &Damage) {
        let all = |dir: &Path| {
            let mut all = files(&dir.join("store"));
            all.retain(|path| !path.ends_with("lock"));
            all.extend(Some(mark(dir)).filter(|mark| mark.exists()));
            // The journal first, then the mark: they matter most.
            all.sort_by_key(|path| {
                (!path.ends_with("journal"), !path.ends_with("acknowledged"), path.clone())
            });
            all
        };
        let all_files = all(dir);
        let Some(path) = all_files.get(number % all_files.len().max(1)) else { return };
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
        fn damage_to_files_loses_no_write_or_is_refused_with_the_way_back(
            damages in prop::collection::vec(
                (prop_oneof![2 => Just(0_usize), 1 => Just(1_usize), 3 => 0..8_usize], damage()), 1..3),
            index_is_lost in prop::bool::weighted(0.3),
        ) {
            let (dir, old) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
            let write = |range: std::ops::Range<u64>| {
                let (store, _) = open(dir.path()).expect("the store");
                range.for_each(|i| put(&store, i));
                store.list()
            };
            write(0..12);
            copy(dir.path(), old.path());
            let before = write(12..20);
            if index_is_lost {
                fs::remove_dir_all(dir.path().join("store/objects.sled")).expect("removing");
            }
            // With the index gone, one more is enough: who takes the journal and both witnesses back
            // to one moment has restored a backup.
            let count = if index_is_lost { 1 } else { damages.len() };
            for (number, damage) in damages.iter().take(count) {
                inflict(dir.path(), old.path(), *number, damage);
            }
            match open(dir.path()) {
                Ok((store, _)) => prop_assert_eq!(store.list(), before),
                Err(error) => prop_assert!(error.to_string().contains("restore") || error.to_string().contains("remove what stands"), "{}", error),
            }
        }
    }

    #[test]
    fn no_write_is_acknowledged_that_nobody_would_find_again() {
        type Deed = fn(&Path, &Path) -> std::io::Result<()>;
        let deeds: [(&str, Deed); 4] = [
            ("moved away", |file, aside| fs::rename(file, aside)),
            ("an older one in its place", |file, aside| {
                fs::rename(file, aside).and_then(|()| fs::copy(aside, file).map(drop))
            }),
            ("emptied", |file, aside| {
                fs::copy(file, aside)
                    .and_then(|_| File::options().write(true).open(file)?.set_len(0))
            }),
            ("longer", |file, aside| {
                fs::copy(file, aside)?;
                let length = fs::metadata(file)?.len();
                File::options().write(true).open(file)?.set_len(length + 1)
            }),
        ];
        for name in ["store/journal", "acknowledged"] {
            for (what, deed) in deeds {
                let (dir, before) = filled();
                let (store, _) = open(dir.path()).expect("the store");
                let (file, aside) = (dir.path().join(name), dir.path().join("aside"));
                deed(&file, &aside).expect(what);
                let key = StoreKey::new("Service", "shop", "new");
                for _ in 0..2 {
                    let refused = store.put(&key, json!({}), Expect::Any, "test");
                    let error = refused.expect_err(what).to_string();
                    assert!(error.contains(name) && error.contains("put it back"), "{error}");
                }
                assert_eq!(store.list(), before, "{name}, {what}");
                drop(store);
                fs::rename(&aside, &file).expect("putting back");
                assert_eq!(open(dir.path()).expect(what).0.list(), before, "{name}, {what}");
            }
        }
    }

    #[test]
    fn a_file_that_is_put_back_is_written_to_again() {
        let (dir, _) = filled();
        let (store, _) = open(dir.path()).expect("the store");
        for name in ["store/journal", "acknowledged"] {
            let (file, aside) = (dir.path().join(name), dir.path().join("aside"));
            fs::rename(&file, &aside).expect("moving");
            let key = StoreKey::new("Service", "shop", "new");
            assert!(store.put(&key, json!({}), Expect::Any, "test").is_err());
            fs::rename(&aside, &file).expect("moving back");
            store.put(&key, json!({ "in": name }), Expect::Any, "test").expect("a write");
        }
        let list = store.list();
        drop(store);
        assert_eq!(open(dir.path()).expect("the store").0.list(), list);
    }

    #[test]
    fn who_reads_waits_for_nobody_who_writes() {
        let (dir, before) = filled();
        let (store, _) = open(dir.path()).expect("the store");
        // As while the disk hangs: whoever waited for this would wait for ever.
        let _writing = store.files.lock().expect(POISONED);
        let key = before[0].key.clone();
        assert_eq!((store.list(), store.get(&key)), (before.clone(), Some(before[0].clone())));
        assert_eq!(store.revision(&key), Some(before[0].revision));
        assert!(store.check(&key, Expect::Absent).is_err());
    }

    #[test]
    fn what_records_said_too_much_is_left_in_no_file_and_everything_else_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, _) = open(dir.path()).expect("a new store");
        let key = |name: &str| StoreKey::new("Secret", "shop", name);
        let put = |name: &str, value: Value| {
            store.put(&key(name), value, Expect::Any, "test").expect("a write");
        };
        for name in ["overwritten", "deleted", "serving"] {
            put(name, json!({ "name": name, "annotations": format!("private {name}") }));
        }
        (0..5).for_each(|i| self::put(&store, i));
        put("overwritten", json!({ "name": "overwritten" }));
        store.delete(&key("deleted"), Expect::Any, "test").expect("a deletion");
        let (before, generation) = (store.list(), store.generation());
        let readable = |value: &Value| {
            let mut value = value.clone();
            value.as_object_mut()?.remove("annotations").map(|_| value)
        };
        let redacted = store.redact(readable).expect("it is done");
        assert_eq!(redacted, BTreeSet::from([key("deleted"), key("overwritten")]));
        assert_eq!(store.redact(readable).expect("nothing to do"), BTreeSet::new());
        assert_eq!((store.list(), store.generation()), (before.clone(), generation));
        let holds = |words: &str| {
            let has = |bytes: Vec<u8>| bytes.windows(words.len()).any(|w| w == words.as_bytes());
            files(dir.path()).iter().any(|file| has(fs::read(file).expect("a file")))
        };
        assert!(!holds("private overwritten") && !holds("private deleted"));
        assert!(holds("private serving"), "what is in force is never changed");
        put("new", json!({}));
        let before = store.list();
        drop(store);
        let (store, recovery) = open(dir.path()).expect("the store");
        assert_eq!((store.list(), recovery), (before, vec![]));
    }

    #[test]
    fn a_missing_journal_is_refused() {
        let (dir, _) = filled();
        fs::remove_file(dir.path().join("store/journal")).expect("removing");
        for _ in 0..2 {
            let error = open(dir.path()).map(|_| ()).expect_err("refused");
            assert!(matches!(error, StoreError::JournalMissing { .. }), "{error}");
        }
    }

    #[test]
    fn a_second_process_is_told_that_the_store_is_in_use() {
        let (dir, _) = filled();
        let _first = open(dir.path()).expect("the store");
        assert!(matches!(open(dir.path()).map(|_| ()), Err(StoreError::InUse(_))));
    }
}
