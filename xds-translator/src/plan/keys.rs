//! Keys: the only arguments of planning, and so sound cache keys.
//!
//! A key holds resolved facts (which namespace, which objects were chosen), never raw node
//! metadata, so that all proxies with equal facts share one plan.

use std::{net::IpAddr, sync::Arc};

use ferromesh_proto::ResourceType;
use serde::Serialize;

use crate::ir::{Edge, Field, Hostname, Labels, Locality, ObjectId, ProxySide, ServiceKey};

/// A part of what a proxy gets; shared by every proxy with an equal key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum ViewKey {
    /// What a sidecar sees and how it reaches it.
    Outbound(OutboundKey),
    /// A workload's own ports, chains and policies; shared by its replicas.
    Inbound(InboundKey),
    /// Where a proxy's own replicas are, where that matters.
    Peers(PeersKey),
    /// Everything of a gateway.
    Gateway(GatewayKey),
}

/// Client-side facts of a sidecar.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct OutboundKey {
    /// The client's namespace.
    pub namespace: Arc<str>,
    /// The Sidecar object chosen for it.
    pub scope: Option<ObjectId>,
    /// The client's labels, restricted to keys that some rule's `sourceLabels` or client selector
    /// asks about.
    pub client_labels: Labels,
    /// The client's locality, only where a policy makes it matter.
    pub locality: Option<Locality>,
    /// Whether it knows its peers, since a policy balances over zones.
    pub knows_peers: bool,
    /// How the application's traffic reaches the sidecar.
    pub capture: CaptureMode,
    /// Which filters the proxy has.
    pub features: Features,
    /// What it tells of its calls.
    pub telemetry: TelemetryKey,
    /// Sets of patches for what it sees, in the order in which they are applied.
    pub patches: PatchesKey,
}

/// Which changes a proxy gets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub struct PatchesKey {
    /// Sets of patches, in the order in which they are applied.
    pub sets: Vec<ObjectId>,
    /// Patches of them that are for other proxies, by object and place; nearly always empty.
    pub left_out: Vec<(ObjectId, Field)>,
}

/// What decides over what a proxy tells of its traffic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub struct TelemetryKey {
    /// The policies in force for it, the least special first.
    pub policies: Vec<ObjectId>,
    /// Whose its spans are; `None`: it sends none.
    pub source: Option<SpanSource>,
    /// Who makes its metrics.
    pub metrics: MetricsMaker,
}

/// Who makes a proxy's metrics of requests and connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub enum MetricsMaker {
    /// Nobody: a stock Envoy alone.
    #[default]
    Nobody,
    /// The proxy itself, which has Istio's filter for it.
    Proxy,
    /// The agent beside an Envoy, from log entries.
    Agent,
}

/// Whose spans are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct SpanSource {
    /// The service that tracers show: `SERVICE.NAMESPACE`.
    pub service: Arc<str>,
    /// The workload's canonical service.
    pub canonical: Arc<str>,
    /// Its canonical revision.
    pub revision: Arc<str>,
    /// Its Kubernetes cluster.
    pub cluster: Arc<str>,
}

/// How traffic reaches a sidecar.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum CaptureMode {
    /// iptables REDIRECT (or TPROXY) to 15001 and 15006.
    Redirect,
    /// The application connects to the sidecar by address (`INTERCEPTION_MODE: NONE`).
    None {
        /// Outbound listeners bind here; `None`: the address Istio uses, 127.0.0.1, for HTTP ports
        /// only.
        outbound: Option<IpAddr>,
        /// Inbound listeners bind here; `None`: the workload's own address.
        inbound: Option<IpAddr>,
        /// Where the application listens; `None`: 127.0.0.1.
        application: Option<IpAddr>,
    },
}

/// What a proxy can run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub struct Features {
    /// Whether its application's DNS answers with allocated addresses (`DNS_CAPTURE`).
    pub captures_dns: bool,
    /// Port of the explicit HTTP proxy (`HTTP_PROXY_PORT`).
    pub http_proxy_port: Option<u16>,
}

