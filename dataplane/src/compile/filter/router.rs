//! The router, which forwards requests.

use envoy_types::pb::{
    envoy::extensions::filters::http::router::v3::Router, google::protobuf::Any,
};

use super::super::field::{Invalid, unpack};
use crate::runtime::HttpFilter;

/// Compiles the filter.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    let message: Router = unpack(config)?;
    let suppress_envoy_headers = message.suppress_envoy_headers;
    Ok(Some(HttpFilter::Router { suppress_envoy_headers }))
}
