//! Services: hosts that clients call, with their ports and how their endpoints are found.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::Serialize;

use super::{Hostname, Labels, Origin, Selector};

/// Identifies a service: two namespaces may define the same host (ServiceEntry).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct ServiceKey {
    /// Fully qualified host.
    pub host: Hostname,
    /// The namespace that defines it.
    pub namespace: Arc<str>,
}

/// A callable host.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Service {
    /// Host and namespace.
    pub key: ServiceKey,
    /// The object that defined it; `origin.id.name` is the service's short name.
    pub origin: Origin,
    /// Virtual addresses; sorted, unique; empty for headless services and for ServiceEntries
    /// without addresses.
    pub addresses: Vec<ServiceAddress>,
    /// Sorted by number; unique numbers; UDP ports are dropped with a diagnostic.
    pub ports: Vec<ServicePort>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Kubernetes `clusterIP: None`: clients see the addresses of the pods.
    pub headless: bool,
    /// Outside the mesh (ServiceEntry `MESH_EXTERNAL`): no automatic mutual TLS.
    pub external: bool,
    /// Who may see it.
    pub export_to: Visibility,
    /// Selects the workloads behind it; `None` for selector-less services and inline endpoints.
    pub selector: Option<Selector>,
    /// The service's own labels.
    pub labels: Labels,
    /// SANs that the user expects of its servers (ServiceEntry `subjectAltNames`); sorted, may be
    /// empty.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Whether the host is a Kubernetes Service, which also answers to short names.
    pub kubernetes: bool,
    /// Send to endpoints that are not ready too (`publishNotReadyAddresses`).
    pub publish_not_ready: bool,
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.number == number)
    }
}

/// An address clients use for a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum ServiceAddress {
    /// One address.
    Ip(IpAddr),
    /// A whole network (ServiceEntry addresses in CIDR form).
    Net(IpNet),
}

/// One port of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ServicePort {
    /// The port clients call.
    pub number: u16,
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Where it arrives at the workload.
    pub target: TargetPort,
}

/// The container port a service port leads to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// A name, looked up among each workload's ports.
    Name(Arc<str>),
}

/// Application protocol, from `appProtocol` or the prefix of the port's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Protocol {
    /// HTTP/1.1 (`http`).
    Http,
    /// HTTP/2 without TLS (`http2`, `kubernetes.io/h2c`).
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// HTTP over the application's own TLS; opaque to the mesh.
    Https,
    /// TLS of the application's own, routed by SNI.
    Tls,
    /// Plain bytes.
    Tcp,
    /// Plain bytes; a server that speaks first.
    Mongo,
    /// Plain bytes.
    Redis,
    /// Plain bytes; a server that speaks first.
    Mysql,
    /// Not declared: detected per connection.
    Auto,
}

impl Protocol {
    /// HTTP in any version, declared.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }
    /// Declared HTTP/2: clusters must speak HTTP/2 upstream.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
    /// TLS that the mesh does not terminate.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

/// How the endpoints of a service are found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Resolution {
    /// Known endpoints, sent over EDS.
    Static,
    /// The proxy resolves endpoint names itself; `round_robin` uses one address at a time
    /// (`DNS_ROUND_ROBIN`).
    Dns {
        /// Envoy LOGICAL_DNS instead of STRICT_DNS.
        round_robin: bool,
    },
    /// Wherever the client was going (ServiceEntry `NONE`, headless services).
    OriginalDst,
    /// A Kubernetes `ExternalName`: an alias of another host.
    Alias(Hostname),
}

/// Who may see an object (`exportTo`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Visibility {
    /// Every namespace (`*`).
    Public,
    /// These namespaces only; `.` is already resolved; empty means nobody (`~`).
    Namespaces(BTreeSet<Arc<str>>),
}

impl Visibility {
    /// Whether clients in `namespace` see the object.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Namespaces(set) => set.contains(namespace),
        }
    }

    /// Whether some namespace sees an object with either visibility.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Public, Self::Public) => true,
            (Self::Public, Self::Namespaces(set)) | (Self::Namespaces(set), Self::Public) => {
                !set.is_empty()
            }
            (Self::Namespaces(a), Self::Namespaces(b)) => !a.is_disjoint(b),
        }
    }

    /// Whether every namespace that `other` includes is included.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Public, _) => true,
            (Self::Namespaces(_), Self::Public) => false,
            (Self::Namespaces(all), Self::Namespaces(some)) => all.is_superset(some),
        }
    }
}
