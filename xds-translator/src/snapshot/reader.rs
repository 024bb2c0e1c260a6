//! The only way a plan looks at the snapshot: every accessor records what it read.
//!
//! A [`Reader`] lives for one planning call. What it recorded decides which changes cause that call to be repeated, so
//! a plan cannot depend on a fact that is not recorded: it has no other access (invariant 1).

use std::{cell::RefCell, collections::BTreeSet, net::IpAddr, sync::Arc};

use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::MeshSnapshot;
use crate::ir::{
    AccessPolicy, Attachment, BackendPolicy, GatewayConfig, Hostname, Labels, MeshDefaults, ObjectId, PeerTls,
    RouteTable, Service, ServiceEndpoints, ServiceKey, SidecarScope, Workload, WorkloadId,
};

/// One fact that a plan read. A change of the fact repeats the plan; nothing else does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dep {
    /// The mesh-wide settings.
    Mesh,
    /// Which services a namespace sees, and what they say.
    ServicesVisible(Arc<str>),
    /// One service.
    Service(ServiceKey),
    /// The service that a host means for clients of a namespace.
    ServiceByHost(Hostname, Arc<str>),
    /// Every endpoint of a service.
    Endpoints(ServiceKey),
    /// The SPIFFE ids behind a service.
    Identities(ServiceKey),
    /// The addresses behind a headless service.
    HeadlessAddresses(ServiceKey),
    /// Whether a workload behind a service has no sidecar.
    Plaintext(ServiceKey),
    /// The route tables of an attachment that a namespace sees, in outline form.
    RouteTables(Attachment, Arc<str>),
    /// One route table, whole.
    RouteTable(ObjectId),
    /// The policies in force for a host and clients of a namespace, in outline form.
    BackendPolicies(Hostname, Arc<str>),
    /// The policies in force for any host and clients of a namespace, in outline form.
    PoliciesVisible(Arc<str>),
    /// One backend policy, whole.
    BackendPolicy(ObjectId),
    /// One gateway configuration.
    Gateway(ObjectId),
    /// One sidecar scope.
    Scope(ObjectId),
    /// The peer TLS policies that concern a namespace.
    PeerTls(Arc<str>),
    /// The access policies that concern a namespace.
    Access(Arc<str>),
    /// Whether a credential exists: namespace and name.
    Credential(Arc<str>, Arc<str>),
    /// One workload.
    Workload(WorkloadId),
}

/// Reads a snapshot and records what was read.
#[derive(Debug)]
pub struct Reader<'a> {
    snapshot: &'a MeshSnapshot,
    deps: RefCell<FxHashSet<Dep>>,
    surveyed: RefCell<SmallVec<[Arc<str>; 2]>>,
}

impl<'a> Reader<'a> {
    /// A reader that has read nothing yet.
    pub fn new(snapshot: &'a MeshSnapshot) -> Self {
        Self { snapshot, deps: RefCell::default(), surveyed: RefCell::default() }
    }

    /// Reads all services and policies that clients of `namespace` see as one fact each. Single hosts that are looked up
    /// for these clients are then not recorded: a plan that looks up every host would record thousands, and a change of
    /// any of them touches the coarse fact too.
    pub fn survey(&self, namespace: &Arc<str>) {
        self.record(Dep::ServicesVisible(namespace.clone()));
        self.record(Dep::PoliciesVisible(namespace.clone()));
        self.surveyed.borrow_mut().push(namespace.clone());
    }

    /// Records what was read of one host for clients of `namespace`, unless that was surveyed.
    fn record_host(&self, namespace: &str, dep: impl FnOnce() -> Dep) {
        if !self.surveyed.borrow().iter().any(|surveyed| **surveyed == *namespace) {
            self.record(dep());
        }
    }

    /// Everything that was read; sorted, unique.
    pub fn into_deps(self) -> Vec<Dep> {
        let mut deps: Vec<Dep> = self.deps.into_inner().into_iter().collect();
        deps.sort_unstable();
        deps
    }

    fn record(&self, dep: Dep) {
        self.deps.borrow_mut().insert(dep);
    }

