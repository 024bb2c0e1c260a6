//! The xDS resource types, versions, and the encoded resource that views and streams
//! share.

mod types;

use std::{fmt, sync::Arc};

use bytes::Bytes;

pub use types::{Absence, BOOTSTRAP, ResourceType, Row, ServedFrom, Wildcard};

/// A version: a hash of a resource's bytes (of a secret: of the fingerprint of its certificate, since
/// a hash of the bytes would tell of the private key). Equal on every replica and after every
/// restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Version(pub u64);

impl Version {
    /// Reads the form that [`fmt::Display`] writes, as a client echoes it; `None` when it is not
    /// ours.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// The form that [`fmt::Display`] writes.
    pub fn hex(self) -> [u8; 16] {
        std::array::from_fn(|at| b"0123456789abcdef"[(self.0 >> (60 - 4 * at)) as usize & 15])
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One encoded resource, made once and shared by every view and stream that serves it.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedResource {
    /// The xDS resource name; unique within a type.
    pub name: Arc<str>,
    /// Changes exactly when `body` does.
    pub version: Version,
    /// The encoded message, without its `Any` wrapper.
    pub body: Bytes,
}

impl fmt::Debug for EncodedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body may be a secret: a log gets its size only.
        write!(f, "{}@{} ({} bytes)", self.name, self.version, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_back_and_refuse_foreign_text() {
        let v = Version(0x00ab_cdef_0123_4567);
        assert_eq!(Version::parse(&v.to_string()), Some(v));
        assert_eq!(v.hex()[..], *v.to_string().as_bytes());
        assert_eq!(Version::parse("2026-11-21T10:00:00Z/4"), None);
        assert_eq!(Version::parse(""), None);
    }
}
