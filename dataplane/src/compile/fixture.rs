//! Messages for tests, as a control plane sends them.

use std::net::SocketAddr;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
            },
            core::v3::{
                Address, AggregatedConfigSource, ConfigSource, DataSource, Http1ProtocolOptions,
                Http2ProtocolOptions, Metadata, SocketAddress, TransportSocket,
                UpstreamHttpProtocolOptions, address, config_source::ConfigSourceSpecifier,
                data_source::Specifier, socket_address::PortSpecifier, transport_socket,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
                lb_endpoint::HostIdentifier,
            },
            listener::v3::{Filter, FilterChain, Listener, filter},
            rbac::v3::{Permission, Policy, Principal, Rbac, permission, principal, rbac},
            route::v3::{
                RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
                route, route_action::ClusterSpecifier, route_match::PathSpecifier,
            },
        },
        extensions::{
            filters::{
                http::{rbac::v3::Rbac as HttpRbac, router::v3::Router},
                network::{
                    http_connection_manager::v3::{
                        HttpConnectionManager, HttpFilter, Rds,
                        http_connection_manager::{RouteSpecifier, StripPortMode, UpgradeConfig},
                        http_filter,
                    },
                    rbac::v3::Rbac as NetworkRbac,
                    tcp_proxy::v3::{
                        TcpProxy, tcp_proxy::ClusterSpecifier as ClusterSpecifierOfBytes,
                    },
                },
            },
            transport_sockets::tls::v3::{
                CertificateValidationContext, CommonTlsContext, DownstreamTlsContext,
                SdsSecretConfig, Secret, TlsCertificate, UpstreamTlsContext,
                common_tls_context::ValidationContextType, secret,
            },
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{
                    ExplicitHttpConfig, UpstreamProtocolOptions,
                    explicit_http_config::ProtocolConfig,
                },
            },
        },
    },
    google::protobuf::{Any, Struct, Value, value::Kind},
};
use prost::{Message, Name, encoding::bytes::encode as encode_bytes};

/// Wraps a message.
pub(crate) fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// The ADS stream as a source.
pub(crate) fn ads() -> ConfigSource {
    let source = ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
    ConfigSource { config_source_specifier: Some(source), ..Default::default() }
}

/// A TCP address.
pub(crate) fn address(host: &str, port: u32) -> Address {
    let socket = SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

/// An assignment of one locality.
pub(crate) fn assignment(addresses: &[(&str, u32)]) -> ClusterLoadAssignment {
    let endpoint = |(host, port): &(&str, u32)| {
        let endpoint = Endpoint { address: Some(address(host, *port)), ..Default::default() };
        LbEndpoint {
            host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
            ..Default::default()
        }
    };
    let lb_endpoints = addresses.iter().map(endpoint).collect();
    ClusterLoadAssignment {
        endpoints: vec![LocalityLbEndpoints { lb_endpoints, ..Default::default() }],
        ..Default::default()
    }
}

/// The router filter.
pub(crate) fn router() -> HttpFilter {
    http_filter("envoy.filters.http.router", any(&Router::default()))
}

/// An HTTP filter with this configuration.
pub(crate) fn http_filter(name: &str, config: Any) -> HttpFilter {
    let config_type = Some(http_filter::ConfigType::TypedConfig(config));
    HttpFilter { name: name.to_owned(), config_type, ..Default::default() }
}

/// A network filter with this configuration.
pub(crate) fn network_filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// A connection manager that takes its routes from RDS.
pub(crate) fn manager(route: &str, filters: Vec<HttpFilter>) -> HttpConnectionManager {
    let rds = Rds { config_source: Some(ads()), route_config_name: route.to_owned() };
    HttpConnectionManager {
        stat_prefix: "test".to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        http_filters: filters,
        ..Default::default()
    }
}

/// A listener on a loopback port with one chain.
pub(crate) fn listener(name: &str, chain: FilterChain) -> Listener {
    Listener {
        name: name.to_owned(),
        address: Some(address("127.0.0.1", 8080)),
        filter_chains: vec![chain],
        ..Default::default()
    }
}

/// A chain of these filters.
pub(crate) fn chain(filters: Vec<Filter>) -> FilterChain {
    FilterChain { filters, ..Default::default() }
}

/// A plaintext HTTP listener that takes its routes from RDS.
pub(crate) fn http_listener(name: &str, route: &str) -> Listener {
    listener(name, chain(vec![network_filter("hcm", any(&manager(route, vec![router()])))]))
}

/// A TLS socket.
pub(crate) fn tls_socket(config: Any) -> TransportSocket {
    let config_type = Some(transport_socket::ConfigType::TypedConfig(config));
    TransportSocket { name: "envoy.transport_sockets.tls".to_owned(), config_type }
}

/// A secret by name from ADS.
pub(crate) fn sds(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(ads()) }
}

