//! Endpoints of services, and the three projections through which they touch anything but
//! assignments and clusters that ask how many there are.
//!
//! A Kubernetes Service gets its endpoints from its slices, and from the WorkloadEntries that it
//! selects. Where no slice of it exists at all (configuration from a directory, without a cluster),
//! they come from the ready workloads that its selector picks. A ServiceEntry names them in place,
//! or selects pods and WorkloadEntries of its namespace; of several that are read as one service,
//! each adds its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    families::Families,
    item::{EndpointSlice, InlineAddress, InlineEndpoint, ServiceDefinition, SliceEndpoint},
    reader::{Dep, Reader},
    workloads::Workloads,
};
use crate::ir::{
    Connection, Discovery, Endpoint, EndpointAddress, Health, MeshDefaults, MeshTls, ObjectId,
    Resolution, Service, ServiceEndpoints, ServiceKey, ServicePort, TargetPort, Workload,
};

/// Endpoints of every service.
#[derive(Clone, Default, Debug)]
pub(crate) struct Endpoints {
    built: BTreeMap<ServiceKey, Built>,
}

/// The endpoints of one service with their projections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Built {
    endpoints: Arc<ServiceEndpoints>,
    identities: Arc<[Arc<str>]>,
    headless: BTreeMap<u16, Arc<[IpAddr]>>,
    plaintext: bool,
    /// Proxies that have to be connected for their endpoints to take mutual TLS; sorted, unique.
    awaited: Arc<[Connection]>,
}

/// Which facts about a service's endpoints a change touched.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Difference {
    pub(super) endpoints: bool,
    pub(super) identities: bool,
    pub(super) headless: bool,
    pub(super) plaintext: bool,
}

impl Endpoints {
    /// Ports of these services whose endpoints include the workload: (service, service port, port
    /// at the workload).
    pub(super) fn leading_to<'a>(
        &'a self,
        services: impl Iterator<Item = &'a ServiceKey> + 'a,
        workload: &'a Workload,
    ) -> impl Iterator<Item = (ServiceKey, u16, u16)> + 'a {
        let ports = services.filter_map(|key| self.built.get(key)).flat_map(|built| {
            let service = &built.endpoints.service;
            built.endpoints.ports.iter().map(move |(port, endpoints)| (service, *port, endpoints))
        });
        ports.flat_map(|(service, port, endpoints)| {
            let own = endpoints.iter().filter_map(|endpoint| port_at(workload, endpoint));
            own.map(move |target| (service.clone(), port, target))
        })
    }

    /// Builds the endpoints of one service again and says what that changed.
    pub(super) fn rebuild(&mut self, key: &ServiceKey, families: &Families) -> Difference {
        let new = families.services.joined(key).map(|joined| {
            let (workloads, mesh) = (&families.workloads, families.settings.get());
            let slices = families.slices.of(key);
            let of_members = |port: &ServicePort| {
                let members = joined.members.iter().chain(&joined.guests);
                let members = members.flat_map(|definition| {
                    let assembly = Assembly { service: &definition.service, workloads, mesh };
                    assembly.behind(port, definition, slices)
                });
                (port.number, sorted(members.collect()))
            };
            let service = &joined.service;
            Built::new(service, service.ports.iter().map(of_members).collect())
        });
        let old = match &new {
            Some(new) => self.built.insert(key.clone(), new.clone()),
            None => self.built.remove(key),
        };
        Difference::between(old.as_ref(), new.as_ref())
    }

    /// Services with an endpoint at an address.
    pub(super) fn services_at(&self, address: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        let here = move |endpoint: &Endpoint| matches!(endpoint.address, EndpointAddress::Ip(own, _) if own == address);
        let leads = move |built: &&Built| built.endpoints.ports.values().flatten().any(here);
        self.built.values().filter(leads).map(|built| &built.endpoints.service)
    }

    pub(crate) fn of(&self, key: &ServiceKey) -> Option<&Arc<ServiceEndpoints>> {
        self.built.get(key).map(|b| &b.endpoints)
    }

    pub(crate) fn identities(&self, key: &ServiceKey) -> Arc<[Arc<str>]> {
        self.built
            .get(key)
            .map_or_else(|| Arc::new([]) as Arc<[Arc<str>]>, |b| b.identities.clone())
    }

    pub(crate) fn headless_addresses(&self, key: &ServiceKey, port: u16) -> Arc<[IpAddr]> {
        let addresses = self.built.get(key).and_then(|b| b.headless.get(&port));
        addresses.cloned().unwrap_or_else(|| Arc::new([]))
    }

    /// Whether some endpoint takes no mutual TLS, whoever is connected.
    fn has_plaintext(&self, key: &ServiceKey) -> bool {
        self.built.get(key).is_some_and(|b| b.plaintext)
    }

    /// Proxies that have to be connected for their endpoints to take mutual TLS; sorted, unique.
    fn awaited(&self, key: &ServiceKey) -> &[Connection] {
        self.built.get(key).map_or(&[], |b| &b.awaited)
    }
}

