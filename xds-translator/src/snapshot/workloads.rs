//! Workloads, by name and by address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::ir::{ObjectId, Workload, WorkloadId};

/// Every workload of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct Workloads {
    /// Of a pod and a WorkloadEntry with the same name the pod counts.
    by_id: BTreeMap<WorkloadId, BTreeMap<ObjectId, Arc<Workload>>>,
    by_address: BTreeMap<IpAddr, BTreeSet<WorkloadId>>,
}

impl Workloads {
    pub(super) fn insert(&mut self, workload: Arc<Workload>) {
        for address in &workload.addresses {
            self.by_address.entry(*address).or_default().insert(workload.id.clone());
        }
        self.by_id.entry(workload.id.clone()).or_default().insert(workload.origin.id.clone(), workload);
    }

    pub(super) fn remove(&mut self, workload: &Workload) {
        let Some(definitions) = self.by_id.get_mut(&workload.id) else { return };
        definitions.remove(&workload.origin.id);
        let kept: BTreeSet<IpAddr> = definitions.values().flat_map(|w| w.addresses.iter().copied()).collect();
        if definitions.is_empty() {
            self.by_id.remove(&workload.id);
        }
        for address in workload.addresses.iter().filter(|a| !kept.contains(a)) {
            if let Some(ids) = self.by_address.get_mut(address) {
                ids.remove(&workload.id);
                if ids.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
    }

    pub(crate) fn get(&self, id: &WorkloadId) -> Option<&Arc<Workload>> {
        self.by_id.get(id)?.values().next()
    }

    /// The workload at an address that is not on the host's network; the first by name when several claim it.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        let ids = self.by_address.get(&address).into_iter().flatten();
        ids.filter_map(|id| self.get(id)).find(|w| !w.host_network)
    }

    pub(crate) fn in_namespace(&self, namespace: &Arc<str>) -> impl Iterator<Item = &Arc<Workload>> {
        let first = WorkloadId { namespace: namespace.clone(), name: "".into() };
        let range = self.by_id.range(first..).take_while(move |(id, _)| id.namespace == *namespace);
        range.filter_map(|(_, definitions)| definitions.values().next())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_id.values().filter_map(|definitions| definitions.values().next())
    }
}
