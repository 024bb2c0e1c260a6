//! What a resource guards: whatever in it decides who may pass, or how bytes are protected, as
//! numbers to compare.
//!
//! A refused version of a resource is held against the one in force by them. A part whose guards
//! are the same, or that has none in the refused version, goes on; any other would be served more
//! weakly than it was asked for. What nobody here knows counts as a guard.

use std::hash::{Hash, Hasher};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{Cluster, cluster::TransportSocketMatch},
            core::v3::{TransportSocket, transport_socket},
            listener::v3::{Filter, FilterChain, Listener, filter},
            route::v3::{
                Route, RouteConfiguration, VirtualHost, route, route_action::ClusterSpecifier,
            },
        },
        extensions::{
            filters::network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier,
                http_filter,
            },
            transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport,
            upstreams::http::v3::HttpProtocolOptions,
        },
    },
    google::protobuf::Any,
};
use ferromesh_proto::ResourceType;
use prost::Message;
use rustc_hash::FxHasher;

use super::{
    cluster::HTTP_OPTIONS,
    field::{type_name, unpack},
    filter as own_filter, known,
};

/// The guards of one resource.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Guards {
    /// Of the resource as a whole.
    pub(super) whole: Guard,
    /// Of its parts: what each is for (the match of a chain, the name of a virtual host), and its
    /// guards.
    pub(super) parts: Vec<(u64, Guard)>,
}

/// Guards as a number: equal if they are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Guard(Option<u64>);

impl Guard {
    /// What no version in force has.
    const UNMET: Self = Self(Some(u64::MAX));

    /// Whether something that guards `older` asks for at least this.
    pub(super) fn is_met_by(self, older: Self) -> bool {
        self.0.is_none() || self == older
    }

    pub(super) fn is_none(self) -> bool {
        self.0.is_none()
    }
}

impl Guards {
    /// The number of the part that is for the same, with guards that meet what is asked.
    pub(super) fn meeting(&self, (place, guard): (u64, Guard)) -> Option<usize> {
        self.parts.iter().position(|(own, older)| *own == place && guard.is_met_by(*older))
    }

    /// Whether a part is for the same.
    pub(super) fn has(&self, place: u64) -> bool {
        self.parts.iter().any(|(own, _)| *own == place)
    }
}

/// The guards of a refused version, with what is refused in it whatever its value is and may guard:
/// that is met by nothing, where it lies.
pub(super) fn asked(kind: ResourceType, refused: &[u8], mut guards: Guards) -> Guards {
    for (field, index) in known::guarding(kind, refused) {
        let part = match field {
            "filter_chains" | "virtual_hosts" => guards.parts.get_mut(index),
            "default_filter_chain" => guards.parts.last_mut(),
            _ => None,
        };
        *part.map_or(&mut guards.whole, |(_, guard)| guard) = Guard::UNMET;
    }
    guards
}

/// Takes in what guards; nothing taken in is no guard.
#[derive(Default)]
struct Digest {
    hasher: FxHasher,
    any: bool,
}

impl Digest {
    fn add(&mut self, what: &str, value: impl Hash) {
        self.any = true;
        (what, value).hash(&mut self.hasher);
    }

    fn add_if<T: Hash + Default + PartialEq>(&mut self, what: &str, value: T) {
        if value != T::default() {
            self.add(what, value);
        }
    }

    fn guard(&self) -> Guard {
        Guard(self.any.then(|| self.hasher.finish()))
    }
}

/// A number for what a part is for.
pub(super) fn place(of: impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A cluster guards how bytes are protected and whom they go to.
pub(super) fn cluster(message: &Cluster) -> Guards {
    let mut digest = Digest::default();
    socket(&mut digest, message.transport_socket.as_ref());
    for entry in &message.transport_socket_matches {
        socket_match(&mut digest, entry);
    }
    if digest.any {
        names(&mut digest, message);
    }
    Guards { whole: digest.guard(), parts: Vec::new() }
}

fn socket(digest: &mut Digest, socket: Option<&TransportSocket>) {
    let Some(socket) = socket else { return };
    let Some(transport_socket::ConfigType::TypedConfig(config)) = &socket.config_type else {
        return digest
            .add_if("socket", Some(&socket.name).filter(|name| !name.ends_with("raw_buffer")));
    };
    match type_name(config) {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => {}
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport" => {
            match unpack::<ProxyProtocolUpstreamTransport>(config) {
                Ok(outer) => self::socket(digest, outer.transport_socket.as_ref()),
                Err(_) => digest.add("socket", &config.value),
            }
        }
        kind => digest.add("socket", (kind, &config.value)),
    }
}

fn socket_match(digest: &mut Digest, entry: &TransportSocketMatch) {
    let before = std::mem::take(&mut digest.any);
    socket(digest, entry.transport_socket.as_ref());
    if digest.any {
        let fields = entry.r#match.iter().flat_map(|fields| &fields.fields);
        let mut criteria: Vec<_> =
            fields.map(|(key, value)| (key, value.encode_to_vec())).collect();
        criteria.sort();
        digest.add("match", criteria);
    }
    digest.any |= before;
}

#[allow(deprecated, reason = "the cluster's own field is what older control planes send")]
fn names(digest: &mut Digest, message: &Cluster) {
    let options = message.typed_extension_protocol_options.get(HTTP_OPTIONS);
    let options = options.and_then(|options| unpack::<HttpProtocolOptions>(options).ok());
    let newer = options.and_then(|options| options.upstream_http_protocol_options);
    let names = newer.as_ref().or(message.upstream_http_protocol_options.as_ref());
    digest.add_if("names", names.map(Message::encode_to_vec));
}

