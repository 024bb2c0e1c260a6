//! Plan items of clusters and their endpoints.

use std::{net::IpAddr, sync::Arc, time::Duration};

use serde::Serialize;

use crate::ir::{Health, Locality, RetryBudget, TcpKeepalive, TlsWords, Warmup};

/// A cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ClusterPlan {
    /// Resource name, `outbound|80|v1|reviews.default.svc.cluster.local`.
    pub name: Arc<str>,
    /// How endpoints are found.
    pub discovery: Discovery,
    /// `connect_timeout`.
    pub connect_timeout: Duration,
    /// Algorithm; `OriginalDst` discovery ignores it.
    pub balancing: BalancingPlan,
    /// Limits; absent = unlimited (u32::MAX).
    pub limits: Limits,
    /// Ejection.
    pub outlier: Option<OutlierPlan>,
    /// `healthy_panic_threshold` in percent (0: never panic).
    pub panic_percent: u32,
    /// HTTP protocol towards the backend.
    pub http: UpstreamHttp,
    /// TLS towards the backend.
    pub transport: UpstreamTransport,
    /// ALPN lists per request protocol for mesh mutual TLS without Istio's filter
    /// (ARCHITECTURE.md): metadata `mesh`.
    pub mesh_alpn: Option<MeshAlpn>,
    /// Source address of upstream connections (`127.0.0.6`).
    pub bind_source: Option<IpAddr>,
    /// TCP keepalive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// How localities of one priority share the load.
    pub over_localities: OverLocalities,
    /// `metadata.filter_metadata.istio`.
    pub provenance: Provenance,
    /// Keep ejected or removed hosts' connections for ever (`cleanup_interval` max), for inbound
    /// ORIGINAL_DST.
    pub original_dst_keep: bool,
    /// Send the PROXY protocol header of this version.
    pub proxy_protocol: Option<u8>,
    /// `alt_stat_name` when it is not `name;` (passthrough clusters share `PassthroughCluster;`).
    pub alt_stat_name: Option<Arc<str>>,
}

/// How localities of one priority share the load.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub enum OverLocalities {
    /// Nothing is said, and the proxy does not know its peers: endpoints alone share it.
    #[default]
    Unsaid,
    /// Endpoints alone share it, whatever the proxy knows.
    Alike,
    /// By the weights of localities (`locality_weighted_lb_config`).
    Weighted,
    /// By how the client's replicas lie over the zones (`zone_aware_lb_config`).
    Zones {
        /// Least number of endpoints; `None`: Envoy's.
        min_endpoints: Option<u64>,
    },
}

/// How a cluster finds endpoints.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Discovery {
    /// EDS over ADS; the service name is the cluster's name.
    Eds,
    /// These endpoints, for ever.
    Static(Vec<LocalityEndpoints>),
    /// These names, resolved by the proxy. `logical`: one address at a time.
    Dns {
        /// LOGICAL_DNS instead of STRICT_DNS.
        logical: bool,
        /// Names and ports.
        endpoints: Vec<LocalityEndpoints>,
        /// `dns_refresh_rate`.
        refresh: Duration,
    },
    /// The name that the request or the handshake asks for, by the proxy's cache of names (Envoy's
    /// dynamic forward proxy).
    Named,
    /// Where the client was going; `port_override` replaces the port.
    OriginalDst {
        /// Envoy `upstream_port_override`.
        port_override: Option<u16>,
    },
}

/// Load balancing as planned.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum BalancingPlan {
    /// Fewest active requests of two.
    LeastRequest(Option<Warmup>),
    /// In turn.
    RoundRobin(Option<Warmup>),
    /// At random.
    Random,
    /// Ring hash with at least this many entries; keys go on the routes.
    RingHash(u64),
    /// Maglev with this table size.
    Maglev(u64),
    /// By the cluster's discovery (`CLUSTER_PROVIDED`).
    ClusterProvided,
}

/// Circuit-breaker thresholds; `None` = u32::MAX.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Limits {
    /// Connections.
    pub max_connections: Option<u32>,
    /// Queued requests.
    pub max_pending_requests: Option<u32>,
    /// Active requests.
    pub max_requests: Option<u32>,
    /// Concurrent retries.
    pub max_retries: Option<u32>,
    /// Retry budget.
    pub retry_budget: Option<RetryBudget>,
    /// `BlackHoleCluster` has no thresholds at all.
    pub omit: bool,
}

/// Outlier detection; absent fields stay unwritten.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct OutlierPlan {
    /// `consecutive_5xx` with its enforcement (100, or 0 when the value is 0).
    pub consecutive_5xx: Option<u32>,
    /// `consecutive_gateway_failure`, likewise.
    pub consecutive_gateway: Option<u32>,
    /// `consecutive_local_origin_failure`, likewise.
    pub consecutive_local_origin: Option<u32>,
    /// `split_external_local_origin_errors`.
    pub split_local_origin: bool,
    /// `interval`.
    pub interval: Option<Duration>,
    /// `base_ejection_time`.
    pub base_ejection: Option<Duration>,
    /// `max_ejection_percent`.
    pub max_ejection_percent: Option<u32>,
    /// `always_eject_one_host`.
    pub always_one: bool,
}

