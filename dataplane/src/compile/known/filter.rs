//! HTTP filters and what routes set for them.

use super::{
    Known::{Each, Guard, In, NoEffect, Read, Refused},
    base::{FORMAT, FRACTION, RUNTIME_FRACTION},
    matcher::{HEADER, STRING},
    messages,
    reason::{RUNTIME, SHADOW, STATISTICS, TRACER},
};

messages! {
    ROUTER = "envoy.extensions.filters.http.router.v3.Router" {
        1 "dynamic_stats": NoEffect(STATISTICS);
        2 "start_child_span": NoEffect(TRACER);
        3 "upstream_log": Refused;
        4 "suppress_envoy_headers": Read;
        5 "strict_check_headers": Guard;
        6 "respect_expected_rq_timeout": Refused;
        7 "suppress_grpc_request_failure_code_stats": NoEffect(STATISTICS);
        8 "upstream_http_filters": Guard;
        9 "upstream_log_options": Refused;
        10 "reject_connect_request_early_data": Refused;
    }

    FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault" {
        1 "delay": In(&DELAY);
        2 "abort": In(&ABORT);
        3 "upstream_cluster": Refused;
        4 "headers": Each(&HEADER);
        5 "downstream_nodes": Refused;
        6 "max_active_faults": Refused;
        7 "response_rate_limit": Refused;
        8 "delay_percent_runtime": NoEffect(RUNTIME);
        9 "abort_percent_runtime": NoEffect(RUNTIME);
        10 "delay_duration_runtime": NoEffect(RUNTIME);
        11 "abort_http_status_runtime": NoEffect(RUNTIME);
        12 "max_active_faults_runtime": NoEffect(RUNTIME);
        13 "response_rate_limit_percent_runtime": NoEffect(RUNTIME);
        14 "abort_grpc_status_runtime": NoEffect(RUNTIME);
        15 "disable_downstream_cluster_stats": NoEffect(STATISTICS);
        16 "filter_metadata": Refused;
    }

    ABORT = "envoy.extensions.filters.http.fault.v3.FaultAbort" {
        2 "http_status": Read;
        3 "percentage": In(&FRACTION);
        4 "header_abort": Refused;
        5 "grpc_status": Read;
        6 "response_body": Refused;
    }

    DELAY = "envoy.extensions.filters.common.fault.v3.FaultDelay" {
        3 "fixed_delay": Read;
        4 "percentage": In(&FRACTION);
        5 "header_delay": Refused;
    }

    CORS = "envoy.extensions.filters.http.cors.v3.Cors" {}

    CORS_POLICY = "envoy.extensions.filters.http.cors.v3.CorsPolicy" {
        1 "allow_origin_string_match": Each(&STRING);
        2 "allow_methods": Read;
        3 "allow_headers": Read;
        4 "expose_headers": Read;
        5 "max_age": Read;
        6 "allow_credentials": Read;
        7 "filter_enabled": In(&RUNTIME_FRACTION);
        8 "shadow_enabled": NoEffect(SHADOW);
        9 "allow_private_network_access": Read;
        10 "forward_not_matching_preflights": Read;
    }

    SET_FILTER_STATE = "envoy.extensions.filters.http.set_filter_state.v3.Config" {
        1 "on_request_headers": Each(&FILTER_STATE_VALUE);
        2 "clear_route_cache": Refused;
    }

    FILTER_STATE_VALUE = "envoy.extensions.filters.common.set_filter_state.v3.FilterStateValue" {
        1 "object_key": Read;
        2 "format_string": In(&FORMAT);
        3 "read_only": Refused;
        4 "shared_with_upstream": Refused;
        5 "skip_if_empty": NoEffect("no list is no override, whatever this says");
        6 "factory_key": Refused;
    }
}
