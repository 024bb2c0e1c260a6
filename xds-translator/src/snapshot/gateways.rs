//! Gateway configurations, and which of them a workload gets.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{GatewayConfig, Labels, ObjectId, ServerTls};

/// Every gateway configuration.
#[derive(Clone, Default, Debug)]
pub(crate) struct Gateways(BTreeMap<ObjectId, Arc<GatewayConfig>>);

impl Gateways {
    pub(crate) fn get(&self, id: &ObjectId) -> Option<&Arc<GatewayConfig>> {
        self.0.get(id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<GatewayConfig>> {
        self.0.values()
    }

    /// Gateways that select a workload with these labels, oldest first. A gateway selects in every
    /// namespace.
    pub(crate) fn selecting(&self, labels: &Labels) -> Vec<Arc<GatewayConfig>> {
        let mut selected: Vec<_> =
            self.0.values().filter(|g| g.selector.matches(labels)).cloned().collect();
        selected.sort_by(|a, b| a.origin.by_age(&b.origin));
        selected
    }
}

impl Family for Gateways {
    type Item = GatewayConfig;

    fn insert(&mut self, gateway: &Arc<GatewayConfig>) {
        self.0.insert(gateway.origin.id.clone(), gateway.clone());
    }

    fn remove(&mut self, gateway: &GatewayConfig) {
        self.0.remove(&gateway.origin.id);
    }

    fn touch(versions: &[&Arc<GatewayConfig>], touch: &mut Touch<'_>) {
        touch.changes.touch(Dep::Object(versions[0].origin.id.clone()));
        let same = |a: &GatewayConfig, b: &GatewayConfig| {
            (&a.selector, &a.origin) == (&b.selector, &b.origin) && listens(a) == listens(b)
        };
        // Gateways select workloads of any namespace.
        touch.changes.reclassify.everyone |= !versions.windows(2).any(|w| same(w[0], w[1]));
    }
}

impl<'a> Reader<'a> {
    /// One gateway configuration.
    pub fn gateway(&self, id: &ObjectId) -> Option<&'a Arc<GatewayConfig>> {
        self.record(Dep::Object(id.clone()));
        self.snapshot().gateways().get(id)
    }
}

/// Server ports and credentials: what the class of a gateway takes from its configuration.
fn listens(gateway: &GatewayConfig) -> Vec<(u16, Vec<Arc<str>>)> {
    let names =
        |tls: &ServerTls| tls.credentials.iter().chain(&tls.ca_credential).cloned().collect();
    gateway
        .servers
        .iter()
        .map(|s| (s.port, s.tls.as_ref().map(names).unwrap_or_default()))
        .collect()
}
