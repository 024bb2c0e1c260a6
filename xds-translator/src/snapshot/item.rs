//! Items that only the snapshot knows: definitions of services, and slices.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::ir::{Hostname, Labels, Locality, MeshTls, Origin, Service, ServiceKey, WorkloadId};

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
    pub mesh_tls: MeshTls,
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