/// Server-side facts of a workload.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct InboundKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Its labels in the registry: what selectors look at.
    pub labels: Labels,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Service ports that lead to it, with their container port: (service, service port, container
    /// port); sorted.
    pub ports: Vec<(ServiceKey, u16, u16)>,
    /// The Sidecar object chosen for it.
    pub scope: Option<ObjectId>,
    /// How traffic reaches it. In NONE mode the addresses are the proxy's own.
    pub capture: CaptureMode,
    /// Bind address in NONE mode when the node names none: the workload's own. `None` under
    /// redirection.
    pub address: Option<IpAddr>,
    /// What the proxy can run.
    pub features: Features,
    /// What it tells of calls to it.
    pub telemetry: TelemetryKey,
    /// Sets of patches, in the order in which they are applied.
    pub patches: PatchesKey,
}

/// A proxy's own replicas: the endpoints of a service of its that are of the same workload.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct PeersKey {
    /// A service that leads to them.
    pub service: ServiceKey,
    /// Its port.
    pub port: u16,
    /// What they have in common.
    pub kinship: Kinship,
    /// The proxy's region, in which alone peers count; empty: it is not known.
    pub region: Arc<str>,
    /// Nothing: no patch is about endpoints.
    pub patches: PatchesKey,
}

/// By what replicas of one workload know each other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Kinship {
    /// One controller made them, from one template: its name, and the hashes of the template.
    Controller(Arc<str>, Labels),
    /// Nobody made them: all their labels, but those that say where they are.
    Labels(Labels),
}

/// Facts of a gateway.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct GatewayKey {
    /// Its namespace: credentials come from here.
    pub namespace: Arc<str>,
    /// Gateway objects that select it; sorted by age.
    pub gateways: Vec<ObjectId>,
    /// Its labels in the registry: what selectors of access policies look at.
    pub labels: Labels,
    /// Its labels, restricted as for sidecars.
    pub client_labels: Labels,
    /// Services that lead to it, which map server ports to listener ports: (server port, listener
    /// port); sorted.
    pub ports: Vec<(u16, u16)>,
    /// Locality, only where it matters.
    pub locality: Option<Locality>,
    /// Whether it knows its peers, as sidecars.
    pub knows_peers: bool,
    /// Address to bind instead of 0.0.0.0 (NONE mode on loopback).
    pub bind: Option<IpAddr>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// What stands before it; `None`: what stands before all gateways.
    pub edge: Option<Edge>,
    /// What the proxy can run.
    pub features: Features,
    /// What it tells of calls to it.
    pub telemetry: TelemetryKey,
    /// Sets of patches, in the order in which they are applied.
    pub patches: PatchesKey,
}

/// One plan item's identity; planned once for all views that refer to it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum ItemKey {
    /// An outbound cluster.
    Cluster(ClusterKey),
    /// Its endpoints.
    Assignment(ClusterKey),
    /// A cluster with a fixed meaning.
    Fixed(FixedCluster),
    /// A virtual host of an outbound or gateway route configuration.
    VirtualHost(VirtualHostKey),
    /// A cluster that patches change.
    Patched(PatchedKey),
}

impl ItemKey {
    /// The type of the resource that the item becomes, or becomes a part of.
    pub fn resource_type(&self) -> ResourceType {
        match self {
            Self::Cluster(_) | Self::Fixed(_) => ResourceType::Cluster,
            Self::Assignment(_) => ResourceType::Endpoint,
            Self::VirtualHost(_) => ResourceType::Route,
            Self::Patched(key) => key.item.resource_type(),
        }
    }
}

/// An item that patches change; every other item is shared with views that have no patches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct PatchedKey {
    /// The item.
    pub item: Arc<ItemKey>,
    /// Those that change it; never empty.
    pub patches: PatchesKey,
    /// Whose configuration it is a part of.
    pub side: ProxySide,
}

