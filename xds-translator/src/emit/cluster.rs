//! Clusters: CDS resources.

use std::time::Duration;

use super::{
    any::{any, boolean, duration, names, percent, transport_socket, uint32, uint64},
    endpoint::{load_assignment, socket_address},
    filters,
    matching::header,
    metadata,
    pb::{
        cluster::{self, cluster as parts},
        common_matcher, core, dns_cluster, dns_family, named_cluster, proxy_protocol, raw_buffer,
        upstream_http,
    },
    tls,
};
use crate::{
    ir::{StringMatch, TcpKeepalive, Warmup},
    plan::{
        BalancingPlan, ClusterPlan, Discovery, Limits, OutlierPlan, OverLocalities,
        UpstreamProtocol, UpstreamTls, UpstreamTransport,
    },
};

/// A CDS resource.
pub(super) fn cluster(plan: &ClusterPlan) -> cluster::Cluster {
    let mut message = cluster::Cluster {
        name: plan.name.to_string(),
        alt_stat_name: plan
            .alt_stat_name
            .as_ref()
            .map_or_else(|| format!("{};", plan.name), |n| n.to_string()),
        connect_timeout: Some(duration(plan.connect_timeout)),
        circuit_breakers: circuit_breakers(&plan.limits),
        outlier_detection: plan.outlier.as_ref().map(outlier_detection),
        metadata: metadata::cluster(plan),
        upstream_bind_config: plan.bind_source.map(|ip| core::BindConfig {
            source_address: Some(socket_address(ip.to_string(), 0)),
            ..Default::default()
        }),
        upstream_connection_options: plan.tcp_keepalive.as_ref().map(connection_options),
        cleanup_interval: plan.original_dst_keep.then(|| duration(NEVER)),
        typed_extension_protocol_options: http_options(plan)
            .map(|options| (names::HTTP_OPTIONS.to_owned(), any(&options)))
            .into_iter()
            .collect(),
        ..Default::default()
    };
    set_discovery(&mut message, plan);
    set_balancing(&mut message, plan);
    set_transport(&mut message, plan);
    message
}

/// The longest interval that Envoy's timers take.
const NEVER: Duration = Duration::from_secs(9_223_372_035);

fn set_discovery(message: &mut cluster::Cluster, plan: &ClusterPlan) {
    use parts::{ClusterDiscoveryType, DiscoveryType};
    let kind = match &plan.discovery {
        Discovery::Eds => {
            message.eds_cluster_config = Some(eds_config(&plan.name));
            DiscoveryType::Eds
        }
        Discovery::Static(localities) => {
            message.load_assignment =
                (!localities.is_empty()).then(|| load_assignment(&plan.name, localities));
            DiscoveryType::Static
        }
        Discovery::Dns { logical, endpoints, refresh } => {
            message.load_assignment = Some(load_assignment(&plan.name, endpoints));
            message.cluster_discovery_type = Some(dns(*logical, *refresh));
            return;
        }
        Discovery::Named => {
            message.cluster_discovery_type = Some(named(plan));
            return;
        }
        Discovery::OriginalDst { .. } => DiscoveryType::OriginalDst,
    };
    message.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind as i32));
}

/// The proxy waits for endpoints as long as it takes (timeout 0): an empty assignment is sent for
/// no endpoints.
fn eds_config(name: &str) -> parts::EdsClusterConfig {
    let source = core::ConfigSource {
        initial_fetch_timeout: Some(duration(Duration::ZERO)),
        ..tls::config_source(tls::ads())
    };
    parts::EdsClusterConfig { eds_config: Some(source), service_name: name.to_owned() }
}

/// The form without deprecated fields: `type: STRICT_DNS` cannot say how often to resolve without
/// them.
fn dns(logical: bool, refresh: Duration) -> parts::ClusterDiscoveryType {
    let config = dns_cluster::DnsCluster {
        dns_refresh_rate: Some(duration(refresh)),
        respect_dns_ttl: true,
        dns_lookup_family: dns_family::DnsLookupFamily::V4Preferred as i32,
        all_addresses_in_single_endpoint: logical,
        ..Default::default()
    };
    let custom = parts::CustomClusterType {
        name: names::DNS_CLUSTER.to_owned(),
        typed_config: Some(any(&config)),
    };
    parts::ClusterDiscoveryType::ClusterType(custom)
}

