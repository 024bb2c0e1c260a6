//! Services, by key and by host.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    item::ServiceDefinition,
    routes::{Age, age, forget},
};
use crate::ir::{Hostname, ObjectId, Service, ServiceKey, Workload};

/// Every service of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct Services {
    by_host: BTreeMap<Hostname, BTreeMap<Arc<str>, Definitions>>,
    /// Services with a selector, by namespace: selectors reach no further.
    selecting: BTreeMap<Arc<str>, BTreeMap<ServiceKey, Arc<Service>>>,
}

/// Several objects may define one host in one namespace: Kubernetes first, then the oldest, is in force.
type Definitions = BTreeMap<(bool, Age, ObjectId), Arc<ServiceDefinition>>;

impl Services {
    pub(super) fn insert(&mut self, definition: Arc<ServiceDefinition>) {
        let key = definition.service.key.clone();
        let owners = self.by_host.entry(key.host.clone()).or_default();
        owners.entry(key.namespace.clone()).or_default().insert(place(&definition.service), definition);
        self.index_selector(&key);
    }

    pub(super) fn remove(&mut self, service: &Service) {
        let key = &service.key;
        if let Some(owners) = self.by_host.get_mut(&key.host) {
            if let Some(definitions) = owners.get_mut(&key.namespace) {
                definitions.remove(&place(service));
                if definitions.is_empty() {
                    owners.remove(&key.namespace);
                }
            }
            if owners.is_empty() {
                self.by_host.remove(&key.host);
            }
        }
        self.index_selector(key);
    }

    fn index_selector(&mut self, key: &ServiceKey) {
        let service = self.service(key).filter(|s| s.selector.as_ref().is_some_and(|s| !s.is_empty())).cloned();
        match service {
            Some(service) => {
                self.selecting.entry(key.namespace.clone()).or_default().insert(key.clone(), service);
            }
            None => forget(&mut self.selecting, &key.namespace, key),
        }
    }

    pub(crate) fn definition(&self, key: &ServiceKey) -> Option<&Arc<ServiceDefinition>> {
        self.by_host.get(&key.host)?.get(&key.namespace)?.values().next()
    }

    /// Whether several objects define the service, so that a change of one may bring another into force.
    pub(super) fn is_contested(&self, key: &ServiceKey) -> bool {
        self.by_host.get(&key.host).and_then(|owners| owners.get(&key.namespace)).is_some_and(|d| d.len() > 1)
    }

    pub(crate) fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.definition(key).map(|d| &d.service)
    }

    pub(crate) fn visible_to(&self, namespace: &str) -> Arc<[Arc<Service>]> {
        self.by_host.values().filter_map(|owners| choose(owners, namespace)).cloned().collect()
    }

    pub(crate) fn by_host(&self, host: &Hostname, namespace: &str) -> Option<&Arc<Service>> {
        choose(self.by_host.get(host)?, namespace)
    }

    /// Services whose selector picks the workload; sorted by host.
    pub(crate) fn selecting<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = &'a Arc<Service>> {
        let services = self.selecting.get(&workload.id.namespace).into_iter().flat_map(BTreeMap::values);
        services.filter(|s| s.selector.as_ref().is_some_and(|selector| selector.matches(&workload.labels)))
    }
}

fn place(service: &Service) -> (bool, Age, ObjectId) {
    (!service.kubernetes, age(&service.origin), service.origin.id.clone())
}

/// The one service that a host means for clients of a namespace.
fn choose<'a>(owners: &'a BTreeMap<Arc<str>, Definitions>, namespace: &str) -> Option<&'a Arc<Service>> {
    let rank = |s: &Service| (&*s.key.namespace != namespace, !s.kubernetes);
    let in_force = owners.values().filter_map(|definitions| definitions.values().next()).map(|d| &d.service);
    let visible = in_force.filter(|s| s.export_to.includes(namespace));
    visible.min_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.origin.by_age(&b.origin)))
}
