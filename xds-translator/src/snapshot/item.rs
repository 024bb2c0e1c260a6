//! What lowering gives the snapshot: the items of one object.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::ir::{
    AccessPolicy, BackendPolicy, GatewayConfig, Hostname, Labels, Locality, MeshDefaults, Origin, PeerTlsPolicy,
    RouteTable, Service, ServiceKey, SidecarScope, Workload, WorkloadId,
};

/// One fact of the snapshot, as an object gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// The mesh-wide settings.
    Mesh(Arc<MeshDefaults>),
    /// A service, with the endpoints written in the same object.
    Service(Arc<ServiceDefinition>),
    /// Endpoints that the cluster found for a Kubernetes Service.
    Slice(Arc<EndpointSlice>),
    /// A workload.
    Workload(Arc<Workload>),
    /// Routing rules.
    Routes(Arc<RouteTable>),
    /// Backend settings.
    Backend(Arc<BackendPolicy>),
    /// A gateway configuration.
    Gateway(Arc<GatewayConfig>),
    /// A sidecar scope.
    Scope(Arc<SidecarScope>),
    /// Which TLS is taken from peers.
    PeerTls(Arc<PeerTlsPolicy>),
    /// Who may call.
    Access(Arc<AccessPolicy>),
}

/// A service and what its object says about endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceDefinition {
    /// The service.
    pub service: Arc<Service>,
    /// Endpoints written in the object; empty for Kubernetes Services.
    pub inline: Vec<InlineEndpoint>,
}

/// An endpoint written in a ServiceEntry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InlineEndpoint {
    /// Where.
    pub address: InlineAddress,
    /// Ports by the name of the service's port.
    pub ports: BTreeMap<Arc<str>, u16>,
    /// For subsets.
    pub labels: Labels,
    /// Its service account; empty for none.
    pub service_account: Arc<str>,
    /// Whether it takes mutual TLS.
    pub mesh_tls: bool,
    /// Where it is.
    pub locality: Locality,
    /// At least 1.
    pub weight: u32,
    /// Its network; empty for the mesh's own.
    pub network: Arc<str>,
}

/// Address of an inline endpoint, without port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InlineAddress {
    /// An address.
    Ip(IpAddr),
    /// A name that proxies resolve.
    Host(Hostname),
    /// A Unix domain socket.
    Pipe(Arc<str>),
}

/// Endpoints that the cluster found for a Kubernetes Service; a service may have several slices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSlice {
    /// The object.
    pub origin: Origin,
    /// The service it belongs to.
    pub service: ServiceKey,
    /// Names and numbers; a name may be empty.
    pub ports: Vec<(Arc<str>, u16)>,
    /// Endpoints that may be sent: none that terminates.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One endpoint of a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceEndpoint {
    /// Its addresses; the first is used.
    pub address: IpAddr,
    /// Whether it is ready.
    pub ready: bool,
    /// The pod behind it; `None`: looked up by address.
    pub target: Option<WorkloadId>,
}
