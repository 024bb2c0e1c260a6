//! Which TLS a workload takes from its peers (Istio `PeerAuthentication`).

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Labels, Origin, Selector};

/// The policy of one object; scope follows from its namespace and selector.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct PeerTlsPolicy {
    /// The object. In the root namespace without a selector it is mesh-wide.
    pub origin: Origin,
    /// Workloads of its namespace; empty: all of them.
    pub selector: Selector,
    /// `None`: inherit (`UNSET`).
    pub mode: Option<PeerTls>,
    /// By workload (container) port; needs a selector. `None`: inherit.
    pub ports: BTreeMap<u16, Option<PeerTls>>,
}

impl PeerTlsPolicy {
    /// Whether it may speak for workloads with these labels. `root`: the root namespace.
    pub fn governs(&self, root: &str, namespace: &str, labels: &Labels) -> bool {
        let own = *self.origin.id.namespace == *namespace;
        let mesh_wide = *self.origin.id.namespace == *root && self.selector.is_empty();
        (own || mesh_wide) && self.selector.matches(labels)
    }
}

/// What is taken from peers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum PeerTls {
    /// Plaintext only.
    Disable,
    /// Both (the built-in default).
    Permissive,
    /// Mutual TLS only.
    Strict,
}
