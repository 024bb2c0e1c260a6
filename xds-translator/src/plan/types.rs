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
    AccessLogPlan, AssignmentPlan, ClusterPlan, MetadataMatch, MetricsPlan, RouteConfigPlan,
    SanMatch, SecretRef, TokenFilter, TracingPlan, TrustRef, VirtualHostPlan,
};
use crate::ir::{
    AccessAction, Authorizer, Edge, LimitRefusal, OwnQuota, PatchMessage, PathNormalization, Pins,
    PortNames, ProxyHeaders, SharedQuota, StringMatch, TlsVersion, TlsWords, Tunnel,
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

/// A listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ListenerPlan {
    /// `virtualInbound`, `0.0.0.0_80`…
    pub name: Arc<str>,
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Whether it is really opened.
    pub bind: Bind,
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

/// Whether a listener is really opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Bind {
    /// It is not: its connections come by their original destination.
    Captured,
    /// It is, always.
    Always,
    /// It is, since a Sidecar object says so: the listener of the same name may be captured before
    /// and after.
    Chosen,
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
    /// Headers that it adds.
    pub headers: ProxyHeaders,
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
    /// Metrics; `None`: those that the proxy has by itself.
    pub metrics: Option<MetricsPlan>,
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
    /// Metrics; `None`: those that the proxy has by itself.
    pub metrics: Option<MetricsPlan>,
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
    pub action: AccessAction,
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
