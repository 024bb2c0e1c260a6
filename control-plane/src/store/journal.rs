//! The journal: one line of JSON per accepted write, chained by hashes, on the disk before anyone
//! is told.
//!
//! A line is `HASH RECORD\n`. `HASH` covers the record and the hash of the line before it, so a
//! flipped bit, a missing line and a rewritten past are all seen. A last line without its end is a
//! write that was cut off; whether it was acknowledged, [others](super::acknowledged) know. Any
//! other damage is refused, since acknowledged writes are at stake.

use std::{
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

/// An open journal; written to only after [`Journal::drop_tail`].
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Length in bytes of the good records.
    length: u64,
    /// The last of them.
    last: Mark,
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

const HASH_LEN: usize = 32;

fn chain(previous: u128, record: &[u8]) -> u128 {
    let mut input = Vec::with_capacity(16 + record.len());
    input.extend_from_slice(&previous.to_be_bytes());
    input.extend_from_slice(record);
    xxh3_128(&input)
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
        Ok((Self { path: path.to_owned(), file, length: length as u64, last }, replay))
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
        let before = Appended { length: self.length, last: self.last };
        let next = self.next(text);
        let mut line = format!("{:032x} ", next.hash).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        let written =
            self.file.write_all_at(&line, self.length).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.take_back(before);
            return Err(failed("append to", &self.path)(error));
        }
        self.length += line.len() as u64;
        self.last = next;
        Ok(before)
    }

    /// Takes the last record out again, since it cannot be acknowledged. Half a line must not stay
    /// in front of the next record; if this fails too, the next start drops the tail.
    pub(super) fn take_back(&mut self, before: Appended) {
        (self.length, self.last) = (before.length, before.last);
        let _ = self.file.set_len(self.length).and_then(|()| self.file.sync_data());
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
            head[..HASH_LEN].iter().all(u8::is_ascii_hexdigit) && head[HASH_LEN] == b' '
        })
    };
    let ends = line.iter().enumerate().filter(|(_, b)| **b == b'}').map(|(at, _)| at + 1);
    let candidates = ends.filter(|end| line.get(end + 1..).is_some_and(begins_a_line));
    candidates.into_iter().any(|end| read_line(&line[..end], previous, seq).is_ok())
}

fn read_line(line: &[u8], previous: u128, seq: u64) -> Result<(Record, u128), String> {
    let (written, text) = line.split_at_checked(HASH_LEN + 1).ok_or("the line is too short")?;
    let hash = chain(previous, text);
    // Compared as text: letters in another case would be a change too.
    if written != format!("{hash:032x} ").as_bytes() {
        return Err("the checksum does not match".to_owned());
    }
    let record: Record =
        serde_json::from_slice(text).map_err(|e| format!("the record is unreadable: {e}"))?;
    if record.seq != seq {
        return Err(format!("record {} where {seq} was expected", record.seq));
    }
    Ok((record, hash))
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
        serde_json::to_vec(&record(seq)).expect("plain JSON")
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
        fn any_flipped_bit_is_seen(at in 0usize..1_000_000, bit in 0u8..8) {
            let (_dir, path) = written(3);
            let mut bytes = fs::read(&path).expect("the journal");
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            fs::write(&path, &bytes).expect("damaging");
            match open(&path) {
                Err(StoreError::Damaged { .. }) => {}
                Err(other) => prop_assert!(false, "{other}"),
                // The last line break: as if the last record had not been written to its end.
                Ok((_, replay)) => prop_assert!(at + 1 == bytes.len() && replay.torn_tail && replay.records.len() == 2),
            }
        }
    }
}
