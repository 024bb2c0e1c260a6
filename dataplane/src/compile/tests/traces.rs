//! What control planes say of traces.

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                GrpcService, HttpService, HttpUri, TypedExtensionConfig,
                grpc_service::{EnvoyGrpc, TargetSpecifier},
                http_uri::HttpUpstreamType,
            },
            trace::v3::{
                DatadogConfig, DynamicOtConfig, OpenTelemetryConfig, ZipkinConfig,
                tracing::{Http, http::ConfigType},
            },
        },
        extensions::{
            filters::network::http_connection_manager::v3::{
                RequestIdExtension, http_connection_manager::Tracing as Wire,
            },
            request_id::uuid::v3::UuidRequestIdConfig,
        },
        r#type::v3::Percent,
    },
    google::protobuf::{BoolValue, Duration as WireDuration},
};

use super::*;
use crate::runtime::{
    collector::Collector,
    trace::{RequestIds, Sampling, TraceForm, Tracing, Zipkin},
};

/// What a manager makes of these; an error without the way to the place.
fn compiled(tracing: Option<Wire>, ids: Option<Any>) -> Result<Option<Arc<Tracing>>, String> {
    let mut message = manager("80", vec![router()]);
    message.tracing = tracing;
    message.request_id_extension = ids.map(|ids| RequestIdExtension { typed_config: Some(ids) });
    let compiled =
        compile_listener(&listener("l", chain(vec![network_filter("hcm", any(&message))])));
    let listener =
        compiled.map_err(|error| error.split_once("typed_config.").unwrap().1.to_owned())?;
    match &listener.chains[0].terminal {
        Terminal::Http(manager) => Ok(manager.tracing.clone()),
        Terminal::Tcp(_) => panic!("expected HTTP"),
    }
}

fn provided<M: prost::Message + prost::Name>(config: &M) -> Result<Option<Arc<Tracing>>, String> {
    let config_type = Some(ConfigType::TypedConfig(any(config)));
    let provider = Some(Http { config_type, ..Default::default() });
    compiled(Some(Wire { provider, ..Default::default() }), None)
}

fn server(uri: &str) -> HttpService {
    let uri = HttpUri {
        uri: uri.to_owned(),
        http_upstream_type: Some(HttpUpstreamType::Cluster("c".to_owned())),
        timeout: Some(WireDuration { seconds: 2, nanos: 0 }),
    };
    HttpService { http_uri: Some(uri), ..Default::default() }
}

fn zipkin() -> ZipkinConfig {
    let collector_service = Some(server("http://c.test/spans"));
    ZipkinConfig { collector_endpoint_version: 1, collector_service, ..Default::default() }
}

#[test]
fn what_is_not_said_of_traces_is_as_in_envoy() {
    assert!(compiled(None, None).unwrap().is_none());
    let tracing = compiled(Some(Wire::default()), None).unwrap().unwrap();
    assert_eq!(tracing.sampling, Sampling { asked: 100, random: 10_000, overall: 100 });
    assert_eq!(tracing.ids, RequestIds { decide: true, are_marked: true });
    assert_eq!((tracing.longest_path, tracing.is_silent), (256, false));
    assert!(tracing.tracer.is_none());
    let tracing = provided(&zipkin()).unwrap().unwrap();
    let tracer = tracing.tracer.as_ref().unwrap();
    let TraceForm::Zipkin(form) = &tracer.form else { panic!("{tracer:?}") };
    assert_eq!(*form, Zipkin { wide_ids: false, w3c: false, shares_spans: true });
    let Collector::Http(server) = &tracer.collector else { panic!("{tracer:?}") };
    assert_eq!(
        (server.uri.to_string(), server.timeout.as_secs()),
        ("http://c.test/spans".into(), 2)
    );
}

