//! Workloads and the endpoints they provide.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::Serialize;

use super::{Connection, Edge, Hostname, Labels, Origin, ServiceKey, Topology};

/// Identifies a workload.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct WorkloadId {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The pod's or WorkloadEntry's name; of a machine that came by itself, its group's and its
    /// address.
    pub name: Arc<str>,
}

/// A pod, a WorkloadEntry, or a machine of a WorkloadGroup.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Workload {
    /// Namespace and name.
    pub id: WorkloadId,
    /// The object that defined it.
    pub origin: Origin,
    /// Every address; the first is the main one; may be empty while a pod has none.
    pub addresses: Vec<IpAddr>,
    /// A host name instead of an address (WorkloadEntry of a DNS ServiceEntry).
    pub host: Option<Hostname>,
    /// The labels of the registry.
    pub labels: Labels,
    /// Its service account; `default` when a pod names none; empty for a WorkloadEntry without one.
    pub service_account: Arc<str>,
    /// Whether its proxy takes mutual TLS.
    pub mesh_tls: MeshTls,
    /// Where it runs.
    pub locality: Locality,
    /// How services find it.
    pub discovery: Discovery,
    /// Ports by name: of which names, says [`Self::discovery`].
    pub named_ports: BTreeMap<Arc<str>, u16>,
    /// Numbers of all declared container ports; sorted, unique.
    pub container_ports: Vec<u16>,
    /// Load-balancing weight; `None` means 1.
    pub weight: Option<u32>,
    /// Its network; empty for the mesh's own.
    pub network: Arc<str>,
    /// Name of its node; empty for what is no pod.
    pub node: Arc<str>,
    /// Name of the controller that owns it (Deployment without the hash), or its own name: the
    /// metrics' workload.
    pub workload_name: Arc<str>,
    /// Whether it takes traffic by itself: a running, ready, not terminating pod. Endpoints of
    /// slices carry their own.
    pub ready: bool,
    /// It came by itself, and no object vouches for its address.
    pub registered: bool,
    /// On the host's network: never has a sidecar of its own.
    pub host_network: bool,
    /// What stands before it, if it is a gateway; `None`: what stands before all of them.
    pub edge: Option<Edge>,
}

impl Workload {
    /// The value of one of its labels, with those that say where it runs.
    pub fn label(&self, key: &str) -> Option<&str> {
        let Self { locality, network, node, .. } = self;
        Topology { locality, network, node }.label(&self.labels, key)
    }
}

/// Whether the proxy before a workload takes mutual TLS of the mesh.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum MeshTls {
    /// So it is written, or no proxy can prove that it is the workload's.
    Never,
    /// Nothing is written: while a proxy counts as connected that has proven the workload's account
    /// and is at its address.
    WhileConnected,
    /// So it is written.
    Always,
}

/// How services find a workload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Discovery {
    /// The cluster's slices list it, and its named ports are its own (a pod).
    Slices,
    /// Services select it, and its named ports map the names of their ports (a WorkloadEntry).
    Selectors,
}

/// Region, zone and sub-zone; each may be empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Sub-zone.
    pub sub_zone: Arc<str>,
}

/// Every endpoint of one service, per service port number; sorted by address and port.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ServiceEndpoints {
    /// The service.
    pub service: ServiceKey,
    /// Endpoints by service port number.
    pub ports: BTreeMap<u16, Vec<Endpoint>>,
}

/// One place a request can go.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Endpoint {
    /// Address, DNS name or Unix socket.
    pub address: EndpointAddress,
    /// The workload behind it, once known.
    pub workload: Option<WorkloadId>,
    /// The workload's labels, for subsets.
    pub labels: Labels,
    /// `spiffe://…` of its account; `None` when it has none or is not known yet.
    pub identity: Option<Arc<str>>,
    /// Whether its proxy takes mutual TLS (before PeerAuthentication is considered).
    pub mesh_tls: MeshTls,
    /// Where it is.
    pub locality: Locality,
    /// Weight; at least 1.
    pub weight: u32,
    /// Whether it may be used.
    pub health: Health,
    /// Its network; empty for the mesh's own.
    pub network: Arc<str>,
    /// Name of its node; empty when unknown.
    pub node: Arc<str>,
    /// Name of the owning controller, for metadata `istio.workload`.
    pub workload_name: Arc<str>,
}

impl Endpoint {
    /// The proxy that would have to be connected to be this endpoint's; `None`: there can be none,
    /// without an account to prove or an address of its own.
    pub fn proxy(&self) -> Option<Connection> {
        let EndpointAddress::Ip(address, _) = self.address else { return None };
        let identity = self.identity.as_deref()?.parse().ok()?;
        Some(Connection { identity, address })
    }

    /// The value of one of its labels, with those that say where it is.
    pub fn label(&self, key: &str) -> Option<&str> {
        let Self { locality, network, node, .. } = self;
        Topology { locality, network, node }.label(&self.labels, key)
    }
}

/// Where an endpoint listens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum EndpointAddress {
    /// An address and the port at the workload.
    Ip(IpAddr, u16),
    /// A name that the proxy resolves, and a port.
    Host(Hostname, u16),
    /// A Unix domain socket path.
    Pipe(Arc<str>),
}

/// Health of an endpoint as EDS says it. Terminating endpoints are never sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Health {
    /// Ready.
    Healthy,
    /// Not ready; sent, because the panic threshold is 0.
    Unhealthy,
}

/// The service that telemetry counts a workload to; `None`: its labels name none.
pub fn canonical_service(labels: &Labels) -> Option<&str> {
    first_of(labels, &["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
}

/// The revision that telemetry counts a workload to; `None`: its labels name none.
pub fn canonical_revision(labels: &Labels) -> Option<&str> {
    let keys = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    first_of(labels, &keys)
}

fn first_of<'a>(labels: &'a Labels, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|&key| labels.get(key)).map(AsRef::as_ref)
}

/// The CronJob of a Job's name, which it ends with the minute of its time; the name itself if it
/// does not look like that.
pub fn cron_job(job: &str) -> &str {
    let time =
        |text: &str| (8..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    job.rsplit_once('-').filter(|(_, last)| time(last)).map_or(job, |(name, _)| name)
}