impl<'a> Reader<'a> {
    /// Every endpoint of a service, those that [`Self::is_away`] too. Only assignments read this,
    /// clusters with inline endpoints, and those from which one of several may be ejected: it
    /// changes with every pod, and with who is away.
    pub fn endpoints(&self, key: &ServiceKey) -> Option<&'a Arc<ServiceEndpoints>> {
        self.record(Dep::Endpoints(key.clone()));
        self.snapshot().endpoints().of(key)
    }

    /// SPIFFE ids of the accounts behind a service; sorted, unique, may be empty.
    pub fn identities(&self, key: &ServiceKey) -> Arc<[Arc<str>]> {
        self.record(Dep::Identities(key.clone()));
        self.snapshot().endpoints().identities(key)
    }

    /// Addresses behind one port of a headless service; sorted, unique. Empty for every other
    /// service.
    pub fn headless_addresses(&self, key: &ServiceKey, port: u16) -> Arc<[IpAddr]> {
        self.record(Dep::HeadlessAddresses(key.clone()));
        self.snapshot().endpoints().headless_addresses(key, port)
    }

    /// Whether some workload behind a service takes no mutual TLS.
    pub fn has_plaintext_endpoint(&self, key: &ServiceKey) -> bool {
        self.record(Dep::Plaintext(key.clone()));
        let endpoints = self.snapshot().endpoints();
        endpoints.has_plaintext(key)
            || endpoints.awaited(key).iter().any(|proxy| !self.was_connected(proxy))
    }

    /// Whether a proxy before an endpoint takes mutual TLS, whatever policies say.
    pub fn has_mesh_proxy(&self, endpoint: &Endpoint) -> bool {
        match endpoint.mesh_tls {
            MeshTls::Never => false,
            MeshTls::Always => true,
            MeshTls::WhileConnected => {
                endpoint.proxy().is_some_and(|proxy| self.was_connected(&proxy))
            }
        }
    }
}

impl Built {
    fn new(service: &Service, ports: BTreeMap<u16, Vec<Endpoint>>) -> Self {
        let all = || ports.values().flatten();
        let identities: BTreeSet<Arc<str>> = all().filter_map(|e| e.identity.clone()).collect();
        let headless = match service.headless {
            true => ports.iter().map(|(port, endpoints)| (*port, addresses(endpoints))).collect(),
            false => BTreeMap::new(),
        };
        Self {
            plaintext: all().any(never_takes_tls),
            awaited: all().filter_map(awaited).collect::<BTreeSet<_>>().into_iter().collect(),
            identities: identities.into_iter().collect(),
            headless,
            endpoints: Arc::new(ServiceEndpoints { service: service.key.clone(), ports }),
        }
    }
}

fn never_takes_tls(endpoint: &Endpoint) -> bool {
    match endpoint.mesh_tls {
        MeshTls::Never => true,
        MeshTls::WhileConnected => endpoint.proxy().is_none(),
        MeshTls::Always => false,
    }
}

fn awaited(endpoint: &Endpoint) -> Option<Connection> {
    endpoint.proxy().filter(|_| endpoint.mesh_tls == MeshTls::WhileConnected)
}

fn addresses(endpoints: &[Endpoint]) -> Arc<[IpAddr]> {
    let ips = endpoints.iter().filter_map(|e| match e.address {
        EndpointAddress::Ip(ip, _) => Some(ip),
        _ => None,
    });
    ips.collect::<BTreeSet<_>>().into_iter().collect()
}

