//! What serves in the place of a version that was refused: of the one in force only what asks for
//! as much.
//!
//! Each function answers `None` where the version in force may go on as it is. A version that
//! cannot be read at all may have asked for anything, so all of it is closed.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::{
        cluster::v3::Cluster as WireCluster,
        endpoint::v3::ClusterLoadAssignment,
        listener::v3::{FilterChain as WireChain, Listener as WireListener},
        route::v3::RouteConfiguration,
    },
    extensions::transport_sockets::tls::v3::{Secret, secret::Type},
};
use ferromesh_proto::ResourceType;
use prost::Message;

use super::{
    Compiled, Context, endpoint, filter_chain,
    guard::{self, Guards},
    known, listener,
};
use crate::runtime::{
    Cluster, FilterChain, Listener, Rbac, RouteConfig, TcpProxy, Terminal,
    action::{Action, DirectResponse},
    authz::{Condition, Policy, RbacAction},
    cluster::{ConnectionSettings, Transport},
    endpoint::{EndpointAddress, EndpointSet},
    filter::FilterOverrides,
    filter_chain::FilterChainMatcher,
    listener::Inspection,
    matcher::Share,
    path::PathMatcher,
    route::{Route, RouteMatch, VirtualHost},
    secret::SecretMaterial,
    target::ClusterChoice,
};

/// What a client is told whose request would have been served more weakly than the control plane
/// wants.
const CLOSED: &str =
    "closed until this proxy is sent routes that it accepts: those that it has refused guard more";

impl Context {
    /// The cluster that serves instead of `serving` once `refused` was refused.
    pub fn close_cluster(
        &self,
        refused: &[u8],
        serving: &Cluster,
        guards: &Guards,
    ) -> Option<Cluster> {
        let asked = WireCluster::decode(refused)
            .ok()
            .map(|message| guard::asked(ResourceType::Cluster, refused, guard::cluster(&message)));
        if asked.is_some_and(|asked| asked.whole.is_met_by(guards.whole)) {
            return None;
        }
        let connection = ConnectionSettings {
            transport: Transport::Closed,
            transport_matches: Vec::new(),
            ..serving.connection.clone()
        };
        Some(Cluster { connection, ..serving.clone() })
    }

    /// The listener that serves instead of `serving`: chains of the refused version, each as it is
    /// in force where it guards as much, else closed. Without one in force, connections that would
    /// be led to it are closed rather than passed through.
    pub fn close_listener(
        &mut self,
        name: &str,
        version: u64,
        refused: &[u8],
        serving: Option<&Compiled<Listener>>,
    ) -> Option<Listener> {
        let message = WireListener::decode(refused).ok();
        let Some(serving) = serving else { return closed_newcomer(name, version, &message?) };
        let of = |chains| Listener { version, ..with_chains(&serving.value, chains) };
        let Some(message) = message else { return Some(of(Chains::default())) };
        let asked = guard::asked(ResourceType::Listener, refused, guard::listener(&message));
        if !asked.whole.is_met_by(serving.guards.whole) {
            return Some(of(Chains::default()));
        }
        let goes_on = |part: &(u64, guard::Guard)| serving.guards.meeting(*part).is_some();
        let gone = serving.guards.parts.iter().any(|(place, _)| !asked.has(*place));
        let unguarded_newcomer =
            |part: &(u64, guard::Guard)| part.1.is_none() && !serving.guards.has(part.0);
        if !gone && asked.parts.iter().all(|part| goes_on(part) || unguarded_newcomer(part)) {
            return None;
        }
        Some(of(chains(&message, &asked, serving).unwrap_or_default()))
    }

    /// The routes that serve instead of `serving`: virtual hosts that guard more in the refused
    /// version are closed.
    pub fn close_routes(
        &self,
        refused: &[u8],
        name: &str,
        serving: Option<&Compiled<RouteConfig>>,
    ) -> Option<RouteConfig> {
        let all_closed = || {
            RouteConfig::new(name.into(), false, vec![closed_host("closed", vec!["*".into()])]).ok()
        };
        let (Some(serving), Ok(message)) = (serving, RouteConfiguration::decode(refused)) else {
            return all_closed();
        };
        let asked = guard::asked(ResourceType::Route, refused, guard::routes(&message));
        if !asked.whole.is_met_by(serving.guards.whole) {
            return all_closed();
        }
        let pairs = message.virtual_hosts.iter().zip(&asked.parts);
        let unmet =
            pairs.filter(|(_, part)| !part.1.is_none() && serving.guards.meeting(**part).is_none());
        let closed: Vec<_> = unmet.map(|(host, _)| host).collect();
        if closed.is_empty() {
            return None;
        }
        let lower = |domain: &String| domain.to_ascii_lowercase().into();
        let domains: BTreeSet<Arc<str>> =
            closed.iter().flat_map(|host| &host.domains).map(lower).collect();
        let names: BTreeSet<&str> = closed.iter().map(|host| host.name.as_str()).collect();
        let mut hosts: Vec<VirtualHost> = serving.value.virtual_hosts().to_vec();
        hosts.retain_mut(|host| {
            host.domains.retain(|domain| !domains.contains(domain));
            !names.contains(&*host.name) && !host.domains.is_empty()
        });
        hosts.push(closed_host("closed", domains.into_iter().collect()));
        serving.value.with_hosts(hosts).ok().or_else(all_closed)
    }

