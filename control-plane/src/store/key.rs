//! What a stored object is called.

use serde::{Deserialize, Serialize};

/// Identifies a stored object: `Kind/namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreKey(pub String);

impl StoreKey {
    /// The key of an object; `namespace` is empty for cluster-scoped kinds.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self(format!("{kind}/{namespace}/{name}"))
    }

    /// The kind of the object.
    pub fn kind(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(kind, _)| kind)
    }
}
