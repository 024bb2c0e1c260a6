//! The router, which forwards requests.

use envoy_types::pb::{
    envoy::extensions::filters::http::router::v3::Router, google::protobuf::Any,
};

use super::super::{
    field::{Invalid, unpack},
    known::{
        Known::{Guard, NoEffect, Read, Refused},
        messages,
        reason::{ONE_SPAN, STATISTICS},
    },
};
use crate::runtime::HttpFilter;

/// Compiles the filter.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    let message: Router = unpack(config)?;
    let suppress_envoy_headers = message.suppress_envoy_headers;
    Ok(Some(HttpFilter::Router { suppress_envoy_headers }))
}

messages! {
    ROUTER = "envoy.extensions.filters.http.router.v3.Router" {
        1 "dynamic_stats": NoEffect(STATISTICS);
        2 "start_child_span": NoEffect(ONE_SPAN);
        3 "upstream_log": Refused;
        4 "suppress_envoy_headers": Read;
        5 "strict_check_headers": Guard;
        6 "respect_expected_rq_timeout": Refused;
        7 "suppress_grpc_request_failure_code_stats": NoEffect(STATISTICS);
        8 "upstream_http_filters": Guard;
        9 "upstream_log_options": Refused;
        10 "reject_connect_request_early_data": Refused;
    }
}
