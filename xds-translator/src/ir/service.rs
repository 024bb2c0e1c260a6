//! Services: hosts that clients call, with their ports and how their endpoints are found.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::Serialize;

use super::{Hostname, Labels, Origin, Selector, topology};

/// Identifies a service: two namespaces may define the same host (ServiceEntry), and one namespace
/// may define it differently for different clients.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct ServiceKey {
    /// Fully qualified host.
    pub host: Hostname,
    /// The namespace that defines it.
    pub namespace: Arc<str>,
    /// To whom a ServiceEntry shows it; `None` for a Kubernetes Service, of which a namespace has
    /// one for a host.
    pub shown_to: Option<Arc<Visibility>>,
}

impl ServiceKey {
    /// The key of a Kubernetes Service.
    pub fn kubernetes(host: Hostname, namespace: Arc<str>) -> Self {
        Self { host, namespace, shown_to: None }
    }
}

/// A callable host.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Service {
    /// Host and namespace.
    pub key: ServiceKey,
    /// The object that defined it, the oldest of several; `origin.id.name` is the short name of a
    /// Kubernetes Service.
    pub origin: Origin,
    /// Virtual addresses; sorted, unique; empty for headless services and for ServiceEntries
    /// without addresses.
    pub addresses: Vec<ServiceAddress>,
    /// The address that stands for the host where clients ask a DNS that answers with it; `None`
    /// where it has addresses of its own, or none can stand for it.
    pub allocated: Option<Ipv4Addr>,
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
    /// Which endpoints are to be preferred (`trafficDistribution`); `None`: none.
    pub distribution: Option<Distribution>,
}

/// Which endpoints of a service are preferred.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Distribution {
    /// Those of the client's zone, then of its region, then of its network.
    SameZone,
    /// Those of the client's node, then of its sub-zone, then as [`Self::SameZone`].
    SameNode,
}

impl Distribution {
    /// Keys of the labels in which client and endpoint are compared, the widest first.
    pub fn compared_labels(self) -> &'static [&'static str] {
        const ALL: &[&str] = &[
            topology::NETWORK,
            topology::REGION,
            topology::ZONE,
            topology::SUB_ZONE,
            topology::HOSTNAME,
        ];
        match self {
            Self::SameZone => &ALL[..3],
            Self::SameNode => ALL,
        }
    }
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.number == number)
    }

    /// Why the definition of a younger object cannot be read with this one as one service: the
    /// property in which they differ; `None` where they can. As in Istio, Kubernetes Services are
    /// never read with others, and others must agree on namespace, resolution, labels, selector and
    /// visibility.
    pub fn apart_from(&self, younger: &Self) -> Option<&'static str> {
        let differ = [
            (self.kubernetes || younger.kubernetes, "kind"),
            (self.key.namespace != younger.key.namespace, "namespace"),
            (self.resolution != younger.resolution, "resolution"),
            (self.labels != younger.labels, "labels"),
            (self.selector != younger.selector, "workloadSelector"),
            (self.export_to != younger.export_to, "exportTo"),
        ];
        differ.into_iter().find_map(|(differs, property)| differs.then_some(property))
    }

    /// Whether endpoints that this ServiceEntry writes down stand beside those of a Kubernetes
    /// Service of its host and namespace, at the ports that are the same (as in Istio, whose
    /// endpoints go by host, namespace and port).
    pub fn adds_endpoints_to(&self, service: &Self) -> bool {
        service.kubernetes && !self.kubernetes && self.resolution == Resolution::Static
    }

    /// Takes in what a younger definition adds: addresses, and the ports whose numbers are free.
    /// All else is as the oldest says it.
    pub fn join(&mut self, younger: &Self) {
        let free: Vec<ServicePort> =
            younger.ports.iter().filter(|p| self.port(p.number).is_none()).cloned().collect();
        self.ports.extend(free);
        self.ports.sort_by_key(|port| port.number);
        self.addresses.extend(&younger.addresses);
        self.addresses.sort_unstable();
        self.addresses.dedup();
    }
}

/// Networks of 254 hosts in 240.240.0.0/16, from which addresses are allocated: nobody is there.
const ALLOCATED_HOSTS: u64 = 254;
const ALLOCATED_NETWORKS: u64 = 256;

/// The address that is allocated to a host of a namespace (Istio's range, 240.240.0.0/16). It
/// depends on nothing else, so that it is the same on every replica, after every restart and
/// whatever other hosts come and go; two hosts may therefore get the same one.
pub fn allocated_address(namespace: &str, host: &Hostname) -> Ipv4Addr {
    let hash = xxhash_rust::xxh3::xxh3_64(format!("{namespace}/{host}").as_bytes());
    let place = hash % (ALLOCATED_NETWORKS * ALLOCATED_HOSTS);
    let octet = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    let (network, own) = (place / ALLOCATED_HOSTS, place % ALLOCATED_HOSTS + 1);
    Ipv4Addr::new(240, 240, octet(network), octet(own))
}

/// An address clients use for a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum ServiceAddress {
    /// One address.
    Ip(IpAddr),
    /// A whole network (ServiceEntry addresses in CIDR form).
    Net(IpNet),
}

impl Protocol {
    /// Whether clients say in it which host they ask for, so that the proxy can resolve that name:
    /// by `:authority`, or by SNI.
    pub fn names_host(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::Tls)
    }
}

impl ServicePort {
    /// Whether endpoints of another definition's port are endpoints of this one: by number and by
    /// name, since endpoints map names to their own ports.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.number == other.number && self.name == other.name
    }
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
    /// The name that the client asks for, of those that a wildcard host stands for, resolved by
    /// the proxy (ServiceEntry `DYNAMIC_DNS`).
    Named,
    /// Wherever the client was going (ServiceEntry `NONE`, headless services).
    OriginalDst,
    /// A Kubernetes `ExternalName`: an alias of another host.
    Alias(Hostname),
}

/// Who may see an object (`exportTo`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocated_addresses_never_change_and_are_hosts_of_the_range() {
        let of = |namespace: &str, host: &str| allocated_address(namespace, &Hostname::new(host));
        let fixed = [of("shop", "a.test"), of("shop", "b.test"), of("bank", "a.test")];
        assert_eq!(fixed.map(|a| a.to_string()), FIXED);
        for number in 0..10_000 {
            let [a, b, _, own] = of("shop", &format!("h{number}.test")).octets();
            assert!((a, b) == (240, 240) && (1..=254).contains(&own));
        }
    }

    /// What releases before this one told the DNS of users.
    const FIXED: [&str; 3] = ["240.240.97.59", "240.240.9.120", "240.240.80.98"];
}