/// Endpoints are the names that are asked for. Envoy wants SNI and expected name to be taken from
/// them unless told that something else is meant: there is no TLS, or the policy gives names.
fn named(plan: &ClusterPlan) -> parts::ClusterDiscoveryType {
    use named_cluster::cluster_config::ClusterImplementationSpecifier;
    let automatic = automatic_names(&plan.transport);
    let by_name = automatic.is_some_and(|names| names.auto_sni && names.auto_san_validation);
    let config = named_cluster::ClusterConfig {
        allow_insecure_cluster_options: !by_name,
        cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(
            filters::names::cache(),
        )),
        ..Default::default()
    };
    let custom = parts::CustomClusterType {
        name: names::NAMED_CLUSTER.to_owned(),
        typed_config: Some(any(&config)),
    };
    parts::ClusterDiscoveryType::ClusterType(custom)
}

fn set_balancing(message: &mut cluster::Cluster, plan: &ClusterPlan) {
    use parts::{LbConfig, LbPolicy};
    if let Discovery::OriginalDst { port_override } = plan.discovery {
        message.lb_policy = LbPolicy::ClusterProvided as i32;
        message.lb_config = port_override.map(|port| {
            let upstream_port_override = uint32(port.into());
            LbConfig::OriginalDstLbConfig(parts::OriginalDstLbConfig {
                upstream_port_override,
                ..Default::default()
            })
        });
        return;
    }
    let no_endpoints =
        matches!(&plan.discovery, Discovery::Static(localities) if localities.is_empty());
    message.common_lb_config = (!no_endpoints).then(|| common_lb_config(plan));
    let (policy, config) = match plan.balancing {
        BalancingPlan::LeastRequest(warmup) => (LbPolicy::LeastRequest, warmup.map(least_request)),
        BalancingPlan::RoundRobin(warmup) => (LbPolicy::RoundRobin, warmup.map(round_robin)),
        BalancingPlan::Random => (LbPolicy::Random, None),
        BalancingPlan::RingHash(size) => {
            let ring =
                parts::RingHashLbConfig { minimum_ring_size: uint64(size), ..Default::default() };
            (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(ring)))
        }
        BalancingPlan::Maglev(size) => {
            let table = parts::MaglevLbConfig { table_size: uint64(size) };
            (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(table)))
        }
        BalancingPlan::ClusterProvided => (LbPolicy::ClusterProvided, None),
    };
    message.lb_policy = policy as i32;
    message.lb_config = config;
}

fn common_lb_config(plan: &ClusterPlan) -> parts::CommonLbConfig {
    use parts::common_lb_config::{
        LocalityConfigSpecifier as Specifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
    };
    let zones = |config| Some(Specifier::ZoneAwareLbConfig(config));
    parts::CommonLbConfig {
        healthy_panic_threshold: Some(percent(plan.panic_percent)),
        locality_config_specifier: match plan.over_localities {
            OverLocalities::Unsaid => None,
            OverLocalities::Weighted => {
                Some(Specifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}))
            }
            OverLocalities::Zones { min_endpoints } => zones(ZoneAwareLbConfig {
                min_cluster_size: min_endpoints.and_then(uint64),
                ..Default::default()
            }),
            OverLocalities::Alike => {
                zones(ZoneAwareLbConfig { routing_enabled: Some(percent(0)), ..Default::default() })
            }
        },
        ..Default::default()
    }
}

fn least_request(warmup: Warmup) -> parts::LbConfig {
    let slow_start_config = Some(slow_start(warmup));
    parts::LbConfig::LeastRequestLbConfig(parts::LeastRequestLbConfig {
        slow_start_config,
        ..Default::default()
    })
}

fn round_robin(warmup: Warmup) -> parts::LbConfig {
    parts::LbConfig::RoundRobinLbConfig(parts::RoundRobinLbConfig {
        slow_start_config: Some(slow_start(warmup)),
    })
}

