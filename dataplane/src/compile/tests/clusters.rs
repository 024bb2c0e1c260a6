//! Clusters and endpoints.

use std::time::Duration;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers as WireBreakers, Cluster as Wire, OutlierDetection as WireOutlier,
                circuit_breakers::{Thresholds, thresholds::RetryBudget},
                cluster::{
                    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy as WirePolicy,
                    TransportSocketMatch,
                },
            },
            core::v3::{
                BindConfig, HealthCheck, HealthStatus as WireHealth, Metadata, SocketAddress,
                TransportSocket,
            },
        },
        extensions::{
            transport_sockets::{
                raw_buffer::v3::RawBuffer,
                tls::v3::{
                    CertificateValidationContext, CommonTlsContext, UpstreamTlsContext,
                    common_tls_context::{
                        CombinedCertificateValidationContext, ValidationContextType,
                    },
                },
            },
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{UpstreamProtocolOptions, UseDownstreamHttpConfig},
            },
        },
        r#type::{
            matcher::v3::{StringMatcher as WireString, string_matcher::MatchPattern},
            v3::Percent,
        },
    },
    google::protobuf::{self, Struct, UInt32Value, Value, value::Kind},
};

use super::*;
use crate::runtime::{
    cluster::{CircuitBreakers, Discovery, LbPolicy, Transport, UpstreamProtocol},
    endpoint::{EndpointAddress, HealthStatus},
    secret::{SanMatcher, SecretRef},
};
use crate::upstream::{LiveCluster, StateRegistry};

const NAME: &str = "outbound|80||reviews.default.svc.cluster.local";

fn eds() -> Wire {
    Wire {
        name: NAME.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: NAME.to_owned(),
        }),
        lb_policy: WirePolicy::LeastRequest as i32,
        ..Default::default()
    }
}

fn compile(message: &Wire) -> Result<Compiled<Cluster>, String> {
    context()
        .cluster(&message.name, &message.encode_to_vec())
        .map_err(|rejection| rejection.to_string())
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn strings(pairs: &[(&str, &str)]) -> Struct {
    Struct { fields: pairs.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect() }
}

fn count(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn mutual_tls() -> UpstreamTlsContext {
    let san = WireString {
        match_pattern: Some(MatchPattern::Exact(
            "spiffe://cluster.local/ns/default/sa/reviews".to_owned(),
        )),
        ignore_case: false,
    };
    #[allow(deprecated, reason = "istiod still sends it")]
    let validation =
        CertificateValidationContext { match_subject_alt_names: vec![san], ..Default::default() };
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(validation),
        validation_context_sds_secret_config: Some(sds("ROOTCA")),
        ..Default::default()
    };
    UpstreamTlsContext {
        sni: "outbound_.80_._.reviews.default.svc.cluster.local".to_owned(),
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![sds("default")],
            alpn_protocols: vec!["istio".to_owned()],
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(
                combined,
            )),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn socket_matches() -> Vec<TransportSocketMatch> {
    vec![
        TransportSocketMatch {
            name: "tlsMode-istio".to_owned(),
            r#match: Some(strings(&[("tlsMode", "istio")])),
            transport_socket: Some(tls_socket(any(&mutual_tls()))),
        },
        TransportSocketMatch {
            name: "tlsMode-disabled".to_owned(),
            r#match: Some(Struct::default()),
            transport_socket: Some(tls_socket(any(&RawBuffer {}))),
        },
    ]
}

fn http_options(options: UpstreamProtocolOptions) -> (String, protobuf::Any) {
    let message =
        HttpProtocolOptions { upstream_protocol_options: Some(options), ..Default::default() };
    ("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), any(&message))
}

#[test]
fn an_outbound_cluster_chooses_tls_by_endpoint_and_alpn_by_metadata() {
    let metadata =
        strings(&[("h1", "istio-http/1.1, istio,http/1.1"), ("h2", "istio-h2,istio,h2")]);
    let downstream =
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig::default());
    let message = Wire {
        transport_socket_matches: socket_matches(),
        metadata: Some(Metadata {
            filter_metadata: [("mesh".to_owned(), metadata)].into(),
            ..Default::default()
        }),
        typed_extension_protocol_options: [http_options(downstream)].into(),
        connect_timeout: Some(protobuf::Duration { seconds: 10, nanos: 0 }),
        ..eds()
    };
    let compiled = compile(&message).unwrap();
    assert!(compiled.needs.endpoints.contains(NAME) && compiled.needs.secrets.is_empty());
    let cluster = compiled.value;
    assert_eq!(cluster.discovery, Discovery::Eds(NAME.into()));
    assert_eq!(cluster.policy, LbPolicy::LeastRequest { choices: 2 });
    assert_eq!(cluster.connection.protocol, UpstreamProtocol::Downstream);
    assert_eq!(cluster.connection.connect_timeout, Duration::from_secs(10));
    assert_eq!(cluster.limits, CircuitBreakers::default());
    let alpn = cluster.mesh_alpn.as_ref().unwrap();
    assert_eq!(alpn.h1, ["istio-http/1.1".into(), "istio".into(), "http/1.1".into()]);
    assert_eq!(alpn.h2.len(), 3);
    let [istio, plain] = cluster.connection.transport_matches.as_slice() else {
        panic!("two matches")
    };
    assert_eq!(plain.transport, Transport::Plaintext);
    let Transport::Tls(tls) = &istio.transport else { panic!("TLS") };
    let validation = tls.validation.as_ref().unwrap();
    assert_eq!(
        (tls.certificate.clone(), validation.roots.clone()),
        (Some(SecretRef::Workload), SecretRef::Workload)
    );
    assert_eq!(
        validation.sans,
        [SanMatcher::Exact("spiffe://cluster.local/ns/default/sa/reviews".into())]
    );
    assert_eq!(tls.sni.as_deref(), Some("outbound_.80_._.reviews.default.svc.cluster.local"));
}

#[test]
fn detectors_that_are_not_enforced_are_off() {
    let outlier = WireOutlier {
        consecutive_5xx: count(3),
        enforcing_consecutive_5xx: count(100),
        consecutive_gateway_failure: count(9),
        base_ejection_time: Some(protobuf::Duration { seconds: 3, nanos: 0 }),
        max_ejection_percent: count(100),
        ..Default::default()
    };
    let cluster = compile(&Wire { outlier_detection: Some(outlier), ..eds() }).unwrap().value;
    let outlier = cluster.outlier.as_ref().unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.consecutive_gateway_failure), (3, 0));
    assert_eq!(
        (outlier.base_ejection_time, outlier.max_ejection_percent),
        (Duration::from_secs(3), 100)
    );
    assert_eq!(outlier.interval, Duration::from_secs(10));
}

