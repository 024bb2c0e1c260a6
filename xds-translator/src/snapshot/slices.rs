//! Slices: endpoints that the cluster found for Kubernetes Services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    family::{Family, Fed, Touch},
    item::EndpointSlice,
};
use crate::ir::{ObjectId, ServiceKey, Workload, WorkloadId};

/// Every slice of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct Slices {
    by_service: BTreeMap<ServiceKey, BTreeMap<ObjectId, Arc<EndpointSlice>>>,
    /// Services with a slice that names this pod.
    by_target: BTreeMap<WorkloadId, BTreeSet<ServiceKey>>,
    /// Services with a slice that holds this address and names no pod.
    by_address: BTreeMap<IpAddr, BTreeSet<ServiceKey>>,
}

impl Slices {
    /// The slices of a service; `None` when there is none at all.
    pub(super) fn of(&self, key: &ServiceKey) -> Option<&BTreeMap<ObjectId, Arc<EndpointSlice>>> {
        self.by_service.get(key)
    }

    /// Services whose slices speak of the workload.
    pub(super) fn holding<'a>(
        &'a self,
        workload: &'a Workload,
    ) -> impl Iterator<Item = &'a ServiceKey> {
        let by_target = self.by_target.get(&workload.id).into_iter().flatten();
        by_target.chain(workload.addresses.iter().filter_map(|a| self.by_address.get(a)).flatten())
    }
}

impl Family for Slices {
    type Item = EndpointSlice;

    fn insert(&mut self, slice: &Arc<EndpointSlice>) {
        let key = slice.service.clone();
        self.by_service
            .entry(key.clone())
            .or_default()
            .insert(slice.origin.id.clone(), slice.clone());
        for endpoint in &slice.endpoints {
            match &endpoint.target {
                Some(target) => {
                    self.by_target.entry(target.clone()).or_default().insert(key.clone())
                }
                None => self.by_address.entry(endpoint.address).or_default().insert(key.clone()),
            };
        }
    }

    fn remove(&mut self, slice: &EndpointSlice) {
        let key = &slice.service;
        let kept = match self.by_service.get_mut(key) {
            Some(slices) => {
                slices.remove(&slice.origin.id);
                slices.clone()
            }
            None => return,
        };
        if kept.is_empty() {
            self.by_service.remove(key);
        }
        let still = || kept.values().flat_map(|s| &s.endpoints);
        let targets: BTreeSet<&WorkloadId> = still().filter_map(|e| e.target.as_ref()).collect();
        let addresses: BTreeSet<IpAddr> =
            still().filter(|e| e.target.is_none()).map(|e| e.address).collect();
        for endpoint in &slice.endpoints {
            match &endpoint.target {
                Some(target) if !targets.contains(target) => {
                    forget(&mut self.by_target, target, key)
                }
                None if !addresses.contains(&endpoint.address) => {
                    forget(&mut self.by_address, &endpoint.address, key)
                }
                _ => {}
            }
        }
    }

    /// What slices say reaches plans through the endpoints that are built from them.
    fn touch(_versions: &[&Arc<EndpointSlice>], _touch: &mut Touch<'_>) {}

    fn feeds(slice: &Arc<EndpointSlice>, fed: &mut Fed) {
        fed.services.insert(slice.service.clone());
    }
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<ServiceKey>>, entry: &K, key: &ServiceKey) {
    if let Some(keys) = index.get_mut(entry) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(entry);
        }
    }
}
