//! Groups of machines, by namespace and name.

use std::{collections::BTreeMap, sync::Arc};

use super::family::{Family, Touch};
use crate::ir::{ObjectId, WorkloadGroup};

/// Every group of machines.
#[derive(Clone, Default, Debug)]
pub(crate) struct Groups(BTreeMap<(Arc<str>, Arc<str>), Named>);

/// Groups of one name and namespace: there may be more than one while objects come and go.
type Named = BTreeMap<ObjectId, Arc<WorkloadGroup>>;

/// Where a group is.
pub(super) fn key(id: &ObjectId) -> (Arc<str>, Arc<str>) {
    (id.namespace.clone(), id.name.clone())
}

impl Groups {
    /// The group of a name in a namespace.
    pub(super) fn get(&self, namespace: &str, name: &Arc<str>) -> Option<&Arc<WorkloadGroup>> {
        self.0.get(&(namespace.into(), name.clone()))?.values().next()
    }
}

impl Family for Groups {
    type Item = WorkloadGroup;

    fn insert(&mut self, group: &Arc<WorkloadGroup>) {
        let id = &group.origin.id;
        self.0.entry(key(id)).or_default().insert(id.clone(), group.clone());
    }

    fn remove(&mut self, group: &WorkloadGroup) {
        let id = &group.origin.id;
        if let Some(all) = self.0.get_mut(&key(id)) {
            all.remove(id);
            if all.is_empty() {
                self.0.remove(&key(id));
            }
        }
    }

    /// Nobody reads a group: the machines by it are workloads, which are replaced with it.
    fn touch(_: &[&Arc<WorkloadGroup>], _: &mut Touch<'_>) {}
}