/// An HTTPS listener with an inline empty route configuration and a certificate from SDS.
pub(crate) fn tls_listener(name: &str, secret: &str) -> Listener {
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(Default::default())),
        ..manager("", vec![router()])
    };
    let tls = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![sds(secret)],
            ..Default::default()
        }),
        ..Default::default()
    };
    let chain = chain(vec![network_filter("hcm", any(&manager))]);
    listener(name, FilterChain { transport_socket: Some(tls_socket(any(&tls))), ..chain })
}

/// A secret with a fresh self-signed certificate.
pub(crate) fn certificate(name: &str) -> Secret {
    let pair =
        rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).expect("a valid name");
    let inline = |text: String| DataSource {
        specifier: Some(Specifier::InlineString(text)),
        ..Default::default()
    };
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(pair.cert.pem())),
        private_key: Some(inline(pair.signing_key.serialize_pem())),
        ..Default::default()
    };
    Secret { name: name.to_owned(), r#type: Some(secret::Type::TlsCertificate(certificate)) }
}

/// An encoded cluster that takes its endpoints from EDS under its own name.
pub(crate) fn eds_cluster(name: &str, lb_policy: i32) -> Vec<u8> {
    let message = Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: String::new(),
        }),
        lb_policy,
        ..Default::default()
    };
    message.encode_to_vec()
}

/// A cluster of one endpoint.
pub(crate) fn static_cluster(name: &str, endpoint: SocketAddr) -> Cluster {
    let assignment = assignment(&[(&endpoint.ip().to_string(), endpoint.port().into())]);
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            ..assignment
        }),
        ..Default::default()
    }
}

/// The TLS socket of a cluster whose servers are checked against these roots, in PEM; without them
/// not at all.
pub(crate) fn origination(sni: &str, roots: Option<&str>) -> TransportSocket {
    let validation = roots.map(|pem| CertificateValidationContext {
        trusted_ca: Some(DataSource {
            specifier: Some(Specifier::InlineString(pem.to_owned())),
            ..Default::default()
        }),
        ..Default::default()
    });
    let common = CommonTlsContext {
        validation_context_type: validation.map(ValidationContextType::ValidationContext),
        ..Default::default()
    };
    let context = UpstreamTlsContext {
        sni: sni.to_owned(),
        common_tls_context: Some(common),
        ..Default::default()
    };
    tls_socket(any(&context))
}

/// An encoded cluster in plaintext.
pub(crate) fn plaintext(name: &str, endpoint: SocketAddr) -> Vec<u8> {
    static_cluster(name, endpoint).encode_to_vec()
}

/// An encoded cluster whose TLS no proxy can load: its roots lie in a file that is not there.
pub(crate) fn without_roots(name: &str, endpoint: SocketAddr, sni: &str) -> Vec<u8> {
    roots_at(name, endpoint, sni, "/nowhere/roots.pem")
}

/// An encoded cluster with TLS whose roots lie in a file.
pub(crate) fn roots_at(name: &str, endpoint: SocketAddr, sni: &str, path: &str) -> Vec<u8> {
    let file = Specifier::Filename(path.to_owned());
    let validation = CertificateValidationContext {
        trusted_ca: Some(DataSource { specifier: Some(file), ..Default::default() }),
        ..Default::default()
    };
    let common = CommonTlsContext {
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..Default::default()
    };
    let context = UpstreamTlsContext {
        sni: sni.to_owned(),
        common_tls_context: Some(common),
        ..Default::default()
    };
    let cluster = Cluster {
        transport_socket: Some(tls_socket(any(&context))),
        ..static_cluster(name, endpoint)
    };
    cluster.encode_to_vec()
}

/// A filter that no proxy here knows.
pub(crate) fn unknown_filter() -> HttpFilter {
    http_filter(
        "guard",
        Any { type_url: "type.googleapis.com/a.guard.Nobody.Knows".to_owned(), value: vec![] },
    )
}

/// An encoded HTTP listener whose routes come from RDS, with these filters before the router. One
/// with a bad log is refused, although it guards no more.
pub(crate) fn http_listener_at(
    name: &str,
    at: SocketAddr,
    route: &str,
    filters: Vec<HttpFilter>,
    bad_log: bool,
) -> Vec<u8> {
    let mut manager = manager(route, filters.into_iter().chain([router()]).collect());
    manager.access_log = if bad_log { vec![Default::default()] } else { vec![] };
    let listener = Listener {
        address: Some(address(&at.ip().to_string(), at.port().into())),
        ..listener(name, chain(vec![network_filter("hcm", any(&manager))]))
    };
    listener.encode_to_vec()
}

