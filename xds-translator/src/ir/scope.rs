//! What a sidecar sees and opens (Istio `Sidecar`).

use std::{net::IpAddr, sync::Arc};

use serde::Serialize;

use super::{ConnectionPool, Hostname, Labels, Origin, PolicyScope, Protocol, Selector, ServerTls};

/// The scope that one object gives.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct SidecarScope {
    /// The object. In the root namespace without selector it is the mesh's default.
    pub origin: Origin,
    /// Workloads of its namespace; empty: all.
    pub selector: Selector,
    /// Egress listeners; empty: everything visible.
    pub egress: Vec<EgressListener>,
    /// Ingress listeners; empty: as the services say.
    pub ingress: Vec<IngressListener>,
    /// `None`: the mesh's.
    pub outbound_traffic: Option<OutboundTraffic>,
    /// Limits of every inbound cluster.
    pub inbound_pool: Option<ConnectionPool>,
}

impl SidecarScope {
    /// Whether workloads with these labels may get it, unless another comes first. `root`: the root
    /// namespace.
    pub fn governs(&self, root: &str, namespace: &str, labels: &Labels) -> bool {
        let own = *self.origin.id.namespace == *namespace;
        let mesh_wide = *self.origin.id.namespace == *root && self.selector.is_empty();
        (own || mesh_wide) && self.selector.matches(labels)
    }
}

/// One egress listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct EgressListener {
    /// `None`: the catch-all for every service port.
    pub port: Option<ListenerPort>,
    /// Address to bind.
    pub bind: Option<IpAddr>,
    /// How traffic gets there; `None`: the proxy's own mode.
    pub capture: Capture,
    /// Visible hosts.
    pub hosts: Vec<ScopeHost>,
    /// Of them, what is not visible all the same (`~NAMESPACE/HOST`); may be empty.
    pub hidden: Vec<ScopeHost>,
}

/// A port that a Sidecar object declares.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ListenerPort {
    /// Number.
    pub number: u16,
    /// Name; may be empty.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
}

/// How traffic reaches a listener (`captureMode`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub enum Capture {
    /// The proxy's interception mode.
    #[default]
    Default,
    /// Redirected by iptables.
    Iptables,
    /// The application connects to the listener itself.
    None,
}

/// A visible host of a scope.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct ScopeHost {
    /// Which namespaces.
    pub namespace: ScopeNamespace,
    /// The host; may be a wildcard.
    pub host: Hostname,
}

/// Namespaces of a scope host.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum ScopeNamespace {
    /// Any (`*`).
    Any,
    /// The one of the proxy that asks (`.`): an object of the root namespace speaks for the proxies
    /// of every namespace.
    Clients,
    /// This one.
    Named(Arc<str>),
    /// None (`~`).
    Nobody,
}

/// One ingress listener, which replaces what services say for that port.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct IngressListener {
    /// The port.
    pub port: ListenerPort,
    /// Address to bind.
    pub bind: Option<IpAddr>,
    /// How traffic gets there.
    pub capture: Capture,
    /// Where it goes; `None`: the same port of the application.
    pub default_endpoint: Option<AppEndpoint>,
    /// TLS that it terminates where the mesh's own is off.
    pub tls: Option<ServerTls>,
    /// Limits.
    pub pool: Option<ConnectionPool>,
}

/// Where an ingress listener forwards to.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum AppEndpoint {
    /// `127.0.0.1:PORT`.
    Loopback(u16),
    /// `0.0.0.0:PORT`: the workload's own address.
    Workload(u16),
    /// `unix:///PATH`.
    Pipe(Arc<str>),
}

/// What happens to traffic for unknown destinations.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum OutboundTraffic {
    /// It passes (`ALLOW_ANY`).
    AllowAny,
    /// It is refused (`REGISTRY_ONLY`).
    RegistryOnly,
    /// It goes to a service instead (`egressProxy`), and is refused where that is not there.
    Through(EgressProxy),
}

/// What becomes of traffic for unknown destinations of all workloads of a scope. What one refuses no
/// [`SidecarScope`] lets pass; where one lets it pass, a `SidecarScope` may say something else.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct OutboundPolicy {
    /// The object.
    pub origin: Origin,
    /// Where the workloads are.
    pub scope: PolicyScope,
    /// Whether it passes.
    pub allowed: bool,
}

/// Where traffic for unknown destinations goes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct EgressProxy {
    /// The host of a service.
    pub host: Hostname,
    /// Its port.
    pub port: u16,
    /// Its subset; may be empty.
    pub subset: Arc<str>,
}
