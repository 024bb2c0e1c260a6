//! Items that govern workloads of a scope, by scope.

use std::{collections::BTreeMap, sync::Arc};

use super::{age::forget, family::Touch, reader::Dep};
use crate::ir::{ObjectId, Origin, PolicyScope};

/// Items by scope, then object.
#[derive(Clone, Debug)]
pub(super) struct ByScope<T>(BTreeMap<PolicyScope, BTreeMap<ObjectId, Arc<T>>>);

impl<T> Default for ByScope<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> ByScope<T> {
    pub(super) fn insert(&mut self, scope: &PolicyScope, origin: &Origin, item: &Arc<T>) {
        self.0.entry(scope.clone()).or_default().insert(origin.id.clone(), item.clone());
    }

    pub(super) fn remove(&mut self, scope: &PolicyScope, origin: &Origin) {
        forget(&mut self.0, scope, &origin.id);
    }

    /// Every item.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.values().flat_map(BTreeMap::values)
    }

    /// Items for workloads of a namespace that `governs` picks; sorted by object.
    pub(super) fn governing(&self, namespace: &str, governs: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let scopes = [PolicyScope::Mesh, PolicyScope::Namespace(namespace.into())];
        let items = scopes.iter().filter_map(|scope| self.0.get(scope)).flatten();
        let governing: BTreeMap<&ObjectId, &Arc<T>> =
            items.filter(|(_, item)| governs(item)).collect();
        governing.into_values().cloned().collect()
    }
}

/// Touches a fact of every namespace of a scope.
pub(super) fn touch_scope(scope: &PolicyScope, fact: fn(Arc<str>) -> Dep, touch: &mut Touch<'_>) {
    match scope {
        PolicyScope::Mesh => touch.everywhere(fact),
        PolicyScope::Namespace(namespace) => touch.changes.touch(fact(namespace.clone())),
    }
}