/// The rules of a policy that denies everything.
fn deny_all() -> Rbac {
    let any_permission = Permission { rule: Some(permission::Rule::Any(true)) };
    let any_principal = Principal { identifier: Some(principal::Identifier::Any(true)) };
    let policy = Policy {
        permissions: vec![any_permission],
        principals: vec![any_principal],
        ..Default::default()
    };
    let policies = [("ns[default]-policy[deny]-rule[0]".to_owned(), policy)].into();
    Rbac { action: rbac::Action::Deny as i32, policies, ..Default::default() }
}

/// An encoded listener that hands bytes to a cluster, or denies every connection.
pub(crate) fn tcp_listener_at(name: &str, at: SocketAddr, cluster: &str, denied: bool) -> Vec<u8> {
    let rbac = NetworkRbac {
        rules: Some(deny_all()),
        stat_prefix: "tcp.".to_owned(),
        ..Default::default()
    };
    let proxy = TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(ClusterSpecifierOfBytes::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    let guard = denied.then(|| network_filter("rbac", any(&rbac)));
    listener_at(name, at, guard.into_iter().chain([network_filter("tcp", any(&proxy))]).collect())
}

/// An encoded HTTP listener whose routes come from RDS and whose requests may become WebSockets, or
/// are all denied.
pub(crate) fn websocket_listener_at(
    name: &str,
    at: SocketAddr,
    route: &str,
    denied: bool,
) -> Vec<u8> {
    let rbac = HttpRbac { rules: Some(deny_all()), ..Default::default() };
    let guard = denied.then(|| http_filter("rbac", any(&rbac)));
    let websocket = UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() };
    let h2 = Http2ProtocolOptions { allow_connect: true, ..Default::default() };
    let manager = HttpConnectionManager {
        upgrade_configs: vec![websocket],
        http2_protocol_options: Some(h2),
        ..manager(route, guard.into_iter().chain([router()]).collect())
    };
    listener_at(name, at, vec![network_filter("hcm", any(&manager))])
}

fn listener_at(name: &str, at: SocketAddr, filters: Vec<Filter>) -> Vec<u8> {
    let listener = Listener {
        address: Some(address(&at.ip().to_string(), at.port().into())),
        ..listener(name, chain(filters))
    };
    listener.encode_to_vec()
}

/// An encoded HTTP listener with a setting that no proxy here takes: one that may guard, since it
/// decides which host a request is for, or one that only words answers.
pub(crate) fn http_listener_asking(
    name: &str,
    at: SocketAddr,
    route: &str,
    guards: bool,
) -> Vec<u8> {
    let mut manager = manager(route, vec![router()]);
    match guards {
        true => manager.strip_port_mode = Some(StripPortMode::StripAnyHostPort(true)),
        false => manager.local_reply_config = Some(Default::default()),
    }
    let listener = Listener {
        address: Some(address(&at.ip().to_string(), at.port().into())),
        ..listener(name, chain(vec![network_filter("hcm", any(&manager))]))
    };
    listener.encode_to_vec()
}

/// The same route configuration with a field in the host of this name that no API has.
pub(crate) fn with_stranger(routes: &[u8], host: &str) -> Vec<u8> {
    let mut message = RouteConfiguration::decode(routes).expect("a route configuration");
    let hosts = std::mem::take(&mut message.virtual_hosts);
    let mut body = message.encode_to_vec();
    for wire in hosts {
        let mut inner = wire.encode_to_vec();
        if wire.name == host {
            encode_bytes(9999, &b"x".to_vec(), &mut inner);
        }
        encode_bytes(2, &inner, &mut body);
    }
    body
}

