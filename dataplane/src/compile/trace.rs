//! What is told of requests in traces, and to whom.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::trace::v3::{
        OpenTelemetryConfig, ZipkinConfig,
        tracing::{Http, http::ConfigType},
        zipkin_config::{CollectorEndpointVersion, TraceContextOption},
    },
    extensions::{
        filters::network::http_connection_manager::v3::{
            RequestIdExtension, http_connection_manager::Tracing as Wire,
        },
        request_id::uuid::v3::UuidRequestIdConfig,
    },
    r#type::{
        metadata::v3::{MetadataKey, metadata_key::path_segment::Segment, metadata_kind::Kind},
        tracing::v3::{CustomTag, custom_tag},
        v3::Percent,
    },
};
use http::HeaderMap;

use super::{
    collector::{self, COLLECTOR, PATIENCE, filled},
    field::{At, Invalid, each, flag, number, refuse, required, type_name, unpack},
    format,
    grpc_service::GRPC_SERVICE,
    known::{
        Known::{Each, In, Marker, NoEffect, Packed, PackedAs, Read, Refused, Values},
        Message,
        base::PERCENT,
        matcher::METADATA_KEY,
        messages,
        reason::{MEMORY, ONE_SPAN, TYPE_DECIDES},
    },
};
use crate::runtime::{
    collector::{Collector, HttpCollector},
    trace::{RequestIds, Resource, Sampling, Tag, TagValue, TraceForm, Tracer, Tracing, Zipkin},
};

/// Forms of spans that are not made here (`without_effect` says so).
const ELSEWHERE: [&str; 2] =
    ["envoy.config.trace.v3.DatadogConfig", "envoy.config.trace.v3.SkyWalkingConfig"];
/// Envoy's longest path.
const LONGEST_PATH: u32 = 256;

/// Compiles what a connection manager says of traces.
pub(super) fn compile(message: &Wire, ids: RequestIds) -> Result<Tracing, Invalid> {
    let tracer = message.provider.as_ref().map(tracer).transpose().at("provider")?.flatten();
    Ok(Tracing {
        sampling: Sampling {
            asked: of_hundred(message.client_sampling.as_ref()),
            random: share(message.random_sampling.as_ref(), 10_000),
            overall: of_hundred(message.overall_sampling.as_ref()),
        },
        ids,
        longest_path: number(message.max_path_tag_length.as_ref(), LONGEST_PATH) as usize,
        tags: each("custom_tags", &message.custom_tags, tag)?,
        tracer: tracer.map(Arc::new),
        is_silent: message.no_context_propagation,
    })
}

/// Compiles what ids of requests have to do with traces.
pub(super) fn request_ids(message: Option<&RequestIdExtension>) -> Result<RequestIds, Invalid> {
    let config = message.and_then(|extension| extension.typed_config.as_ref());
    let uuid: UuidRequestIdConfig =
        config.map(unpack).transpose().at("request_id_extension.typed_config")?.unwrap_or_default();
    Ok(RequestIds {
        decide: flag(uuid.use_request_id_for_trace_sampling.as_ref(), true),
        are_marked: flag(uuid.pack_trace_reason.as_ref(), true),
    })
}

/// Envoy takes whole percents of these two.
fn of_hundred(wire: Option<&Percent>) -> u32 {
    wire.map_or(100, |percent| percent.value.clamp(0.0, 100.0) as u32)
}

fn share(wire: Option<&Percent>, parts: u32) -> u32 {
    let share = |percent: &Percent| percent.value.clamp(0.0, 100.0) / 100.0 * f64::from(parts);
    wire.map_or(parts, |percent| share(percent).round() as u32)
}

/// `None` for one whose spans we do not make.
fn tracer(message: &Http) -> Result<Option<Tracer>, Invalid> {
    let Some(ConfigType::TypedConfig(config)) = &message.config_type else {
        return Err(Invalid::new("required, but missing").at("typed_config"));
    };
    let tracer = match type_name(config) {
        "envoy.config.trace.v3.OpenTelemetryConfig" => open_telemetry(&unpack(config)?),
        "envoy.config.trace.v3.ZipkinConfig" => zipkin(&unpack(config)?),
        other if ELSEWHERE.contains(&other) => return Ok(None),
        other => Err(Invalid::new(format!("{other} is not supported by this proxy"))),
    };
    tracer.map(Some).at("typed_config")
}