fn slow_start(warmup: Warmup) -> parts::SlowStartConfig {
    /// Never set by anyone; Envoy demands a key beside the default.
    const RUNTIME_KEY: &str = "istio.warmup.aggression";
    let aggression = core::RuntimeDouble {
        default_value: f64::from(warmup.aggression_milli) / 1000.0,
        runtime_key: RUNTIME_KEY.to_owned(),
    };
    parts::SlowStartConfig {
        slow_start_window: Some(duration(warmup.window)),
        aggression: Some(aggression),
        min_weight_percent: Some(percent(warmup.minimum_percent)),
    }
}

fn circuit_breakers(limits: &Limits) -> Option<cluster::CircuitBreakers> {
    use cluster::circuit_breakers::{Thresholds, thresholds::RetryBudget};
    let limit = |n: Option<u32>| uint32(n.unwrap_or(u32::MAX));
    let retry_budget = limits.retry_budget.map(|budget| RetryBudget {
        budget_percent: Some(percent(budget.percent)),
        min_retry_concurrency: uint32(budget.minimum),
        budget_interval: budget.window.map(duration),
    });
    let thresholds = Thresholds {
        max_connections: limit(limits.max_connections),
        max_pending_requests: limit(limits.max_pending_requests),
        max_requests: limit(limits.max_requests),
        max_retries: limit(limits.max_retries),
        retry_budget,
        ..Default::default()
    };
    (!limits.omit)
        .then(|| cluster::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() })
}

fn outlier_detection(plan: &OutlierPlan) -> cluster::OutlierDetection {
    let enforcing = |n: Option<u32>| n.and_then(|n| uint32(if n > 0 { 100 } else { 0 }));
    cluster::OutlierDetection {
        consecutive_5xx: plan.consecutive_5xx.and_then(uint32),
        enforcing_consecutive_5xx: enforcing(plan.consecutive_5xx),
        consecutive_gateway_failure: plan.consecutive_gateway.and_then(uint32),
        enforcing_consecutive_gateway_failure: enforcing(plan.consecutive_gateway),
        consecutive_local_origin_failure: plan.consecutive_local_origin.and_then(uint32),
        enforcing_consecutive_local_origin_failure: enforcing(plan.consecutive_local_origin),
        split_external_local_origin_errors: plan.split_local_origin,
        interval: plan.interval.map(duration),
        base_ejection_time: plan.base_ejection.map(duration),
        max_ejection_percent: plan.max_ejection_percent.and_then(uint32),
        always_eject_one_host: plan.always_one.then(|| boolean(true)).flatten(),
        enforcing_success_rate: uint32(0),
        ..Default::default()
    }
}

fn connection_options(keepalive: &TcpKeepalive) -> cluster::UpstreamConnectionOptions {
    let seconds = |d: Duration| uint32(u32::try_from(d.as_secs()).unwrap_or(u32::MAX));
    let tcp_keepalive = core::TcpKeepalive {
        keepalive_probes: keepalive.probes.and_then(uint32),
        keepalive_time: keepalive.time.and_then(seconds),
        keepalive_interval: keepalive.interval.and_then(seconds),
    };
    cluster::UpstreamConnectionOptions { tcp_keepalive: Some(tcp_keepalive), ..Default::default() }
}

/// `None` when Envoy's defaults say it all.
fn http_options(plan: &ClusterPlan) -> Option<upstream_http::HttpProtocolOptions> {
    let http = &plan.http;
    let common = (http.idle_timeout.is_some()
        || http.max_requests_per_connection.is_some()
        || http.max_connection_duration.is_some())
    .then(|| core::HttpProtocolOptions {
        idle_timeout: http.idle_timeout.map(duration),
        max_requests_per_connection: http.max_requests_per_connection.and_then(uint32),
        max_connection_duration: http.max_connection_duration.map(duration),
        ..Default::default()
    });
    let names = automatic_names(&plan.transport);
    let errors = error_matcher(&http.error_statuses);
    let plain = common.is_none() && names.is_none() && errors.is_none();
    if http.protocol == UpstreamProtocol::Http1 && plain {
        return None;
    }
    Some(upstream_http::HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_http_protocol_options: names,
        upstream_protocol_options: Some(upstream_protocol(plan)),
        outlier_detection: errors.map(|errors| {
            upstream_http::http_protocol_options::OutlierDetection { error_matcher: Some(errors) }
        }),
        ..Default::default()
    })
}

