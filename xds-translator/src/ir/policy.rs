//! What policies are about: where the workloads are, and what of them.

use std::{collections::BTreeSet, sync::Arc};

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
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PolicyTarget {
    /// Everything that it takes.
    All,
    /// What it takes at these ports: of a container, or of a gateway's listener; never empty.
    Ports(BTreeSet<u16>),
    /// What it takes at all other ports; may be empty.
    Except(BTreeSet<u16>),
}

impl PolicyTarget {
    /// What it takes at one port.
    pub fn port(port: u16) -> Self {
        Self::Ports([port].into())
    }

    /// The ports of which it says something else than of those that nobody knows.
    pub fn singled_out(&self) -> impl Iterator<Item = u16> + '_ {
        let ports = match self {
            Self::All => None,
            Self::Ports(ports) | Self::Except(ports) => Some(ports),
        };
        ports.into_iter().flatten().copied()
    }

    /// Whether a port is part of it; `None`: one of those that nobody knows.
    pub fn reaches(&self, port: Option<u16>) -> bool {
        match self {
            Self::All => true,
            Self::Ports(own) => port.is_some_and(|port| own.contains(&port)),
            Self::Except(others) => port.is_none_or(|port| !others.contains(&port)),
        }
    }
}
