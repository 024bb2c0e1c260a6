//! A listener: where connections are accepted, what is looked at before a filter chain is chosen,
//! and the chains.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    access_log::AccessLog, authz::Rbac, facts::ConnectionFacts, filter_chain::FilterChainMatcher,
    http::HttpConnectionManager, limits::BufferLimit, metric_rules::OwnMetrics,
    proxy_header::ProxyVersion, secret::DownstreamTls, target::ClusterChoice,
};

/// A compiled listener.
#[derive(Debug)]
pub struct Listener {
    /// Name, unique among listeners.
    pub name: Arc<str>,
    /// Where it listens or, without `bind_to_port`, which original destinations it takes. Never
    /// empty.
    pub addresses: Vec<SocketAddr>,
    /// Opens sockets; otherwise connections come from a listener with `use_original_dst`.
    pub bind_to_port: bool,
    /// Gives a redirected connection to the listener of its original destination, and keeps it if
    /// there is none.
    pub use_original_dst: bool,
    /// Whether traffic leaves or reaches the workload.
    pub direction: TrafficDirection,
    /// What is looked at before a chain is chosen.
    pub inspect: Inspection,
    /// Chains, in the order of the message.
    pub chains: Vec<Arc<FilterChain>>,
    /// Leads to an index of `chains`.
    pub matcher: FilterChainMatcher,
    /// Takes what no chain matches; without it such a connection is closed.
    pub default_chain: Option<Arc<FilterChain>>,
    /// Logs connections that no chain took.
    pub access_logs: Vec<AccessLog>,
    /// How much a connection holds.
    pub buffer: BufferLimit,
    /// Changes whenever anything about the listener does; connections of an older one are drained.
    pub version: u64,
}

/// Whether traffic leaves or reaches the workload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TrafficDirection {
    /// Neither, as on a gateway (metrics then report `source`).
    #[default]
    Unspecified,
    /// From another workload to ours.
    Inbound,
    /// From our workload to another.
    Outbound,
}

/// Listener filters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspection {
    /// Reads the original destination of redirected connections.
    pub original_dst: bool,
    /// Takes off the header of the PROXY protocol, before all else.
    pub proxy_header: Option<ProxyHeader>,
    /// Reads the ClientHello.
    pub tls: Option<PortScope>,
    /// Looks for an HTTP request line or preface in plaintext.
    pub http: Option<PortScope>,
    /// Time that all of this may take; `None` for ever.
    pub timeout: Option<Duration>,
    /// Goes on with what is known when the time is over, instead of closing.
    pub continue_on_timeout: bool,
}

/// How a header of the PROXY protocol is taken (Envoy's `proxy_protocol` listener filter).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProxyHeader {
    /// Where it is looked for.
    pub scope: PortScope,
    /// Connections may be without one.
    pub optional: bool,
    /// Versions that count as none.
    pub disallowed: Vec<ProxyVersion>,
}

/// The destination ports for which a listener filter is switched off.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortScope {
    /// Ranges with excluded ends; a destination port inside any of them is not inspected.
    pub disabled: Vec<std::ops::Range<u32>>,
}

impl PortScope {
    /// Whether connections to this destination port are inspected.
    pub fn covers(&self, port: u16) -> bool {
        !self.disabled.iter().any(|range| range.contains(&u32::from(port)))
    }
}

/// What happens to connections of one kind.
#[derive(Debug)]
pub struct FilterChain {
    /// Name; may be empty.
    pub name: Arc<str>,
    /// Terminates TLS; `None` leaves bytes as they are.
    pub tls: Option<Arc<DownstreamTls>>,
    /// Limit for the TLS handshake; `None` for none.
    pub handshake_timeout: Option<Duration>,
    /// Checks in order, each of which may close the connection.
    pub rbac: Vec<Rbac>,
    /// What takes the connection then.
    pub terminal: Terminal,
}

impl FilterChain {
    /// Whether applications are told clients' whole certificates, which must then be kept.
    pub fn tells_certificates(&self) -> bool {
        match &self.terminal {
            Terminal::Http(manager) => manager.client_cert.tells_certificates(),
            Terminal::Tcp(_) => false,
        }
    }
}

/// The last network filter of a chain.
#[derive(Debug)]
pub enum Terminal {
    /// HTTP.
    Http(Arc<HttpConnectionManager>),
    /// Bytes to a cluster.
    Tcp(Arc<TcpProxy>),
}

/// Forwards bytes (Envoy's `tcp_proxy`).
#[derive(Debug)]
pub struct TcpProxy {
    /// Prefix of statistics; the listener's view of where it goes.
    pub stat_prefix: Arc<str>,
    /// Where bytes go.
    pub cluster: ClusterChoice,
    /// Closes a connection that carried nothing for so long; `None` never.
    pub idle_timeout: Option<Duration>,
    /// Longest life of a connection.
    pub max_duration: Option<Duration>,
    /// Attempts to connect, the first included.
    pub max_connect_attempts: u32,
    /// Chooses the endpoint by the source address if the cluster balances by hash.
    pub hash_source_ip: bool,
    /// Logs a connection when it ends.
    pub access_logs: Vec<AccessLog>,
    /// What is different of its metrics.
    pub metrics: Option<Arc<OwnMetrics>>,
}

impl Listener {
    /// The chain whose match says so, or `None` if only the default chain is left. See
    /// [`super::RuntimeConfig::find_chain`].
    pub fn matching_chain(&self, connection: &ConnectionFacts) -> Option<&Arc<FilterChain>> {
        self.matcher.find(connection).map(|index| &self.chains[index])
    }

    /// Whether the TLS inspector runs for this destination port.
    pub fn inspects_tls(&self, port: u16) -> bool {
        self.inspect.tls.as_ref().is_some_and(|scope| scope.covers(port))
    }

    /// Whether the HTTP inspector runs for this destination port.
    pub fn inspects_http(&self, port: u16) -> bool {
        self.inspect.http.as_ref().is_some_and(|scope| scope.covers(port))
    }
}
