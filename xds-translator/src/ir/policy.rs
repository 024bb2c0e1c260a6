//! What policies are about: where the workloads are, and what of them.

use std::sync::Arc;

use serde::Serialize;

/// Where the workloads are that a policy is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum PolicyScope {
    /// In every namespace.
    Mesh,
    /// In this one.
    Namespace(Arc<str>),
}

impl PolicyScope {
    /// The scope of an object of `namespace`: the root namespace speaks for the mesh.
    pub fn of(namespace: &Arc<str>, root: &str) -> Self {
        if **namespace == *root { Self::Mesh } else { Self::Namespace(namespace.clone()) }
    }

    /// Whether workloads of a namespace are in it.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Mesh => true,
            Self::Namespace(own) => **own == *namespace,
        }
    }
}

/// What of a workload a policy is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PolicyTarget {
    /// Everything that it takes.
    All,
    /// What it takes at this port: of a container, or of a gateway's listener.
    Port(u16),
}

impl PolicyTarget {
    /// The port, if it is about one.
    pub fn port(self) -> Option<u16> {
        match self {
            Self::All => None,
            Self::Port(port) => Some(port),
        }
    }

    /// Whether a port is part of it.
    pub fn reaches_port(self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Port(own) => own == port,
        }
    }
}
