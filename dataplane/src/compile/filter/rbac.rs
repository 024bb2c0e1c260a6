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
        Known::{Guard, In, NoEffect, Read},
        access::RULES,
        messages,
        reason::STATISTICS,
    },
};
use crate::runtime::{
    HttpFilter,
    filter::{
        FilterOverride,
        rbac::{Access, Shadow},
    },
};

/// Compiles the filter.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    Ok(access(&unpack(config)?)?.map(|access| HttpFilter::Rbac(Arc::new(access))))
}

/// Compiles what a route sets; no rules switch the filter off.
pub(super) fn per_route(config: &Any) -> Result<FilterOverride, Invalid> {
    let message: RbacPerRoute = unpack(config)?;
    let access = message.rbac.as_ref().map(access).transpose().at("rbac")?.flatten();
    Ok(FilterOverride::Rbac(access.map(Arc::new)))
}

/// Without any rules the filter does nothing, and is left out.
fn access(message: &Wire) -> Result<Option<Access>, Invalid> {
    let enforced = message.rules.as_ref().map(authz::rules).transpose().at("rules")?;
    let shadow = message.shadow_rules.as_ref().map(authz::rules).transpose().at("shadow_rules")?;
    let prefix = &message.shadow_rules_stat_prefix;
    let shadow = shadow.map(|rules| Shadow {
        rules,
        policy_key: format!("{prefix}shadow_effective_policy_id").into(),
        result_key: format!("{prefix}shadow_engine_result").into(),
    });
    let any = enforced.is_some() || shadow.is_some();
    Ok(any.then_some(Access { enforced, shadow }))
}

messages! {
    HTTP_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC" {
        1 "rules": In(&RULES);
        2 "shadow_rules": In(&RULES);
        3 "shadow_rules_stat_prefix": Read;
        4 "matcher": Guard;
        5 "shadow_matcher": Guard;
        6 "rules_stat_prefix": NoEffect(STATISTICS);
        7 "track_per_rule_stats": NoEffect(STATISTICS);
    }

    RBAC_PER_ROUTE = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute" {
        2 "rbac": In(&HTTP_RBAC);
    }
}
