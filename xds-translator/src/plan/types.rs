//! Plan items: every decision made, nothing spelled yet.
//!
//! A plan item is a pure value; its hash, together with the emitter's revision, is the version of
//! the resource it becomes. Maps are `BTreeMap`s and lists have a documented order, so that equal
//! decisions hash equally on every replica. Nothing here names an Envoy type.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ferromesh_proto::ResourceType;
use ipnet::IpNet;
use serde::Serialize;

use super::{
    AccessLogPlan, MetadataMatch, RouteConfigPlan, TokenFilter, TracingPlan, VirtualHostPlan,
};
use crate::ir::{
    Authorizer, Edge, Health, LimitRefusal, Locality, OwnQuota, PatchMessage, PathNormalization,
    Pins, PortNames, RetryBudget, SharedQuota, StringMatch, TcpKeepalive, TlsVersion, TlsWords,
    Tunnel, Warmup,
};

/// One resource (or, for virtual hosts, one part of a resource) with every decision made.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PlanItem {
    /// Becomes a CDS resource.
    Cluster(Box<ClusterPlan>),
    /// Becomes an EDS resource.
    Assignment(AssignmentPlan),
    /// Becomes a part of an RDS resource.
    VirtualHost(VirtualHostPlan),
    /// Becomes an LDS resource.
    Listener(Box<ListenerPlan>),
    /// Becomes the resource that a patch holds.
    Given(GivenPlan),
}

impl PlanItem {
    /// The type of the resource that it becomes, or becomes a part of.
    pub fn resource_type(&self) -> ResourceType {
        match self {
            Self::Cluster(_) => ResourceType::Cluster,
            Self::Assignment(_) => ResourceType::Endpoint,
            Self::VirtualHost(_) => ResourceType::Route,
            Self::Listener(_) => ResourceType::Listener,
            Self::Given(given) => given.kind,
        }
    }

    /// The resource's name; for a virtual host, its own.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Cluster(cluster) => &cluster.name,
            Self::Assignment(assignment) => &assignment.cluster,
            Self::VirtualHost(host) => &host.name,
            Self::Listener(listener) => &listener.name,
            Self::Given(given) => &given.name,
        }
    }
}

/// A resource that a patch adds.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct GivenPlan {
    /// Its type, which is that of its message.
    #[serde(skip)]
    pub kind: ResourceType,
    /// Its name.
    pub name: Arc<str>,
    /// The whole of it.
    pub message: PatchMessage,
}

// -------------------------------------------------------------------------------------------------
// clusters

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
    /// Zone-weighted balancing (`locality_weighted_lb_config`).
    pub locality_weighted: bool,
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
    /// A file on the proxy's disk.
    File(Arc<str>),
    /// The system's roots.
    System,
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

// -------------------------------------------------------------------------------------------------
// endpoints

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

// -------------------------------------------------------------------------------------------------
// listeners