/// An outbound cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct ClusterKey {
    /// The service.
    pub service: ServiceKey,
    /// Service port.
    pub port: u16,
    /// Subset name; empty for none.
    pub subset: Arc<str>,
    /// The policies in force, oldest first (resolved from client namespace, service namespace, root
    /// namespace).
    pub policies: Vec<ObjectId>,
    /// The client's locality, only when locality balancing is active for this cluster.
    pub locality: Option<Locality>,
    /// Labels of the client that `failoverPriority` compares; empty unless such a policy is active.
    pub client_labels: Labels,
    /// Which kind of client uses it.
    pub client: ClusterClient,
    /// Whether its clients know their peers, by which Envoys balance over zones unless told not to.
    pub knows_peers: bool,
}

/// What the kind of its client changes about a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum ClusterClient {
    /// A sidecar behind redirection, which knows where a connection was going.
    Redirected,
    /// A sidecar that the application calls by address: endpoints are listed where
    /// [`Self::Redirected`] would use the original destination.
    Addressed,
    /// A gateway: as `Addressed`, and it may use credentials of its own namespace.
    Gateway,
    /// A gateway that passes the mesh's own mutual TLS on: to endpoints that take it, without TLS
    /// of its own.
    Relay,
}

/// Clusters that exist in every view.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum FixedCluster {
    /// `BlackHoleCluster`.
    BlackHole,
    /// `PassthroughCluster`.
    Passthrough,
    /// `InboundPassthroughCluster`.
    InboundPassthrough,
}

/// A virtual host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct VirtualHostKey {
    /// What it stands for.
    pub target: VirtualHostTarget,
    /// Port of the route configuration (gateways: the server's port).
    pub port: u16,
    /// The route tables in force, by object, oldest first; several where they are merged.
    pub tables: Vec<ObjectId>,
    /// Client-side facts that decide `sourceLabels`, `sourceNamespace` and cluster policies.
    pub client: Arc<ClientFacts>,
    /// Which names lead to it.
    pub domains: DomainForm,
    /// Domains that it would claim but another virtual host of the same route configuration owns;
    /// sorted; nearly always empty.
    pub taken: Vec<Arc<str>>,
}

/// Which domains a virtual host claims.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum DomainForm {
    /// `*` only: the route configuration belongs to one host, or this is the catch-all.
    Any,
    /// Its names and addresses; ports in `Host` are ignored.
    Names,
    /// Its fully qualified name only.
    Exact,
    /// Its names with `:PORT`, and bare for port 80: the explicit HTTP proxy serves every port.
    NamesWithPort,
}

/// What a virtual host stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum VirtualHostTarget {
    /// A service.
    Service {
        /// Which.
        service: ServiceKey,
        /// Whether the name alone leads to it.
        local: bool,
        /// Whether its allocated address leads to it.
        allocated: bool,
    },
    /// A host that only a route table names; `redirect`: the gateway server answers with a redirect
    /// to HTTPS.
    Host {
        /// Which.
        host: Hostname,
        /// `httpsRedirect`.
        redirect: bool,
    },
    /// `allow_any` → PassthroughCluster.
    AllowAny,
    /// `allow_any` → this cluster, an egress proxy's.
    Through(Arc<str>),
    /// `block_all` → 502.
    BlockAll,
    /// A gateway port without routes: 404.
    Blackhole,
    /// A host of another gateway server, asked for over a connection to this one: 421.
    Misdirected(Hostname),
}

/// What routing needs to know of the client; shared by `Arc`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub struct ClientFacts {
    /// Namespace; empty when no table in force asks for it, so that namespaces share the item.
    pub namespace: Arc<str>,
    /// Labels, restricted to the keys asked about.
    pub labels: Labels,
    /// The gateway objects, for gateways.
    pub gateways: Vec<ObjectId>,
}
