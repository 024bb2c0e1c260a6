//! Label sets and the equality selectors over them.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

/// Labels, sorted by key; may be empty.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Selects by label equality; the empty selector selects everything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub struct Selector(pub Labels);

impl Selector {
    /// Whether every label of the selector is present with the same value.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(k, v)| labels.get(k) == Some(v))
    }

    /// Whether the selector names no label, and so selects everything in its scope.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
