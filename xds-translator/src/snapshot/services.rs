//! Services, by key and by host.
//!
//! Several ServiceEntries of a namespace may define one host; those that agree on what a service can
//! have only once ([`Service::apart_from`]) are read as one, with the ports and endpoints of all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use super::{
    MeshSnapshot,
    age::{Age, age, forget},
    family::{Family, Fed, Touch},
    item::{InlineAddress, ServiceDefinition},
    reader::{Dep, Reader},
};
use crate::ir::{Distribution, Hostname, ObjectId, Service, ServiceKey, Visibility, Workload};

/// Every service of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct Services {
    by_host: BTreeMap<Hostname, BTreeMap<Arc<str>, Owner>>,
    /// Services with a selector, by namespace: selectors reach no further.
    selecting: BTreeMap<Arc<str>, BTreeMap<ServiceKey, Arc<Service>>>,
    /// Services with an endpoint that is written down with this address, with how many.
    written: BTreeMap<IpAddr, BTreeMap<ServiceKey, usize>>,
}

/// What one namespace says of one host.
#[derive(Clone, Default, Debug)]
struct Owner {
    /// Kubernetes first, then by age.
    definitions: BTreeMap<(bool, Age, ObjectId), Arc<ServiceDefinition>>,
    /// The services that these come to, in their order; a client gets the first that it sees.
    joined: Vec<Joined>,
}

/// A service with the definitions that are read as one; never empty.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub(super) service: Arc<Service>,
    /// Oldest first.
    pub(super) members: Vec<Arc<ServiceDefinition>>,
    /// ServiceEntries that add endpoints to a Kubernetes Service, and nothing else.
    pub(super) guests: Vec<Arc<ServiceDefinition>>,
}

impl Joined {
    fn of(definition: &Arc<ServiceDefinition>) -> Self {
        let members = vec![definition.clone()];
        Self { service: definition.service.clone(), members, guests: Vec::new() }
    }

    fn takes(&mut self, younger: &Arc<ServiceDefinition>) -> bool {
        let takes = self.service.apart_from(&younger.service).is_none();
        if takes {
            Arc::make_mut(&mut self.service).join(&younger.service);
            self.members.push(younger.clone());
        }
        takes
    }
}

impl Owner {
    /// What can be read as one is; what everybody who sees it would find behind another is left
    /// out.
    fn join(&mut self) {
        self.joined.clear();
        for definition in self.definitions.values() {
            if self.joined.iter_mut().any(|joined| joined.takes(definition)) {
                continue;
            }
            let seen_by = &definition.service.export_to;
            if !self.joined.iter().any(|older| older.service.export_to.covers(seen_by)) {
                self.joined.push(Joined::of(definition));
            }
        }
        if let Some(first) = self.joined.first_mut().filter(|first| first.service.kubernetes) {
            let adds = |d: &&Arc<ServiceDefinition>| {
                d.service.adds_endpoints_to(&first.service) && !d.inline.is_empty()
            };
            first.guests = self.definitions.values().filter(adds).cloned().collect();
        }
    }
}

/// Addresses that are allocated to hosts, by the object that defines them; sorted by host.
pub type Allocated = BTreeMap<ObjectId, Vec<(Hostname, Ipv4Addr)>>;

impl Services {
    /// The addresses that are allocated to hosts.
    fn allocated(&self) -> Allocated {
        let owners = self.by_host.values().flat_map(BTreeMap::values);
        let services = owners.flat_map(|owner| owner.definitions.values()).map(|d| &d.service);
        let mut allocated = Allocated::new();
        for service in services {
            if let Some(address) = service.allocated {
                let of_object = allocated.entry(service.origin.id.clone()).or_default();
                of_object.push((service.key.host.clone(), address));
            }
        }
        allocated
    }

    /// Reads the definitions of a host in a namespace anew.
    fn join(&mut self, key: &ServiceKey) {
        let selecting = self.selecting.get(&key.namespace).into_iter();
        let first = ServiceKey::kubernetes(key.host.clone(), key.namespace.clone());
        let known = selecting.flat_map(|services| services.range(first.clone()..));
        let known = known.map(|(known, _)| known.clone());
        let former: Vec<ServiceKey> = known.take_while(|known| known.host == key.host).collect();
        former.iter().for_each(|known| forget(&mut self.selecting, &key.namespace, known));
        let owner =
            self.by_host.get_mut(&key.host).and_then(|owners| owners.get_mut(&key.namespace));
        let Some(owner) = owner else { return };
        owner.join();
        let selects = |s: &&Arc<Service>| s.selector.as_ref().is_some_and(|s| !s.is_empty());
        for service in owner.joined.iter().map(|joined| &joined.service).filter(selects) {
            let selecting = self.selecting.entry(key.namespace.clone()).or_default();
            selecting.insert(service.key.clone(), service.clone());
        }
    }

    /// The service with its definitions.
    pub(super) fn joined(&self, key: &ServiceKey) -> Option<&Joined> {
        let owner = self.by_host.get(&key.host)?.get(&key.namespace)?;
        owner.joined.iter().find(|joined| joined.service.key == *key)
    }

