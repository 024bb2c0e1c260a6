//! Ports of workloads that objects of their own describe, for others to refer to.

use std::sync::Arc;

use serde::Serialize;

use super::{Field, Labels, ObjectId, Origin, Protocol, Selector};

/// A port of some workloads, as one object describes it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct WorkloadPort {
    /// The object.
    pub origin: Origin,
    /// Labels of the object, by which others may refer to it.
    pub labels: Labels,
    /// Workloads of its namespace; empty: all.
    pub selector: Selector,
    /// The port.
    pub port: PortName,
    /// What is spoken there; `None`: what the services say that lead to it.
    pub protocol: Option<Protocol>,
}

/// A port of a workload.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PortName {
    /// By its number.
    Number(u16),
    /// By the name that the workload gives it; one without such a port is not meant.
    Named(Arc<str>),
}

/// Ports that objects of the same namespace describe ([`WorkloadPort`]).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct SharedPorts {
    /// Where they are named.
    pub at: Field,
    /// Which.
    pub which: WhichPorts,
}

/// Which objects' ports are meant.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum WhichPorts {
    /// This one's.
    Of(ObjectId),
    /// Those of all that have such labels.
    Labelled(Selector),
}

impl SharedPorts {
    /// Whether the port of an object is meant, which is of the namespace of the one that names it.
    pub fn contains(&self, port: &WorkloadPort) -> bool {
        match &self.which {
            WhichPorts::Of(id) => port.origin.id == *id,
            WhichPorts::Labelled(selector) => selector.matches(&port.labels),
        }
    }
}
