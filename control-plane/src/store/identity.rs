//! Which store it is: a random number in a file of it, so that another mesh's store in its place shows.

use std::{
    io,
    path::{Path, PathBuf},
};

use ferromesh_cert_authority::files;
use serde::{Deserialize, Serialize};

use super::{
    acknowledged::Mark,
    error::{StoreError, failed},
};

/// Hexadecimal digits of the number.
const DIGITS: usize = 32;

/// What a store held at some moment, for a witness elsewhere: another store, or the same one from
/// before that moment, does not hold it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    identity: String,
    /// The number of the last record.
    record: u64,
    /// Its hash, in hexadecimal.
    #[serde(with = "digits")]
    hash: u128,
}

impl Generation {
    pub(super) fn new(identity: &str, last: Mark) -> Self {
        Self { identity: identity.to_owned(), record: last.seq, hash: last.hash }
    }

    /// Whether both are of one store.
    pub fn is_of_one_store(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// How many records it held.
    pub fn records(&self) -> u64 {
        self.record
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    pub(super) fn last(&self) -> Mark {
        Mark { seq: self.record, hash: self.hash }
    }
}

/// A hash as text: JSON's numbers are too small for it.
mod digits {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hash: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{hash:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        u128::from_str_radix(&String::deserialize(from)?, 16).map_err(D::Error::custom)
    }
}

/// Where the number lies.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join("identity")
}

/// The number of the store in `dir`; `None`: it has none, or what is there is none.
pub(super) fn read(dir: &Path) -> Result<Option<String>, StoreError> {
    let path = file(dir);
    match files::read(&path, DIGITS as u64 + 1) {
        Ok(bytes) => Ok(number(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

fn number(bytes: &[u8]) -> Option<String> {
    let digits = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let is_one = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_one.then(|| digits.to_owned())
}

/// Gives the store in `dir` a number.
pub(super) fn make(dir: &Path) -> Result<String, StoreError> {
    let (path, number) = (file(dir), format!("{:032x}", rand::random::<u128>()));
    files::replace(&path, 0o600, format!("{number}\n").as_bytes())
        .map_err(failed("write", &path))?;
    Ok(number)
}
