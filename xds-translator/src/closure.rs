//! Invariant 4: every name that a resource refers to exists.
//!
//! Reads the encoded resources, as a proxy does; knows nothing of plans. Names that the user wrote
//! and nobody defined dangle on purpose, with a diagnostic: the caller tells them apart.

use std::{collections::BTreeSet, sync::Arc};

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{AccessLog, access_log::ConfigType as LogConfig},
            cluster::v3::{Cluster, cluster::ClusterDiscoveryType, cluster::DiscoveryType},
            core::v3::{
                AsyncDataSource, GrpcService, HttpService, HttpUri, TypedExtensionConfig,
                async_data_source, grpc_service::TargetSpecifier, http_uri::HttpUpstreamType,
            },
            listener::v3::{FilterChain, Listener, filter::ConfigType, listener_filter},
            route::v3::{RouteConfiguration, route::Action, route_action::ClusterSpecifier},
            trace::v3::{
                DatadogConfig, OpenTelemetryConfig, SkyWalkingConfig, ZipkinConfig,
                tracing::http::ConfigType as TracerConfig,
            },
        },
        extensions::{
            access_loggers::{
                grpc::v3::{HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig},
                open_telemetry::v3::OpenTelemetryAccessLogConfig,
            },
            filters::{
                http::{
                    ext_authz::v3::{ExtAuthz as RequestAuthz, ext_authz::Services},
                    ratelimit::v3::RateLimit as RequestLimit,
                    wasm::v3::Wasm as RequestWasm,
                },
                network::{
                    ext_authz::v3::ExtAuthz as ConnectionAuthz,
                    http_connection_manager::v3::{
                        HttpConnectionManager, http_connection_manager::RouteSpecifier, http_filter,
                    },
                    tcp_proxy::v3::{TcpProxy, tcp_proxy},
                    wasm::v3::Wasm as ConnectionWasm,
                },
            },
            tracers::opentelemetry::samplers::v3::DynatraceSamplerConfig,
            wasm::v3::{PluginConfig, plugin_config},
        },
    },
    google::protobuf::Any,
};
use ferromesh_proto::{ResourceType, stats::STATS_CLUSTER};
use prost::{Message, Name};

use crate::view::View;

/// A reference to a name that no view has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Dangling {
    /// The resource that refers.
    pub from: (ResourceType, Arc<str>),
    /// What it refers to.
    pub to: (ResourceType, String),
}

/// References between resources that the views of one proxy do not satisfy; sorted, unique.
///
/// Looks at clusters that routes, mirrors, TCP proxies, logs, tracers, filters that ask about
/// access, filters that have others count and filters that fetch their code name, at route configurations that listeners name, at
/// configurations that filters ask for, and at the assignments of EDS clusters.
/// Bytes that do not decode refer to nothing.
pub fn check(views: &[Arc<View>]) -> Vec<Dangling> {
    let mut dangling = BTreeSet::new();
    for view in views {
        for (kind, table) in ResourceType::ALL.into_iter().zip(&view.tables) {
            for resource in table.values() {
                let missing =
                    references(kind, &resource.body).into_iter().filter(|to| !exists(views, to));
                dangling
                    .extend(missing.map(|to| Dangling { from: (kind, resource.name.clone()), to }));
            }
        }
    }
    dangling.into_iter().collect()
}

fn exists(views: &[Arc<View>], (kind, name): &(ResourceType, String)) -> bool {
    views.iter().any(|view| view.get(*kind, name).is_some())
}

/// Names by type.
pub(crate) type References = BTreeSet<(ResourceType, String)>;

/// Finds what an encoded resource refers to.
type Finds = fn(&[u8], &mut References);

/// The types whose resources refer to others.
const REFERRING: [(ResourceType, Finds); 4] = [
    (ResourceType::Cluster, |body, found| {
        Cluster::decode(body).iter().for_each(|c| cluster(c, found))
    }),
    (ResourceType::Listener, |body, found| {
        Listener::decode(body).iter().for_each(|l| listener(l, found))
    }),
    (ResourceType::Route, |body, found| {
        RouteConfiguration::decode(body).iter().for_each(|r| routes(r, found))
    }),
    (ResourceType::Extension, |body, found| {
        TypedExtensionConfig::decode(body).iter().for_each(|e| extension(e, found))
    }),
];

