//! Views: encoded resources that many proxies share, and what changed in them.
//!
//! A view is immutable; the compiler publishes a new one when an item changed. It carries a short
//! log of changes, so that a stream that is a few generations behind does work in proportion to the
//! change, not to the view.

mod table;

use std::sync::Arc;

use ferromesh_proto::{EncodedResource, ResourceType};

pub use self::table::{Table, Walk};
use crate::plan::ViewKey;

/// How many generations of changes a view remembers; a stream further behind compares everything.
pub const CHANGE_LOG: usize = 64;

/// One immutable state of a view.
#[derive(Clone, Debug)]
pub struct View {
    /// Which view.
    pub key: Arc<ViewKey>,
    /// Rises with every published change; starts at 1.
    pub generation: u64,
    /// By [`ResourceType::index`]; empty for what is not served from views.
    pub tables: [Arc<Table>; ResourceType::COUNT],
    /// Newest last; at most [`CHANGE_LOG`] entries; each entry led to its `generation`.
    pub log: Arc<[Arc<ViewChange>]>,
}

/// What one generation changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewChange {
    /// The generation that it led to.
    pub generation: u64,
    /// Names that were added, changed or removed, by type; sorted, unique. Look them up in the
    /// tables.
    pub names: Vec<(ResourceType, Arc<str>)>,
}

impl View {
    /// The resource with this name.
    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Arc<EncodedResource>> {
        self.tables[kind.index()].get(name)
    }

    /// What changed after `generation`, oldest first; `None` when the log does not reach back that
    /// far.
    pub fn changes_since(&self, generation: u64) -> Option<impl Iterator<Item = &ViewChange>> {
        let covered = self.generation.saturating_sub(self.log.len() as u64);
        (generation >= covered)
            .then(|| self.log.iter().map(AsRef::as_ref).filter(move |c| c.generation > generation))
    }
}
