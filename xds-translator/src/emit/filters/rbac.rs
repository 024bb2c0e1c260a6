//! Access rules (RBAC) of requests and of connections.

use std::{collections::BTreeMap, sync::Arc};

use super::{http, network};
use crate::{
    emit::{
        matching::{cidr, header, metadata, string},
        pb::{
            hcm::HttpFilter,
            http_rbac, listener, matcher, network_rbac,
            rbac::{self, permission::Rule, principal::Identifier},
        },
    },
    ir::AccessAction,
    plan::{AccessFilter, AccessPolicyPlan, MetadataMatch, Permission, Principal},
};

/// Policies by name.
type Policies = BTreeMap<Arc<str>, AccessPolicyPlan>;

/// The filter for requests.
pub(super) fn http_filter(plan: &AccessFilter) -> HttpFilter {
    let config = http_rbac::Rbac {
        rules: enforced(plan),
        shadow_rules: shadow(plan),
        shadow_rules_stat_prefix: shadow_prefix(plan.action).to_owned(),
        ..Default::default()
    };
    http("envoy.filters.http.rbac", &config)
}

/// The filter for connections.
pub(in crate::emit) fn network_filter(plan: &AccessFilter) -> listener::Filter {
    let config = network_rbac::Rbac {
        rules: enforced(plan),
        shadow_rules: shadow(plan),
        shadow_rules_stat_prefix: shadow_prefix(plan.action).to_owned(),
        stat_prefix: "tcp.".to_owned(),
        ..Default::default()
    };
    network("envoy.filters.network.rbac", &config)
}

/// Where rules leave their name that only mark.
const MARK_PREFIX: &str = "istio_ext_authz_";
/// The same, whole.
pub(super) const MARK: &str = "istio_ext_authz_shadow_effective_policy_id";

/// What is marked by rules.
#[derive(Clone, Copy)]
pub(super) enum Marked {
    Request,
    Connection,
}

impl Marked {
    /// The filter that leaves the mark.
    pub(super) fn filter(self) -> &'static str {
        match self {
            Self::Request => "envoy.filters.http.rbac",
            Self::Connection => "envoy.filters.network.rbac",
        }
    }
}

/// A filter that marks requests, and refuses none.
pub(super) fn http_marks(policies: &Policies) -> HttpFilter {
    http_filter(&marks(policies))
}

/// A filter that marks connections, and refuses none.
pub(super) fn network_marks(policies: &Policies) -> listener::Filter {
    network_filter(&marks(policies))
}

/// A filter that refuses requests.
pub(super) fn http_refusal(policies: &Policies) -> HttpFilter {
    http_filter(&refusal(policies))
}

/// A filter that refuses connections.
pub(super) fn network_refusal(policies: &Policies) -> listener::Filter {
    network_filter(&refusal(policies))
}

fn marks(policies: &Policies) -> AccessFilter {
    AccessFilter { action: AccessAction::Ask, policies: None, shadow: Some(policies.clone()) }
}

fn refusal(policies: &Policies) -> AccessFilter {
    AccessFilter { action: AccessAction::Deny, policies: Some(policies.clone()), shadow: None }
}

/// Absent rules enforce nothing; present and empty ones with ALLOW refuse everything.
fn enforced(plan: &AccessFilter) -> Option<rbac::Rbac> {
    plan.policies.as_ref().map(|policies| rules(plan.action, policies))
}

fn shadow(plan: &AccessFilter) -> Option<rbac::Rbac> {
    plan.shadow.as_ref().map(|policies| rules(plan.action, policies))
}

/// Written without a dry run too, as Istio does.
fn shadow_prefix(action: AccessAction) -> &'static str {
    match action {
        AccessAction::Allow => "istio_dry_run_allow_",
        AccessAction::Deny => "istio_dry_run_deny_",
        AccessAction::Audit => "",
        AccessAction::Ask => MARK_PREFIX,
    }
}

fn rules(action: AccessAction, policies: &Policies) -> rbac::Rbac {
    let action = match action {
        AccessAction::Allow => rbac::rbac::Action::Allow,
        AccessAction::Deny | AccessAction::Ask => rbac::rbac::Action::Deny,
        AccessAction::Audit => rbac::rbac::Action::Log,
    };
    rbac::Rbac {
        action: action as i32,
        policies: policies.iter().map(|(name, p)| (name.to_string(), policy(p))).collect(),
        ..Default::default()
    }
}

fn policy(plan: &AccessPolicyPlan) -> rbac::Policy {
    rbac::Policy {
        permissions: plan.permissions.iter().map(permission).collect(),
        principals: plan.principals.iter().map(principal).collect(),
        ..Default::default()
    }
}

fn permission(plan: &Permission) -> rbac::Permission {
    let set = |items: &[Permission]| rbac::permission::Set {
        rules: items.iter().map(permission).collect(),
    };
    let rule = match plan {
        Permission::Any => Rule::Any(true),
        Permission::And(items) if items.is_empty() => Rule::Any(true),
        Permission::Or(items) if items.is_empty() => {
            Rule::NotRule(Box::new(permission(&Permission::Any)))
        }
        Permission::And(items) => Rule::AndRules(set(items)),
        Permission::Or(items) => Rule::OrRules(set(items)),
        Permission::Not(item) => Rule::NotRule(Box::new(permission(item))),
        Permission::Header(name, condition, ignore_case) => {
            Rule::Header(header(name, condition, *ignore_case))
        }
        Permission::Path(condition) => {
            let path = matcher::path_matcher::Rule::Path(string(condition, false));
            Rule::UrlPath(matcher::PathMatcher { rule: Some(path) })
        }
        Permission::Port(port) => Rule::DestinationPort((*port).into()),
        Permission::DestinationIp(network) => Rule::DestinationIp(cidr(network)),
        Permission::Sni(condition) => Rule::RequestedServerName(string(condition, false)),
        Permission::Metadata(found) => Rule::SourcedMetadata(found_out(found)),
    };
    rbac::Permission { rule: Some(rule) }
}

/// What filters found out of the request, which is the default among sources.
fn found_out(found: &MetadataMatch) -> rbac::SourcedMetadata {
    rbac::SourcedMetadata { metadata_matcher: Some(metadata(found)), ..Default::default() }
}

fn principal(plan: &Principal) -> rbac::Principal {
    let set =
        |items: &[Principal]| rbac::principal::Set { ids: items.iter().map(principal).collect() };
    let identifier = match plan {
        Principal::Any => Identifier::Any(true),
        Principal::And(items) if items.is_empty() => Identifier::Any(true),
        Principal::Or(items) if items.is_empty() => {
            Identifier::NotId(Box::new(principal(&Principal::Any)))
        }
        Principal::And(items) => Identifier::AndIds(set(items)),
        Principal::Or(items) => Identifier::OrIds(set(items)),
        Principal::Not(item) => Identifier::NotId(Box::new(principal(item))),
        Principal::Authenticated(condition) => {
            Identifier::Authenticated(rbac::principal::Authenticated {
                principal_name: Some(string(condition, false)),
            })
        }
        Principal::DirectIp(network) => Identifier::DirectRemoteIp(cidr(network)),
        Principal::RemoteIp(network) => Identifier::RemoteIp(cidr(network)),
        Principal::Header(name, condition) => Identifier::Header(header(name, condition, false)),
        Principal::Metadata(found) => Identifier::SourcedMetadata(found_out(found)),
    };
    rbac::Principal { identifier: Some(identifier) }
}
