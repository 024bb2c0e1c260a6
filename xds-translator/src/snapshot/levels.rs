//! Policies of which one is in force at each level: the mesh, a namespace, a workload. The oldest of
//! several that stand at one level counts.

use std::{collections::BTreeMap, sync::Arc};

use super::age::{ByAge, age, forget};
use crate::ir::{Labels, Origin, PeerTlsPolicy, ProxyPolicy, Selector, TelemetryPolicy};

/// A policy that stands at a level.
pub(super) trait Leveled {
    /// The object.
    fn origin(&self) -> &Origin;
    /// Workloads of its namespace; empty: all of them, and in the root namespace all of the mesh.
    fn selector(&self) -> &Selector;
}

macro_rules! leveled {
    ($($policy:ty),+) => {$(
        impl Leveled for $policy {
            fn origin(&self) -> &Origin {
                &self.origin
            }

            fn selector(&self) -> &Selector {
                &self.selector
            }
        }
    )+};
}
leveled!(PeerTlsPolicy, ProxyPolicy, TelemetryPolicy);

/// Policies by namespace, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Levels<T>(BTreeMap<Arc<str>, ByAge<T>>);

impl<T> Default for Levels<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Leveled> Levels<T> {
    pub(super) fn insert(&mut self, policy: &Arc<T>) {
        let id = policy.origin().id.clone();
        let place = (age(policy.origin()), id.clone());
        self.0.entry(id.namespace).or_default().insert(place, policy.clone());
    }

    pub(super) fn remove(&mut self, policy: &T) {
        let id = &policy.origin().id;
        forget(&mut self.0, &id.namespace, &(age(policy.origin()), id.clone()));
    }

    /// The policy that selects workloads with these labels.
    pub(super) fn selected(&self, namespace: &str, labels: &Labels) -> Option<&Arc<T>> {
        let selects = |p: &&Arc<T>| !p.selector().is_empty() && p.selector().matches(labels);
        self.of(namespace).find(selects)
    }

    /// The policies of the workload, of its namespace and of the mesh. The root namespace's without
    /// selector is the mesh's, also for workloads that live there.
    pub(super) fn levels(
        &self,
        root: &str,
        namespace: &str,
        labels: &Labels,
    ) -> [Option<&Arc<T>>; 3] {
        let whole = |namespace| self.of(namespace).find(|p: &&Arc<T>| p.selector().is_empty());
        [self.selected(namespace, labels), whole(namespace), whole(root)]
    }

    fn of(&self, namespace: &str) -> impl Iterator<Item = &Arc<T>> {
        self.0.get(namespace).into_iter().flat_map(BTreeMap::values)
    }
}
