//! Services that take entries of logs.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig,
    opentelemetry::proto::common::v1::{AnyValue, KeyValue, KeyValueList, any_value::Value},
};

use super::{
    collector::{self, COLLECTOR},
    field::{At, Invalid, each, required},
    format,
    grpc_service::GRPC_SERVICE,
    known::{
        Known::{In, NoEffect, Read, Refused},
        Message, messages,
        reason::{MEMORY, ONE_API, PACE, STATISTICS},
    },
};
use crate::runtime::{
    access_log::{LogService, OtlpFormat},
    collector::Collector,
};

/// Compiles a service that takes OpenTelemetry's form.
#[allow(deprecated, reason = "older control planes name the service in `common_config`")]
pub(super) fn open_telemetry(
    message: &OpenTelemetryAccessLogConfig,
) -> Result<LogService, Invalid> {
    let older = message.common_config.as_ref();
    let grpc = message.grpc_service.as_ref();
    let collector = match (grpc, &message.http_service, older.and_then(|c| c.grpc_service.as_ref()))
    {
        (Some(service), None, None) => {
            Collector::Grpc(collector::grpc(service).at("grpc_service")?)
        }
        (None, Some(service), None) => {
            Collector::Http(collector::http(service).at("http_service")?)
        }
        (None, None, Some(service)) => {
            Collector::Grpc(collector::grpc(service).at("common_config.grpc_service")?)
        }
        _ => return Err(Invalid::new("expected grpc_service or http_service")),
    };
    let name = older.map(|common| &common.log_name).filter(|name| !name.is_empty());
    let name = name.unwrap_or(&message.log_name);
    let resource = message.resource_attributes.iter().flat_map(|list| &list.values);
    Ok(LogService {
        collector,
        resource: each("resource_attributes.values", resource, constant)?,
        names_origin: (!message.disable_builtin_labels).then(|| name.as_str().into()),
        body: message.body.as_ref().map(value).transpose().at("body")?,
        attributes: match &message.attributes {
            Some(list) => pairs(list).at("attributes")?,
            None => Vec::new(),
        },
    })
}

/// A text without any format, by its name.
fn constant(pair: &KeyValue) -> Result<(Arc<str>, Arc<str>), Invalid> {
    match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => Ok((pair.key.as_str().into(), text.as_str().into())),
        _ => Err(Invalid::new("expected a string, others are not supported by this proxy")),
    }
}

fn pairs(list: &KeyValueList) -> Result<Vec<(Arc<str>, OtlpFormat)>, Invalid> {
    each("values", &list.values, |pair| {
        let format = required("value", pair.value.as_ref()).and_then(value)?;
        Ok((pair.key.as_str().into(), format))
    })
}

fn value(message: &AnyValue) -> Result<OtlpFormat, Invalid> {
    match required("value", message.value.as_ref())? {
        Value::StringValue(text) => format::compile(text).map(OtlpFormat::Text),
        Value::ArrayValue(list) => each("values", &list.values, value).map(OtlpFormat::List),
        Value::KvlistValue(list) => pairs(list).map(OtlpFormat::Map),
        _ => Err(Invalid::new("expected a string, a list or a map")),
    }
}

/// What the `typed_config` of a log may hold beside files.
pub(super) static LOG_SERVICES: [&Message; 1] = [&OPEN_TELEMETRY];

messages! {
    OPEN_TELEMETRY =
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig" {
        1 "common_config": In(&COMMON);
        2 "body": Read;
        3 "attributes": Read;
        4 "resource_attributes": Read;
        5 "disable_builtin_labels": Read;
        6 "stat_prefix": NoEffect(STATISTICS);
        7 "formatters": NoEffect("an operator that is not built in is refused where it is used");
        8 "http_service": In(&COLLECTOR);
        9 "grpc_service": In(&GRPC_SERVICE);
        10 "log_name": Read;
        11 "buffer_flush_interval": NoEffect(PACE);
        12 "buffer_size_bytes": NoEffect(MEMORY);
        13 "filter_state_objects_to_log": Refused;
        14 "custom_tags": Refused;
        15 "resource_detectors": Refused;
    }

    COMMON = "envoy.extensions.access_loggers.grpc.v3.CommonGrpcAccessLogConfig" {
        1 "log_name": Read;
        2 "grpc_service": In(&GRPC_SERVICE);
        3 "buffer_flush_interval": NoEffect(PACE);
        4 "buffer_size_bytes": NoEffect(MEMORY);
        5 "filter_state_objects_to_log": Refused;
        6 "transport_api_version": NoEffect(ONE_API);
        7 "grpc_stream_retry_policy": Refused;
        8 "custom_tags": Refused;
    }
}