#[test]
fn shares_are_read_in_envoy_s_parts() {
    let share = |value| Some(Percent { value });
    let wire = Wire {
        client_sampling: share(12.9),
        random_sampling: share(0.129),
        overall_sampling: share(99.9),
        ..Default::default()
    };
    let tracing = compiled(Some(wire), None).unwrap().unwrap();
    assert_eq!(tracing.sampling, Sampling { asked: 12, random: 13, overall: 99 });
}

#[test]
fn ids_decide_unless_it_is_said_otherwise() {
    let no = Some(BoolValue { value: false });
    let uuid = UuidRequestIdConfig { pack_trace_reason: no, use_request_id_for_trace_sampling: no };
    let tracing = compiled(Some(Wire::default()), Some(any(&uuid))).unwrap().unwrap();
    assert_eq!(tracing.ids, RequestIds { decide: false, are_marked: false });
    let other = compiled(None, Some(any(&Wire::default()))).unwrap_err();
    assert!(other.starts_with("request_id_extension.typed_config: "), "{other}");
    assert!(other.contains("is not supported by this proxy"), "{other}");
}

#[test]
fn a_path_alone_is_the_cluster_s() {
    let older = ZipkinConfig {
        collector_cluster: "c".to_owned(),
        collector_endpoint: "/spans".to_owned(),
        collector_endpoint_version: 1,
        ..Default::default()
    };
    for (config, expected) in [
        (older.clone(), "http://c/spans"),
        (ZipkinConfig { collector_hostname: "h.test".to_owned(), ..older }, "http://h.test/spans"),
        (ZipkinConfig { collector_service: Some(server("/spans")), ..zipkin() }, "http://c/spans"),
    ] {
        let tracing = provided(&config).unwrap().unwrap();
        let Collector::Http(server) = &tracing.tracer.as_ref().unwrap().collector else {
            panic!("it is posted")
        };
        assert_eq!(server.uri, expected);
    }
}

#[test]
fn tracers_of_other_forms_have_requests_marked_and_no_spans() {
    let datadog = DatadogConfig { collector_cluster: "c".to_owned(), ..Default::default() };
    assert!(provided(&datadog).unwrap().unwrap().tracer.is_none());
}

#[test]
fn what_cannot_be_told_is_refused_by_its_name() {
    let provider = "tracing.provider.typed_config";
    let grpc = || {
        let target = EnvoyGrpc { cluster_name: "c".to_owned(), ..Default::default() };
        let target_specifier = Some(TargetSpecifier::EnvoyGrpc(target));
        GrpcService { target_specifier, ..Default::default() }
    };
    let otlp = || OpenTelemetryConfig { grpc_service: Some(grpc()), ..Default::default() };
    let refused = [
        (provided(&DynamicOtConfig::default()), "DynamicOtConfig is not supported"),
        (provided(&OpenTelemetryConfig::default()), "expected grpc_service or http_service"),
        (
            provided(&OpenTelemetryConfig { http_service: Some(server("/")), ..otlp() }),
            "expected grpc_service or http_service",
        ),
        (
            provided(&OpenTelemetryConfig {
                sampler: Some(TypedExtensionConfig::default()),
                ..otlp()
            }),
            "sampler: not supported",
        ),
        (
            provided(&ZipkinConfig { collector_endpoint_version: 2, ..zipkin() }),
            "collector_endpoint_version: expected HTTP_JSON",
        ),
        (
            provided(&ZipkinConfig { collector_service: None, ..zipkin() }),
            "collector_cluster: required",
        ),
        (
            provided(&ZipkinConfig { collector_service: Some(server("c.test")), ..zipkin() }),
            "http_uri.uri: expected a URI or a path",
        ),
    ];
    for (compiled, expected) in refused {
        let error = compiled.unwrap_err();
        assert!(error.starts_with(provider) && error.contains(expected), "{error}");
    }
    let verbose = Wire { verbose: true, ..Default::default() };
    let error = compiled(Some(verbose), None).unwrap_err();
    assert!(error.starts_with("tracing.verbose: not supported"), "{error}");
}
