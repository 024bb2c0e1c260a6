//! The journal: one line of JSON per accepted write, chained by hashes, on the disk before anyone
//! is told.
//!
//! A line is `HASH RECORD\n`. `HASH` covers the record and the hash of the line before it, so a
//! flipped bit, a missing line and a rewritten past are all seen. A last line without its end is a
//! write that was cut off; whether it was acknowledged, [others](super::acknowledged) know. Any
//! other damage is refused, since acknowledged writes are at stake.
//!
//! A record that said what nobody may read is `HASH~CHECK RECORD\n`: `HASH` is the one that it had,
//! so that the lines behind it and everybody who knows of it stay as they are, and `CHECK` covers
//! `HASH`, what is left of the record, and the hash of the line before it.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ferromesh_cert_authority::files;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    accept::AcceptState,
    acknowledged::Mark,
    error::{StoreError, failed},
    key::StoreKey,
};

/// One accepted write.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// 1, 2, 3…
    pub(super) seq: u64,
    /// RFC 3339, for people; nothing depends on it.
    pub(super) at: String,
    /// Who wrote it.
    pub(super) who: String,
    /// Which object.
    pub(super) key: StoreKey,
    /// Its new content; `None`: deleted.
    pub(super) value: Option<Value>,
}

impl Record {
    /// As the journal has it.
    pub(super) fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is plain JSON")
    }
}

/// An open journal; written to only after [`Journal::drop_tail`].
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Length in bytes of the good records.
    length: u64,
    /// The last of them.
    last: Mark,
    /// Whether something may follow them that could not be cut off.
    has_tail: bool,
}

/// What a journal held when it was opened.
#[derive(Debug)]
pub(super) struct Replay {
    /// Every good record, in order.
    pub(super) records: Vec<Record>,
    /// The hash of each of them.
    pub(super) hashes: Vec<u128>,
    /// Whether an incomplete last line follows them.
    pub(super) torn_tail: bool,
}

/// The lines of a journal of which some records say less.
pub(super) struct Redacted {
    /// All of them.
    pub(super) lines: Vec<u8>,
    /// Which objects the records are about that say less.
    pub(super) keys: BTreeSet<StoreKey>,
    /// The text of the last record, if there is any.
    pub(super) last: Option<Vec<u8>>,
}

const HASH_LEN: usize = 32;
/// Stands behind the hash of a record that says less than it did.
const SAYS_LESS: u8 = b'~';

fn chain(previous: u128, record: &[u8]) -> u128 {
    let mut input = Vec::with_capacity(16 + record.len());
    input.extend_from_slice(&previous.to_be_bytes());
    input.extend_from_slice(record);
    xxh3_128(&input)
}

/// What is left of a record stands for the one with this hash.
fn chain_left(previous: u128, hash: u128, left: &[u8]) -> u128 {
    chain(previous, &[&hash.to_be_bytes()[..], &[SAYS_LESS], left].concat())
}

