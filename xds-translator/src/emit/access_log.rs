//! Access logs: files, in Istio's default formats unless the user gave one, and services.

use std::sync::Arc;

use prost::{Message, Name};

use super::{
    any::any,
    collector::grpc,
    metadata::{from_json, structure, text},
    pb::{
        accesslog::{
            self, AccessLog, AccessLogFilter, AndFilter, ResponseFlagFilter,
            access_log_filter::FilterSpecifier,
        },
        cel_filter::ExpressionFilter,
        core,
        file_access_log::{FileAccessLog, file_access_log::AccessLogFormat},
        grpc_log::{CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig},
        otlp,
        otlp_log::OpenTelemetryAccessLogConfig,
        protobuf::{Struct, value::Kind},
    },
};
use crate::{
    ir::LogFormat,
    plan::{AccessLogPlan, LogSinkPlan, PlannedCollector},
};

/// Istio's default line.
const TEXT: &str = concat!(
    r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% "#,
    r#"%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "#,
    r#""%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "#,
    r#"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "#,
    r#""%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% "#,
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// Istio's default fields.
const FIELDS: [(&str, &str); 24] = [
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
];

/// Logs of a listener itself: only connections that found no chain, since the others are logged by
/// their last filter.
pub(super) fn listener_logs(plans: &[AccessLogPlan]) -> Vec<AccessLog> {
    /// No route found.
    const NO_ROUTE: &str = "NR";
    let nowhere = || {
        let flags = ResponseFlagFilter { flags: vec![NO_ROUTE.to_owned()] };
        filtered(FilterSpecifier::ResponseFlagFilter(flags))
    };
    let narrowed = |log: AccessLog| match log.filter {
        None => AccessLog { filter: Some(nowhere()), ..log },
        Some(own) => {
            let both = AndFilter { filters: vec![nowhere(), own] };
            AccessLog { filter: Some(filtered(FilterSpecifier::AndFilter(both))), ..log }
        }
    };
    logs(plans).into_iter().map(narrowed).collect()
}

/// Logs of a terminal filter.
pub(super) fn logs(plans: &[AccessLogPlan]) -> Vec<AccessLog> {
    plans.iter().map(log).collect()
}

fn log(plan: &AccessLogPlan) -> AccessLog {
    let log = match &plan.sink {
        LogSinkPlan::File { path, format, omit_empty } => {
            named("envoy.access_loggers.file", &file_log(path, format, *omit_empty))
        }
        LogSinkPlan::HttpService { collector, service } => {
            let config = HttpGrpcAccessLogConfig {
                common_config: Some(common(collector, &service.name, &service.filter_state)),
                additional_request_headers_to_log: texts(&service.request_headers),
                additional_response_headers_to_log: texts(&service.response_headers),
                additional_response_trailers_to_log: texts(&service.response_trailers),
            };
            named("envoy.access_loggers.http_grpc", &config)
        }
        LogSinkPlan::TcpService { collector, service } => {
            let common = common(collector, &service.name, &service.filter_state);
            let config = TcpGrpcAccessLogConfig { common_config: Some(common) };
            named("envoy.access_loggers.tcp_grpc", &config)
        }
        LogSinkPlan::Otlp { collector, name, body, attributes } => named(
            "envoy.access_loggers.open_telemetry",
            &otlp_log(collector, name, body, attributes),
        ),
    };
    let filter = plan.filter.as_ref().map(|expression| cel_filter(expression));
    AccessLog { filter, ..log }
}

/// A log by its configuration.
pub(super) fn named<T: Name + Message>(name: &str, config: &T) -> AccessLog {
    AccessLog {
        name: name.to_owned(),
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(any(config))),
        ..Default::default()
    }
}

fn filtered(specifier: FilterSpecifier) -> AccessLogFilter {
    AccessLogFilter { filter_specifier: Some(specifier) }
}

/// Only what a CEL expression is true for.
fn cel_filter(expression: &str) -> AccessLogFilter {
    let config = ExpressionFilter { expression: expression.to_owned(), ..Default::default() };
    filtered(FilterSpecifier::ExtensionFilter(accesslog::ExtensionFilter {
        name: "envoy.access_loggers.extension_filters.cel".to_owned(),
        config_type: Some(accesslog::extension_filter::ConfigType::TypedConfig(any(&config))),
    }))
}

fn file_log(path: &str, format: &LogFormat, omit_empty: bool) -> FileAccessLog {
    let format = match format {
        LogFormat::Json(fields) => json_format(fields),
        LogFormat::Text(text) => text_format(text),
    };
    FileAccessLog {
        path: path.to_owned(),
        access_log_format: Some(AccessLogFormat::LogFormat(core::SubstitutionFormatString {
            format: Some(format),
            omit_empty_values: omit_empty,
            ..Default::default()
        })),
    }
}

fn common(
    collector: &PlannedCollector,
    name: &str,
    filter_state: &[Arc<str>],
) -> CommonGrpcAccessLogConfig {
    CommonGrpcAccessLogConfig {
        log_name: name.to_owned(),
        grpc_service: Some(grpc(collector)),
        transport_api_version: core::ApiVersion::V3 as i32,
        filter_state_objects_to_log: texts(filter_state),
        ..Default::default()
    }
}

fn otlp_log(
    collector: &PlannedCollector,
    name: &str,
    body: &str,
    attributes: &str,
) -> OpenTelemetryAccessLogConfig {
    let body = if body.is_empty() { TEXT } else { body };
    OpenTelemetryAccessLogConfig {
        grpc_service: Some(grpc(collector)),
        log_name: name.to_owned(),
        disable_builtin_labels: true,
        body: Some(otlp_text(body)),
        attributes: otlp_fields(attributes),
        ..Default::default()
    }
}

fn otlp_text(text: &str) -> otlp::AnyValue {
    otlp::AnyValue { value: Some(otlp::any_value::Value::StringValue(text.to_owned())) }
}

/// Attributes from a JSON object; what is no text is written as JSON. `None`: there are none.
fn otlp_fields(attributes: &str) -> Option<otlp::KeyValueList> {
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(attributes).ok()?;
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => otlp_text(text),
        other => otlp_text(&other.to_string()),
    };
    let pair = |(key, value): (&String, &serde_json::Value)| otlp::KeyValue {
        key: key.clone(),
        value: Some(text(value)),
        ..Default::default()
    };
    Some(otlp::KeyValueList { values: fields.iter().map(pair).collect() })
}

fn texts(list: &[Arc<str>]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// A format from its text.
pub(super) fn text_format(format: &str) -> core::substitution_format_string::Format {
    let format = if format.is_empty() { TEXT } else { format };
    let specifier = core::data_source::Specifier::InlineString(format.to_owned());
    core::substitution_format_string::Format::TextFormatSource(core::DataSource {
        specifier: Some(specifier),
        ..Default::default()
    })
}

/// Like Istio, falls back to the default when the user's format is not a JSON object.
fn json_format(format: &str) -> core::substitution_format_string::Format {
    let fields = user_fields(format)
        .unwrap_or_else(|| structure(FIELDS.map(|(name, value)| (name, text(value)))));
    core::substitution_format_string::Format::JsonFormat(fields)
}

fn user_fields(format: &str) -> Option<Struct> {
    match from_json(&serde_json::from_str(format).ok()?).kind? {
        Kind::StructValue(fields) => Some(fields),
        _ => None,
    }
}
