//! Access logs to files and standard streams.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{
                AccessLog as WireLog, AccessLogFilter, access_log::ConfigType,
                access_log_filter::FilterSpecifier, comparison_filter::Op,
            },
            core::v3::{
                DataSource, SubstitutionFormatString, data_source::Specifier,
                substitution_format_string::Format,
            },
        },
        extensions::access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
    },
    google::protobuf::{Any, Struct, Value, value::Kind},
};

use super::{
    field::{At, Invalid, each, refuse, required, type_name, unpack},
    format,
};
use crate::runtime::format::{AccessLog, FormatOp, LogFilter, LogFormat, LogSink};

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
    let (sink, format) = sink_and_format(config).at("typed_config")?;
    Ok(AccessLog { sink, format, filter })
}

fn sink_and_format(config: &Any) -> Result<(LogSink, LogFormat), Invalid> {
    match type_name(config) {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let file: FileAccessLog = unpack(config)?;
            Ok((sink(&file.path), file_format(file.access_log_format.as_ref())?))
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
    let mut compiled: Vec<(Arc<str>, Arc<[FormatOp]>)> = fields
        .fields
        .iter()
        .map(|(key, value)| Ok((Arc::from(key.as_str()), json_value(value).at(key)?)))
        .collect::<Result<Vec<_>, Invalid>>()?;
    compiled.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(LogFormat::Json(compiled))
}

fn json_value(value: &Value) -> Result<Arc<[FormatOp]>, Invalid> {
    match &value.kind {
        Some(Kind::StringValue(wire)) => format::compile(wire),
        _ => Err(Invalid::new("expected a string, others are not supported by this proxy")),
    }
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
        _ => Err(Invalid::new("not supported by this proxy")),
    }
}