/// A listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ListenerPlan {
    /// `virtualInbound`, `0.0.0.0_80`…
    pub name: Arc<str>,
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Really opened, or found by original destination.
    pub bind: bool,
    /// Hands connections over to the listener of their original destination (virtualOutbound).
    /// Never on virtualInbound, which would hand inbound connections to outbound listeners of the
    /// same port.
    pub use_original_dst: bool,
    /// Inbound, outbound, or neither (gateways).
    pub direction: Direction,
    /// Inspectors and the like, in order.
    pub listener_filters: Vec<ListenerFilter>,
    /// `listener_filters_timeout`; `None`: Envoy's 15 s.
    pub filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`.
    pub continue_on_timeout: bool,
    /// Chains in the order Istio writes them; matching is by Envoy's most-specific rule.
    pub chains: Vec<FilterChainPlan>,
    /// Taken when no chain matches.
    pub default_chain: Option<FilterChainPlan>,
    /// `max_connections_to_accept_per_socket_event: 1` (virtualInbound).
    pub accept_one: bool,
    /// Logs of the listener itself.
    pub access_logs: Vec<AccessLogPlan>,
    /// What services and gateways call its port, or those of its chains.
    pub port_names: PortNames,
}

/// Direction of a listener.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Direction {
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
    /// A gateway's.
    Unspecified,
}

/// A listener filter.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum ListenerFilter {
    /// Takes the PROXY protocol's header off; the connection is from whom that names.
    ProxyProtocol,
    /// Recovers the destination before redirection.
    OriginalDst,
    /// Reads SNI and ALPN; off for these destination ports (sorted; may be empty).
    TlsInspector(Vec<u16>),
    /// Recognises HTTP; off for these destination ports.
    HttpInspector(Vec<u16>),
}

/// A filter chain.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct FilterChainPlan {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Conditions; all default: matches everything.
    pub matches: ChainMatch,
    /// Server-side TLS; `None`: plaintext or passed through.
    pub tls: Option<DownstreamTls>,
    /// `transport_socket_connect_timeout`.
    pub connect_timeout: Option<Duration>,
    /// Who is asked about the connection, before anything else is decided.
    pub ask: Option<AskFilter>,
    /// Access rules of the connection, in order (network RBAC), before the terminal filter.
    pub access: Vec<AccessFilter>,
    /// The terminal filter.
    pub terminal: TerminalFilter,
}

/// Conditions of a filter chain.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct ChainMatch {
    /// Destination port.
    pub port: Option<u16>,
    /// Destination networks.
    pub prefixes: Vec<IpNet>,
    /// SNI names, `*.suffix` allowed.
    pub server_names: Vec<Arc<str>>,
    /// `tls` or `raw_buffer`.
    pub transport: Option<TransportMatch>,
    /// ALPN names, or what http_inspector found.
    pub alpn: Vec<Arc<str>>,
}

/// Detected transport.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum TransportMatch {
    /// TLS.
    Tls,
    /// Anything else.
    Raw,
}

/// Server-side TLS.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct DownstreamTls {
    /// Certificates; never empty.
    pub certificates: Vec<SecretRef>,
    /// Trust for clients' certificates; `None`: none is asked for.
    pub trust: Option<TrustRef>,
    /// A client must present one.
    pub require_client: bool,
    /// Accepted SANs; empty: the chain alone decides.
    pub sans: Vec<SanMatch>,
    /// Accepted certificates of clients.
    pub pins: Pins,
    /// ALPN that may be negotiated; empty: none.
    pub alpn: Vec<Arc<str>>,
    /// Versions; `None`: Envoy's default.
    pub min_version: Option<TlsVersion>,
    /// Versions; `None`: Envoy's default.
    pub max_version: Option<TlsVersion>,
    /// What may be negotiated.
    pub words: TlsWords,
}

/// The last filter of a chain.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum TerminalFilter {
    /// HTTP.
    Http(Box<HttpConnection>),
    /// Bytes.
    Tcp(TcpProxyPlan),
}

/// HTTP connection manager.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct HttpConnection {
    /// `stat_prefix`, with its trailing `;` as Istio writes it.
    pub stat_prefix: Arc<str>,
    /// Where routes come from.
    pub routes: RouteSource,
    /// Which side this is.
    pub role: HttpRole,
    /// What stands before it; the default for all but gateways.
    pub edge: Edge,
    /// Who is asked, before anything else is decided.
    pub ask: Option<AskFilter>,
    /// The check of tokens, before access is decided.
    pub tokens: Option<TokenFilter>,
    /// Access rules, in evaluation order (HTTP RBAC).
    pub access: Vec<AccessFilter>,
    /// Limits that all hold, after access is decided.
    pub rate_limits: Vec<LimitPlan>,
    /// Puts the per-protocol ALPN list into filter state before the router (ARCHITECTURE.md);
    /// clients without Istio's filter.
    pub alpn_override: bool,
    /// `normalize_path` and friends.
    pub normalization: PathNormalization,
    /// Logs.
    pub access_logs: Vec<AccessLogPlan>,
    /// Spans; `None`: requests are not traced, nor marked for it.
    pub tracing: Option<TracingPlan>,
    /// Accept absolute-form requests (explicit HTTP proxy port).
    pub http_proxy: bool,
    /// Resolve the host of requests to clusters that are [`Discovery::Named`].
    pub resolves_names: bool,
}

/// A limit of how many requests pass.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct LimitPlan {
    /// How many.
    pub quota: QuotaPlan,
    /// What is answered to what is too much.
    pub refusal: LimitRefusal,
}

/// How many requests pass, and who counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum QuotaPlan {
    /// The proxy counts.
    Own(OwnQuota),
    /// A service counts.
    Shared {
        /// Its cluster.
        cluster: Arc<str>,
        /// What it is told.
        quota: SharedQuota,
    },
    /// None: nobody counts, and then nobody is to pass.
    Exhausted,
}

/// Which side an HTTP connection manager serves; decides Istio's defaults.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum HttpRole {
    /// From peers to the workload: `server_name istio-envoy`, XFCC APPEND_FORWARD {subject, uri,
    /// dns}.
    Inbound {
        /// Whether the chain terminates mutual TLS.
        mtls: bool,
    },
    /// From the workload to others.
    Outbound,
    /// From outside the mesh: `use_remote_address`, XFCC as [`Edge`] says {subject, cert, dns, uri},
    /// 500 on bad clusters.
    Gateway,
}

/// Where routes come from.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum RouteSource {
    /// RDS over ADS, by name.
    Rds(Arc<str>),
    /// In the listener.
    Inline(RouteConfigPlan),
}

/// TCP proxy.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TcpProxyPlan {
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// Clusters with weights; never empty.
    pub clusters: Vec<(Arc<str>, u32)>,
    /// `idle_timeout`.
    pub idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`.
    pub max_duration: Option<Duration>,
    /// Hash the client's address.
    pub hash_source_ip: bool,
    /// The cluster is of a proxy that is asked to connect elsewhere.
    pub tunnel: Option<Tunnel>,
    /// Resolve the SNI, to go to this port of it: the cluster is [`Discovery::Named`].
    pub resolves_sni: Option<u16>,
    /// Logs.
    pub access_logs: Vec<AccessLogPlan>,
}

