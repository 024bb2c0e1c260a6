//! Spans of the HTTP connection manager: which requests are traced, what spans say, who takes them.

use std::sync::Arc;

use prost::{Message, Name};

use crate::{
    emit::{
        any::{any, boolean, duration, percent, percent_of_million, uint32},
        collector::{grpc, header, http},
        pb::{
            core::TypedExtensionConfig,
            hcm::http_connection_manager::Tracing,
            metadata_kind, otlp_detectors, otlp_samplers,
            trace::{
                self, DatadogConfig, OpenTelemetryConfig, SkyWalkingConfig, ZipkinConfig,
                tracing::http::ConfigType, zipkin_config,
            },
            tracing::{CustomTag, custom_tag},
        },
    },
    ir::{OtlpTracer, OtlpTransport, TagValue, TracerForm},
    plan::{TagPlan, TracerPlan, TracingPlan},
};

/// The filter that leaves what access policies would have done.
const ACCESS_FILTER: &str = "envoy.filters.http.rbac";

/// Spans of a connection manager.
pub(super) fn tracing(plan: &TracingPlan) -> Tracing {
    let skywalking = |tracer: &TracerPlan| matches!(tracer.form, TracerForm::SkyWalking);
    Tracing {
        client_sampling: Some(percent(100)),
        random_sampling: Some(percent_of_million(plan.sampling.0)),
        overall_sampling: Some(percent(100)),
        max_path_tag_length: plan.longest_path.and_then(uint32),
        custom_tags: plan.tags.iter().map(|(name, tag)| custom_tag(name, tag)).collect(),
        provider: plan.tracer.as_ref().map(provider),
        // SkyWalking joins spans of one proxy by their parents (Envoy's `SkyWalkingConfig`).
        spawn_upstream_span: plan.tracer.as_ref().filter(|t| skywalking(t)).and(boolean(true)),
        no_context_propagation: plan.silent,
        ..Default::default()
    }
}