    pub(crate) fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.joined(key).map(|joined| &joined.service)
    }

    /// Every service, sorted by host and namespace.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Service>> {
        let owners = self.by_host.values().flat_map(BTreeMap::values);
        owners.flat_map(|owner| &owner.joined).map(|joined| &joined.service)
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
        owners.flat_map(|owner| &owner.joined).map(|joined| &joined.service)
    }

    /// Definitions of a host in any namespace: by namespace, in the order in which clients get
    /// them.
    pub(crate) fn definitions<'a>(
        &'a self,
        host: &Hostname,
    ) -> impl Iterator<Item = &'a Arc<ServiceDefinition>> + 'a {
        let owners = self.by_host.get(host).into_iter().flat_map(BTreeMap::values);
        owners.flat_map(|owner| owner.definitions.values())
    }

    /// Services whose host stands for some name that `pattern` stands for too, whoever sees them.
    pub(crate) fn overlapping<'a>(
        &'a self,
        pattern: &'a Hostname,
    ) -> impl Iterator<Item = &'a Arc<Service>> + 'a {
        let hosts = self.by_host.keys().filter(|host| pattern.overlaps(host));
        hosts.flat_map(|host| self.defining(host))
    }

    /// Services of the workload's namespace with an endpoint that is written down with its address.
    /// Those of other namespaces have no say about it.
    pub(crate) fn written_for<'a>(
        &'a self,
        workload: &'a Workload,
    ) -> impl Iterator<Item = &'a ServiceKey> {
        let written = workload.addresses.iter().filter_map(|address| self.written.get(address));
        let keys = written.flat_map(BTreeMap::keys);
        keys.filter(|key| key.namespace == workload.id.namespace)
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
        let key = &definition.service.key;
        let owners = self.by_host.entry(key.host.clone()).or_default();
        let owner = owners.entry(key.namespace.clone()).or_default();
        owner.definitions.insert(place(&definition.service), definition.clone());
        for address in written(definition) {
            *self.written.entry(address).or_default().entry(key.clone()).or_default() += 1;
        }
        self.join(key);
    }

    fn remove(&mut self, definition: &ServiceDefinition) {
        let service = &definition.service;
        let key = &service.key;
        if let Some(owners) = self.by_host.get_mut(&key.host) {
            if let Some(owner) = owners.get_mut(&key.namespace) {
                owner.definitions.remove(&place(service));
                if owner.definitions.is_empty() {
                    owners.remove(&key.namespace);
                }
            }
            if owners.is_empty() {
                self.by_host.remove(&key.host);
            }
        }
        for address in written(definition) {
            let services = self.written.get_mut(&address);
            let count = services.and_then(|services| services.get_mut(key));
            match count {
                Some(count) if *count > 1 => *count -= 1,
                _ => forget(&mut self.written, &address, key),
            }
        }
        self.join(key);
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
            let others = touch.contested.iter().filter(|_| contested);
            touch.changes.deps.extend(others.cloned().map(Dep::Service));
            // Inbound views list the services that lead to a workload, and selectors reach no
            // further than a namespace.
            if service.selector.is_some() || contested {
                touch.changes.reclassify.namespaces.insert(key.namespace.clone());
            }
        }
    }

    fn label_keys(definition: &ServiceDefinition, keys: &mut BTreeSet<Arc<str>>) {
        let compared = definition.service.distribution.map(Distribution::compared_labels);
        keys.extend(compared.into_iter().flatten().map(|&key| Arc::from(key)));
    }

    fn feeds(definition: &Arc<ServiceDefinition>, fed: &mut Fed) {
        fed.services.insert(definition.service.key.clone());
    }

    fn contested(&self, definition: &ServiceDefinition, contested: &mut BTreeSet<ServiceKey>) {
        let key = &definition.service.key;
        let owner = self.by_host.get(&key.host).and_then(|owners| owners.get(&key.namespace));
        let Some(owner) = owner.filter(|owner| owner.definitions.len() > 1) else { return };
        contested.extend(owner.definitions.values().map(|d| d.service.key.clone()));
    }
}

impl MeshSnapshot {
    /// The addresses that are allocated to hosts, by the object that defines them.
    pub fn allocated_addresses(&self) -> Allocated {
        self.services().allocated()
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

/// Addresses that a definition writes down for its endpoints.
fn written(definition: &ServiceDefinition) -> impl Iterator<Item = IpAddr> {
    definition.inline.iter().filter_map(|endpoint| match endpoint.address {
        InlineAddress::Ip(address) => Some(address),
        InlineAddress::Host(_) | InlineAddress::Pipe(_) => None,
    })
}

/// The one service that a host means for clients of a namespace.
fn choose<'a>(owners: &'a BTreeMap<Arc<str>, Owner>, namespace: &str) -> Option<&'a Arc<Service>> {
    let rank = |s: &Service| (&*s.key.namespace != namespace, !s.kubernetes);
    let seen = |s: &&Arc<Service>| s.export_to.includes(namespace);
    let visible = owners
        .values()
        .filter_map(|owner| owner.joined.iter().map(|joined| &joined.service).find(seen));
    visible.min_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.origin.by_age(&b.origin)))
}
