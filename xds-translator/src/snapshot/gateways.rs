//! Gateway configurations and sidecar scopes, and which of them a workload gets.

use std::{collections::BTreeMap, sync::Arc};

use super::routes::{ByAge, age, forget};
use crate::ir::{GatewayConfig, Labels, ObjectId, SidecarScope};

/// Every gateway configuration.
#[derive(Clone, Default, Debug)]
pub(crate) struct Gateways(BTreeMap<ObjectId, Arc<GatewayConfig>>);

impl Gateways {
    pub(super) fn insert(&mut self, gateway: Arc<GatewayConfig>) {
        self.0.insert(gateway.origin.id.clone(), gateway);
    }

    pub(super) fn remove(&mut self, id: &ObjectId) {
        self.0.remove(id);
    }

    pub(crate) fn get(&self, id: &ObjectId) -> Option<&Arc<GatewayConfig>> {
        self.0.get(id)
    }

    /// Gateways that select a workload with these labels, oldest first. A gateway selects in every namespace.
    pub(crate) fn selecting(&self, labels: &Labels) -> Vec<Arc<GatewayConfig>> {
        let mut selected: Vec<_> = self.0.values().filter(|g| g.selector.matches(labels)).cloned().collect();
        selected.sort_by(|a, b| a.origin.by_age(&b.origin));
        selected
    }
}

/// Every sidecar scope.
#[derive(Clone, Default, Debug)]
pub(crate) struct Scopes {
    whole: BTreeMap<ObjectId, Arc<SidecarScope>>,
    by_namespace: BTreeMap<Arc<str>, ByAge<SidecarScope>>,
}

impl Scopes {
    pub(super) fn insert(&mut self, scope: Arc<SidecarScope>) {
        let id = scope.origin.id.clone();
        let place = (age(&scope.origin), id.clone());
        self.by_namespace.entry(id.namespace.clone()).or_default().insert(place, scope.clone());
        self.whole.insert(id, scope);
    }

    pub(super) fn remove(&mut self, scope: &SidecarScope) {
        let id = &scope.origin.id;
        self.whole.remove(id);
        forget(&mut self.by_namespace, &id.namespace, &(age(&scope.origin), id.clone()));
    }

    pub(crate) fn get(&self, id: &ObjectId) -> Option<&Arc<SidecarScope>> {
        self.whole.get(id)
    }

    /// The scope of a workload: one that selects it, else its namespace's default, else the root namespace's; the
    /// oldest of equals.
    pub(crate) fn of(&self, root: &str, namespace: &str, labels: &Labels) -> Option<&Arc<SidecarScope>> {
        let own = || self.by_namespace.get(namespace).into_iter().flat_map(BTreeMap::values);
        let in_root = || self.by_namespace.get(root).into_iter().flat_map(BTreeMap::values);
        own()
            .find(|s| !s.selector.is_empty() && s.selector.matches(labels))
            .or_else(|| own().find(|s| s.selector.is_empty()))
            .or_else(|| in_root().find(|s| s.selector.is_empty()))
    }
}
