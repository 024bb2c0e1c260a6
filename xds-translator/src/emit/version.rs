//! Content versions: the hash of what a resource says.

use std::hash::{Hash, Hasher};

use ferromesh_proto::Version;
use xxhash_rust::xxh3::Xxh3Default;

/// Raise it whenever emitting spells an unchanged plan item differently.
pub const EMIT_REVISION: u32 = 1;

/// The version of `content`.
pub(super) fn of(content: &impl Hash) -> Version {
    let mut hasher = StableHasher(Xxh3Default::new());
    hasher.write_u32(EMIT_REVISION);
    content.hash(&mut hasher);
    Version(hasher.finish())
}

/// Feeds numbers little-endian and sizes as 64 bits, so that replicas on different machines agree.
struct StableHasher(Xxh3Default);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u16(&mut self, i: u16) {
        self.write(&i.to_le_bytes());
    }

    fn write_u32(&mut self, i: u32) {
        self.write(&i.to_le_bytes());
    }

    fn write_u64(&mut self, i: u64) {
        self.write(&i.to_le_bytes());
    }

    fn write_u128(&mut self, i: u128) {
        self.write(&i.to_le_bytes());
    }

    fn write_usize(&mut self, i: usize) {
        self.write_u64(i as u64);
    }

    fn write_isize(&mut self, i: isize) {
        self.write_u64(i as u64);
    }

    fn finish(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_depends_on_the_content_and_nothing_else() {
        assert_eq!(of(&("a", 80u16)), of(&("a".to_owned(), 80u16)));
        assert_ne!(of(&("a", 80u16)), of(&("a", 81u16)));
        assert_ne!(of(&("a", "b")), of(&("ab", "")));
    }

    #[test]
    fn a_version_stays_the_same_over_builds_and_machines() {
        assert_eq!(of(&("outbound|80||a", 80u16, Some(3usize))).to_string(), "ea88738e14b1e12a");
    }
}