fn open_telemetry(message: &OpenTelemetryConfig) -> Result<Tracer, Invalid> {
    let collector = match (&message.grpc_service, &message.http_service) {
        (Some(service), None) => Collector::Grpc(collector::grpc(service).at("grpc_service")?),
        (None, Some(service)) => Collector::Http(collector::http(service).at("http_service")?),
        _ => return Err(Invalid::new("expected grpc_service or http_service")),
    };
    let named = |wire: Option<_>| flag(wire, true);
    let mut attributes: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    if named(message.set_service_name_resource_attribute.as_ref()) {
        let name = Some(message.service_name.as_str()).filter(|name| !name.is_empty());
        attributes.push(("service.name".into(), name.unwrap_or("unknown_service:envoy").into()));
    }
    if named(message.set_telemetry_sdk_resource_attributes.as_ref()) {
        attributes.extend(
            [
                ("telemetry.sdk.language", "rust"),
                ("telemetry.sdk.name", "ferromesh"),
                ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
            ]
            .map(|(name, value)| (name.into(), value.into())),
        );
    }
    each("resource_detectors", &message.resource_detectors, |detector| {
        required("typed_config", detector.typed_config.as_ref())
    })?;
    let form = TraceForm::OpenTelemetry(Resource {
        attributes,
        from_environment: !message.resource_detectors.is_empty(),
        names_program: named(message.set_instrumentation_scope.as_ref()),
    });
    Ok(Tracer { form, collector })
}

fn zipkin(message: &ZipkinConfig) -> Result<Tracer, Invalid> {
    if message.collector_endpoint_version() != CollectorEndpointVersion::HttpJson {
        return Err(Invalid::new("expected HTTP_JSON, others are not supported by this proxy")
            .at("collector_endpoint_version"));
    }
    let server = match &message.collector_service {
        Some(service) => collector::http(service).at("collector_service")?,
        None => older(message)?,
    };
    let form = TraceForm::Zipkin(Zipkin {
        wide_ids: message.trace_id_128bit,
        w3c: message.trace_context_option() == TraceContextOption::UseB3WithW3cPropagation,
        shares_spans: flag(message.shared_span_context.as_ref(), true),
    });
    Ok(Tracer { form, collector: Collector::Http(server) })
}

/// A collector as it was named before there was `collector_service`.
fn older(message: &ZipkinConfig) -> Result<HttpCollector, Invalid> {
    let cluster = filled("collector_cluster", &message.collector_cluster)?;
    let host = filled("collector_hostname", &message.collector_hostname).unwrap_or(cluster);
    let uri = collector::uri(&message.collector_endpoint, host).at("collector_endpoint")?;
    let headers = HeaderMap::new();
    Ok(HttpCollector { cluster: cluster.into(), uri, headers, timeout: PATIENCE })
}

fn tag(message: &CustomTag) -> Result<Tag, Invalid> {
    use custom_tag::Type;
    let name = filled("tag", &message.tag)?.into();
    let value = match required("type", message.r#type.as_ref())? {
        Type::Literal(literal) => TagValue::Literal(literal.value.as_str().into()),
        Type::Environment(variable) => TagValue::Environment(
            variable.name.as_str().into(),
            variable.default_value.as_str().into(),
        ),
        Type::RequestHeader(header) => TagValue::Header(
            header.name.to_ascii_lowercase().into(),
            header.default_value.as_str().into(),
        ),
        Type::Metadata(found) => metadata(found).at("metadata")?,
        Type::Value(text) => TagValue::Format(format::compile(text).at("value")?),
    };
    Ok(Tag { name, value })
}

fn metadata(message: &custom_tag::Metadata) -> Result<TagValue, Invalid> {
    let kind = message.kind.as_ref().and_then(|kind| kind.kind.as_ref());
    refuse(&[("kind", !matches!(kind, Some(Kind::Request(_))))])?;
    let MetadataKey { key, path } = required("metadata_key", message.metadata_key.as_ref())?;
    let path = each("path", path, |part| match &part.segment {
        Some(Segment::Key(key)) => Ok(Arc::from(key.as_str())),
        _ => Err(Invalid::new("expected a key")),
    });
    Ok(TagValue::Metadata(
        key.as_str().into(),
        path.at("metadata_key")?,
        message.default_value.as_str().into(),
    ))
}