    /// Endpoints that serve instead of `serving`: none, if any of them is to be reached in another
    /// way.
    pub fn close_endpoints(&self, refused: &[u8], serving: &EndpointSet) -> Option<EndpointSet> {
        let none = Some(EndpointSet::default());
        let Ok(message) = ClusterLoadAssignment::decode(refused) else { return none };
        let Ok(asked) = endpoint::socket_matches(&message) else { return none };
        if !known::guarding(ResourceType::Endpoint, refused).is_empty() {
            return none;
        }
        let known = serving.localities.iter().flat_map(|locality| &locality.endpoints);
        let otherwise = |endpoint: &crate::runtime::endpoint::Endpoint| {
            let EndpointAddress::Socket(address) = endpoint.address else { return true };
            asked.get(&address).is_some_and(|wanted| *wanted != endpoint.socket_match)
        };
        if known.clone().any(|endpoint| otherwise(endpoint)) { none } else { None }
    }

    /// Whether a secret in force must not serve on: roots of which a newer version was refused may
    /// hold one that is not trusted any more.
    pub fn closes_secret(&self, refused: &[u8], serving: &SecretMaterial) -> bool {
        let asked = Secret::decode(refused).ok().and_then(|message| message.r#type);
        matches!(serving, SecretMaterial::Trust(_))
            && !matches!(asked, Some(Type::TlsCertificate(_)))
    }
}

/// The chains of a listener.
#[derive(Default)]
struct Chains {
    chains: Vec<Arc<FilterChain>>,
    matcher: FilterChainMatcher,
    default: Option<Arc<FilterChain>>,
}

fn with_chains(listener: &Listener, chains: Chains) -> Listener {
    Listener {
        name: listener.name.clone(),
        addresses: listener.addresses.clone(),
        bind_to_port: listener.bind_to_port,
        use_original_dst: listener.use_original_dst,
        direction: listener.direction,
        inspect: listener.inspect.clone(),
        chains: chains.chains,
        matcher: chains.matcher,
        default_chain: chains.default,
        access_logs: listener.access_logs.clone(),
        buffer: listener.buffer,
        version: listener.version,
    }
}

/// `None` if the refused version's matches cannot be read.
fn chains(message: &WireListener, asked: &Guards, serving: &Compiled<Listener>) -> Option<Chains> {
    let in_force = |index: usize| {
        let listener = &serving.value;
        listener.chains.get(index).or(listener.default_chain.as_ref()).cloned()
    };
    let (mut matches, mut kept) = (Vec::new(), Vec::new());
    for (wire, part) in message.filter_chains.iter().zip(&asked.parts) {
        if part.1.is_none() && !serving.guards.has(part.0) {
            continue;
        }
        matches.push(filter_chain::matching(wire).ok()?);
        kept.push(
            serving.guards.meeting(*part).and_then(in_force).unwrap_or_else(|| closed_chain(wire)),
        );
    }
    let default = message.default_filter_chain.as_ref().and_then(|wire| {
        let part = asked.parts.iter().find(|(place, _)| *place == guard::DEFAULT_CHAIN)?;
        Some(serving.guards.meeting(*part).and_then(in_force).unwrap_or_else(|| closed_chain(wire)))
    });
    Some(Chains { matcher: FilterChainMatcher::build(&matches).ok()?, chains: kept, default })
}

/// Takes connections and closes them, so that no more general chain takes them.
fn closed_chain(wire: &WireChain) -> Arc<FilterChain> {
    let everyone =
        Policy { name: "closed".into(), permission: Condition::Any, principal: Condition::Any };
    Arc::new(FilterChain {
        name: wire.name.as_str().into(),
        tls: None,
        handshake_timeout: None,
        rbac: vec![Rbac { action: RbacAction::Deny, policies: vec![everyone] }],
        terminal: Terminal::Tcp(Arc::new(TcpProxy {
            stat_prefix: "closed".into(),
            cluster: ClusterChoice::One("closed".into()),
            idle_timeout: None,
            max_duration: None,
            max_connect_attempts: 1,
            hash_source_ip: false,
            access_logs: Vec::new(),
            metrics: None,
        })),
    })
}

/// A listener that opens no socket of its own takes connections which would otherwise pass through
/// unguarded.
fn closed_newcomer(name: &str, version: u64, message: &WireListener) -> Option<Listener> {
    let addresses = listener::addresses(message).ok()?;
    (!listener::binds(message)).then(|| Listener {
        name: name.into(),
        addresses,
        bind_to_port: false,
        use_original_dst: false,
        direction: Default::default(),
        inspect: Inspection {
            original_dst: false,
            proxy_header: None,
            tls: None,
            http: None,
            timeout: None,
            continue_on_timeout: false,
        },
        chains: Vec::new(),
        matcher: FilterChainMatcher::default(),
        default_chain: None,
        access_logs: Vec::new(),
        buffer: Default::default(),
        version,
    })
}

fn closed_host(name: &str, domains: Vec<Arc<str>>) -> VirtualHost {
    let path = PathMatcher::Prefix { path: "/".into(), case_sensitive: true };
    VirtualHost {
        name: name.into(),
        domains,
        routes: vec![Route {
            name: "closed".into(),
            matching: RouteMatch {
                path,
                headers: vec![],
                query: vec![],
                metadata: vec![],
                grpc: false,
                share: Share::ALL,
            },
            action: Action::Direct(DirectResponse {
                status: 503,
                body: Bytes::from_static(CLOSED.as_bytes()),
            }),
            headers: Default::default(),
            overrides: FilterOverrides::default(),
            operation: None,
            body_limit: None,
        }],
        require_tls: false,
        headers: Default::default(),
        retry: None,
        attempt_count_in_request: false,
        attempt_count_in_response: false,
        overrides: FilterOverrides::default(),
        rate_limits: Vec::new(),
        body_limit: None,
    }
}