/// The types whose resources may refer to others.
pub(crate) fn referring() -> impl Iterator<Item = ResourceType> {
    REFERRING.iter().map(|(kind, _)| *kind)
}

/// What an encoded resource refers to.
pub(crate) fn references(kind: ResourceType, body: &[u8]) -> References {
    let mut found = References::new();
    for (_, finds) in REFERRING.iter().filter(|(referring, _)| *referring == kind) {
        finds(body, &mut found);
    }
    found
}

fn cluster(cluster: &Cluster, found: &mut References) {
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds as i32);
    if cluster.cluster_discovery_type.as_ref() == Some(&eds) {
        let service =
            cluster.eds_cluster_config.as_ref().map(|c| c.service_name.clone()).unwrap_or_default();
        let name = if service.is_empty() { cluster.name.clone() } else { service };
        found.insert((ResourceType::Endpoint, name));
    }
}

fn listener(listener: &Listener, found: &mut References) {
    logs(&listener.access_log, found);
    for filter in &listener.listener_filters {
        if let Some(listener_filter::ConfigType::ConfigDiscovery(_)) = &filter.config_type {
            found.insert((ResourceType::Extension, filter.name.clone()));
        }
    }
    for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
        filter_chain(chain, found);
    }
}

fn filter_chain(chain: &FilterChain, found: &mut References) {
    for filter in &chain.filters {
        match &filter.config_type {
            Some(ConfigType::TypedConfig(config)) => network_filter(config, found),
            Some(ConfigType::ConfigDiscovery(_)) => {
                found.insert((ResourceType::Extension, filter.name.clone()));
            }
            None => {}
        }
    }
}

fn network_filter(config: &Any, found: &mut References) {
    if let Some(http) = unpack::<HttpConnectionManager>(config) {
        http_connection(&http, found);
    }
    if let Some(authz) = unpack::<ConnectionAuthz>(config) {
        grpc(authz.grpc_service.as_ref(), found);
    }
    if let Some(wasm) = unpack::<ConnectionWasm>(config) {
        code(wasm.config.as_ref(), found);
    }
    if let Some(tcp) = unpack::<TcpProxy>(config) {
        let names = tcp.cluster_specifier.iter().flat_map(|specifier| match specifier {
            tcp_proxy::ClusterSpecifier::Cluster(name) => vec![name.clone()],
            tcp_proxy::ClusterSpecifier::WeightedClusters(w) => {
                w.clusters.iter().map(|c| c.name.clone()).collect()
            }
        });
        found.extend(names.map(|name| (ResourceType::Cluster, name)));
        logs(&tcp.access_log, found);
    }
}

fn http_connection(http: &HttpConnectionManager, found: &mut References) {
    logs(&http.access_log, found);
    let provider = http.tracing.as_ref().and_then(|tracing| tracing.provider.as_ref());
    if let Some(TracerConfig::TypedConfig(config)) = provider.and_then(|p| p.config_type.as_ref()) {
        tracer(config, found);
    }
    match &http.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => {
            found.insert((ResourceType::Route, rds.route_config_name.clone()));
        }
        Some(RouteSpecifier::RouteConfig(configuration)) => routes(configuration, found),
        Some(RouteSpecifier::ScopedRoutes(_)) | None => {}
    }
    for filter in &http.http_filters {
        match &filter.config_type {
            Some(http_filter::ConfigType::TypedConfig(config)) => request_filter(config, found),
            Some(http_filter::ConfigType::ConfigDiscovery(_)) => {
                found.insert((ResourceType::Extension, filter.name.clone()));
            }
            None => {}
        }
    }
}

