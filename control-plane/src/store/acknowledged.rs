//! The file that says which record was acknowledged last: what a journal must hold at least.
//!
//! A journal that was cut off looks like a shorter one, and the index lags behind and may be gone.
//! So the number and the chained hash of every record go here, onto the disk, between the journal
//! and the acknowledgement: beside the folder of the store and not into it, so that an older folder
//! that is put back does not bring its own mark. Two places, written in turn and each with a checksum: a write that a
//! power cut tears leaves the one before it.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use ferromesh_cert_authority::files;
use xxhash_rust::xxh3::xxh3_128;

use super::error::{StoreError, failed};

/// Bytes of a place: a sector, so that writing one never touches the other.
const PLACE: usize = 512;
const PLACES: usize = 2;

/// A record, by its place in the chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Mark {
    /// Its sequence number; 0: none yet.
    pub(super) seq: u64,
    /// Its hash, which covers every record before it too.
    pub(super) hash: u128,
}

/// What the file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// The last record that was acknowledged.
    Mark(Mark),
    /// There is no such file.
    Missing,
    /// Neither place is what was written there.
    Damaged,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Acknowledged {
    path: PathBuf,
    file: File,
}

impl Mark {
    fn encode(self) -> Vec<u8> {
        let mut text = format!("{:020} {:032x} ", self.seq, self.hash);
        let check = xxh3_128(text.as_bytes());
        let _ = write!(text, "{check:032x}");
        let mut place = format!("{text:<width$}", width = PLACE - 1).into_bytes();
        place.push(b'\n');
        place
    }

    fn decode(place: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(place).ok()?;
        let mut words = text.split_ascii_whitespace();
        let (seq, hash) = (words.next()?.parse().ok()?, words.next()?);
        let mark = Self { seq, hash: u128::from_str_radix(hash, 16).ok()? };
        (mark.encode() == place).then_some(mark)
    }

    fn offset(self) -> u64 {
        (self.seq % PLACES as u64) * PLACE as u64
    }
}

/// Reads what is at `path`; changes nothing.
pub(super) fn read(path: &Path) -> Result<Found, StoreError> {
    let bytes = match files::read(path, (PLACES * PLACE) as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Found::Damaged),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let newest = bytes.chunks(PLACE).filter_map(Mark::decode).max();
    Ok(newest.map_or(Found::Damaged, Found::Mark))
}

/// Where a former version kept the mark of the store in `dir`.
pub(super) fn former_file(dir: &Path) -> PathBuf {
    dir.join("acknowledged")
}

/// Removes the mark of a former version, once there is another.
pub(super) fn forget_former(dir: &Path) -> Result<(), StoreError> {
    let path = former_file(dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", &path)(error))
        }
        _ => Ok(()),
    }
}

impl Acknowledged {
    /// Opens the file so that it says `mark`; `found` is what it says now.
    pub(super) fn open(path: &Path, found: Found, mark: Mark) -> Result<Self, StoreError> {
        // A higher number in the other place would stay the newest.
        let starts_anew = !matches!(found, Found::Mark(found) if found.seq <= mark.seq);
        if starts_anew {
            let mut bytes = vec![b' '; PLACES * PLACE];
            let begin = usize::try_from(mark.offset()).expect("two places");
            bytes[begin..begin + PLACE].copy_from_slice(&mark.encode());
            files::replace(path, 0o600, &bytes).map_err(failed("write", path))?;
        }
        let file = files::open(path, OpenOptions::new().read(true).write(true))
            .map_err(failed("open", path))?;
        let acknowledged = Self { path: path.to_owned(), file };
        if found != Found::Mark(mark) && !starts_anew {
            acknowledged.advance(mark)?;
        }
        Ok(acknowledged)
    }

    /// Says that `mark` is acknowledged; when this returns, it is on the disk. On an error the mark
    /// before stands.
    pub(super) fn advance(&self, mark: Mark) -> Result<(), StoreError> {
        let is_there = || files::must_be(&self.path, &self.file, (PLACES * PLACE) as u64);
        is_there().map_err(failed("write", &self.path))?;
        let written = self
            .file
            .write_all_at(&mark.encode(), mark.offset())
            .and_then(|()| self.file.sync_data())
            .and_then(|()| is_there());
        written.map_err(|error| {
            // It may have reached the disk all the same, and the record will not be in the journal.
            let _ = self.file.write_all_at(&[b' '; PLACE], mark.offset());
            let _ = self.file.sync_data();
            failed("write", &self.path)(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(seq: u64) -> Mark {
        Mark { seq, hash: 7_u128.pow(3) << seq }
    }

    #[test]
    fn the_newest_mark_is_read_and_a_torn_write_leaves_the_one_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("acknowledged");
        assert_eq!(read(&path).expect("nothing there"), Found::Missing);
        let open = |mark| Acknowledged::open(&path, read(&path).expect("read"), mark);
        let acknowledged = open(Mark::default()).expect("made");
        assert_eq!(read(&path).expect("read"), Found::Mark(Mark::default()));
        for seq in 1..=5 {
            acknowledged.advance(mark(seq)).expect("written");
            assert_eq!(read(&path).expect("read"), Found::Mark(mark(seq)));
        }
        let whole = fs::read(&path).expect("the file");
        assert_eq!(whole.len(), PLACES * PLACE);
        for byte in 0..whole.len() {
            let mut torn = whole.clone();
            torn[byte] ^= 1;
            fs::write(&path, &torn).expect("damaging");
            // Number 5 is in the second place.
            let expected = if byte < PLACE { 5 } else { 4 };
            assert_eq!(read(&path).expect("read"), Found::Mark(mark(expected)), "byte {byte}");
        }
        for bytes in [vec![], vec![0; whole.len()], whole[..7].to_vec(), whole.repeat(2)] {
            fs::write(&path, bytes).expect("damaging");
            assert_eq!(read(&path).expect("read"), Found::Damaged);
        }
        // What is accepted in its place may have a lower number.
        open(mark(2)).expect("begun again");
        assert_eq!(read(&path).expect("read"), Found::Mark(mark(2)));
        open(mark(3)).expect("one further").advance(mark(4)).expect("written");
        assert_eq!(read(&path).expect("read"), Found::Mark(mark(4)));
    }
}