impl Journal {
    /// Opens the journal at `path` and reads it; makes one only where what is there is `accepted`
    /// to be all. Nothing in it is changed: before an incomplete last line is taken for a write
    /// that was cut off ([`Self::drop_tail`]), others are asked whether they know better.
    pub(super) fn open(path: &Path, accept: &AcceptState) -> Result<(Self, Replay), StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(accept.stands()).truncate(false).mode(0o600);
        let mut file = files::open(path, &mut options).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                StoreError::JournalMissing { path: path.to_owned(), step: accept.step() }
            }
            _ => failed("open", path)(error),
        })?;
        files::tighten(path).map_err(failed("take others' rights to", path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read", path))?;
        let (replay, length) = read_lines(&bytes).map_err(|damage| StoreError::Damaged {
            path: path.to_owned(),
            record: damage.record,
            offset: damage.offset as u64,
            reason: damage.reason,
            step: accept.step(),
        })?;
        let last = Mark {
            seq: replay.records.len() as u64,
            hash: replay.hashes.last().copied().unwrap_or_default(),
        };
        let length = length as u64;
        Ok((Self { path: path.to_owned(), file, length, last, has_tail: false }, replay))
    }

    /// Cuts off whatever follows the good records, and is ready for the next.
    pub(super) fn drop_tail(&mut self) -> Result<(), StoreError> {
        let path = &self.path;
        self.file.set_len(self.length).map_err(failed("truncate", path))?;
        self.file.sync_all().map_err(failed("sync", path))
    }

    /// The last record.
    pub(super) fn last(&self) -> Mark {
        self.last
    }

    /// The place of the record with this text, if it is the next one.
    pub(super) fn next(&self, text: &[u8]) -> Mark {
        Mark { seq: self.last.seq + 1, hash: chain(self.last.hash, text) }
    }

    /// Appends the next record; when this returns, it is on the disk, but not acknowledged. On an
    /// error nothing was appended.
    pub(super) fn append(&mut self, text: &[u8]) -> Result<Appended, StoreError> {
        let path = &self.path;
        if self.has_tail {
            self.cut().map_err(failed("truncate", path))?;
            self.has_tail = false;
        }
        files::must_be(path, &self.file, self.length).map_err(failed("append to", path))?;
        let before = Appended { length: self.length, last: self.last };
        let next = self.next(text);
        let mut line = format!("{:032x} ", next.hash).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        let length = self.length + line.len() as u64;
        let written = self
            .file
            .write_all_at(&line, self.length)
            .and_then(|()| self.file.sync_data())
            // A file that nobody finds at the next start keeps no promise.
            .and_then(|()| files::must_be(path, &self.file, length));
        if let Err(error) = written {
            let refusal = failed("append to", path)(error);
            self.take_back(before);
            return Err(refusal);
        }
        self.length = length;
        self.last = next;
        Ok(before)
    }

    /// Takes the last record out again, since it cannot be acknowledged. Nothing of it may stay
    /// behind the next record, which may be shorter: if this fails too, it is tried again before
    /// that one is appended, and at the next start.
    pub(super) fn take_back(&mut self, before: Appended) {
        (self.length, self.last) = (before.length, before.last);
        self.has_tail = self.cut().is_err();
    }

    fn cut(&self) -> io::Result<()> {
        self.file.set_len(self.length).and_then(|()| self.file.sync_data())
    }

    /// The journal's lines, with what `left` leaves of records for which it says anything.
    pub(super) fn redacted(
        &self,
        left: impl Fn(&Record) -> Option<Value>,
    ) -> Result<Redacted, StoreError> {
        let mut bytes = vec![0; usize::try_from(self.length).expect("it was read at the start")];
        let path = &self.path;
        self.file.read_exact_at(&mut bytes, 0).map_err(failed("read", path))?;
        let (replay, _) = read_lines(&bytes)
            .map_err(|damage| io::Error::new(io::ErrorKind::InvalidInput, damage.reason))
            .map_err(failed("read", path))?;
        let last = replay.records.last().map(Record::text);
        let mut redacted = Redacted { lines: Vec::new(), keys: BTreeSet::new(), last };
        let mut previous = 0;
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        for ((record, hash), line) in replay.records.into_iter().zip(replay.hashes).zip(lines) {
            match left(&record) {
                Some(value) => {
                    redacted.keys.insert(record.key.clone());
                    let text = Record { value: Some(value), ..record }.text();
                    let check = chain_left(previous, hash, &text);
                    redacted.lines.extend(format!("{hash:032x}~{check:032x} ").into_bytes());
                    redacted.lines.extend(text);
                    redacted.lines.push(b'\n');
                }
                None => redacted.lines.extend(line),
            }
            previous = hash;
        }
        Ok(redacted)
    }

    /// Replaces the lines by others with the same records: a crash leaves the one or the other.
    pub(super) fn replace(&mut self, lines: &[u8]) -> Result<(), StoreError> {
        let path = &self.path;
        files::replace(path, 0o600, lines).map_err(failed("write", path))?;
        self.file = files::open(path, OpenOptions::new().read(true).write(true))
            .map_err(failed("open", path))?;
        self.length = lines.len() as u64;
        Ok(())
    }
}

/// What a journal was before a record was appended.
pub(super) struct Appended {
    length: u64,
    last: Mark,
}

/// Where a journal cannot be read any further, and why.
struct Damage {
    record: u64,
    offset: usize,
    reason: String,
}

/// Reads lines until the end or an incomplete last line: what they hold, and the length of the good
/// part.
fn read_lines(bytes: &[u8]) -> Result<(Replay, usize), Damage> {
    let mut replay = Replay { records: Vec::new(), hashes: Vec::new(), torn_tail: false };
    let mut offset = 0;
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let previous = replay.hashes.last().copied().unwrap_or_default();
        let seq = replay.records.len() as u64 + 1;
        let damage = |reason| Damage { record: seq - 1, offset, reason };
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            // Nothing follows: a write that was cut off. Not so if it is more than one record: then
            // it is the line break between them that is damaged.
            if hides_a_record(rest, previous, seq) {
                return Err(damage("a line break is missing".to_owned()));
            }
            replay.torn_tail = true;
            break;
        };
        let (record, hash) = read_line(&rest[..end], previous, seq).map_err(damage)?;
        replay.records.push(record);
        replay.hashes.push(hash);
        offset += end + 1;
    }
    Ok((replay, offset))
}