/// An encoded route configuration: hosts that lead to a cluster, some with settings of a filter
/// that nobody knows, some with a retry policy that no proxy here takes.
pub(crate) fn hosts(name: &str, cluster: &str, hosts: &[(&str, bool, bool)]) -> Vec<u8> {
    let host = |(domain, guarded, bad_retry): &(&str, bool, bool)| {
        let action = RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
            retry_policy: bad_retry
                .then(|| RetryPolicy { retry_on: "sometimes".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let anything = RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        };
        let guard = guarded.then(|| ("guard".to_owned(), unknown_config()));
        let route = Route {
            r#match: Some(anything),
            action: Some(route::Action::Route(action)),
            typed_per_filter_config: guard.into_iter().collect(),
            ..Default::default()
        };
        let domains = vec![(*domain).to_owned()];
        VirtualHost {
            name: (*domain).to_owned(),
            domains,
            routes: vec![route],
            ..Default::default()
        }
    };
    let virtual_hosts = hosts.iter().map(host).collect();
    RouteConfiguration { name: name.to_owned(), virtual_hosts, ..Default::default() }
        .encode_to_vec()
}

fn unknown_config() -> Any {
    Any { type_url: "type.googleapis.com/a.guard.Nobody.Knows".to_owned(), value: vec![] }
}

/// An encoded assignment whose endpoints ask for TLS or not; a bad one has a name where an address
/// must be.
pub(crate) fn endpoints_at(name: &str, at: SocketAddr, tls: bool, bad: bool) -> Vec<u8> {
    let ip = at.ip().to_string();
    let mut addresses = vec![(ip.as_str(), u32::from(at.port()))];
    addresses.extend(bad.then_some(("a.name", 80)));
    let mut message =
        ClusterLoadAssignment { cluster_name: name.to_owned(), ..assignment(&addresses) };
    let mode = Value { kind: Some(Kind::StringValue("istio".to_owned())) };
    let fields = Struct { fields: [("tlsMode".to_owned(), mode)].into() };
    let metadata = Metadata {
        filter_metadata: [("envoy.transport_socket_match".to_owned(), fields)].into(),
        ..Default::default()
    };
    for endpoint in
        message.endpoints.iter_mut().flat_map(|locality| &mut locality.lb_endpoints).filter(|_| tls)
    {
        endpoint.metadata = Some(metadata.clone());
    }
    message.encode_to_vec()
}

/// An encoded cluster over TLS whose roots are a secret of the control plane.
pub(crate) fn cluster_with_roots(name: &str, secret: &str) -> Vec<u8> {
    let common = CommonTlsContext {
        validation_context_type: Some(ValidationContextType::ValidationContextSdsSecretConfig(
            sds(secret),
        )),
        ..Default::default()
    };
    let context = UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
    let endpoint = ([127, 0, 0, 1], 1).into();
    let cluster = Cluster {
        transport_socket: Some(tls_socket(any(&context))),
        ..static_cluster(name, endpoint)
    };
    cluster.encode_to_vec()
}

/// An encoded secret with roots; a bad one asks for a check that no proxy here makes.
pub(crate) fn roots(name: &str, pem: &str, bad: bool) -> Vec<u8> {
    let inline = DataSource {
        specifier: Some(Specifier::InlineString(pem.to_owned())),
        ..Default::default()
    };
    let context = CertificateValidationContext {
        verify_certificate_hash: if bad { vec!["00".to_owned()] } else { vec![] },
        trusted_ca: Some(inline),
        ..Default::default()
    };
    Secret { name: name.to_owned(), r#type: Some(secret::Type::ValidationContext(context)) }
        .encode_to_vec()
}

/// HTTP/1 whose server is named by the request: `auto_sni` and `auto_san_validation`, from `header`
/// if it is not empty.
pub(crate) fn named_by_request(header: &str) -> (String, Any) {
    let options = HttpProtocolOptions {
        upstream_http_protocol_options: Some(UpstreamHttpProtocolOptions {
            auto_sni: true,
            auto_san_validation: true,
            override_auto_sni_header: header.to_owned(),
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::HttpProtocolOptions(
                    Http1ProtocolOptions::default(),
                )),
            },
        )),
        ..Default::default()
    };
    ("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), any(&options))
}

/// An encoded cluster that originates TLS towards whatever server the request names.
pub(crate) fn outside(
    name: &str,
    endpoint: SocketAddr,
    sni: &str,
    roots: Option<&str>,
    header: &str,
) -> Vec<u8> {
    let message = Cluster {
        transport_socket: Some(origination(sni, roots)),
        typed_extension_protocol_options: [named_by_request(header)].into(),
        ..static_cluster(name, endpoint)
    };
    message.encode_to_vec()
}

/// An encoded assignment of one endpoint.
pub(crate) fn endpoints(name: &str) -> Vec<u8> {
    ClusterLoadAssignment { cluster_name: name.to_owned(), ..assignment(&[("10.0.0.1", 80)]) }
        .encode_to_vec()
}

/// An encoded route configuration without virtual hosts.
pub(crate) fn routes(name: &str) -> Vec<u8> {
    RouteConfiguration { name: name.to_owned(), ..Default::default() }.encode_to_vec()
}