/// What is asked about, and who is asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct AskFilter {
    /// What is asked about, by the names of rules.
    pub policies: BTreeMap<Arc<str>, AccessPolicyPlan>,
    /// Who is asked; `None`: nobody can be, and what would be asked about is refused.
    pub asked: Option<Asked>,
}

/// Who is asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Asked {
    /// What all names of rules begin with.
    pub prefix: Arc<str>,
    /// The cluster of the service.
    pub cluster: Arc<str>,
    /// How it is asked.
    pub authorizer: Authorizer,
}

/// One RBAC filter: all policies of one action.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct AccessFilter {
    /// What a match means.
    pub action: crate::ir::AccessAction,
    /// Enforced policies by name `ns[NS]-policy[NAME]-rule[I]`; with ALLOW, an empty map refuses
    /// everything. `None`: nothing is enforced, `shadow` only reports.
    pub policies: Option<BTreeMap<Arc<str>, AccessPolicyPlan>>,
    /// Policies that are only reported, read as `policies` are.
    pub shadow: Option<BTreeMap<Arc<str>, AccessPolicyPlan>>,
}

/// One RBAC policy: any permission and any principal.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct AccessPolicyPlan {
    /// Never empty.
    pub permissions: Vec<Permission>,
    /// Never empty.
    pub principals: Vec<Principal>,
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Permission {
    /// Anything.
    Any,
    /// All of these.
    And(Vec<Permission>),
    /// One of these.
    Or(Vec<Permission>),
    /// The opposite.
    Not(Box<Permission>),
    /// A header (`:method`, `:authority`); the flag compares without case.
    Header(Arc<str>, StringMatch, bool),
    /// The path without query.
    Path(StringMatch),
    /// Destination port.
    Port(u16),
    /// Destination network.
    DestinationIp(IpNet),
    /// SNI.
    Sni(StringMatch),
    /// What a filter found out.
    Metadata(MetadataMatch),
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Principal {
    /// Anyone.
    Any,
    /// All of these.
    And(Vec<Principal>),
    /// One of these.
    Or(Vec<Principal>),
    /// The opposite.
    Not(Box<Principal>),
    /// The peer's id as URI SAN, `spiffe://` included; `Present`: any authenticated peer.
    Authenticated(StringMatch),
    /// Network of the direct peer.
    DirectIp(IpNet),
    /// Network of the original client.
    RemoteIp(IpNet),
    /// A request header.
    Header(Arc<str>, StringMatch),
    /// A claim of the request's token.
    Metadata(MetadataMatch),
}