/// HTTP options of a cluster (`HttpProtocolOptions`).
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct UpstreamHttp {
    /// Which protocol.
    pub protocol: UpstreamProtocol,
    /// `common_http_protocol_options.idle_timeout`.
    pub idle_timeout: Option<Duration>,
    /// `max_requests_per_connection`.
    pub max_requests_per_connection: Option<u32>,
    /// `max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// HTTP/2 `max_concurrent_streams`.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 keepalive: interval, timeout.
    pub h2_keepalive: Option<(Duration, Duration)>,
    /// The statuses that count as errors; sorted, unique; empty: 5xx.
    pub error_statuses: Vec<u16>,
}

/// HTTP version towards a backend.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub enum UpstreamProtocol {
    /// Nothing written: HTTP/1.1, no options message unless another option needs one.
    #[default]
    Http1,
    /// Explicit HTTP/1.1.
    ExplicitHttp1,
    /// Explicit HTTP/2.
    Http2,
    /// As the client speaks.
    Downstream,
}

/// TLS towards a backend.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum UpstreamTransport {
    /// Plaintext.
    Plain,
    /// The same for every endpoint.
    Tls(UpstreamTls),
    /// Mesh TLS for endpoints with `tlsMode: istio`, plaintext for others
    /// (`transport_socket_matches`).
    PerEndpoint(UpstreamTls),
}

/// Client-side TLS.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct UpstreamTls {
    /// Client certificate; `None`: none is offered.
    pub certificate: Option<SecretRef>,
    /// Trust; `None`: not verified (`insecureSkipVerify`).
    pub trust: Option<TrustRef>,
    /// Accepted SANs, any of them; empty: the chain alone decides.
    pub sans: Vec<SanMatch>,
    /// SNI; empty: `auto_sni` from the request's host.
    pub sni: Arc<str>,
    /// ALPN offered; empty: none.
    pub alpn: Vec<Arc<str>>,
    /// SNI from the request's host, which is then also the expected name unless `sans` says
    /// otherwise.
    pub auto_sni: bool,
    /// What may be negotiated.
    pub words: TlsWords,
}

/// A certificate with its key, by SDS name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum SecretRef {
    /// `default`, from the agent (cluster `sds-grpc`).
    Workload,
    /// A gateway's credential over ADS, by bare NAME: `kubernetes://NAME`.
    Credential(Arc<str>),
    /// Files on the proxy's disk: certificate chain, key.
    Files(Arc<str>, Arc<str>),
}

/// A trust bundle.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum TrustRef {
    /// `ROOTCA`, from the agent.
    Mesh,
    /// A credential over ADS, by bare NAME: `kubernetes://NAME-cacert`.
    Credential(Arc<str>),
    /// Files on the proxy's disk.
    Files {
        /// Roots; empty: the system's.
        roots: Arc<str>,
        /// Lists of what these roots and those below them have revoked; empty: none.
        revoked: Arc<str>,
    },
}

/// A condition on a SAN.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum SanMatch {
    /// Equal, URI or DNS.
    Exact(Arc<str>),
    /// Begins with (`spiffe://TD/`).
    Prefix(Arc<str>),
}

/// ALPN lists by request protocol.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct MeshAlpn {
    /// For HTTP/1.x requests: `istio-http/1.1,istio,http/1.1`.
    pub h1: Arc<str>,
    /// For HTTP/2 requests: `istio-h2,istio,h2`.
    pub h2: Arc<str>,
}

/// What dashboards and users find under `filter_metadata.istio`.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Provenance {
    /// `config`: the object that shaped it.
    pub config: Option<Arc<str>>,
    /// `services`: host, name, namespace.
    pub services: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
    /// `subset`.
    pub subset: Option<Arc<str>>,
    /// `external`.
    pub external: bool,
}

/// The endpoints of a cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct AssignmentPlan {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// Sorted by priority, then locality; may be empty (an empty assignment is sent).
    pub localities: Vec<LocalityEndpoints>,
}

/// Endpoints of one locality and priority.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct LocalityEndpoints {
    /// Where.
    pub locality: Locality,
    /// 0 is best; gapless.
    pub priority: u32,
    /// Weight of the locality; `None`: unwritten.
    pub weight: Option<u32>,
    /// Endpoints; sorted by address.
    pub endpoints: Vec<EndpointPlan>,
}

/// One endpoint.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct EndpointPlan {
    /// Where.
    pub address: PlannedAddress,
    /// Health.
    pub health: Health,
    /// Weight; at least 1.
    pub weight: u32,
    /// `tlsMode: istio` in its metadata.
    pub mesh_tls: bool,
    /// `istio.workload` metadata, `name;ns;canonical;revision;cluster`; `None` for unknown
    /// workloads.
    pub workload: Option<Arc<str>>,
}

/// An address as it is written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum PlannedAddress {
    /// IP and port.
    Ip(IpAddr, u16),
    /// Name and port.
    Host(Arc<str>, u16),
    /// Unix socket.
    Pipe(Arc<str>),
}