impl Difference {
    fn between(old: Option<&Built>, new: Option<&Built>) -> Self {
        let plaintext = |b: Option<&Built>| b.is_some_and(|b| b.plaintext);
        Self {
            endpoints: old.map(|b| &b.endpoints) != new.map(|b| &b.endpoints),
            identities: old.map_or(&[][..], |b| &b.identities)
                != new.map_or(&[][..], |b| &b.identities),
            headless: old.map(|b| &b.headless) != new.map(|b| &b.headless),
            plaintext: plaintext(old) != plaintext(new)
                || old.map_or(&[][..], |b| &b.awaited) != new.map_or(&[][..], |b| &b.awaited),
        }
    }
}

/// Puts the endpoints of one definition of a service together.
struct Assembly<'a> {
    service: &'a Service,
    workloads: &'a Workloads,
    mesh: &'a MeshDefaults,
}

impl Assembly<'_> {
    /// What the definition says of a port of the service; nothing where it has no such port.
    fn behind(
        &self,
        port: &ServicePort,
        definition: &ServiceDefinition,
        slices: Option<&BTreeMap<ObjectId, Arc<EndpointSlice>>>,
    ) -> Vec<Endpoint> {
        let own = self.service.port(port.number).filter(|own| own.is_same_as(port));
        let Some(port) = own else { return Vec::new() };
        // Slices speak of Kubernetes Services alone.
        match slices.filter(|_| self.service.kubernetes) {
            Some(slices) => [self.by_slices(port, slices.values()), self.by_entries(port)].concat(),
            None if !definition.inline.is_empty() => self.by_inline(port, &definition.inline),
            None if self.service.selector.is_some() => self.by_workloads(port),
            None => self.by_own_name(port),
        }
    }

    fn by_slices<'s>(
        &self,
        port: &ServicePort,
        slices: impl Iterator<Item = &'s Arc<EndpointSlice>>,
    ) -> Vec<Endpoint> {
        let of_slice = |slice: &Arc<EndpointSlice>| {
            let number = slice_port(self.service, port, slice)?;
            Some(
                slice
                    .endpoints
                    .iter()
                    .map(|e| self.by_slice_endpoint(e, number))
                    .collect::<Vec<_>>(),
            )
        };
        slices.filter_map(of_slice).flatten().collect()
    }

    fn by_slice_endpoint(&self, endpoint: &SliceEndpoint, port: u16) -> Endpoint {
        let workload = match &endpoint.target {
            Some(id) => self.workloads.get(id),
            None => self.workloads.at(endpoint.address),
        };
        let usable = endpoint.ready || self.service.publish_not_ready;
        let health = if usable { Health::Healthy } else { Health::Unhealthy };
        let address = EndpointAddress::Ip(endpoint.address, port);
        match workload {
            Some(workload) => self.of_workload(workload, address, health),
            None => unknown(address, health),
        }
    }

    fn by_workloads(&self, port: &ServicePort) -> Vec<Endpoint> {
        let selected =
            self.workloads.in_namespace(&self.service.key.namespace).filter(|w| self.selects(w));
        selected.filter_map(|w| self.by_workload(w, port)).collect()
    }

    /// WorkloadEntries that a Service selects stand beside the pods that the cluster found for it.
    fn by_entries(&self, port: &ServicePort) -> Vec<Endpoint> {
        let entries =
            self.workloads.in_namespace(&self.service.key.namespace).filter(|w| is_entry(w));
        entries.filter(|w| self.selects(w)).filter_map(|w| self.by_workload(w, port)).collect()
    }

    fn selects(&self, workload: &Workload) -> bool {
        let picked = self
            .service
            .selector
            .as_ref()
            .is_some_and(|s| !s.is_empty() && s.matches(&workload.labels));
        picked && (workload.ready || self.service.publish_not_ready)
    }

    fn by_workload(&self, workload: &Workload, port: &ServicePort) -> Option<Endpoint> {
        let number = workload_port(workload, port)?;
        let address = match (workload.addresses.first(), &workload.host) {
            (Some(ip), _) => EndpointAddress::Ip(*ip, number),
            (None, Some(host)) => EndpointAddress::Host(host.clone(), number),
            (None, None) => return None,
        };
        Some(self.of_workload(workload, address, Health::Healthy))
    }

    fn of_workload(
        &self,
        workload: &Workload,
        address: EndpointAddress,
        health: Health,
    ) -> Endpoint {
        Endpoint {
            address,
            workload: Some(workload.id.clone()),
            labels: workload.labels.clone(),
            identity: self.identity(&workload.id.namespace, &workload.service_account),
            mesh_tls: workload.mesh_tls,
            locality: workload.locality.clone(),
            weight: workload.weight.unwrap_or(1),
            health,
            network: workload.network.clone(),
            node: workload.node.clone(),
            workload_name: workload.workload_name.clone(),
        }
    }

    fn by_inline(&self, port: &ServicePort, inline: &[InlineEndpoint]) -> Vec<Endpoint> {
        let one = |e: &InlineEndpoint| {
            let number = e.ports.get(&port.name).copied().unwrap_or_else(|| target_number(port));
            let address = match &e.address {
                InlineAddress::Ip(ip) => EndpointAddress::Ip(*ip, number),
                InlineAddress::Host(host) => EndpointAddress::Host(host.clone(), number),
                InlineAddress::Pipe(path) => EndpointAddress::Pipe(path.clone()),
            };
            Endpoint {
                address,
                labels: e.labels.clone(),
                identity: self.identity(&self.service.key.namespace, &e.service_account),
                mesh_tls: e.mesh_tls,
                locality: e.locality.clone(),
                weight: e.weight,
                network: e.network.clone(),
                ..unknown(EndpointAddress::Pipe("".into()), Health::Healthy)
            }
        };
        inline.iter().map(one).collect()
    }

    /// A DNS service without endpoints is its own endpoint.
    fn by_own_name(&self, port: &ServicePort) -> Vec<Endpoint> {
        let host = &self.service.key.host;
        match self.service.resolution {
            Resolution::Dns { .. } if !host.is_wildcard() => {
                vec![unknown(
                    EndpointAddress::Host(host.clone(), target_number(port)),
                    Health::Healthy,
                )]
            }
            _ => Vec::new(),
        }
    }

    fn identity(&self, namespace: &str, account: &str) -> Option<Arc<str>> {
        let id = || format!("spiffe://{}/ns/{namespace}/sa/{account}", self.mesh.trust_domain);
        (!account.is_empty()).then(|| id().into())
    }
}