#[test]
fn an_inbound_passthrough_binds_to_its_own_address() {
    let source = SocketAddress { address: "127.0.0.6".to_owned(), ..Default::default() };
    let message = Wire {
        name: "InboundPassthroughCluster".to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: WirePolicy::ClusterProvided as i32,
        upstream_bind_config: Some(BindConfig {
            source_address: Some(source),
            ..Default::default()
        }),
        circuit_breakers: Some(WireBreakers {
            thresholds: vec![Thresholds { max_connections: count(u32::MAX), ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let cluster = compile(&message).unwrap().value;
    assert_eq!(cluster.discovery, Discovery::OriginalDst { port: None });
    assert_eq!(cluster.policy, LbPolicy::ClusterProvided);
    assert_eq!(cluster.connection.bind, Some([127, 0, 0, 6].into()));
    assert_eq!((cluster.limits.max_connections, cluster.limits.max_requests), (u32::MAX, 1024));
}

#[test]
fn retries_are_limited_by_number_or_by_share() {
    let limit = |thresholds: Thresholds| {
        let breakers = WireBreakers { thresholds: vec![thresholds], ..Default::default() };
        compile(&Wire { circuit_breakers: Some(breakers), ..eds() }).map(|c| c.value.limits.retries)
    };
    let by_share = |budget: RetryBudget| {
        limit(Thresholds {
            max_retries: count(1),
            retry_budget: Some(budget),
            ..Default::default()
        })
    };
    let counted = limit(Thresholds { max_retries: count(7), ..Default::default() }).unwrap();
    assert_eq!((counted.among(0), counted.among(1_000)), (7, 7));
    let default = by_share(RetryBudget::default()).unwrap();
    assert_eq!([0, 19, 20, 1_000].map(|n| default.among(n)), [3, 3, 4, 200]);
    let written = by_share(RetryBudget {
        budget_percent: Some(Percent { value: 12.5 }),
        min_retry_concurrency: count(0),
        ..Default::default()
    })
    .unwrap();
    assert_eq!([0, 8, u32::MAX].map(|n| written.among(n)), [0, 1, u32::MAX / 8]);
    let window = Some(protobuf::Duration { seconds: 1, nanos: 0 });
    for (budget, field) in [
        (RetryBudget { budget_interval: window, ..Default::default() }, "budget_interval"),
        (
            RetryBudget { budget_percent: Some(Percent { value: 101.0 }), ..Default::default() },
            "budget_percent",
        ),
    ] {
        let refused = by_share(budget).unwrap_err();
        assert!(refused.contains(field), "{refused}");
    }
}

#[test]
fn only_what_decides_about_connections_makes_a_new_state() {
    let mut context = context();
    let registry = StateRegistry::default();
    let mut state = |message: &Wire| {
        let compiled = context.cluster(NAME, &message.encode_to_vec()).unwrap();
        LiveCluster::bind(&registry, (*compiled.value).clone())
    };
    let first = state(&eds());
    let balanced = state(&Wire { lb_policy: WirePolicy::Random as i32, ..eds() });
    assert!(Arc::ptr_eq(&first.state, &balanced.state));
    let secured = state(&Wire { transport_socket_matches: socket_matches(), ..eds() });
    assert!(!Arc::ptr_eq(&first.state, &secured.state));
    assert!(Arc::ptr_eq(
        &secured.state,
        &state(&Wire { transport_socket_matches: socket_matches(), ..eds() }).state
    ));
}

#[test]
fn what_would_be_skipped_is_refused_by_name() {
    let socket = |config| Some(TransportSocket { name: "s".to_owned(), ..tls_socket(config) });
    let quic = protobuf::Any { type_url: "x/quic.Quic".to_owned(), value: vec![] };
    let by_file = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![Default::default()],
            ..Default::default()
        }),
        ..Default::default()
    };
    for (message, field) in [
        (
            Wire { health_checks: vec![HealthCheck::default()], ..eds() },
            "health_checks: not supported",
        ),
        (
            Wire { lb_subset_config: Some(Default::default()), ..eds() },
            "lb_subset_config: not supported",
        ),
        (
            Wire { lb_policy: WirePolicy::LoadBalancingPolicyConfig as i32, ..eds() },
            "lb_policy: LOAD_BALANCING",
        ),
        (Wire { eds_cluster_config: None, ..eds() }, "eds_cluster_config: required"),
        (
            Wire { transport_socket: socket(quic), ..eds() },
            "transport_socket.typed_config: quic.Quic is not",
        ),
        (
            Wire { transport_socket: socket(any(&by_file)), ..eds() },
            "common_tls_context.tls_certificate_sds_secret_configs[0].sds_config: expected",
        ),
    ] {
        let error = compile(&message).err().unwrap();
        assert!(error.contains(field), "{error} should contain {field}");
    }
}

#[test]
fn endpoints_keep_health_weight_and_labels() {
    let mut message = assignment(&[("10.0.0.1", 80), ("fd00::1", 81)]);
    message.cluster_name = NAME.to_owned();
    let first = &mut message.endpoints[0].lb_endpoints[0];
    first.health_status = WireHealth::Draining as i32;
    first.load_balancing_weight = count(7);
    let metadata = [
        ("istio".to_owned(), strings(&[("workload", "reviews-v1;default;reviews;v1;Kubernetes")])),
        ("envoy.transport_socket_match".to_owned(), strings(&[("tlsMode", "istio")])),
    ];
    first.metadata = Some(Metadata { filter_metadata: metadata.into(), ..Default::default() });
    let set = context().endpoints(NAME, &message.encode_to_vec()).unwrap().value;
    let [one, two] = set.localities[0].endpoints.as_slice() else { panic!("two endpoints") };
    assert_eq!((one.health, one.weight), (HealthStatus::Draining, 7));
    assert_eq!(one.workload.as_deref(), Some("reviews-v1;default;reviews;v1;Kubernetes"));
    assert_eq!(one.socket_match.get("tlsMode").map(|mode| &**mode), Some("istio"));
    assert_eq!(two.address, EndpointAddress::Socket("[fd00::1]:81".parse().unwrap()));
    assert_eq!((two.health, two.weight), (HealthStatus::Healthy, 1));

    let mut named = assignment(&[("example.com", 80)]);
    named.cluster_name = NAME.to_owned();
    let error = context().endpoints(NAME, &named.encode_to_vec()).err().unwrap().to_string();
    assert!(error.contains("expected an IP address"), "{error}");
}

#[test]
fn roots_in_files_come_by_the_names_of_istios_agents_and_a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roots.pem");
    std::fs::write(
        &path,
        rcgen::generate_simple_self_signed(vec!["root".to_owned()]).unwrap().cert.pem(),
    )
    .unwrap();
    let compile = |secret: &str| context().cluster("c", &cluster_with_roots("c", secret));
    let cluster = compile(&format!("file-root:{}", path.display())).unwrap();
    assert!(cluster.needs.secrets.is_empty(), "nothing to ask the control plane for");
    let Transport::Tls(tls) = &cluster.value.connection.transport else {
        panic!("{:?}", cluster.value)
    };
    let roots = tls
        .validation
        .as_ref()
        .map(|validation| format!("{:?}", validation.roots))
        .unwrap_or_default();
    assert!(roots.contains("trust(1 roots)"), "{roots}");
    let Err(rejection) = compile("file-root:/nowhere/roots.pem") else {
        panic!("accepted without its file")
    };
    assert!(rejection.to_string().contains("cannot read /nowhere/roots.pem"), "{rejection}");
}

#[test]
fn idle_connections_are_trimmed_only_where_nothing_says_how_long_they_stay() {
    let downstream =
        || UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig::default());
    let hour = Duration::from_secs(3600);
    for (said, idle_timeout, trims_idle) in
        [(None, Some(hour), true), (Some(3600), Some(hour), false), (Some(0), None, false)]
    {
        let common =
            said.map(|seconds| envoy_types::pb::envoy::config::core::v3::HttpProtocolOptions {
                idle_timeout: Some(protobuf::Duration { seconds, nanos: 0 }),
                ..Default::default()
            });
        let options = HttpProtocolOptions {
            upstream_protocol_options: Some(downstream()),
            common_http_protocol_options: common,
            ..Default::default()
        };
        let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
        let message =
            Wire { typed_extension_protocol_options: [(name, any(&options))].into(), ..eds() };
        let http = compile(&message).unwrap().value.connection.http.clone();
        assert_eq!((http.idle_timeout, http.trims_idle), (idle_timeout, trims_idle), "{said:?}");
    }
}
