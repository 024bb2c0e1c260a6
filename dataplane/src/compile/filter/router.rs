//! The router, which forwards requests.

use envoy_types::pb::{
    envoy::extensions::filters::http::router::v3::Router, google::protobuf::Any,
};

use super::super::field::{Invalid, refuse, unpack};
use crate::runtime::HttpFilter;

/// Compiles the filter.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    let message: Router = unpack(config)?;
    refuse(&[
        ("upstream_http_filters", !message.upstream_http_filters.is_empty()),
        ("strict_check_headers", !message.strict_check_headers.is_empty()),
    ])?;
    let suppress_envoy_headers = message.suppress_envoy_headers;
    Ok(Some(HttpFilter::Router { suppress_envoy_headers }))
}
