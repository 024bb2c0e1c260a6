//! Small objects for tests of planning.

use crate::{
    dialect::Kind,
    ir::{BackendPolicy, Hostname, ObjectId, Origin, TrafficPolicy, Visibility},
};

/// The origin of an object of this kind.
pub(crate) fn origin(kind: Kind, namespace: &str, name: &str) -> Origin {
    Origin { id: ObjectId { kind, namespace: namespace.into(), name: name.into() }, created: 0 }
}

/// A policy that says nothing.
pub(crate) fn policy(namespace: &str, name: &str, host: &str) -> BackendPolicy {
    BackendPolicy {
        origin: origin(Kind::DestinationRule, namespace, name),
        host: Hostname::new(host),
        export_to: Visibility::Public,
        workload_selector: None,
        traffic: TrafficPolicy::default(),
        subsets: Vec::new(),
    }
}