fn custom_tag(name: &str, tag: &TagPlan) -> CustomTag {
    use custom_tag::{Environment, Header, Literal, Type};
    let kind = match tag {
        TagPlan::Value(TagValue::Literal(value)) => {
            Type::Literal(Literal { value: value.to_string() })
        }
        TagPlan::Value(TagValue::Environment(name, default)) => Type::Environment(Environment {
            name: name.to_string(),
            default_value: default.to_string(),
        }),
        TagPlan::Value(TagValue::Header(name, default)) => Type::RequestHeader(Header {
            name: name.to_string(),
            default_value: default.to_string(),
        }),
        TagPlan::Value(TagValue::Formatted(format)) => Type::Value(format.to_string()),
        TagPlan::TriedOut(key) => Type::Metadata(left_by_access(key)),
    };
    CustomTag { tag: name.to_owned(), r#type: Some(kind) }
}

/// What the access filter left in the request's metadata under a key.
fn left_by_access(key: &Arc<str>) -> custom_tag::Metadata {
    use metadata_kind::{
        MetadataKey, MetadataKind,
        metadata_key::{PathSegment, path_segment::Segment},
        metadata_kind::{Kind, Request},
    };
    custom_tag::Metadata {
        kind: Some(MetadataKind { kind: Some(Kind::Request(Request {})) }),
        metadata_key: Some(MetadataKey {
            key: ACCESS_FILTER.to_owned(),
            path: vec![PathSegment { segment: Some(Segment::Key(key.to_string())) }],
        }),
        ..Default::default()
    }
}

fn provider(plan: &TracerPlan) -> trace::tracing::Http {
    match &plan.form {
        TracerForm::OpenTelemetry(form) => {
            named("envoy.tracers.opentelemetry", &open_telemetry(plan, form))
        }
        TracerForm::Zipkin { call, short_ids, w3c } => {
            let propagation = if *w3c {
                zipkin_config::TraceContextOption::UseB3WithW3cPropagation
            } else {
                zipkin_config::TraceContextOption::UseB3
            };
            let config = ZipkinConfig {
                trace_id_128bit: !short_ids,
                shared_span_context: boolean(false),
                collector_endpoint_version: zipkin_config::CollectorEndpointVersion::HttpJson
                    as i32,
                trace_context_option: propagation as i32,
                collector_service: Some(http(&plan.collector, call)),
                ..Default::default()
            };
            named("envoy.tracers.zipkin", &config)
        }
        TracerForm::Datadog => {
            let config = DatadogConfig {
                collector_cluster: plan.collector.cluster.to_string(),
                service_name: plan.service.to_string(),
                collector_hostname: plan.collector.host.to_string(),
                ..Default::default()
            };
            named("envoy.tracers.datadog", &config)
        }
        TracerForm::SkyWalking => {
            let client = trace::ClientConfig {
                service_name: plan.service.to_string(),
                ..Default::default()
            };
            let config = SkyWalkingConfig {
                grpc_service: Some(grpc(&plan.collector)),
                client_config: Some(client),
            };
            named("envoy.tracers.skywalking", &config)
        }
    }
}

fn open_telemetry(plan: &TracerPlan, form: &OtlpTracer) -> OpenTelemetryConfig {
    let mut config = OpenTelemetryConfig {
        service_name: plan.service.to_string(),
        sampler: sampler(plan, form),
        ..Default::default()
    };
    match &form.transport {
        OtlpTransport::Http(call) => config.http_service = Some(http(&plan.collector, call)),
        OtlpTransport::Grpc { timeout, metadata } => {
            let mut service = grpc(&plan.collector);
            service.timeout = timeout.map(duration);
            service.initial_metadata = metadata.iter().map(header).collect();
            config.grpc_service = Some(service);
        }
    }
    if form.environment {
        let detector = otlp_detectors::EnvironmentResourceDetectorConfig {};
        let name = "envoy.tracers.opentelemetry.resource_detectors.environment";
        config.resource_detectors.push(extension(name, &detector));
    }
    if form.dynatrace {
        let detector = otlp_detectors::DynatraceResourceDetectorConfig {};
        let name = "envoy.tracers.opentelemetry.resource_detectors.dynatrace";
        config.resource_detectors.push(extension(name, &detector));
    }
    config
}

fn sampler(plan: &TracerPlan, form: &OtlpTracer) -> Option<TypedExtensionConfig> {
    let (sampler, asked) = (form.sampler.as_ref()?, plan.sampler.as_ref()?);
    let config = otlp_samplers::DynatraceSamplerConfig {
        tenant: sampler.tenant.to_string(),
        cluster_id: sampler.cluster_id,
        http_service: Some(http(asked, &sampler.call)),
        root_spans_per_minute: sampler.root_spans_per_minute,
    };
    Some(extension("envoy.tracers.opentelemetry.samplers.dynatrace", &config))
}

fn named<T: Name + Message>(name: &str, config: &T) -> trace::tracing::Http {
    trace::tracing::Http {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(config))),
    }
}

