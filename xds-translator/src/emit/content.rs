//! The hash of a plan item and its patches, by which the compiler's memos know whether to encode it again.

use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::Xxh3Default;

/// What a message is made from, as a hash. Equal ones are equal, also over several compilers of one process; it
/// never leaves the process, so that neither its spelling nor the emitters need a revision.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Content(u64);

impl Content {
    /// The hash of what a message is made from.
    pub(crate) fn of(made_from: &impl Hash) -> Self {
        let mut hasher = Xxh3Default::new();
        made_from.hash(&mut hasher);
        Self(hasher.finish())
    }
}