fn request_filter(config: &Any, found: &mut References) {
    match unpack::<RequestAuthz>(config).and_then(|config| config.services) {
        Some(Services::GrpcService(service)) => grpc(Some(&service), found),
        Some(Services::HttpService(service)) => http_uri(service.server_uri.as_ref(), found),
        None => {}
    }
    if let Some(limit) = unpack::<RequestLimit>(config) {
        let service = limit.rate_limit_service.and_then(|service| service.grpc_service);
        grpc(service.as_ref(), found);
    }
    if let Some(wasm) = unpack::<RequestWasm>(config) {
        code(wasm.config.as_ref(), found);
    }
}

/// A configuration by itself, of whichever kind of filter it is.
fn extension(extension: &TypedExtensionConfig, found: &mut References) {
    if let Some(config) = &extension.typed_config {
        network_filter(config, found);
        request_filter(config, found);
    }
}

/// Where the code of a filter is fetched from.
fn code(plugin: Option<&PluginConfig>, found: &mut References) {
    let vm = plugin.and_then(|plugin| plugin.vm.as_ref()).map(|plugin_config::Vm::VmConfig(vm)| vm);
    let source: Option<&AsyncDataSource> = vm.and_then(|vm| vm.code.as_ref());
    let specifier = source.and_then(|source| source.specifier.as_ref());
    if let Some(async_data_source::Specifier::Remote(remote)) = specifier {
        http_uri(remote.http_uri.as_ref(), found);
    }
}

/// Services that are told of requests and connections.
fn logs(logs: &[AccessLog], found: &mut References) {
    for log in logs {
        let Some(LogConfig::TypedConfig(config)) = &log.config_type else { continue };
        let common = unpack::<HttpGrpcAccessLogConfig>(config)
            .and_then(|log| log.common_config)
            .or_else(|| unpack::<TcpGrpcAccessLogConfig>(config)?.common_config);
        let otlp = unpack::<OpenTelemetryAccessLogConfig>(config).and_then(|log| log.grpc_service);
        grpc(common.and_then(|common| common.grpc_service).or(otlp).as_ref(), found);
    }
}

/// Services that take spans, and the one that says which are taken.
fn tracer(config: &Any, found: &mut References) {
    if let Some(zipkin) = unpack::<ZipkinConfig>(config) {
        http_service(zipkin.collector_service.as_ref(), found);
    }
    if let Some(otlp) = unpack::<OpenTelemetryConfig>(config) {
        grpc(otlp.grpc_service.as_ref(), found);
        http_service(otlp.http_service.as_ref(), found);
        let sampler = otlp.sampler.and_then(|sampler| sampler.typed_config);
        let sampler = sampler.and_then(|config| unpack::<DynatraceSamplerConfig>(&config));
        http_service(sampler.and_then(|sampler| sampler.http_service).as_ref(), found);
    }
    if let Some(skywalking) = unpack::<SkyWalkingConfig>(config) {
        grpc(skywalking.grpc_service.as_ref(), found);
    }
    if let Some(datadog) = unpack::<DatadogConfig>(config) {
        found.insert((ResourceType::Cluster, datadog.collector_cluster));
    }
}

fn grpc(service: Option<&GrpcService>, found: &mut References) {
    let target = service.and_then(|service| service.target_specifier.as_ref());
    // An agent's is in the bootstrap of its Envoy.
    if let Some(TargetSpecifier::EnvoyGrpc(envoy)) = target
        && envoy.cluster_name != STATS_CLUSTER
    {
        found.insert((ResourceType::Cluster, envoy.cluster_name.clone()));
    }
}

fn http_service(service: Option<&HttpService>, found: &mut References) {
    http_uri(service.and_then(|service| service.http_uri.as_ref()), found);
}

fn http_uri(uri: Option<&HttpUri>, found: &mut References) {
    if let Some(HttpUpstreamType::Cluster(name)) = uri.and_then(|u| u.http_upstream_type.as_ref()) {
        found.insert((ResourceType::Cluster, name.clone()));
    }
}

