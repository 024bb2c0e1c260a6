//! The mesh as the planner sees it: indexed, immutable to its readers, without secrets and without
//! locks.
//!
//! Lowering gives [`Item`]s; [`MeshSnapshot::replace`] puts the items of one object in the place of
//! its former ones and names the facts that this changed. Equal items change nothing, and an
//! endpoint that changes touches anything but assignments, and clusters that ask how many there are,
//! only through three projections.
//! Precedence among objects is decided here and nowhere else: specificity, then age, then namespace
//! and name. Each family of items is a file and a row of the table in `families`; families are
//! shared by `Arc` and copied only when a reader still holds them.

mod access;
mod access_defaults;
mod age;
mod backends;
mod by_scope;
mod caller_sets;
mod change;
mod connections;
mod credentials;
mod endpoints;
mod families;
mod family;
mod gateways;
mod groups;
mod item;
mod label_keys;
mod levels;
mod machines;
mod match_sets;
mod outbound_policies;
mod parts;
mod patches;
mod peer_tls;
mod proxies;
mod rate_limits;
mod reader;
mod replace;
mod routes;
mod scopes;
mod services;
mod settings;
mod slices;
mod telemetry;
mod tokens;
mod workload_ports;
mod workloads;

use std::sync::Arc;

use ferromesh_proto::SpiffeId;

pub use change::Reclassify;
pub(crate) use change::{Audience, ChangeSet};
pub use credentials::{CredentialFact, CredentialName, Credentials};
pub(crate) use endpoints::workload_port;
pub use families::Item;
pub use item::{EndpointSlice, InlineAddress, InlineEndpoint, ServiceDefinition, SliceEndpoint};
pub(crate) use parts::{NoPart, continued, part};
pub use reader::{Dep, Reader};
pub use services::Allocated;
pub use tokens::WantedKeys;
pub use workloads::Addresses;

use self::{
    connections::Connections, endpoints::Endpoints, families::Families,
    label_keys::ReferencedLabelKeys, machines::Members, settings::Settings, tokens::KeySets,
};
use crate::ir::{
    GatewayConfig, Hostname, MeshDefaults, Service, ServiceEndpoints, ServiceKey, Workload,
};

/// One state of the mesh. Plans see it only through a [`Reader`].
#[derive(Clone, Default, Debug)]
pub struct MeshSnapshot {
    families: Families,
    /// Built from services, slices and workloads.
    endpoints: Arc<Endpoints>,
    credentials: Arc<Credentials>,
    connections: Arc<Connections>,
    members: Arc<Members>,
    key_sets: Arc<KeySets>,
    /// Of all families.
    label_keys: Arc<ReferencedLabelKeys>,
}

impl MeshSnapshot {
    /// A mesh without objects.
    pub(crate) fn new(mesh: Arc<MeshDefaults>) -> Self {
        let mut snapshot = Self::default();
        snapshot.restore_mesh(mesh);
        snapshot
    }

    /// Sets the mesh-wide settings, whatever object gave them.
    pub(crate) fn restore_mesh(&mut self, mesh: Arc<MeshDefaults>) {
        self.families.settings = Arc::new(Settings::new(mesh));
    }

    /// Takes over the credentials of a former state.
    pub(crate) fn take_credentials(&mut self, former: &Self) {
        self.credentials = former.credentials.clone();
    }
}

/// What classification and status need; plans have no access to a snapshot, only to a [`Reader`].
impl MeshSnapshot {
    /// Mesh-wide settings.
    pub fn mesh(&self) -> &Arc<MeshDefaults> {
        self.settings().get()
    }

    /// Every workload of the registry, sorted by namespace and name.
    pub fn all_workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads().all()
    }

    /// Every service with its endpoints, whoever may see it; sorted by host and namespace.
    pub fn all_services(
        &self,
    ) -> impl Iterator<Item = (&Arc<Service>, Option<&Arc<ServiceEndpoints>>)> {
        self.services().all().map(|service| (service, self.endpoints().of(&service.key)))
    }

    /// What the proxy of a workload has to prove; `None`: without an account it can prove nothing.
    pub(crate) fn identity_of(&self, workload: &Workload) -> Option<SpiffeId> {
        let (namespace, account) = (&workload.id.namespace, &workload.service_account);
        SpiffeId::new(self.mesh().trust_domain.clone(), namespace, account).ok()
    }

    /// The workload at an address.
    pub fn workload_at(&self, address: std::net::IpAddr) -> Option<&Arc<Workload>> {
        self.workloads().at(address)
    }

    /// Every gateway configuration, in the order of objects.
    pub fn gateway_configurations(&self) -> impl Iterator<Item = &Arc<GatewayConfig>> {
        self.gateways().all()
    }

    /// Every service with this host, whoever may see it.
    pub(crate) fn services_of(&self, host: &Hostname) -> impl Iterator<Item = &Arc<Service>> {
        self.services().defining(host)
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Credentials of all sources.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// Service ports that lead to a workload: (service, service port, port at the workload);
    /// sorted, unique. Of services without selector their endpoints tell, as slices list them or as
    /// they are written in ServiceEntries.
    pub(crate) fn ports_of(&self, workload: &Workload) -> Vec<(ServiceKey, u16, u16)> {
        let selecting = self.services().selecting(workload);
        let by_selector = selecting.flat_map(|service| {
            let arriving = service.ports.iter().map(|p| (p.number, workload_port(workload, p)));
            arriving.filter_map(|(number, at)| Some((service.key.clone(), number, at?)))
        });
        let selects =
            |key: &ServiceKey| self.services().service(key).is_none_or(|s| s.selector.is_some());
        let listing = self.slices().holding(workload).chain(self.services().written_for(workload));
        let by_endpoint = self.endpoints.leading_to(listing, workload);
        let by_endpoint = by_endpoint.filter(|(key, ..)| !selects(key));
        let mut ports: Vec<_> = by_selector.chain(by_endpoint).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Workloads that a service's selector picks; none for a service without one.
    pub(crate) fn behind<'a>(
        &'a self,
        service: &'a Service,
    ) -> impl Iterator<Item = &'a Arc<Workload>> + 'a {
        let selector = service.selector.as_ref();
        let own = self.workloads().in_namespace(&service.key.namespace);
        own.filter(move |w| selector.is_some_and(|s| !s.is_empty() && s.matches(&w.labels)))
    }

    /// Keys of clients' labels that some rule refers to; sorted.
    pub(crate) fn referenced_label_keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.label_keys.all()
    }
}
