//! What a store is opened with, and what had to be put right.

use std::path::Path;

use super::{accept::AcceptState, identity::Generation};

/// Where a store lies, and what others know of it.
pub struct Opening<'a> {
    /// The folder of the store.
    pub dir: &'a Path,
    /// The file of the last acknowledged record: outside of the folder, so that an older store that
    /// is put back does not reach it.
    pub mark: &'a Path,
    /// The file that keeps `known`.
    pub witness: &'a Path,
    /// What was seen of the store before; `None`: a former version kept no witness.
    pub known: Option<&'a Generation>,
    /// Whether what is there is all that there is; then nobody else is asked.
    pub accept: &'a AcceptState,
}

/// What had to be put right when the store was opened; say it to the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recovery {
    /// The journal's last line was incomplete and was dropped: a write that nobody was told of.
    TornTail,
    /// The journal's last record was lost, and came back from the database.
    GivenBack,
    /// The file of the last acknowledged record was lost; the database proved the journal.
    Proven,
    /// The store is of the first version, which marked no record as acknowledged: the journal has
    /// this many more records than the database proves.
    Unmarked(u64),
    /// The database was rebuilt from the journal, for this reason.
    Rebuilt(String),
}