fn unknown(address: EndpointAddress, health: Health) -> Endpoint {
    Endpoint {
        address,
        workload: None,
        labels: BTreeMap::new(),
        identity: None,
        mesh_tls: MeshTls::Never,
        locality: Default::default(),
        weight: 1,
        health,
        network: "".into(),
        node: "".into(),
        workload_name: "".into(),
    }
}

/// The port at which a workload is an endpoint; `None`: it is another's. One that is written down
/// is the workload's by its address.
fn port_at(workload: &Workload, endpoint: &Endpoint) -> Option<u16> {
    let EndpointAddress::Ip(address, port) = endpoint.address else { return None };
    let own = match &endpoint.workload {
        Some(id) => *id == workload.id,
        None => workload.addresses.contains(&address),
    };
    own.then_some(port)
}

/// Each endpoint once: overlapping slices are normal while the cluster moves endpoints between
/// them.
fn sorted(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    endpoints.sort_unstable();
    endpoints.dedup_by(|a, b| a.address == b.address);
    endpoints
}

/// Whether a workload is no pod, so that the cluster's slices do not speak of it.
pub(super) fn is_entry(workload: &Workload) -> bool {
    workload.discovery == Discovery::Selectors
}

/// The port at the workload that a service port leads to, when it is written as a number.
fn target_number(port: &ServicePort) -> u16 {
    match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Name(_) => port.number,
    }
}

/// The container port of a workload that a service port leads to; `None` when the workload has no
/// port of that name.
pub(crate) fn workload_port(workload: &Workload, port: &ServicePort) -> Option<u16> {
    let mapped =
        is_entry(workload).then(|| workload.named_ports.get(&port.name).copied()).flatten();
    mapped.or_else(|| match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => workload.named_ports.get(name).copied(),
    })
}

/// Slices name ports as the service does; a lone unnamed port needs no name.
fn slice_port(service: &Service, port: &ServicePort, slice: &EndpointSlice) -> Option<u16> {
    let named = slice.ports.iter().find(|(name, _)| *name == port.name);
    let lone = || (service.ports.len() == 1 && slice.ports.len() == 1).then(|| &slice.ports[0]);
    named.or_else(lone).map(|(_, number)| *number)
}
