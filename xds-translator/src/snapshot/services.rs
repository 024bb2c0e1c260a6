//! Services, by key and by host.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    age::{Age, age, forget},
    family::{Family, Fed, Touch},
    item::ServiceDefinition,
    reader::{Dep, Reader},
};
use crate::ir::{Hostname, ObjectId, Service, ServiceKey, Visibility, Workload};

/// Every service of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct Services {
    by_host: BTreeMap<Hostname, BTreeMap<Arc<str>, Definitions>>,
    /// Services with a selector, by namespace: selectors reach no further.
    selecting: BTreeMap<Arc<str>, BTreeMap<ServiceKey, Arc<Service>>>,
}

/// Several objects may define one host in one namespace: Kubernetes first, then the oldest, is in
/// force.
type Definitions = BTreeMap<(bool, Age, ObjectId), Arc<ServiceDefinition>>;

impl Services {
    fn index_selector(&mut self, key: &ServiceKey) {
        let service = self
            .service(key)
            .filter(|s| s.selector.as_ref().is_some_and(|s| !s.is_empty()))
            .cloned();
        match service {
            Some(service) => {
                self.selecting
                    .entry(key.namespace.clone())
                    .or_default()
                    .insert(key.clone(), service);
            }
            None => forget(&mut self.selecting, &key.namespace, key),
        }
    }

    pub(crate) fn definition(&self, key: &ServiceKey) -> Option<&Arc<ServiceDefinition>> {
        self.by_host.get(&key.host)?.get(&key.namespace)?.values().next()
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

    /// Services with this host in any namespace, whoever sees them.
    pub(crate) fn defining<'a>(
        &'a self,
        host: &Hostname,
    ) -> impl Iterator<Item = &'a Arc<Service>> + 'a {
        let owners = self.by_host.get(host).into_iter().flat_map(BTreeMap::values);
        owners.filter_map(|definitions| definitions.values().next()).map(|d| &d.service)
    }

    /// Services whose host stands for some name that `pattern` stands for too, whoever sees them.
    pub(crate) fn overlapping<'a>(
        &'a self,
        pattern: &'a Hostname,
    ) -> impl Iterator<Item = &'a Arc<Service>> + 'a {
        let hosts = self.by_host.keys().filter(|host| pattern.overlaps(host));
        hosts.flat_map(|host| self.defining(host))
    }

    /// Services whose selector picks the workload; sorted by host.
    pub(crate) fn selecting<'a>(
        &'a self,
        workload: &'a Workload,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let services =
            self.selecting.get(&workload.id.namespace).into_iter().flat_map(BTreeMap::values);
        services.filter(|s| {
            s.selector.as_ref().is_some_and(|selector| selector.matches(&workload.labels))
        })
    }
}

impl Family for Services {
    type Item = ServiceDefinition;

    fn insert(&mut self, definition: &Arc<ServiceDefinition>) {
        let key = definition.service.key.clone();
        let owners = self.by_host.entry(key.host.clone()).or_default();
        owners
            .entry(key.namespace.clone())
            .or_default()
            .insert(place(&definition.service), definition.clone());
        self.index_selector(&key);
    }

    fn remove(&mut self, definition: &ServiceDefinition) {
        let service = &definition.service;
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

    fn touch(versions: &[&Arc<ServiceDefinition>], touch: &mut Touch<'_>) {
        if versions.windows(2).any(|w| w[0].service == w[1].service) {
            return;
        }
        for service in versions.iter().map(|d| &d.service) {
            let key = &service.key;
            let contested = touch.contested.contains(key);
            // Another definition may be seen by others.
            let seen_by = if contested { &Visibility::Public } else { &service.export_to };
            for namespace in touch.audience.seeing(seen_by, &key.namespace) {
                touch.changes.touch(Dep::ServicesVisible(namespace.clone()));
                touch.changes.touch(Dep::ServiceByHost(key.host.clone(), namespace.clone()));
            }
            touch.changes.touch(Dep::Service(key.clone()));
            // Inbound views list the services that lead to a workload, and selectors reach no
            // further than a namespace.
            if service.selector.is_some() || contested {
                touch.changes.reclassify.namespaces.insert(key.namespace.clone());
            }
        }
    }

    fn feeds(definition: &Arc<ServiceDefinition>, fed: &mut Fed) {
        fed.services.insert(definition.service.key.clone());
    }

    fn contested(&self, definition: &ServiceDefinition) -> Option<ServiceKey> {
        let key = &definition.service.key;
        let definitions = self.by_host.get(&key.host)?.get(&key.namespace)?;
        (definitions.len() > 1).then(|| key.clone())
    }
}

impl<'a> Reader<'a> {
    /// Services that clients of `namespace` see by `exportTo`; sorted by host, one per host: the
    /// namespace's own before a Kubernetes Service before the oldest.
    pub fn services_visible_to(&self, namespace: &str) -> Arc<[Arc<Service>]> {
        self.record(Dep::ServicesVisible(namespace.into()));
        self.snapshot().services().visible_to(namespace)
    }

    /// The service with this key, visible or not.
    pub fn service(&self, key: &ServiceKey) -> Option<&'a Arc<Service>> {
        self.record(Dep::Service(key.clone()));
        self.snapshot().services().service(key)
    }

    /// The service that `host` means for clients of `client_namespace`, chosen as in
    /// [`Self::services_visible_to`]. Exact hosts only: a wildcard service answers to its own name.
    /// An empty namespace sees what is public.
    pub fn service_by_host(
        &self,
        host: &Hostname,
        client_namespace: &str,
    ) -> Option<&'a Arc<Service>> {
        self.record_host(client_namespace, || {
            Dep::ServiceByHost(host.clone(), client_namespace.into())
        });
        self.snapshot().services().by_host(host, client_namespace)
    }
}

fn place(service: &Service) -> (bool, Age, ObjectId) {
    (!service.kubernetes, age(&service.origin), service.origin.id.clone())
}

/// The one service that a host means for clients of a namespace.
fn choose<'a>(
    owners: &'a BTreeMap<Arc<str>, Definitions>,
    namespace: &str,
) -> Option<&'a Arc<Service>> {
    let rank = |s: &Service| (&*s.key.namespace != namespace, !s.kubernetes);
    let in_force =
        owners.values().filter_map(|definitions| definitions.values().next()).map(|d| &d.service);
    let visible = in_force.filter(|s| s.export_to.includes(namespace));
    visible.min_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.origin.by_age(&b.origin)))
}