/// Whether a good record stands in front of another one in what looks like one line.
fn hides_a_record(line: &[u8], previous: u128, seq: u64) -> bool {
    let begins_a_line = |rest: &[u8]| {
        rest.get(..=HASH_LEN).is_some_and(|head| {
            head[..HASH_LEN].iter().all(u8::is_ascii_hexdigit)
                && [b' ', SAYS_LESS].contains(&head[HASH_LEN])
        })
    };
    let ends = line.iter().enumerate().filter(|(_, b)| **b == b'}').map(|(at, _)| at + 1);
    let candidates = ends.filter(|end| line.get(end + 1..).is_some_and(begins_a_line));
    candidates.into_iter().any(|end| read_line(&line[..end], previous, seq).is_ok())
}

fn read_line(line: &[u8], previous: u128, seq: u64) -> Result<(Record, u128), String> {
    let (written, rest) = line.split_at_checked(HASH_LEN).ok_or("the line is too short")?;
    let mismatch = || "the checksum does not match".to_owned();
    let (hash, text) = match rest {
        [b' ', text @ ..] => (chain(previous, text), text),
        [SAYS_LESS, rest @ ..] => read_left(written, rest, previous).ok_or_else(mismatch)?,
        _ => return Err(mismatch()),
    };
    // Compared as text: letters in another case would be a change too.
    if written != format!("{hash:032x}").as_bytes() {
        return Err(mismatch());
    }
    let record: Record =
        serde_json::from_slice(text).map_err(|e| format!("the record is unreadable: {e}"))?;
    if record.seq != seq {
        return Err(format!("record {} where {seq} was expected", record.seq));
    }
    Ok((record, hash))
}