/// A listener guards by the kinds of connections that it tells apart, and by each chain.
pub(super) fn listener(message: &Listener) -> Guards {
    let mut whole = Digest::default();
    for filter in &message.listener_filters {
        whole.add("listener_filter", filter.encode_to_vec());
    }
    whole.add_if("continue", message.continue_on_listener_filters_timeout);
    let chains = message.filter_chains.iter().map(|chain| (chain_place(chain), self::chain(chain)));
    let default =
        message.default_filter_chain.iter().map(|chain| (DEFAULT_CHAIN, self::chain(chain)));
    Guards { whole: whole.guard(), parts: chains.chain(default).collect() }
}

/// The place of a listener's default chain, which has no match.
pub(super) const DEFAULT_CHAIN: u64 = 0;

/// What a chain is for.
pub(super) fn chain_place(message: &FilterChain) -> u64 {
    place(message.filter_chain_match.as_ref().map(Message::encode_to_vec).unwrap_or_default())
}

fn chain(message: &FilterChain) -> Guard {
    let mut digest = Digest::default();
    socket(&mut digest, message.transport_socket.as_ref());
    for filter in &message.filters {
        network_filter(&mut digest, filter);
    }
    digest.guard()
}

fn network_filter(digest: &mut Digest, filter: &Filter) {
    let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
        return digest.add("filter", &filter.name);
    };
    match own_filter::inner_type(config).unwrap_or_default().as_str() {
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {}
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            match unpack(config) {
                Ok(message) => manager(digest, &message),
                Err(_) => digest.add("filter", &config.value),
            }
        }
        kind if known::without_effect(kind).is_some() => {}
        kind => digest.add("filter", (kind, &config.value)),
    }
}

/// Filters that check, and how a request is read that they check.
fn manager(digest: &mut Digest, message: &HttpConnectionManager) {
    for filter in &message.http_filters {
        http_filter(digest, filter);
    }
    digest.add_if("normalize_path", message.normalize_path.as_ref().is_some_and(|on| on.value));
    digest.add_if("merge_slashes", message.merge_slashes);
    digest.add_if("escaped_slashes", message.path_with_escaped_slashes_action);
    digest.add_if(
        "use_remote_address",
        message.use_remote_address.as_ref().is_some_and(|on| on.value),
    );
    digest.add_if("xff_hops", message.xff_num_trusted_hops);
    digest.add_if("client_cert", message.forward_client_cert_details);
    if let Some(RouteSpecifier::RouteConfig(routes)) = &message.route_specifier {
        let inline = self::routes(routes);
        digest.add_if("routes", inline.whole.0);
        for (place, guard) in inline.parts.into_iter().filter(|(_, guard)| !guard.is_none()) {
            digest.add("host", (place, guard.0));
        }
    }
}

fn http_filter(digest: &mut Digest, filter: &HttpFilter) {
    let Some(http_filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
        return digest.add("http_filter", &filter.name);
    };
    let kind = own_filter::inner_type(config);
    if !kind.is_ok_and(|kind| own_filter::guards_nothing(&kind)) {
        digest.add("http_filter", (type_name(config), &config.value, filter.disabled));
    }
}

/// A route configuration guards by each virtual host.
pub(super) fn routes(message: &RouteConfiguration) -> Guards {
    let mut whole = Digest::default();
    per_filter(&mut whole, &message.typed_per_filter_config);
    let hosts = message.virtual_hosts.iter();
    Guards {
        whole: whole.guard(),
        parts: hosts.map(|host| (place(&host.name), self::host(host))).collect(),
    }
}

fn host(message: &VirtualHost) -> Guard {
    let mut digest = Digest::default();
    digest.add_if("require_tls", message.require_tls);
    digest.add_if(
        "rate_limits",
        message.rate_limits.iter().map(Message::encode_to_vec).collect::<Vec<_>>(),
    );
    per_filter(&mut digest, &message.typed_per_filter_config);
    for route in &message.routes {
        let before = std::mem::take(&mut digest.any);
        self::route(&mut digest, route);
        if digest.any {
            digest.add("match", route.r#match.as_ref().map(Message::encode_to_vec));
        }
        digest.any |= before;
    }
    if digest.any {
        digest.add("domains", &message.domains);
    }
    digest.guard()
}

/// A route that answers by itself lets nothing through.
fn route(digest: &mut Digest, message: &Route) {
    per_filter(digest, &message.typed_per_filter_config);
    match &message.action {
        Some(route::Action::Route(action)) => {
            digest.add_if(
                "rate_limits",
                action.rate_limits.iter().map(Message::encode_to_vec).collect::<Vec<_>>(),
            );
            if let Some(ClusterSpecifier::WeightedClusters(weighted)) = &action.cluster_specifier {
                weighted
                    .clusters
                    .iter()
                    .for_each(|target| per_filter(digest, &target.typed_per_filter_config));
            }
        }
        Some(route::Action::Redirect(action)) => digest.add("redirect", action.encode_to_vec()),
        Some(route::Action::DirectResponse(action)) => digest.add("direct_response", action.status),
        _ => digest.add("action", 0),
    }
}

fn per_filter(digest: &mut Digest, configs: &std::collections::HashMap<String, Any>) {
    let guarding =
        configs.iter().filter(|(_, config)| !own_filter::guards_nothing(type_name(config)));
    let mut guarding: Vec<_> = guarding.collect();
    guarding.sort_by_key(|(name, _)| *name);
    for (name, config) in guarding {
        digest.add("per_filter", (name, type_name(config), &config.value));
    }
}
