//! Access logs.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{
                AccessLog as WireLog, AccessLogFilter, ExtensionFilter, access_log::ConfigType,
                access_log_filter::FilterSpecifier, comparison_filter::Op, extension_filter,
            },
            core::v3::{
                DataSource, SubstitutionFormatString, data_source::Specifier,
                substitution_format_string::Format,
            },
        },
        extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            filters::cel::v3::ExpressionFilter,
        },
    },
    google::protobuf::{Any, Struct, Value, value::Kind},
};

use super::{
    cel,
    field::{At, Invalid, each, refuse, required, type_name, unpack},
    format, log_service,
};
use crate::runtime::{
    access_log::{AccessLog, JsonFormat, LogFilter, LogFormat, LogLines, LogSink, LogTarget},
    cel::Expression,
};

/// Envoy's default format.
const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// Compiles the access logs of a listener or filter.
pub(super) fn compile(field: &str, logs: &[WireLog]) -> Result<Vec<AccessLog>, Invalid> {
    each(field, logs, log)
}

fn log(message: &WireLog) -> Result<AccessLog, Invalid> {
    let Some(ConfigType::TypedConfig(config)) = &message.config_type else {
        return Err(Invalid::new("required, but missing").at("typed_config"));
    };
    let filter = message.filter.as_ref().map_or(Ok(LogFilter::All), self::filter).at("filter")?;
    let target = target(config).at("typed_config")?;
    Ok(AccessLog { target, filter })
}

fn target(config: &Any) -> Result<LogTarget, Invalid> {
    match type_name(config) {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let file: FileAccessLog = unpack(config)?;
            let wire = file.access_log_format.as_ref();
            Ok(LogTarget::Lines(LogLines {
                sink: sink(&file.path),
                format: file_format(wire)?,
                omits_empty: matches!(wire, Some(AccessLogFormat::LogFormat(format)) if format.omit_empty_values),
            }))
        }
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig" => {
            let service = log_service::open_telemetry(&unpack(config)?)?;
            Ok(LogTarget::Service(Arc::new(service)))
        }
        other => Err(Invalid::new(format!("{other} is not supported by this proxy"))),
    }
}

fn sink(path: &str) -> LogSink {
    match path {
        "/dev/stdout" => LogSink::Stdout,
        "/dev/stderr" => LogSink::Stderr,
        path => LogSink::File(path.into()),
    }
}

#[allow(deprecated, reason = "control planes still send the older spellings")]
fn file_format(wire: Option<&AccessLogFormat>) -> Result<LogFormat, Invalid> {
    match wire {
        None => text(DEFAULT_FORMAT),
        Some(AccessLogFormat::Format(wire)) => text(wire).at("format"),
        Some(AccessLogFormat::JsonFormat(fields) | AccessLogFormat::TypedJsonFormat(fields)) => {
            json(fields).at("json_format")
        }
        Some(AccessLogFormat::LogFormat(wire)) => substitution(wire).at("log_format"),
    }
}

#[allow(deprecated, reason = "`text_format` is what istiod sends")]
fn substitution(message: &SubstitutionFormatString) -> Result<LogFormat, Invalid> {
    match required("format", message.format.as_ref())? {
        Format::TextFormat(wire) => text(wire).at("text_format"),
        Format::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(wire)),
            ..
        }) => text(wire).at("text_format_source"),
        Format::TextFormatSource(_) => {
            Err(Invalid::new("expected an inline_string").at("text_format_source"))
        }
        Format::JsonFormat(fields) => json(fields).at("json_format"),
    }
}

fn text(wire: &str) -> Result<LogFormat, Invalid> {
    format::compile(wire).map(LogFormat::Text)
}

fn json(fields: &Struct) -> Result<LogFormat, Invalid> {
    json_fields(fields).map(LogFormat::Json)
}

fn json_fields(fields: &Struct) -> Result<Vec<(Arc<str>, JsonFormat)>, Invalid> {
    let mut compiled: Vec<(Arc<str>, JsonFormat)> = fields
        .fields
        .iter()
        .map(|(key, value)| Ok((Arc::from(key.as_str()), json_value(value).at(key)?)))
        .collect::<Result<Vec<_>, Invalid>>()?;
    compiled.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(compiled)
}

fn json_value(value: &Value) -> Result<JsonFormat, Invalid> {
    Ok(match &value.kind {
        Some(Kind::StringValue(wire)) => JsonFormat::Text(format::compile(wire)?),
        Some(Kind::StructValue(fields)) => JsonFormat::Object(json_fields(fields)?),
        Some(Kind::ListValue(list)) => JsonFormat::List(each("values", &list.values, json_value)?),
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 1e15 => {
            JsonFormat::Constant((*number as i64).into())
        }
        Some(Kind::NumberValue(number)) => JsonFormat::Constant((*number).into()),
        Some(Kind::BoolValue(yes)) => JsonFormat::Constant((*yes).into()),
        Some(Kind::NullValue(_)) | None => JsonFormat::Constant(serde_json::Value::Null),
    })
}

fn filter(message: &AccessLogFilter) -> Result<LogFilter, Invalid> {
    match required("filter_specifier", message.filter_specifier.as_ref())? {
        FilterSpecifier::ResponseFlagFilter(wire) => Ok(LogFilter::ResponseFlags(
            wire.flags.iter().map(|flag| flag.as_str().into()).collect(),
        )),
        FilterSpecifier::StatusCodeFilter(wire) => {
            let comparison = required("status_code_filter.comparison", wire.comparison.as_ref())?;
            refuse(&[("status_code_filter.comparison.op", comparison.op() != Op::Ge)])?;
            let status = comparison.value.as_ref().map_or(0, |value| value.default_value);
            Ok(LogFilter::StatusAtLeast(u16::try_from(status).unwrap_or(u16::MAX)))
        }
        FilterSpecifier::OrFilter(any) => {
            Ok(LogFilter::AnyOf(each("filters", &any.filters, filter).at("or_filter")?))
        }
        FilterSpecifier::AndFilter(all) => {
            Ok(LogFilter::AllOf(each("filters", &all.filters, filter).at("and_filter")?))
        }
        FilterSpecifier::ExtensionFilter(wire) => {
            expression(wire).map(LogFilter::True).at("extension_filter")
        }
        _ => Err(Invalid::new("not supported by this proxy")),
    }
}

fn expression(message: &ExtensionFilter) -> Result<Arc<Expression>, Invalid> {
    let Some(extension_filter::ConfigType::TypedConfig(config)) = &message.config_type else {
        return Err(Invalid::new("required, but missing").at("typed_config"));
    };
    let filter: ExpressionFilter = unpack(config).at("typed_config")?;
    cel::compile(&filter.expression).map(Arc::new).at("typed_config.expression")
}