/// The hash of a record that says less than it did, and what is left of it; `None`: it is damaged.
fn read_left<'a>(written: &[u8], rest: &'a [u8], previous: u128) -> Option<(u128, &'a [u8])> {
    let hash = u128::from_str_radix(std::str::from_utf8(written).ok()?, 16).ok()?;
    let (check, left) = rest.split_at_checked(HASH_LEN + 1)?;
    let expected = format!("{:032x} ", chain_left(previous, hash, left));
    (check == expected.as_bytes()).then_some((hash, left))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn record(seq: u64) -> Record {
        let key = StoreKey::new("Service", "shop", &format!("s{seq}"));
        Record {
            seq,
            at: "2026-01-01T00:00:00Z".into(),
            who: "test".into(),
            key,
            value: Some(json!({"seq": seq})),
        }
    }

    fn text(seq: u64) -> Vec<u8> {
        record(seq).text()
    }

    fn open(path: &Path) -> Result<(Journal, Replay), StoreError> {
        let accept = AcceptState::at(path.with_file_name("accept-state"));
        if !path.exists() {
            accept.begin(&[path.to_owned()]).expect("begun");
        }
        let opened = Journal::open(path, &accept);
        accept.end().expect("ended");
        opened
    }

    /// A journal with so many records, of which the second says less than it did.
    fn redacted(count: u64) -> (tempfile::TempDir, PathBuf) {
        let (dir, path) = written(count);
        let (mut journal, before) = open(&path).expect("a good journal");
        let less = |record: &Record| (record.seq == 2).then(|| json!({ "left": true }));
        let redacted = journal.redacted(less).expect("it is read");
        assert_eq!(redacted.keys, BTreeSet::from([record(2).key]));
        assert_eq!(redacted.last, Some(text(count)));
        journal.replace(&redacted.lines).expect("it is replaced");
        journal.append(&text(count + 1)).expect("an append");
        let (_, after) = open(&path).expect("a good journal");
        assert_eq!(after.hashes[..before.hashes.len()], before.hashes, "nobody's mark is foreign");
        assert_eq!(after.records[1].value, Some(json!({ "left": true })));
        let kept = |replay: &Replay| [replay.records[0].clone(), replay.records[2].clone()];
        assert_eq!(kept(&after), kept(&before));
        (dir, path)
    }

    fn written(count: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let (mut journal, _) = open(&path).expect("a new journal");
        journal.drop_tail().expect("nothing to cut");
        for seq in 1..=count {
            journal.append(&text(seq)).expect("an append");
        }
        (dir, path)
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let (_dir, path) = written(3);
        let (journal, replay) = open(&path).expect("a good journal");
        assert_eq!(replay.records, (1..=3).map(record).collect::<Vec<_>>());
        assert!(!replay.torn_tail);
        assert_eq!(journal.last().seq, 3);
    }

    #[test]
    fn a_line_cut_short_is_dropped_and_the_next_append_is_good() {
        let (_dir, path) = written(3);
        let bytes = fs::read(&path).expect("the journal");
        fs::write(&path, &bytes[..bytes.len() - 7]).expect("cutting");
        let (mut journal, replay) = open(&path).expect("a torn journal opens");
        assert!(replay.torn_tail);
        assert_eq!(replay.records.len(), 2);
        journal.drop_tail().expect("cutting");
        journal.append(&text(3)).expect("an append");
        assert_eq!(open(&path).expect("a good journal").1.records.len(), 3);
    }

    #[test]
    fn a_record_that_is_taken_back_leaves_no_trace() {
        let (_dir, path) = written(2);
        let (mut journal, _) = open(&path).expect("a good journal");
        let before = journal.append(&text(3)).expect("an append");
        journal.take_back(before);
        journal.append(&text(3)).expect("an append");
        assert_eq!(open(&path).expect("a good journal").1.records.len(), 3);
    }

    #[test]
    fn what_a_record_said_before_is_in_no_byte_of_the_journal() {
        let (_dir, path) = redacted(3);
        let bytes = fs::read(&path).expect("the journal");
        let has = |words: &str| bytes.windows(words.len()).any(|w| w == words.as_bytes());
        assert!(has(r#"{"seq":1}"#) && has(r#"{"seq":3}"#) && !has(r#"{"seq":2}"#));
        let (journal, _) = open(&path).expect("a good journal");
        assert_eq!(journal.redacted(|_| None).expect("it is read").lines, bytes);
    }

    #[test]
    fn what_could_not_be_cut_off_never_follows_the_next_record() {
        let (_dir, path) = written(2);
        let (mut journal, _) = open(&path).expect("a good journal");
        let long = Record { value: Some(json!("x".repeat(500))), ..record(3) };
        let before = journal.append(&long.text()).expect("an append");
        let writable = std::mem::replace(&mut journal.file, File::open(&path).expect("it opens"));
        journal.take_back(before);
        assert!(journal.append(&text(3)).is_err(), "the disk still refuses");
        journal.file = writable;
        journal.append(&text(3)).expect("an append");
        let records = open(&path).expect("a good journal").1.records;
        assert_eq!(records, (1..=3).map(record).collect::<Vec<_>>());
    }

    #[test]
    fn damage_before_the_last_record_names_the_record_and_the_way_back() {
        let (_dir, path) = written(3);
        let mut bytes = fs::read(&path).expect("the journal");
        bytes[60] ^= 1;
        fs::write(&path, &bytes).expect("damaging");
        let error = open(&path).expect_err("refused").to_string();
        assert!(
            error.contains("damaged at record 0 (byte 0)") && error.contains("head -c 0"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_line_break_between_two_records_is_refused_and_not_taken_for_a_torn_tail() {
        let (_dir, path) = written(3);
        let mut bytes = fs::read(&path).expect("the journal");
        let second = bytes
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'\n')
            .map(|(at, _)| at)
            .nth(1)
            .expect("three lines");
        bytes[second] ^= 1;
        fs::write(&path, &bytes).expect("damaging");
        assert!(matches!(open(&path), Err(StoreError::Damaged { record: 1, .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_flipped_bit_is_seen(at in 0usize..1_000_000, bit in 0u8..8, less: bool) {
            let (_dir, path) = if less { redacted(3) } else { written(4) };
            let mut bytes = fs::read(&path).expect("the journal");
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            fs::write(&path, &bytes).expect("damaging");
            match open(&path) {
                Err(StoreError::Damaged { .. }) => {}
                Err(other) => prop_assert!(false, "{other}"),
                // The last line break: as if the last record had not been written to its end.
                Ok((_, replay)) => prop_assert!(at + 1 == bytes.len() && replay.torn_tail && replay.records.len() == 3),
            }
        }
    }
}
