//! Access control over requests.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::extensions::filters::http::rbac::v3::{Rbac as Wire, RbacPerRoute},
    google::protobuf::Any,
};

use super::super::{
    authz,
    field::{At, Invalid, unpack},
};
use crate::runtime::{HttpFilter, Rbac, filter::FilterOverride};

/// Compiles the filter.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    Ok(rbac(&unpack(config)?)?.map(|rbac| HttpFilter::Rbac(Arc::new(rbac))))
}

/// Compiles what a route sets; no rules switch the filter off.
pub(super) fn per_route(config: &Any) -> Result<FilterOverride, Invalid> {
    let message: RbacPerRoute = unpack(config)?;
    let rules = message.rbac.as_ref().map(rbac).transpose().at("rbac")?.flatten();
    Ok(FilterOverride::Rbac(rules.map(Arc::new)))
}

/// Without rules the filter enforces nothing (shadow rules only count), and is left out.
fn rbac(message: &Wire) -> Result<Option<Rbac>, Invalid> {
    message.rules.as_ref().map(authz::rules).transpose().at("rules")
}