    /// Mesh-wide settings.
    pub fn mesh(&self) -> &'a MeshDefaults {
        self.record(Dep::Mesh);
        &self.snapshot.mesh
    }

    /// Services that clients of `namespace` see by `exportTo`; sorted by host, one per host: the namespace's own before
    /// a Kubernetes Service before the oldest.
    pub fn services_visible_to(&self, namespace: &str) -> Arc<[Arc<Service>]> {
        self.record(Dep::ServicesVisible(namespace.into()));
        self.snapshot.services.visible_to(namespace)
    }

    /// The service with this key, visible or not.
    pub fn service(&self, key: &ServiceKey) -> Option<&'a Arc<Service>> {
        self.record(Dep::Service(key.clone()));
        self.snapshot.services.service(key)
    }

    /// The service that `host` means for clients of `client_namespace`, chosen as in [`Self::services_visible_to`].
    /// Exact hosts only: a wildcard service answers to its own name. An empty namespace sees what is public.
    pub fn service_by_host(&self, host: &Hostname, client_namespace: &str) -> Option<&'a Arc<Service>> {
        self.record_host(client_namespace, || Dep::ServiceByHost(host.clone(), client_namespace.into()));
        self.snapshot.services.by_host(host, client_namespace)
    }

    /// Every endpoint of a service. Only assignments and clusters with inline endpoints read this: it changes with
    /// every pod.
    pub fn endpoints(&self, key: &ServiceKey) -> Option<&'a Arc<ServiceEndpoints>> {
        self.record(Dep::Endpoints(key.clone()));
        self.snapshot.endpoints.of(key)
    }

    /// SPIFFE ids of the accounts behind a service; sorted, unique, may be empty.
    pub fn identities(&self, key: &ServiceKey) -> Arc<[Arc<str>]> {
        self.record(Dep::Identities(key.clone()));
        self.snapshot.endpoints.identities(key)
    }

    /// Addresses behind one port of a headless service; sorted, unique. Empty for every other service.
    pub fn headless_addresses(&self, key: &ServiceKey, port: u16) -> Arc<[IpAddr]> {
        self.record(Dep::HeadlessAddresses(key.clone()));
        self.snapshot.endpoints.headless_addresses(key, port)
    }

    /// Whether some workload behind a service takes no mutual TLS.
    pub fn has_plaintext_endpoint(&self, key: &ServiceKey) -> bool {
        self.record(Dep::Plaintext(key.clone()));
        self.snapshot.endpoints.has_plaintext(key)
    }

    /// Route tables attached to `attachment` that `namespace` may use, oldest first, in outline form: HTTP rules keep
    /// what decides whether they apply to a client (port, source, attachments) and where they lead; conditions on
    /// the request, weights and every other setting are blank, so that changing those does not repeat an outline.
    /// Virtual hosts read the whole table with [`Self::route_table`].
    pub fn route_tables(&self, attachment: &Attachment, namespace: &str) -> Arc<[Arc<RouteTable>]> {
        self.record(Dep::RouteTables(attachment.clone(), namespace.into()));
        self.snapshot.routes.outlines(attachment, namespace)
    }

    /// One route table, whole.
    pub fn route_table(&self, id: &ObjectId) -> Option<&'a Arc<RouteTable>> {
        self.record(Dep::RouteTable(id.clone()));
        self.snapshot.routes.table(id)
    }

    /// The policies in force for clients with these labels when they call `host`, oldest first (Istio's order of
    /// search: the client's namespace, the service's, the root; most specific host; a policy that selects the client
    /// stands alone). In outline form: the numbers of connection pools and of outlier detection are blank (a block
    /// that was written is still there). Read [`Self::backend_policy`] for those.
    pub fn backend_policies(
        &self,
        host: &Hostname,
        service_namespace: &str,
        client_namespace: &str,
        client_labels: &Labels,
    ) -> Vec<Arc<BackendPolicy>> {
        self.record_host(client_namespace, || Dep::BackendPolicies(host.clone(), client_namespace.into()));
        let root = &self.snapshot.mesh.root_namespace;
        self.snapshot.backends.in_force(host, service_namespace, client_namespace, client_labels, root)
    }

    /// One backend policy, whole.
    pub fn backend_policy(&self, id: &ObjectId) -> Option<&'a Arc<BackendPolicy>> {
        self.record(Dep::BackendPolicy(id.clone()));
        self.snapshot.backends.policy(id)
    }

    /// One gateway configuration.
    pub fn gateway(&self, id: &ObjectId) -> Option<&'a Arc<GatewayConfig>> {
        self.record(Dep::Gateway(id.clone()));
        self.snapshot.gateways.get(id)
    }

    /// One sidecar scope.
    pub fn scope(&self, id: &ObjectId) -> Option<&'a Arc<SidecarScope>> {
        self.record(Dep::Scope(id.clone()));
        self.snapshot.scopes.get(id)
    }

    /// What workloads with these labels take from peers: the policies of port, workload, namespace and mesh in this
    /// order, the oldest of equals, and `Permissive` when nobody says anything. `port` is the container port.
    pub fn peer_tls(&self, namespace: &str, labels: &Labels, port: Option<u16>) -> PeerTls {
        self.record(Dep::PeerTls(namespace.into()));
        self.snapshot.policies.peer_tls(&self.snapshot.mesh.root_namespace, namespace, labels, port)
    }

    /// Container ports of workloads with these labels for which [`Self::peer_tls`] may say something else than for the
    /// others; sorted, unique.
    pub fn peer_tls_ports(&self, namespace: &str, labels: &Labels) -> Vec<u16> {
        self.record(Dep::PeerTls(namespace.into()));
        self.snapshot.policies.peer_tls_ports(namespace, labels)
    }

    /// The policies of which [`Self::peer_tls`] of some port may be; sorted, unique.
    pub fn peer_tls_origins(&self, namespace: &str, labels: &Labels) -> BTreeSet<ObjectId> {
        self.record(Dep::PeerTls(namespace.into()));
        self.snapshot.policies.peer_tls_origins(&self.snapshot.mesh.root_namespace, namespace, labels)
    }

    /// As [`Self::peer_tls`], for a known workload; `Permissive` for an unknown one.
    pub fn peer_tls_of(&self, id: &WorkloadId, port: u16) -> PeerTls {
        match self.workload(id) {
            Some(workload) => self.peer_tls(&id.namespace, &workload.labels, Some(port)),
            None => PeerTls::Permissive,
        }
    }

    /// Access policies for workloads with these labels, of the root namespace and their own; sorted by namespace and
    /// name.
    pub fn access_policies(&self, namespace: &str, labels: &Labels) -> Vec<Arc<AccessPolicy>> {
        self.record(Dep::Access(namespace.into()));
        self.snapshot.policies.access(&self.snapshot.mesh.root_namespace, namespace, labels)
    }

    /// Whether a credential with this name exists in the namespace.
    pub fn credential(&self, namespace: &str, name: &str) -> bool {
        self.record(Dep::Credential(namespace.into(), name.into()));
        self.snapshot.credentials.contains_key(&(Arc::from(namespace), Arc::from(name)))
    }

    /// One workload.
    pub fn workload(&self, id: &WorkloadId) -> Option<&'a Arc<Workload>> {
        self.record(Dep::Workload(id.clone()));
        self.snapshot.workloads.get(id)
    }
}