fn extension<T: Name + Message>(name: &str, config: &T) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any(config)) }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::{
        emit::tests::check_part,
        ir::{Collector, DynatraceSampler, Hostname, HttpCall, PerMillion},
        plan::PlannedCollector,
    };

    fn at(host: &str) -> PlannedCollector {
        PlannedCollector { cluster: format!("outbound|1||{host}").into(), host: host.into() }
    }

    fn call(path: &str) -> HttpCall {
        HttpCall {
            path: path.into(),
            timeout: Duration::from_secs(5),
            headers: vec![("x-a".into(), "1".into())],
        }
    }

    fn spans(form: TracerForm, sampler: Option<PlannedCollector>) -> Tracing {
        tracing(&TracingPlan {
            tracer: Some(TracerPlan {
                collector: at("c.d"),
                sampler,
                form,
                service: "shop.bank".into(),
            }),
            ..TracingPlan::marking(PerMillion(25_500), true)
        })
    }

    fn check_provider(spans: Tracing, expected: &str) {
        check_part(&spans.provider.unwrap(), expected);
    }

    #[test]
    fn otlp_goes_by_grpc_or_http_and_may_sample_by_itself() {
        let grpc = OtlpTransport::Grpc {
            timeout: Some(Duration::from_secs(2)),
            metadata: vec![("k".into(), "v".into())],
        };
        let plain =
            OtlpTracer { transport: grpc, environment: true, dynatrace: false, sampler: None };
        check_provider(
            spans(TracerForm::OpenTelemetry(plain), None),
            r#"{"name": "envoy.tracers.opentelemetry", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {
                    "envoy_grpc": {"cluster_name": "outbound|1||c.d", "authority": "c.d"},
                    "timeout": "2s", "initial_metadata": [{"key": "k", "value": "v"}]},
                "service_name": "shop.bank",
                "resource_detectors": [{
                    "name": "envoy.tracers.opentelemetry.resource_detectors.environment",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.tracers.opentelemetry.resource_detectors.v3.EnvironmentResourceDetectorConfig"}}]}}"#,
        );
        let sampler = DynatraceSampler {
            tenant: "t".into(),
            cluster_id: 7,
            root_spans_per_minute: 9,
            collector: Collector { host: Hostname::new("e.f"), namespace: None, port: 1 },
            call: HttpCall { headers: Vec::new(), ..call("/s") },
        };
        let own = OtlpTracer {
            transport: OtlpTransport::Http(call("/v1/traces")),
            environment: false,
            dynatrace: false,
            sampler: Some(sampler),
        };
        check_provider(
            spans(TracerForm::OpenTelemetry(own), Some(at("e.f"))),
            r#"{"name": "envoy.tracers.opentelemetry", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "http_service": {
                    "http_uri": {"uri": "http://c.d/v1/traces", "timeout": "5s",
                        "cluster": "outbound|1||c.d"},
                    "request_headers_to_add": [{"header": {"key": "x-a", "value": "1"},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]},
                "service_name": "shop.bank",
                "sampler": {"name": "envoy.tracers.opentelemetry.samplers.dynatrace",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3.DynatraceSamplerConfig",
                        "tenant": "t", "cluster_id": 7, "root_spans_per_minute": 9,
                        "http_service": {"http_uri": {"uri": "http://e.f/s", "timeout": "5s",
                            "cluster": "outbound|1||e.f"}}}}}}"#,
        );
    }

    #[test]
    fn tracers_keep_their_own_forms() {
        let zipkin = TracerForm::Zipkin { call: call("/api"), short_ids: true, w3c: true };
        check_provider(
            spans(zipkin, None),
            r#"{"name": "envoy.tracers.zipkin", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
                "shared_span_context": false, "collector_endpoint_version": "HTTP_JSON",
                "trace_context_option": "USE_B3_WITH_W3C_PROPAGATION",
                "collector_service": {
                    "http_uri": {"uri": "http://c.d/api", "timeout": "5s",
                        "cluster": "outbound|1||c.d"},
                    "request_headers_to_add": [{"header": {"key": "x-a", "value": "1"},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]}}}"#,
        );
        check_provider(
            spans(TracerForm::Datadog, None),
            r#"{"name": "envoy.tracers.datadog", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.DatadogConfig",
                "collector_cluster": "outbound|1||c.d", "service_name": "shop.bank",
                "collector_hostname": "c.d"}}"#,
        );
        let skywalking = spans(TracerForm::SkyWalking, None);
        assert_eq!(skywalking.spawn_upstream_span, boolean(true));
        check_provider(
            skywalking,
            r#"{"name": "envoy.tracers.skywalking", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.SkyWalkingConfig",
                "grpc_service": {
                    "envoy_grpc": {"cluster_name": "outbound|1||c.d", "authority": "c.d"}},
                "client_config": {"service_name": "shop.bank"}}}"#,
        );
    }

    #[test]
    fn spans_say_what_is_asked_for() {
        let value = TagPlan::Value;
        let tags = BTreeMap::from([
            ("a".into(), value(TagValue::Literal("x".into()))),
            ("b".into(), value(TagValue::Environment("HOME".into(), "-".into()))),
            ("c".into(), value(TagValue::Header("x-user".into(), "".into()))),
            ("d".into(), value(TagValue::Formatted("%PROTOCOL%".into()))),
            ("e".into(), TagPlan::TriedOut("shadow".into())),
        ]);
        let plan = TracingPlan {
            tags,
            longest_path: Some(64),
            silent: true,
            ..TracingPlan::marking(PerMillion(25_500), true)
        };
        check_part(
            &tracing(&plan),
            r#"{"client_sampling": {"value": 100.0}, "random_sampling": {"value": 2.55},
                "overall_sampling": {"value": 100.0}, "max_path_tag_length": 64,
                "no_context_propagation": true, "custom_tags": [
                {"tag": "a", "literal": {"value": "x"}},
                {"tag": "b", "environment": {"name": "HOME", "default_value": "-"}},
                {"tag": "c", "request_header": {"name": "x-user"}},
                {"tag": "d", "value": "%PROTOCOL%"},
                {"tag": "e", "metadata": {"kind": {"request": {}}, "metadata_key": {
                    "key": "envoy.filters.http.rbac", "path": [{"key": "shadow"}]}}}]}"#,
        );
    }
}