/// A predicate on responses that holds for these statuses; `None`: for those of Envoy.
fn error_matcher(statuses: &[u16]) -> Option<common_matcher::MatchPredicate> {
    use common_matcher::{
        HttpHeadersMatch, MatchPredicate,
        match_predicate::{MatchSet, Rule},
    };
    let status = |status: &u16| MatchPredicate {
        rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch {
            headers: vec![header(":status", &StringMatch::Exact(status.to_string().into()), false)],
        })),
    };
    match statuses {
        [] => None,
        [only] => Some(status(only)),
        // Envoy asks a set for two at least.
        several => {
            let rules = several.iter().map(status).collect();
            Some(MatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) })
        }
    }
}

fn upstream_protocol(
    plan: &ClusterPlan,
) -> upstream_http::http_protocol_options::UpstreamProtocolOptions {
    use upstream_http::http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
        explicit_http_config::ProtocolConfig,
    };
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    match plan.http.protocol {
        UpstreamProtocol::Http1 | UpstreamProtocol::ExplicitHttp1 => {
            explicit(ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default()))
        }
        UpstreamProtocol::Http2 => {
            explicit(ProtocolConfig::Http2ProtocolOptions(http2_options(plan)))
        }
        UpstreamProtocol::Downstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(core::Http1ProtocolOptions::default()),
                http2_protocol_options: Some(http2_options(plan)),
                ..Default::default()
            })
        }
    }
}

fn http2_options(plan: &ClusterPlan) -> core::Http2ProtocolOptions {
    let keepalive = plan.http.h2_keepalive.map(|(interval, timeout)| core::KeepaliveSettings {
        interval: Some(duration(interval)),
        timeout: Some(duration(timeout)),
        ..Default::default()
    });
    core::Http2ProtocolOptions {
        max_concurrent_streams: plan.http.max_concurrent_streams.and_then(uint32),
        connection_keepalive: keepalive,
        // A WebSocket is another request over HTTP/2 (RFC 8441).
        allow_connect: true,
        ..Default::default()
    }
}

/// SNI and expected name from the request's host.
fn automatic_names(transport: &UpstreamTransport) -> Option<core::UpstreamHttpProtocolOptions> {
    let (UpstreamTransport::Tls(tls) | UpstreamTransport::PerEndpoint(tls)) = transport else {
        return None;
    };
    tls.auto_sni.then(|| core::UpstreamHttpProtocolOptions {
        auto_sni: true,
        // Names that the policy gives replace the one from the request; Envoy would demand both.
        auto_san_validation: tls.trust.is_some() && tls.sans.is_empty(),
        ..Default::default()
    })
}

fn set_transport(message: &mut cluster::Cluster, plan: &ClusterPlan) {
    let socket = |socket| match plan.proxy_protocol {
        Some(version) => with_proxy_protocol(version, socket),
        None => socket,
    };
    match &plan.transport {
        UpstreamTransport::Plain if plan.proxy_protocol.is_none() => {}
        UpstreamTransport::Plain => message.transport_socket = Some(socket(plaintext())),
        UpstreamTransport::Tls(tls) => message.transport_socket = Some(socket(tls::upstream(tls))),
        UpstreamTransport::PerEndpoint(tls) => {
            message.transport_socket_matches = per_endpoint(tls, socket)
        }
    }
}

fn per_endpoint(
    tls: &UpstreamTls,
    socket: impl Fn(core::TransportSocket) -> core::TransportSocket,
) -> Vec<parts::TransportSocketMatch> {
    let case = |name: &str, mesh, transport| parts::TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(metadata::tls_mode(mesh)),
        transport_socket: Some(socket(transport)),
    };
    vec![
        case("tlsMode-istio", true, tls::upstream(tls)),
        case("tlsMode-disabled", false, plaintext()),
    ]
}

fn plaintext() -> core::TransportSocket {
    transport_socket(names::RAW_BUFFER, &raw_buffer::RawBuffer::default())
}

