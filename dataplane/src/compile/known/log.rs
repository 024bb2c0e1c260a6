//! Access logs.

use super::{
    Known::{Each, In, NoEffect, Packed, PackedAs, Read, Refused, Values},
    base::DATA_SOURCE,
    messages,
    reason::{RUNTIME, TYPE_DECIDES},
};

messages! {
    ACCESS_LOG = "envoy.config.accesslog.v3.AccessLog" {
        1 "name": NoEffect(TYPE_DECIDES);
        2 "filter": In(&LOG_FILTER);
        4 "typed_config": Packed;
    }

    LOG_FILTER = "envoy.config.accesslog.v3.AccessLogFilter" {
        1 "status_code_filter": In(&STATUS);
        2 "duration_filter": Refused;
        3 "not_health_check_filter": Refused;
        4 "traceable_filter": Refused;
        5 "runtime_filter": Refused;
        6 "and_filter": In(&AND);
        7 "or_filter": In(&OR);
        8 "header_filter": Refused;
        9 "response_flag_filter": In(&FLAGS);
        10 "grpc_status_filter": Refused;
        11 "extension_filter": In(&EXTENSION_FILTER);
        12 "metadata_filter": Refused;
        13 "log_type_filter": Refused;
    }

    EXTENSION_FILTER = "envoy.config.accesslog.v3.ExtensionFilter" {
        1 "name": NoEffect(TYPE_DECIDES);
        3 "typed_config": PackedAs(&CEL_FILTER);
    }

    CEL_FILTER = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter" {
        1 "expression": Read;
        2 "cel_config": Refused;
    }

    STATUS = "envoy.config.accesslog.v3.StatusCodeFilter" {
        1 "comparison": In(&COMPARISON);
    }

    COMPARISON = "envoy.config.accesslog.v3.ComparisonFilter" {
        1 "op": Values(3);
        2 "value": In(&RUNTIME_U32);
    }

    RUNTIME_U32 = "envoy.config.core.v3.RuntimeUInt32" {
        2 "default_value": Read;
        3 "runtime_key": NoEffect(RUNTIME);
    }

    AND = "envoy.config.accesslog.v3.AndFilter" {
        1 "filters": Each(&LOG_FILTER);
    }

    OR = "envoy.config.accesslog.v3.OrFilter" {
        2 "filters": Each(&LOG_FILTER);
    }

    FLAGS = "envoy.config.accesslog.v3.ResponseFlagFilter" {
        1 "flags": Read;
    }

    FILE_LOG = "envoy.extensions.access_loggers.file.v3.FileAccessLog" {
        1 "path": Read;
        2 "format": Read;
        3 "json_format": Read;
        4 "typed_json_format": Read;
        5 "log_format": In(&LOG_FORMAT);
    }

    LOG_FORMAT = "envoy.config.core.v3.SubstitutionFormatString" {
        1 "text_format": Read;
        2 "json_format": Read;
        3 "omit_empty_values": Read;
        4 "content_type": NoEffect("no response is made of it");
        5 "text_format_source": In(&DATA_SOURCE);
        6 "formatters": NoEffect("an operator that is not built in is refused where it is used");
        7 "json_format_options": NoEffect("keys are always sorted");
    }
}