/// What the `typed_config` of a provider may hold.
pub(super) static TRACERS: [&Message; 2] = [&OPEN_TELEMETRY, &ZIPKIN];

messages! {
    TRACING =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing" {
        3 "client_sampling": In(&PERCENT);
        4 "random_sampling": In(&PERCENT);
        5 "overall_sampling": In(&PERCENT);
        6 "verbose": Refused;
        7 "max_path_tag_length": Read;
        8 "custom_tags": Each(&CUSTOM_TAG);
        9 "provider": In(&PROVIDER);
        10 "spawn_upstream_span": NoEffect(ONE_SPAN);
        11 "operation": Refused;
        12 "upstream_operation": Refused;
        13 "no_context_propagation": Read;
    }

    REQUEST_ID_EXTENSION =
        "envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension" {
        1 "typed_config": PackedAs(&UUID);
    }

    UUID = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" {
        1 "pack_trace_reason": Read;
        2 "use_request_id_for_trace_sampling": Read;
    }

    PROVIDER = "envoy.config.trace.v3.Tracing.Http" {
        1 "name": NoEffect(TYPE_DECIDES);
        3 "typed_config": Packed;
    }

    OPEN_TELEMETRY = "envoy.config.trace.v3.OpenTelemetryConfig" {
        1 "grpc_service": In(&GRPC_SERVICE);
        2 "service_name": Read;
        3 "http_service": In(&COLLECTOR);
        4 "resource_detectors": Each(&DETECTOR);
        5 "sampler": Refused;
        6 "max_cache_size": NoEffect(MEMORY);
        7 "set_telemetry_sdk_resource_attributes": Read;
        8 "set_service_name_resource_attribute": Read;
        9 "set_instrumentation_scope": Read;
        10 "exporter": Refused;
    }

    DETECTOR = "envoy.config.core.v3.TypedExtensionConfig" {
        1 "name": NoEffect(TYPE_DECIDES);
        2 "typed_config": PackedAs(&ENVIRONMENT_DETECTOR);
    }

    /// Reads `OTEL_RESOURCE_ATTRIBUTES`.
    ENVIRONMENT_DETECTOR =
        "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.EnvironmentResourceDetectorConfig" {}

    ZIPKIN = "envoy.config.trace.v3.ZipkinConfig" {
        1 "collector_cluster": Read;
        2 "collector_endpoint": Read;
        3 "trace_id_128bit": Read;
        4 "shared_span_context": Read;
        5 "collector_endpoint_version": Read;
        6 "collector_hostname": Read;
        7 "split_spans_for_request": NoEffect(ONE_SPAN);
        8 "trace_context_option": Values(1);
        9 "collector_service": In(&COLLECTOR);
        10 "timestamp_trace_ids": Refused;
    }

    CUSTOM_TAG = "envoy.type.tracing.v3.CustomTag" {
        1 "tag": Read;
        2 "literal": In(&LITERAL);
        3 "environment": In(&ENVIRONMENT);
        4 "request_header": In(&HEADER);
        5 "metadata": In(&METADATA);
        6 "value": Read;
    }

    LITERAL = "envoy.type.tracing.v3.CustomTag.Literal" {
        1 "value": Read;
    }

    ENVIRONMENT = "envoy.type.tracing.v3.CustomTag.Environment" {
        1 "name": Read;
        2 "default_value": Read;
    }

    HEADER = "envoy.type.tracing.v3.CustomTag.Header" {
        1 "name": Read;
        2 "default_value": Read;
    }

    METADATA = "envoy.type.tracing.v3.CustomTag.Metadata" {
        1 "kind": In(&METADATA_KIND);
        2 "metadata_key": In(&METADATA_KEY);
        3 "default_value": Read;
    }

    METADATA_KIND = "envoy.type.metadata.v3.MetadataKind" {
        1 "request": Marker;
        2 "route": Refused;
        3 "cluster": Refused;
        4 "host": Refused;
    }
}
