//! What both kinds of routes are made of: destinations, and rules that lead to them.

use std::sync::Arc;

use crate::{
    dialect::lowering::Lowering,
    ir::{
        Destination, DestinationPort, Field, HeaderOps, Hostname, StringMatch, Unreachable,
        WeightedDestination,
    },
};

/// A destination with its share.
pub(super) fn share(
    at: &str,
    host: Hostname,
    port: DestinationPort,
    weight: u32,
    unreachable: Unreachable,
) -> WeightedDestination {
    let at: Field = at.into();
    let subset: Arc<str> = "".into();
    WeightedDestination {
        destination: Destination { host, port, subset, at, of: None },
        weight,
        unreachable,
        headers: HeaderOps::default(),
    }
}

/// All that is for a service goes to itself, at the port that was asked for.
pub(super) fn itself(at: &str, host: &Hostname) -> Vec<WeightedDestination> {
    vec![share(at, host.clone(), DestinationPort::Requested, 1, Unreachable::Fail)]
}

/// A host that is asked for, with a port or without.
pub(super) fn authority(host: &str) -> StringMatch {
    let text = match host.strip_prefix("*.") {
        Some(suffix) => format!("[^:]+\\.{}(?::[0-9]+)?", regex::escape(suffix)),
        None => format!("{}(?::[0-9]+)?", regex::escape(host)),
    };
    StringMatch::Regex(text.into())
}

impl Lowering<'_> {
    /// The host of a Service; `namespace`: empty is the object's own.
    pub(super) fn service_host(&self, name: &str, namespace: &str) -> Hostname {
        let own = if namespace.is_empty() { &**self.namespace() } else { namespace };
        Hostname::new(&format!("{name}.{own}.svc.{}", self.mesh.domain))
    }
}
