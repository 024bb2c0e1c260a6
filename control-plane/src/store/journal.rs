//! The journal: one line of JSON per accepted write, chained by hashes, on the disk before anyone is told.
//!
//! A line is `HASH RECORD\n`. `HASH` covers the record and the hash of the line before it, so a flipped bit, a missing
//! line and a rewritten past are all seen. An incomplete last line is a write that was cut off before it was
//! acknowledged: it is dropped. Damage anywhere before the last line is refused, since acknowledged writes are at stake.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::{StoreError, StoreKey};

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
    last_hash: u128,
    next_seq: u64,
}

/// What a journal held when it was opened.
#[derive(Debug)]
pub(super) struct Replay {
    /// Every good record, in order.
    pub(super) records: Vec<Record>,
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

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| {
        let hint = match source.kind() {
            io::ErrorKind::StorageFull => "; free some space, nothing was changed",
            io::ErrorKind::PermissionDenied => "; run as the owner of the data directory, or choose another --data-dir",
            _ => "",
        };
        StoreError::Io { action, path, hint, source }
    }
}

impl Journal {
    /// Opens or makes the journal at `path` and reads it. Nothing in it is changed: before an incomplete last line is taken for
    /// a write that was cut off ([`Self::drop_tail`]), the database is asked whether it knows better.
    pub(super) fn open(path: &Path) -> Result<(Self, Replay), StoreError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed("open", path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read", path))?;
        let (records, good, last_hash) = read_lines(path, &bytes)?;
        let torn_tail = good < bytes.len();
        let next_seq = records.last().map_or(1, |r| r.seq + 1);
        let journal = Self { path: path.to_owned(), file, length: good as u64, last_hash, next_seq };
        Ok((journal, Replay { records, torn_tail }))
    }

    /// Cuts off whatever follows the good records, and is ready for the next.
    pub(super) fn drop_tail(&mut self) -> Result<(), StoreError> {
        let path = &self.path;
        self.file.set_len(self.length).map_err(failed("truncate", path))?;
        self.file.sync_all().map_err(failed("sync", path))?;
        self.file.seek(SeekFrom::End(0)).map_err(failed("seek in", path))?;
        Ok(())
    }

    /// The sequence number that the next record must carry.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Appends a record; when this returns, it is on the disk. On an error nothing was appended.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), StoreError> {
        let text = serde_json::to_vec(record).expect("a record is plain JSON");
        let hash = chain(self.last_hash, &text);
        let mut line = format!("{hash:032x} ").into_bytes();
        line.extend_from_slice(&text);
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line must not stay in front of the next record. If this fails too, the next start drops the tail.
            let _ = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            return Err(failed("append to", &self.path)(error));
        }
        self.length += line.len() as u64;
        self.last_hash = hash;
        self.next_seq = record.seq + 1;
        Ok(())
    }
}

/// Reads lines until the end or an incomplete last line: records, length of the good part, hash of the last line.
fn read_lines(path: &Path, bytes: &[u8]) -> Result<(Vec<Record>, usize, u128), StoreError> {
    let (mut records, mut offset, mut hash) = (Vec::<Record>::new(), 0, 0u128);
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let end = rest.iter().position(|b| *b == b'\n');
        let line = &rest[..end.unwrap_or(rest.len())];
        let seq = records.len() as u64 + 1;
        let is_last = end.is_none_or(|end| offset + end + 1 == bytes.len());
        match (read_line(line, hash, seq), end) {
            (Ok((record, line_hash)), Some(end)) => {
                records.push(record);
                hash = line_hash;
                offset += end + 1;
            }
            // Nothing follows: a write that was cut off, never acknowledged.
            (Ok(_), None) => break,
            (Err(_), _) if is_last && !hides_a_record(line, hash, seq) => break,
            (Err(reason), _) => {
                let (path, record) = (path.to_owned(), records.len() as u64);
                return Err(StoreError::Damaged { path, record, offset: offset as u64, reason });
            }
        }
    }
    Ok((records, offset, hash))
}

/// Whether a good record stands in front of another one in what looks like one line: then it is the line break between
/// them that is damaged, and not the last record alone.
fn hides_a_record(line: &[u8], previous: u128, seq: u64) -> bool {
    let begins_a_line = |rest: &[u8]| {
        rest.get(..=HASH_LEN)
            .is_some_and(|head| head[..HASH_LEN].iter().all(u8::is_ascii_hexdigit) && head[HASH_LEN] == b' ')
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
    let record: Record = serde_json::from_slice(text).map_err(|e| format!("the record is unreadable: {e}"))?;
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
        Record { seq, at: "2026-01-01T00:00:00Z".into(), who: "test".into(), key, value: Some(json!({"seq": seq})) }
    }

    fn written(count: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).expect("a new journal");
        journal.drop_tail().expect("nothing to cut");
        (1..=count).for_each(|seq| journal.append(&record(seq)).expect("an append"));
        (dir, path)
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let (_dir, path) = written(3);
        let (journal, replay) = Journal::open(&path).expect("a good journal");
        assert_eq!(replay.records, (1..=3).map(record).collect::<Vec<_>>());
        assert!(!replay.torn_tail);
        assert_eq!(journal.next_seq(), 4);
    }

    #[test]
    fn a_line_cut_short_is_dropped_and_the_next_append_is_good() {
        let (_dir, path) = written(3);
        let bytes = fs::read(&path).expect("the journal");
        fs::write(&path, &bytes[..bytes.len() - 7]).expect("cutting");
        let (mut journal, replay) = Journal::open(&path).expect("a torn journal opens");
        assert!(replay.torn_tail);
        assert_eq!(replay.records.len(), 2);
        journal.drop_tail().expect("cutting");
        journal.append(&record(3)).expect("an append");
        assert_eq!(Journal::open(&path).expect("a good journal").1.records.len(), 3);
    }

    #[test]
    fn damage_before_the_last_record_names_the_record_and_the_way_back() {
        let (_dir, path) = written(3);
        let mut bytes = fs::read(&path).expect("the journal");
        bytes[60] ^= 1;
        fs::write(&path, &bytes).expect("damaging");
        let error = Journal::open(&path).expect_err("refused").to_string();
        assert!(error.contains("damaged at record 0 (byte 0)") && error.contains("head -c 0"), "{error}");
    }

    #[test]
    fn a_damaged_line_break_between_two_records_is_refused_and_not_taken_for_a_torn_tail() {
        let (_dir, path) = written(3);
        let mut bytes = fs::read(&path).expect("the journal");
        let second =
            bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at).nth(1).expect("three lines");
        bytes[second] ^= 1;
        fs::write(&path, &bytes).expect("damaging");
        assert!(matches!(Journal::open(&path), Err(StoreError::Damaged { record: 1, .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_flipped_bit_is_seen_or_cuts_only_the_last_record(at in 0usize..1_000_000, bit in 0u8..8) {
            let (_dir, path) = written(3);
            let mut bytes = fs::read(&path).expect("the journal");
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            fs::write(&path, &bytes).expect("damaging");
            match Journal::open(&path) {
                Err(StoreError::Damaged { .. }) => {}
                Err(other) => prop_assert!(false, "{other}"),
                Ok((_, replay)) => prop_assert_eq!(replay.records, (1..=2).map(record).collect::<Vec<_>>()),
            }
        }
    }
}
