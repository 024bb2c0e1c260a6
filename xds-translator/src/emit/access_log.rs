//! File access logs, in Istio's default formats unless the user gave one.

use super::{
    any::any,
    metadata::{from_json, structure, text},
    pb::{
        accesslog, core,
        file_access_log::{FileAccessLog, file_access_log::AccessLogFormat},
        protobuf::{Struct, value::Kind},
    },
};
use crate::plan::AccessLogPlan;

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

/// A listener's log: only connections that found no chain, since the others are logged by their
/// last filter.
pub(super) fn listener_logs(plan: Option<&AccessLogPlan>) -> Vec<accesslog::AccessLog> {
    use accesslog::{AccessLogFilter, ResponseFlagFilter, access_log_filter::FilterSpecifier};
    /// No route found.
    const NO_ROUTE: &str = "NR";
    let flags = ResponseFlagFilter { flags: vec![NO_ROUTE.to_owned()] };
    let filter =
        AccessLogFilter { filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(flags)) };
    plan.map(|plan| accesslog::AccessLog { filter: Some(filter), ..file_log(plan) })
        .into_iter()
        .collect()
}

/// The log of a terminal filter.
pub(super) fn file_logs(plan: Option<&AccessLogPlan>) -> Vec<accesslog::AccessLog> {
    plan.map(file_log).into_iter().collect()
}

fn file_log(plan: &AccessLogPlan) -> accesslog::AccessLog {
    let log = FileAccessLog {
        path: plan.path.to_string(),
        access_log_format: Some(AccessLogFormat::LogFormat(core::SubstitutionFormatString {
            format: Some(if plan.json {
                json_format(&plan.format)
            } else {
                text_format(&plan.format)
            }),
            ..Default::default()
        })),
    };
    accesslog::AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(any(&log))),
        ..Default::default()
    }
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
