//! What the hot path executes: immutable structures with every expression compiled and every
//! default filled in, and pure functions that match over them.
//!
//! `compile` makes them out of xDS messages, `listen`, `http` and `tcp` read them. Nothing here
//! knows protobuf, sockets, clocks or locks. A connection (L4) or request (L7) loads the
//! configuration once and passes the reference on, so that nobody sees half a change. One thing
//! changes below a configuration, the content of a [`secret::SecretSlot`]; the state of upstreams
//! (endpoints, counters, connections) is bound to a [`Cluster`] outside, in `upstream`.
//!
//! Names of clusters and route configurations are looked up in the configuration that a request has
//! loaded, one hash each: so a route update reaches connections that stay open, and an update of
//! one resource rebuilds no other.

use std::{net::SocketAddr, sync::Arc};

use rustc_hash::FxHashMap;

pub mod access_log;
pub mod action;
pub mod authz;
pub mod cel;
pub mod cluster;
pub mod collector;
pub mod endpoint;
pub mod facts;
pub mod filter;
pub mod filter_chain;
pub mod flags;
pub mod format;
pub mod http;
pub mod jwt;
pub mod limits;
pub mod listener;
pub mod matcher;
pub mod metadata;
pub mod metric_rules;
pub mod path;
pub mod proxy_header;
pub mod rate_limit;
pub mod route;
pub mod route_match;
pub mod secret;
pub mod target;
pub mod text;
pub mod trace;

pub use self::{
    authz::{Rbac, Verdict},
    cluster::Cluster,
    facts::{ConnectionFacts, HeaderLookup, PeerCertificate, RequestFacts, TransportProtocol},
    filter::HttpFilter,
    http::{HttpConnectionManager, RouteSource},
    listener::{FilterChain, Listener, TcpProxy, Terminal},
    route::{RouteConfig, RouteDecision},
};

/// Listeners and routes of one complete configuration; its clusters stand beside it, each with its
/// state (`worker::ActiveConfig`).
#[derive(Default)]
pub struct RuntimeConfig {
    /// Grows with every configuration.
    pub generation: u64,
    /// Sorted by name.
    pub listeners: Vec<Arc<Listener>>,
    routes: FxHashMap<Arc<str>, Arc<RouteConfig>>,
    by_destination: FxHashMap<SocketAddr, Arc<Listener>>,
}

impl RuntimeConfig {
    /// Indexes resources that are ready to serve.
    pub fn new(
        generation: u64,
        mut listeners: Vec<Arc<Listener>>,
        routes: impl IntoIterator<Item = Arc<RouteConfig>>,
    ) -> Self {
        listeners.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            generation,
            by_destination: index_by_destination(&listeners),
            routes: routes.into_iter().map(|routes| (routes.name.clone(), routes)).collect(),
            listeners,
        }
    }

    /// Every route configuration of RDS, in no order.
    pub fn route_configs(&self) -> impl Iterator<Item = &Arc<RouteConfig>> {
        self.routes.values()
    }

    /// The routes that a connection manager uses now; `None` if RDS has not delivered them.
    pub fn route_config<'a>(&'a self, source: &'a RouteSource) -> Option<&'a Arc<RouteConfig>> {
        match source {
            RouteSource::Inline(routes) => Some(routes),
            RouteSource::Rds(name) => self.routes.get(name),
        }
    }

    /// The listener of this name.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        let found = self.listeners.binary_search_by(|listener| (*listener.name).cmp(name));
        found.ok().map(|index| &self.listeners[index])
    }

    /// Whether it takes the same connections as `other`, by the same chains. What is unchanged is
    /// shared, so that this compares no contents.
    pub fn admits_as(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<Listener>, &Arc<Listener>)| Arc::ptr_eq(a, b);
        let listeners = self.listeners.len() == other.listeners.len()
            && self.listeners.iter().zip(&other.listeners).all(same);
        // Routes name the addresses where HTTP is declared ([`Self::find_chain`]).
        listeners
            && self.routes.len() == other.routes.len()
            && self.routes.iter().all(|(name, routes)| {
                other.routes.get(name).is_some_and(|before| Arc::ptr_eq(routes, before))
            })
    }

    /// The chain of `listener` for a connection, or `None` if it must be closed.
    ///
    /// Services that are declared to speak HTTP share a listener with unknown destinations, so that
    /// what the inspector has not recognised is left to the default chain. Bytes for such a service
    /// are kept from it: they would leave the mesh past its routes and mutual TLS, while the codec
    /// answers 400 to what is no HTTP.
    pub fn find_chain<'a>(
        &'a self,
        listener: &'a Listener,
        connection: &ConnectionFacts,
    ) -> Option<&'a Arc<FilterChain>> {
        listener
            .matching_chain(connection)
            .or_else(|| self.declared_http(listener, connection))
            .or(listener.default_chain.as_ref())
    }

    /// The chain that would take HTTP, if its routes name the very address that the connection goes
    /// to.
    fn declared_http<'a>(
        &'a self,
        listener: &'a Listener,
        connection: &ConnectionFacts,
    ) -> Option<&'a Arc<FilterChain>> {
        let destination = connection.destination;
        if !listener.inspects_http(destination.port()) {
            return None;
        }
        let mut as_http = ConnectionFacts::plaintext(connection.source, destination);
        as_http.application_protocols = vec!["http/1.1".into()];
        let chain = listener.matching_chain(&as_http)?;
        let Terminal::Http(manager) = &chain.terminal else { return None };
        self.route_config(&manager.routes)?.names_address(destination).then_some(chain)
    }

    /// The listener that takes connections redirected from this destination: the one of exactly
    /// this address, else the one of this port on the wildcard address of the same family (Envoy's
    /// `use_original_dst`).
    pub fn listener_for_destination(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        let wildcard = match destination {
            SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], destination.port())),
            SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], destination.port())),
        };
        self.by_destination.get(&destination).or_else(|| self.by_destination.get(&wildcard))
    }
}

impl std::fmt::Debug for RuntimeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeConfig")
            .field("generation", &self.generation)
            .field("listeners", &self.listeners.len())
            .field("routes", &self.routes.len())
            .finish()
    }
}

fn index_by_destination(listeners: &[Arc<Listener>]) -> FxHashMap<SocketAddr, Arc<Listener>> {
    let mut index = FxHashMap::default();
    // A listener that opens sockets of its own can be a destination too, but never takes it from
    // one that does not.
    for bound in [true, false] {
        for listener in listeners.iter().filter(|listener| listener.bind_to_port == bound) {
            for address in &listener.addresses {
                index.insert(*address, listener.clone());
            }
        }
    }
    index
}
