//! Sidecar scopes, and which of them a workload gets.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    age::{ByAge, age, forget},
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{Labels, ObjectId, SidecarScope};

/// Every sidecar scope.
#[derive(Clone, Default, Debug)]
pub(crate) struct Scopes {
    whole: BTreeMap<ObjectId, Arc<SidecarScope>>,
    by_namespace: BTreeMap<Arc<str>, ByAge<SidecarScope>>,
}

impl Scopes {
    pub(crate) fn get(&self, id: &ObjectId) -> Option<&Arc<SidecarScope>> {
        self.whole.get(id)
    }

    /// The scope of a workload: one that selects it, else its namespace's default, else the root
    /// namespace's; the oldest of equals.
    pub(crate) fn of(
        &self,
        root: &str,
        namespace: &str,
        labels: &Labels,
    ) -> Option<&Arc<SidecarScope>> {
        let own = || self.by_namespace.get(namespace).into_iter().flat_map(BTreeMap::values);
        let in_root = || self.by_namespace.get(root).into_iter().flat_map(BTreeMap::values);
        own()
            .find(|s| !s.selector.is_empty() && s.selector.matches(labels))
            .or_else(|| own().find(|s| s.selector.is_empty()))
            .or_else(|| in_root().find(|s| s.selector.is_empty()))
    }
}

impl Family for Scopes {
    type Item = SidecarScope;

    fn insert(&mut self, scope: &Arc<SidecarScope>) {
        let id = scope.origin.id.clone();
        let place = (age(&scope.origin), id.clone());
        self.by_namespace.entry(id.namespace.clone()).or_default().insert(place, scope.clone());
        self.whole.insert(id, scope.clone());
    }

    fn remove(&mut self, scope: &SidecarScope) {
        let id = &scope.origin.id;
        self.whole.remove(id);
        forget(&mut self.by_namespace, &id.namespace, &(age(&scope.origin), id.clone()));
    }

    fn touch(versions: &[&Arc<SidecarScope>], touch: &mut Touch<'_>) {
        touch.changes.touch(Dep::Object(versions[0].origin.id.clone()));
        if versions
            .windows(2)
            .any(|w| (&w[0].selector, &w[0].origin) == (&w[1].selector, &w[1].origin))
        {
            return;
        }
        touch.reclassify(&versions[0].origin.id.namespace);
    }
}

impl<'a> Reader<'a> {
    /// One sidecar scope.
    pub fn scope(&self, id: &ObjectId) -> Option<&'a Arc<SidecarScope>> {
        self.record(Dep::Object(id.clone()));
        self.snapshot().scopes().get(id)
    }
}
