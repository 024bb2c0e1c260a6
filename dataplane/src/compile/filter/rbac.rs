//! Access control over requests.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::extensions::filters::http::rbac::v3::{Rbac as Wire, RbacPerRoute},
    google::protobuf::Any,
};

use super::super::{
    authz,
    field::{At, Invalid, unpack},
    known::{
        Known::{Guard, In, NoEffect},
        access::RULES,
        messages,
        reason::{SHADOW, STATISTICS},
    },
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

messages! {
    HTTP_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC" {
        1 "rules": In(&RULES);
        2 "shadow_rules": NoEffect(SHADOW);
        3 "shadow_rules_stat_prefix": NoEffect(STATISTICS);
        4 "matcher": Guard;
        5 "shadow_matcher": NoEffect(SHADOW);
        6 "rules_stat_prefix": NoEffect(STATISTICS);
        7 "track_per_rule_stats": NoEffect(STATISTICS);
    }

    RBAC_PER_ROUTE = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute" {
        2 "rbac": In(&HTTP_RBAC);
    }
}