fn routes(configuration: &RouteConfiguration, found: &mut References) {
    for route in configuration.virtual_hosts.iter().flat_map(|v| &v.routes) {
        let Some(Action::Route(action)) = &route.action else { continue };
        let chosen = match &action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => vec![name],
            Some(ClusterSpecifier::WeightedClusters(w)) => {
                w.clusters.iter().map(|c| &c.name).collect()
            }
            _ => Vec::new(),
        };
        let mirrors = action.request_mirror_policies.iter().map(|m| &m.cluster);
        found.extend(
            chosen.into_iter().chain(mirrors).map(|name| (ResourceType::Cluster, name.clone())),
        );
    }
}

fn unpack<T: Message + Name + Default>(config: &Any) -> Option<T> {
    (config.type_url == T::type_url()).then(|| T::decode(config.value.as_slice()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use ferromesh_proto::EncodedResource;

    use super::*;
    use crate::{
        emit::{emit, splice_route, tests},
        plan::{
            CaptureMode, Discovery, Features, OutboundKey, PlanItem, RouteFrame, TerminalFilter,
            ViewKey,
        },
    };

    fn outbound_routes() -> bytes::Bytes {
        let forward = crate::plan::RouteActionPlan::Forward(Box::new(tests::forward("c1")));
        let host = PlanItem::VirtualHost(tests::virtual_host(vec![
            tests::route(forward),
            tests::full_route(),
        ]));
        let frame =
            RouteFrame { name: "80".into(), ignore_port_in_host: true, virtual_hosts: Vec::new() };
        splice_route(&frame, &[emit(&host)])
    }

    fn outbound_listener() -> PlanItem {
        let http = TerminalFilter::Http(Box::new(tests::http(crate::plan::HttpRole::Outbound)));
        let chains = vec![tests::chain(http), tests::chain(TerminalFilter::Tcp(tests::tcp("c2")))];
        PlanItem::Listener(Box::new(tests::listener(chains)))
    }

    fn view(resources: Vec<(ResourceType, &str, bytes::Bytes)>) -> Arc<View> {
        let key = OutboundKey {
            namespace: "default".into(),
            scope: None,
            client_labels: Default::default(),
            locality: None,
            knows_peers: false,
            capture: CaptureMode::Redirect,
            features: Features::default(),
            telemetry: Default::default(),
            patches: Default::default(),
        };
        let mut tables: [_; ResourceType::COUNT] = Default::default();
        for (kind, name, body) in resources {
            let table: &mut Arc<crate::view::Table> = &mut tables[kind.index()];
            let resource = EncodedResource { name: name.into(), version: Default::default(), body };
            Arc::make_mut(table).insert(name.into(), Arc::new(resource));
        }
        Arc::new(View {
            key: Arc::new(ViewKey::Outbound(key)),
            generation: 1,
            tables,
            log: Arc::new([]),
        })
    }

    #[test]
    fn references_of_every_kind_are_followed() {
        let cluster = PlanItem::Cluster(Box::new(tests::cluster("c3")));
        let found = |kind, body: &[u8]| {
            references(kind, body).into_iter().map(|(_, name)| name).collect::<Vec<_>>()
        };
        assert_eq!(
            found(ResourceType::Route, &outbound_routes()),
            ["c1", "outbound|80|v1|a", "outbound|80|v2|a"]
        );
        assert_eq!(found(ResourceType::Listener, &emit(&outbound_listener())), ["c2", "80"]);
        assert_eq!(found(ResourceType::Cluster, &emit(&cluster)), ["c3"]);
        assert_eq!(found(ResourceType::Cluster, b"\xff"), [""; 0]);
    }

    #[test]
    fn a_name_in_another_view_of_the_proxy_is_no_dangling_one() {
        let fixed = |name| {
            let plan = crate::plan::ClusterPlan {
                discovery: Discovery::Static(Vec::new()),
                ..tests::cluster(name)
            };
            emit(&PlanItem::Cluster(Box::new(plan)))
        };
        let listeners = view(vec![(ResourceType::Listener, "l", emit(&outbound_listener()))]);
        let clusters = view(vec![(ResourceType::Cluster, "c2", fixed("c2"))]);
        let dangling = check(&[listeners, clusters]);
        let expected = Dangling {
            from: (ResourceType::Listener, "l".into()),
            to: (ResourceType::Route, "80".into()),
        };
        assert_eq!(dangling, [expected]);
    }
}
