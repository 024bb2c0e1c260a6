//! Security policies by namespace: which TLS workloads take, and who may call them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::routes::{ByAge, age, forget};
use crate::ir::{AccessPolicy, Labels, ObjectId, PeerTls, PeerTlsPolicy};

/// Every security policy of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct Policies {
    /// By namespace, oldest first.
    peer_tls: BTreeMap<Arc<str>, ByAge<PeerTlsPolicy>>,
    /// By namespace, then name.
    access: BTreeMap<Arc<str>, BTreeMap<ObjectId, Arc<AccessPolicy>>>,
}

impl Policies {
    pub(super) fn insert_peer_tls(&mut self, policy: Arc<PeerTlsPolicy>) {
        let id = policy.origin.id.clone();
        let place = (age(&policy.origin), id.clone());
        self.peer_tls.entry(id.namespace).or_default().insert(place, policy);
    }

    pub(super) fn remove_peer_tls(&mut self, policy: &PeerTlsPolicy) {
        let id = &policy.origin.id;
        forget(&mut self.peer_tls, &id.namespace, &(age(&policy.origin), id.clone()));
    }

    pub(super) fn insert_access(&mut self, policy: Arc<AccessPolicy>) {
        let id = policy.origin.id.clone();
        self.access.entry(id.namespace.clone()).or_default().insert(id, policy);
    }

    pub(super) fn remove_access(&mut self, id: &ObjectId) {
        forget(&mut self.access, &id.namespace, id);
    }

    pub(crate) fn peer_tls(&self, root: &str, namespace: &str, labels: &Labels, port: Option<u16>) -> PeerTls {
        let [selected, in_namespace, in_mesh] = self.peer_tls_levels(root, namespace, labels);
        let on_port = port.and_then(|port| selected?.ports.get(&port).copied().flatten());
        on_port
            .or_else(|| selected?.mode)
            .or_else(|| in_namespace?.mode)
            .or_else(|| in_mesh?.mode)
            .unwrap_or(PeerTls::Permissive)
    }

    /// Ports for which the policy of workloads with these labels says something of its own; sorted, unique.
    pub(crate) fn peer_tls_ports(&self, namespace: &str, labels: &Labels) -> Vec<u16> {
        let selected = self.selected(namespace, labels);
        let ports = selected.into_iter().flat_map(|policy| &policy.ports);
        ports.filter(|(_, mode)| mode.is_some()).map(|(port, _)| *port).collect()
    }

    /// The policy that selects workloads with these labels, the oldest of several.
    fn selected(&self, namespace: &str, labels: &Labels) -> Option<&Arc<PeerTlsPolicy>> {
        let own = self.peer_tls.get(namespace).into_iter().flat_map(BTreeMap::values);
        own.into_iter().find(|p| !p.selector.is_empty() && p.selector.matches(labels))
    }

    pub(crate) fn peer_tls_origins(&self, root: &str, namespace: &str, labels: &Labels) -> BTreeSet<ObjectId> {
        let levels = self.peer_tls_levels(root, namespace, labels);
        levels.into_iter().flatten().map(|policy| policy.origin.id.clone()).collect()
    }

    /// The policy of the workload, of its namespace and of the mesh, each the oldest of its kind.
    fn peer_tls_levels(&self, root: &str, namespace: &str, labels: &Labels) -> [Option<&Arc<PeerTlsPolicy>>; 3] {
        let own = || self.peer_tls.get(namespace).into_iter().flat_map(BTreeMap::values);
        let selected = self.selected(namespace, labels);
        // The root namespace's policy without selector is the mesh's, also for workloads that live there.
        let in_namespace = own().find(|p| p.selector.is_empty());
        let in_mesh = self.peer_tls.get(root).into_iter().flat_map(BTreeMap::values).find(|p| p.selector.is_empty());
        [selected, in_namespace, in_mesh]
    }

    pub(crate) fn access(&self, root: &str, namespace: &str, labels: &Labels) -> Vec<Arc<AccessPolicy>> {
        let mut scopes = vec![root, namespace];
        scopes.sort_unstable();
        scopes.dedup();
        let policies = scopes.into_iter().filter_map(|scope| self.access.get(scope)).flat_map(BTreeMap::values);
        policies.filter(|p| p.selector.matches(labels)).cloned().collect()
    }
}