fn with_proxy_protocol(version: u8, inner: core::TransportSocket) -> core::TransportSocket {
    use core::proxy_protocol_config::Version;
    let version = if version == 1 { Version::V1 } else { Version::V2 };
    let config = proxy_protocol::ProxyProtocolUpstreamTransport {
        config: Some(core::ProxyProtocolConfig { version: version as i32, ..Default::default() }),
        transport_socket: Some(inner),
        ..Default::default()
    };
    transport_socket(names::PROXY_PROTOCOL, &config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        emit::tests::{self, cluster as plain, full_cluster, mesh_tls},
        plan::{PlanItem, SanMatch, TrustRef, UpstreamHttp},
    };

    fn check(plan: ClusterPlan, expected: &[(&str, &str)]) {
        tests::check(&PlanItem::Cluster(Box::new(plan)), expected);
    }

    #[test]
    fn an_ordinary_cluster_has_istios_defaults() {
        let whole = r#"{
            "name":"outbound|80||a","alt_stat_name":"outbound|80||a;","type":"EDS","connect_timeout":"10s",
            "eds_cluster_config":{"service_name":"outbound|80||a",
                "eds_config":{"ads":{},"initial_fetch_timeout":"0s","resource_api_version":"V3"}},
            "lb_policy":"LEAST_REQUEST","common_lb_config":{"healthy_panic_threshold":{}},
            "circuit_breakers":{"thresholds":[{"max_connections":4294967295,"max_pending_requests":4294967295,
                "max_requests":4294967295,"max_retries":4294967295}]}}"#;
        check(plain("outbound|80||a"), &[("", whole)]);
    }

    #[test]
    fn settings_of_a_policy_are_spelled() {
        let socket = "/transport_socket_matches/0/transport_socket/typed_config";
        check(
            full_cluster(),
            &[
                ("/lb_policy", "null"),
                ("/round_robin_lb_config/slow_start_config/aggression/default_value", "1.5"),
                ("/circuit_breakers/thresholds/0/max_connections", "100"),
                ("/circuit_breakers/thresholds/0/retry_budget/budget_percent/value", "20.0"),
                ("/circuit_breakers/thresholds/0/retry_budget/min_retry_concurrency", "3"),
                ("/circuit_breakers/thresholds/0/retry_budget/budget_interval", r#""10s""#),
                (
                    "/outlier_detection",
                    r#"{"consecutive_5xx":5,"enforcing_consecutive_5xx":100,"consecutive_gateway_failure":0,
                        "enforcing_consecutive_gateway_failure":0,"interval":"10s","enforcing_success_rate":0}"#,
                ),
                (
                    "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/outlier_detection/error_matcher/or_match/rules/1",
                    r#"{"http_response_headers_match":{"headers":[{"name":":status","string_match":{"exact":"503"}}]}}"#,
                ),
                (
                    "/common_lb_config",
                    r#"{"healthy_panic_threshold":{"value":40.0},"locality_weighted_lb_config":{}}"#,
                ),
                (
                    "/upstream_connection_options/tcp_keepalive",
                    r#"{"keepalive_probes":3,"keepalive_time":7}"#,
                ),
                (
                    "/metadata/filter_metadata/mesh",
                    r#"{"h1":"istio-http/1.1,istio,http/1.1","h2":"istio-h2,istio,h2"}"#,
                ),
                ("/metadata/filter_metadata/istio/subset", r#""v1""#),
                ("/transport_socket_matches/0/match", r#"{"tlsMode":"istio"}"#),
                ("/transport_socket_matches/1/match", "{}"),
                (&format!("{socket}/config"), "{}"),
                (
                    &format!("{socket}/transport_socket/typed_config/sni"),
                    r#""outbound_.9080_._.reviews.default.svc.cluster.local""#,
                ),
            ],
        );
    }

    #[test]
    fn http_options_are_written_only_when_needed() {
        let options = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let explicit = format!("{options}/explicit_http_config");
        let with = |http| ClusterPlan { http, ..plain("a") };
        let protocol = |protocol| UpstreamHttp { protocol, ..Default::default() };
        let one_request =
            UpstreamHttp { max_requests_per_connection: Some(1), ..Default::default() };
        let downstream = format!("{options}/use_downstream_protocol_config");
        let table = [
            (UpstreamHttp::default(), options, "null"),
            (one_request, &explicit, r#"{"http_protocol_options":{}}"#),
            (
                protocol(UpstreamProtocol::ExplicitHttp1),
                &explicit,
                r#"{"http_protocol_options":{}}"#,
            ),
            (
                protocol(UpstreamProtocol::Http2),
                &explicit,
                r#"{"http2_protocol_options":{"allow_connect":true}}"#,
            ),
            (
                protocol(UpstreamProtocol::Downstream),
                &downstream,
                r#"{"http_protocol_options":{},"http2_protocol_options":{"allow_connect":true}}"#,
            ),
        ];
        for (http, pointer, expected) in table {
            check(with(http), &[(pointer, expected)]);
        }
    }

    #[test]
    fn every_discovery_has_its_type_and_balancer() {
        let with = |discovery| ClusterPlan { discovery, ..plain("a") };
        check(
            with(Discovery::Static(Vec::new())),
            &[("/type", r#""STATIC""#), ("/load_assignment", "null")],
        );
        let inbound = ClusterPlan {
            bind_source: Some([127, 0, 0, 6].into()),
            original_dst_keep: true,
            ..with(Discovery::OriginalDst { port_override: Some(81) })
        };
        check(
            inbound,
            &[
                ("/type", r#""ORIGINAL_DST""#),
                ("/lb_policy", r#""CLUSTER_PROVIDED""#),
                ("/cleanup_interval", r#""9223372035s""#),
                ("/original_dst_lb_config", r#"{"upstream_port_override":81}"#),
                (
                    "/upstream_bind_config/source_address",
                    r#"{"address":"127.0.0.6","port_value":0}"#,
                ),
                ("/common_lb_config", "null"),
            ],
        );
        let dns = Discovery::Dns {
            logical: true,
            endpoints: Vec::new(),
            refresh: Duration::from_secs(60),
        };
        check(
            with(dns),
            &[
                ("/cluster_type/typed_config/dns_refresh_rate", r#""60s""#),
                ("/cluster_type/typed_config/all_addresses_in_single_endpoint", "true"),
            ],
        );
        let omitted = Limits { omit: true, ..Default::default() };
        check(
            ClusterPlan { limits: omitted, ..plain("BlackHoleCluster") },
            &[("/circuit_breakers", "null")],
        );
    }

    #[test]
    fn expected_names_are_typed_by_their_spelling() {
        let sans = ["spiffe://cluster.local/ns/a/sa/b", "a.com", "10.0.0.1"]
            .map(|n| SanMatch::Exact(n.into()));
        let tls = UpstreamTls { sans: sans.into(), ..mesh_tls() };
        let context =
            "/transport_socket/typed_config/common_tls_context/combined_validation_context";
        check(
            ClusterPlan { transport: UpstreamTransport::Tls(tls), ..plain("a") },
            &[
                (
                    &format!("{context}/default_validation_context/match_typed_subject_alt_names"),
                    r#"[{"san_type":"URI","matcher":{"exact":"spiffe://cluster.local/ns/a/sa/b"}},
                        {"san_type":"DNS","matcher":{"exact":"a.com"}},
                        {"san_type":"IP_ADDRESS","matcher":{"exact":"10.0.0.1"}}]"#,
                ),
                (
                    &format!("{context}/validation_context_sds_secret_config"),
                    r#"{"name":"ROOTCA","sds_config":{"initial_fetch_timeout":"0s","resource_api_version":"V3",
                        "api_config_source":{"api_type":"GRPC","transport_api_version":"V3",
                            "set_node_on_first_message_only":true,
                            "grpc_services":[{"envoy_grpc":{"cluster_name":"sds-grpc"}}]}}}"#,
                ),
            ],
        );
    }

    #[test]
    fn a_users_tls_without_names_takes_them_from_the_request() {
        let tls = UpstreamTls {
            certificate: None,
            trust: Some(TrustRef::Files { roots: "".into(), revoked: "".into() }),
            sans: Vec::new(),
            sni: "".into(),
            alpn: Vec::new(),
            auto_sni: true,
            words: crate::ir::TlsWords::default(),
        };
        let options = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        check(
            ClusterPlan { transport: UpstreamTransport::Tls(tls), ..plain("a") },
            &[
                (
                    &format!("{options}/upstream_http_protocol_options"),
                    r#"{"auto_sni":true,"auto_san_validation":true}"#,
                ),
                (
                    "/transport_socket/typed_config/common_tls_context/combined_validation_context\
                     /validation_context_sds_secret_config/name",
                    r#""file-root:system""#,
                ),
            ],
        );
    }
}
