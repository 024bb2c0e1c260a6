//! How a client reaches a backend: load balancing, limits, ejection, TLS (Istio `DestinationRule`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;

use super::{Field, Hostname, Labels, Origin, RetryBudget, Selector, Visibility};

/// The policy one object gives for a host.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct BackendPolicy {
    /// The object.
    pub origin: Origin,
    /// Fully qualified host; may be a wildcard.
    pub host: Hostname,
    /// Which namespaces' clients may use it.
    pub export_to: Visibility,
    /// Restricts it to these clients.
    pub workload_selector: Option<Selector>,
    /// It says only what no other policy for the host says: blocks that the others leave out.
    pub fills_in: bool,
    /// For every subset and port.
    pub traffic: TrafficPolicy,
    /// Named subsets, in the order written; unique names.
    pub subsets: Vec<Subset>,
}

impl BackendPolicy {
    /// Names of the credentials that it wants for TLS to the host, on whichever level; may repeat.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<str>> {
        let subsets = self.subsets.iter().map(|subset| &subset.traffic);
        let blocks = std::iter::once(&self.traffic).chain(subsets);
        let tls = blocks
            .flat_map(|block| block.tls.iter().chain(block.ports.values().flat_map(|p| &p.tls)));
        let names = tls.filter_map(|tls| match tls {
            ClientTls::Simple(material) | ClientTls::Mutual(material) => Some(&material.credential),
            ClientTls::Disable | ClientTls::Mesh { .. } => None,
        });
        names.filter(|name| !name.is_empty())
    }
}

/// A named part of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Subset {
    /// Where it is written.
    pub at: Field,
    /// Its name.
    pub name: Arc<str>,
    /// Endpoints that carry these labels; empty selects all.
    pub labels: Labels,
    /// Blocks given here replace the same blocks of the policy above.
    pub traffic: TrafficPolicy,
}

impl Subset {
    /// Whether an endpoint is part of it. `label`: the value of a label that it has.
    pub fn selects<'e>(&self, label: impl Fn(&str) -> Option<&'e str>) -> bool {
        self.labels.iter().all(|(key, value)| label(key) == Some(&**value))
    }
}

/// Settings; an absent block is inherited, a present one replaces the inherited block whole.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct TrafficPolicy {
    /// Load balancing.
    pub load_balancer: Option<LoadBalancer>,
    /// Connection limits.
    pub connection_pool: Option<ConnectionPool>,
    /// Ejection.
    pub outlier: Option<OutlierDetection>,
    /// TLS to the backend.
    pub tls: Option<ClientTls>,
    /// Blocks for single ports, which replace all of the above for that port.
    pub ports: BTreeMap<u16, TrafficPolicy>,
    /// How many retries it takes at a time.
    pub retry_budget: Option<RetryBudget>,
    /// Send the PROXY protocol header of this version (1 or 2).
    pub proxy_protocol: Option<u8>,
    /// Connections that are not HTTP go through a proxy.
    pub tunnel: Option<Tunnel>,
}

/// A proxy is asked to connect elsewhere, and takes the connection there.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Tunnel {
    /// Where it shall connect, `HOST:PORT`.
    pub target: Arc<str>,
    /// Asked by POST instead of CONNECT.
    pub by_post: bool,
}

/// Load balancing.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct LoadBalancer {
    /// The algorithm.
    pub algorithm: Balancing,
    /// Slow start of new endpoints: window, minimum percent, aggression in thousandths.
    pub warmup: Option<Warmup>,
    /// Locality settings; `None` = the mesh's.
    pub locality: Option<LocalityPolicy>,
    /// Balancing over zones, which comes before `locality`; `None` = the mesh's.
    pub zones: Option<ZonePolicy>,
}

/// The algorithm.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub enum Balancing {
    /// The endpoint with fewest requests of two drawn (default).
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// Where the client was going.
    Passthrough,
    /// By a hash of the request.
    ConsistentHash {
        /// What is hashed.
        key: HashKey,
        /// The ring or table.
        table: HashTable,
    },
}

/// What a consistent hash looks at.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum HashKey {
    /// A request header.
    Header(Arc<str>),
    /// A cookie, made with this lifetime when absent (zero: a session cookie).
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// Its path.
        path: Arc<str>,
        /// Its lifetime; `None`: only an existing cookie is used.
        ttl: Option<Duration>,
        /// Further attributes of one that is made, with their values, which may be empty.
        attributes: Vec<(Arc<str>, Arc<str>)>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    QueryParameter(Arc<str>),
}

/// The data structure of a consistent hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum HashTable {
    /// Ring with at least this many entries (default 1024).
    Ring(u64),
    /// Maglev with this table size (default 65537).
    Maglev(u64),
}

/// Slow start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Warmup {
    /// How long an endpoint warms.
    pub window: Duration,
    /// Share at the start, in percent (default 10).
    pub minimum_percent: u32,
    /// Curve, in thousandths (default 1000).
    pub aggression_milli: u32,
}

/// A locality as written (region, zone, sub-zone; `*` at the end allowed) with its percentage.
pub type LocalityShare = (Arc<str>, u32);

/// Locality-aware balancing.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct LocalityPolicy {
    /// Off when `Some(false)`.
    pub enabled: Option<bool>,
    /// From locality → shares of localities.
    pub distribute: Vec<(Arc<str>, Vec<LocalityShare>)>,
    /// From region → to region.
    pub failover: Vec<(Arc<str>, Arc<str>)>,
    /// Labels compared in order.
    pub failover_priority: Vec<Arc<str>>,
}

