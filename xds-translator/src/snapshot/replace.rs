//! Puts the items of one object in the place of its former ones, and names the facts that this
//! changed.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Audience, ChangeSet, Dep, Item, MeshSnapshot,
    endpoints::{Difference, is_entry},
    family::{Fed, Touch},
};
use crate::ir::{ServiceKey, Workload};

impl MeshSnapshot {
    /// Replaces the items of one object. `audience` tells which facts somebody may have recorded.
    pub(crate) fn replace(
        &mut self,
        old: &[Item],
        new: &[Item],
        audience: &Audience,
        changes: &mut ChangeSet,
    ) {
        let before = self.machines(old.iter().chain(new));
        self.exchange(old, new, audience, changes);
        let after = self.machines(old.iter().chain(new));
        let connections: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for connection in connections {
            let (before, after) = (before.get(connection), after.get(connection));
            let items = |item: Option<&Item>| item.cloned().into_iter().collect::<Vec<_>>();
            self.exchange(&items(before), &items(after), audience, changes);
        }
    }

    /// As [`Self::replace`], of what no machine depends on.
    pub(super) fn exchange(
        &mut self,
        old: &[Item],
        new: &[Item],
        audience: &Audience,
        changes: &mut ChangeSet,
    ) {
        if old == new {
            return;
        }
        let mut contested = self.contested(old);
        old.iter().for_each(|item| self.families.remove(item));
        new.iter().for_each(|item| self.families.insert(item));
        contested.extend(self.contested(new));
        let root = self.mesh().root_namespace.clone();
        let mut touched = Touch { audience, changes, contested, root };
        touch(old, new, &mut touched);
        let contested = touched.contested;
        let (before, after) = (label_keys(old), label_keys(new));
        if before != after {
            Arc::make_mut(&mut self.label_keys).replace(&before, &after, changes);
        }
        let fed = Fed { services: contested, workloads: Vec::new() };
        self.rebuild_endpoints(old.iter().chain(new), fed, changes);
    }

    fn contested(&self, items: &[Item]) -> BTreeSet<ServiceKey> {
        let mut contested = BTreeSet::new();
        items.iter().for_each(|item| self.families.contested(item, &mut contested));
        contested
    }

    fn rebuild_endpoints<'a>(
        &mut self,
        changed: impl Iterator<Item = &'a Item>,
        mut fed: Fed,
        changes: &mut ChangeSet,
    ) {
        changed.for_each(|item| item.feeds(&mut fed));
        for workload in &fed.workloads {
            self.services_with(workload, &mut fed.services);
        }
        for key in fed.services {
            let difference = Arc::make_mut(&mut self.endpoints).rebuild(&key, &self.families);
            // Without a selector only endpoints tell which service ports lead to a workload.
            let service = self.services().service(&key);
            let by_endpoints = service.is_none_or(|s| s.selector.is_none());
            if difference.endpoints && by_endpoints {
                changes.reclassify.namespaces.insert(key.namespace.clone());
            }
            touch_endpoints(&key, difference, changes);
        }
    }

    /// Services whose endpoints may come from the workload.
    fn services_with(&self, workload: &Workload, stale: &mut BTreeSet<ServiceKey>) {
        stale.extend(self.slices().holding(workload).cloned());
        let selecting = self.services().selecting(workload).map(|s| &s.key);
        let by_workloads =
            |key: &&ServiceKey| is_entry(workload) || self.slices().of(key).is_none();
        stale.extend(selecting.filter(by_workloads).cloned());
    }
}

/// Label keys of clients that the items of an object refer to.
fn label_keys(items: &[Item]) -> BTreeSet<Arc<str>> {
    let mut keys = BTreeSet::new();
    items.iter().for_each(|item| item.label_keys(&mut keys));
    keys
}

/// Notes the facts that differ between the items of an object.
fn touch(old: &[Item], new: &[Item], touch: &mut Touch<'_>) {
    // Items that are in both lists changed nothing; an object gives several items only as a
    // ServiceEntry.
    let gone: Vec<&Item> = old.iter().filter(|item| !new.contains(item)).collect();
    let came: Vec<&Item> = new.iter().filter(|item| !old.contains(item)).collect();
    match (&gone[..], &came[..]) {
        ([one], [other]) => Item::touch(&[one, other], touch),
        _ => gone.iter().chain(&came).for_each(|item| Item::touch(&[item], touch)),
    }
}

fn touch_endpoints(key: &ServiceKey, difference: Difference, changes: &mut ChangeSet) {
    let facts = [
        (difference.endpoints, Dep::Endpoints as fn(ServiceKey) -> Dep),
        (difference.identities, Dep::Identities),
        (difference.headless, Dep::HeadlessAddresses),
        (difference.plaintext, Dep::Plaintext),
    ];
    for (_, dep) in facts.into_iter().filter(|(changed, _)| *changed) {
        changes.touch(dep(key.clone()));
    }
}