impl LocalityPolicy {
    /// Keys of the labels in which client and endpoint are compared; `failover_priority` may give
    /// each a value, `KEY=VALUE`.
    pub fn compared_labels(&self) -> impl Iterator<Item = Arc<str>> {
        compared(&self.failover_priority)
    }
}

/// Balancing over the zones of the client's region, by how the client's own replicas lie over them
/// (Istio: `zoneAwareLbSetting`).
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct ZonePolicy {
    /// Off when `Some(false)`.
    pub enabled: Option<bool>,
    /// Least number of endpoints; `None`: Envoy's, 6.
    pub min_endpoints: Option<u64>,
    /// From region → to region.
    pub failover: Vec<(Arc<str>, Arc<str>)>,
    /// Labels compared in order, before regions are.
    pub failover_priority: Vec<Arc<str>>,
}

impl ZonePolicy {
    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.enabled != Some(false)
    }

    /// As [`LocalityPolicy::compared_labels`].
    pub fn compared_labels(&self) -> impl Iterator<Item = Arc<str>> {
        compared(&self.failover_priority)
    }
}

/// Keys of labels that may each be given a value, `KEY=VALUE`.
fn compared(priority: &[Arc<str>]) -> impl Iterator<Item = Arc<str>> {
    priority.iter().map(|label| label.split('=').next().unwrap_or(label).into())
}

/// Connection limits; absent = unlimited or the default.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct ConnectionPool {
    /// `tcp.maxConnections`.
    pub max_connections: Option<u32>,
    /// `tcp.connectTimeout`.
    pub connect_timeout: Option<Duration>,
    /// `tcp.tcpKeepalive`: probes, time, interval.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `tcp.maxConnectionDuration`.
    pub max_connection_duration: Option<Duration>,
    /// `tcp.idleTimeout`.
    pub tcp_idle_timeout: Option<Duration>,
    /// `http.http1MaxPendingRequests`.
    pub max_pending_requests: Option<u32>,
    /// `http.http2MaxRequests`.
    pub max_requests: Option<u32>,
    /// `http.maxRequestsPerConnection`.
    pub max_requests_per_connection: Option<u32>,
    /// `http.maxRetries`.
    pub max_retries: Option<u32>,
    /// `http.idleTimeout`.
    pub http_idle_timeout: Option<Duration>,
    /// `http.h2UpgradePolicy`.
    pub h2_upgrade: Option<bool>,
    /// `http.useClientProtocol`.
    pub use_client_protocol: bool,
    /// `http.maxConcurrentStreams`.
    pub max_concurrent_streams: Option<u32>,
    /// `http.http2KeepAlive`: interval, timeout.
    pub h2_keepalive: Option<(Duration, Duration)>,
    /// Whether the `http` block was written at all (Istio then writes explicit HTTP/1 options).
    pub http_block: bool,
}

/// TCP keepalive; absent fields are the system's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct TcpKeepalive {
    /// Unanswered probes until the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// Ejection of failing endpoints. Absent fields stay unwritten, so Envoy's defaults apply.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct OutlierDetection {
    /// `consecutive5xxErrors`; 0 switches it off.
    pub consecutive_5xx: Option<u32>,
    /// `consecutiveGatewayErrors`; 0 switches it off.
    pub consecutive_gateway: Option<u32>,
    /// `consecutiveLocalOriginFailures`.
    pub consecutive_local_origin: Option<u32>,
    /// `splitExternalLocalOriginErrors`.
    pub split_external_local_origin: bool,
    /// `interval`.
    pub interval: Option<Duration>,
    /// `baseEjectionTime`.
    pub base_ejection: Option<Duration>,
    /// `maxEjectionPercent`.
    pub max_ejection_percent: Option<u32>,
    /// `outlierDetectionHttpErrorCodes`: the statuses that count as errors; empty: 5xx.
    pub error_statuses: Vec<u16>,
    /// `minHealthPercent`: the panic threshold; `None` or 0 means never panic.
    pub min_health_percent: Option<u32>,
}

/// TLS to a backend.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum ClientTls {
    /// Plaintext.
    Disable,
    /// The mesh's own mutual TLS.
    Mesh {
        /// Overrides the SNI; empty keeps the default.
        sni: Arc<str>,
        /// Overrides the expected ids; empty keeps the service's accounts.
        subject_alt_names: Vec<Arc<str>>,
    },
    /// TLS with the given material.
    Simple(TlsMaterial),
    /// Mutual TLS with the given material.
    Mutual(TlsMaterial),
}

/// Files, credentials and checks of a user's own TLS.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct TlsMaterial {
    /// Path of the client certificate on the proxy's disk; empty for none.
    pub certificate_file: Arc<str>,
    /// Path of its key; empty for none.
    pub key_file: Arc<str>,
    /// Path of the CA bundle; empty: the system's roots.
    pub ca_file: Arc<str>,
    /// Path of the lists of what these authorities have revoked; empty for none.
    pub crl_file: Arc<str>,
    /// A credential by name instead of files; empty for none.
    pub credential: Arc<str>,
    /// SNI; empty: the request's host.
    pub sni: Arc<str>,
    /// Expected names; empty: the request's host.
    pub subject_alt_names: Vec<Arc<str>>,
    /// `insecureSkipVerify`.
    pub skip_verify: bool,
}
