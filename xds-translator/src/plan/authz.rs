//! Access policies as RBAC: one filter per action, audit before deny before allow.
//!
//! Fails closed: what cannot be known (a JWT, an HTTP attribute of a TCP connection) never helps an ALLOW rule.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;

use super::{AccessFilter, AccessPolicyPlan, Permission, Principal, naming};
use crate::{
    ir::{
        AccessAction, AccessPolicy, AccessRule, Condition, ConditionKey, Labels, MeshDefaults, Operation, PathMatch,
        Source, StringMatch,
    },
    snapshot::Reader,
};

/// What a chain carries, and so which attributes it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layer {
    /// Requests.
    Http,
    /// Connections.
    Tcp,
}

/// The access rules of a workload, for both kinds of chains.
pub(crate) struct Access {
    pub(crate) http: Vec<AccessFilter>,
    pub(crate) tcp: Vec<AccessFilter>,
}

impl Access {
    pub(crate) fn of(reader: &Reader<'_>, namespace: &str, labels: &Labels) -> Self {
        let policies = reader.access_policies(namespace, labels);
        let mesh = reader.mesh();
        Self { http: access_filters(mesh, &policies, Layer::Http), tcp: access_filters(mesh, &policies, Layer::Tcp) }
    }
}

/// One filter per action that some policy takes, in evaluation order.
pub(crate) fn access_filters(mesh: &MeshDefaults, policies: &[Arc<AccessPolicy>], layer: Layer) -> Vec<AccessFilter> {
    let actions = [AccessAction::Audit, AccessAction::Deny, AccessAction::Allow];
    actions.into_iter().filter_map(|action| access_filter(mesh, policies, layer, action)).collect()
}

fn access_filter(
    mesh: &MeshDefaults,
    policies: &[Arc<AccessPolicy>],
    layer: Layer,
    action: AccessAction,
) -> Option<AccessFilter> {
    let mut filter = AccessFilter { action: action.clone(), policies: None, shadow: BTreeMap::new() };
    let mut found = false;
    for policy in policies.iter().filter(|p| p.action == action) {
        found = true;
        let compiler = Rules { mesh, layer, action: &action };
        let target = if policy.dry_run { &mut filter.shadow } else { filter.policies.get_or_insert_default() };
        target.extend(compiler.compile(policy));
    }
    found.then_some(filter)
}

struct Rules<'a> {
    mesh: &'a MeshDefaults,
    layer: Layer,
    action: &'a AccessAction,
}

impl Rules<'_> {
    fn compile(&self, policy: &AccessPolicy) -> BTreeMap<Arc<str>, AccessPolicyPlan> {
        let id = &policy.origin.id;
        let name = |index: usize| format!("{}{index}]", naming::access_policy(id)).into();
        if policy.rules.is_empty() && *self.action == AccessAction::Allow {
            // Written out, so that whoever looks at the filter finds the policy that refuses everything.
            return BTreeMap::from([(name(0), never())]);
        }
        let compiled = policy.rules.iter().enumerate().filter_map(|(i, rule)| Some((name(i), self.rule(rule)?)));
        compiled.collect()
    }

    /// `None`: the rule cannot hold on this layer and grants nothing.
    fn rule(&self, rule: &AccessRule) -> Option<AccessPolicyPlan> {
        if *self.action == AccessAction::Allow {
            if self.layer == Layer::Tcp && needs_http(rule) {
                return None;
            }
            if needs_token(rule) {
                return Some(never());
            }
        }
        let mut asked = Vec::new();
        let mut asking = Vec::new();
        for condition in &rule.when {
            self.condition(condition, &mut asked, &mut asking);
        }
        let permissions: Vec<Permission> = if rule.to.is_empty() {
            vec![all_of(Vec::new(), &asked)]
        } else {
            rule.to.iter().map(|operation| all_of(self.operation(operation), &asked)).collect()
        };
        let principals: Vec<Principal> = if rule.from.is_empty() {
            vec![all_who(Vec::new(), &asking)]
        } else {
            rule.from.iter().map(|source| all_who(self.source(source), &asking)).collect()
        };
        Some(AccessPolicyPlan { permissions, principals })
    }

    // ----------------------------------------------------------------------------------------------------- operations

    fn operation(&self, operation: &Operation) -> Vec<Permission> {
        let mut all = Vec::new();
        if self.layer == Layer::Http {
            let host = |m: &StringMatch| Permission::Header(":authority".into(), m.clone(), true);
            permit(&mut all, &operation.hosts, &operation.not_hosts, host);
        }
        permit(&mut all, &operation.ports, &operation.not_ports, |port| Permission::Port(*port));
        if self.layer == Layer::Http {
            let method = |m: &StringMatch| Permission::Header(":method".into(), m.clone(), false);
            permit(&mut all, &operation.methods, &operation.not_methods, method);
            let path = |m: &PathMatch| Permission::Path(m.clone());
            permit(&mut all, &operation.paths, &operation.not_paths, path);
        }
        all
    }

    // -------------------------------------------------------------------------------------------------------- sources

    fn source(&self, source: &Source) -> Vec<Principal> {
        let mut all = Vec::new();
        let principals =
            |list: &[StringMatch]| -> Vec<StringMatch> { list.iter().flat_map(|m| spiffe_ids(self.mesh, m)).collect() };
        let authenticated = |m: &StringMatch| Principal::Authenticated(m.clone());
        admit(&mut all, &principals(&source.principals), &principals(&source.not_principals), authenticated);
        if self.layer == Layer::Http {
            // Nothing verifies tokens yet, so no request has a principal.
            admit(&mut all, &source.request_principals, &source.not_request_principals, |_| nobody());
        }
        admit(&mut all, &source.namespaces, &source.not_namespaces, namespace_of);
        admit(&mut all, &source.service_accounts, &source.not_service_accounts, |(ns, name)| account(ns, name));
        admit(&mut all, &source.ip_blocks, &source.not_ip_blocks, |net| Principal::DirectIp(*net));
        admit(&mut all, &source.remote_ip_blocks, &source.not_remote_ip_blocks, |net| Principal::RemoteIp(*net));
        all
    }

    // ----------------------------------------------------------------------------------------------------- conditions

    fn condition(&self, condition: &Condition, asked: &mut Vec<Permission>, asking: &mut Vec<Principal>) {
        let (values, not) = (&condition.values, &condition.not_values);
        match &condition.key {
            ConditionKey::Header(name) => {
                if self.layer == Layer::Http {
                    admit(asking, values, not, |m| Principal::Header(name.clone(), m.clone()));
                }
            }
            ConditionKey::Unavailable(_) => {
                if self.layer == Layer::Http {
                    admit(asking, values, not, |_| nobody());
                }
            }
            ConditionKey::SourceIp => {
                admit(asking, values, not, |m| network(m).map_or_else(nobody, Principal::DirectIp))
            }
            ConditionKey::RemoteIp => {
                admit(asking, values, not, |m| network(m).map_or_else(nobody, Principal::RemoteIp))
            }
            ConditionKey::SourceNamespace => admit(asking, values, not, namespace_of),
            ConditionKey::SourcePrincipal => {
                let ids = |list: &[StringMatch]| -> Vec<StringMatch> {
                    list.iter().flat_map(|m| spiffe_ids(self.mesh, m)).collect()
                };
                admit(asking, &ids(values), &ids(not), |m| Principal::Authenticated(m.clone()));
            }
            ConditionKey::DestinationIp => {
                permit(asked, values, not, |m| network(m).map_or_else(nothing, Permission::DestinationIp));
            }
            ConditionKey::DestinationPort => {
                permit(asked, values, not, |m| port(m).map_or_else(nothing, Permission::Port))
            }
            ConditionKey::Sni => permit(asked, values, not, |m| Permission::Sni(m.clone())),
        }
    }
}

/// Whether the rule looks at something that only requests have.
fn needs_http(rule: &AccessRule) -> bool {
    let operation = |o: &Operation| {
        let texts = [&o.hosts, &o.not_hosts, &o.methods, &o.not_methods];
        texts.into_iter().any(|list| !list.is_empty()) || !o.paths.is_empty() || !o.not_paths.is_empty()
    };
    let source = |s: &Source| !s.request_principals.is_empty() || !s.not_request_principals.is_empty();
    let key = |c: &Condition| matches!(c.key, ConditionKey::Header(_) | ConditionKey::Unavailable(_));
    rule.to.iter().any(operation) || rule.from.iter().any(source) || rule.when.iter().any(key)
}

/// Whether the rule looks at a verified token. Nothing verifies tokens yet, so it must not allow anything, not even by
/// a negative condition, which a request without a token would meet.
fn needs_token(rule: &AccessRule) -> bool {
    let source = |s: &Source| !s.request_principals.is_empty() || !s.not_request_principals.is_empty();
    rule.from.iter().any(source) || rule.when.iter().any(|c| matches!(c.key, ConditionKey::Unavailable(_)))
}

/// A policy that matches nothing.
fn never() -> AccessPolicyPlan {
    AccessPolicyPlan { permissions: vec![nothing()], principals: vec![nobody()] }
}

fn nothing() -> Permission {
    Permission::Not(Box::new(Permission::Any))
}

fn nobody() -> Principal {
    Principal::Not(Box::new(Principal::Any))
}

/// Adds "one of `wanted`" and "none of `refused`" where they are given.
fn permit<T>(all: &mut Vec<Permission>, wanted: &[T], refused: &[T], one: impl Fn(&T) -> Permission) {
    if !wanted.is_empty() {
        all.push(Permission::Or(wanted.iter().map(&one).collect()));
    }
    if !refused.is_empty() {
        all.push(Permission::Not(Box::new(Permission::Or(refused.iter().map(&one).collect()))));
    }
}

/// As [`permit`], for callers.
fn admit<T>(all: &mut Vec<Principal>, wanted: &[T], refused: &[T], one: impl Fn(&T) -> Principal) {
    if !wanted.is_empty() {
        all.push(Principal::Or(wanted.iter().map(&one).collect()));
    }
    if !refused.is_empty() {
        all.push(Principal::Not(Box::new(Principal::Or(refused.iter().map(&one).collect()))));
    }
}

fn all_of(mut all: Vec<Permission>, more: &[Permission]) -> Permission {
    all.extend_from_slice(more);
    if all.is_empty() {
        all.push(Permission::Any);
    }
    Permission::And(all)
}

fn all_who(mut all: Vec<Principal>, more: &[Principal]) -> Principal {
    all.extend_from_slice(more);
    if all.is_empty() {
        all.push(Principal::Any);
    }
    Principal::And(all)
}

/// A principal as written, as SPIFFE ids: the mesh's trust domain also under its former names, and `cluster.local` as
/// the mesh's own, whatever that is called.
fn spiffe_ids(mesh: &MeshDefaults, principal: &StringMatch) -> Vec<StringMatch> {
    let spell = |text: &str, make: fn(Arc<str>) -> StringMatch| -> Vec<StringMatch> {
        domains_of(mesh, text).into_iter().map(|id| make(format!("spiffe://{id}").into())).collect()
    };
    match principal {
        StringMatch::Exact(text) => spell(text, StringMatch::Exact),
        StringMatch::Prefix(text) => spell(text, StringMatch::Prefix),
        StringMatch::Suffix(_) | StringMatch::Present => vec![principal.clone()],
        StringMatch::Regex(regex) => vec![StringMatch::Regex(format!("spiffe://{regex}").into())],
    }
}

fn domains_of(mesh: &MeshDefaults, id: &str) -> Vec<String> {
    let own = mesh.trust_domain.as_str();
    let Some((domain, path)) = id.split_once('/') else { return vec![id.to_owned()] };
    let known = domain == own || domain == "cluster.local" || mesh.trust_domain_aliases.iter().any(|a| **a == *domain);
    if !known {
        return vec![id.to_owned()];
    }
    let all = std::iter::once(own).chain(mesh.trust_domain_aliases.iter().map(AsRef::as_ref));
    all.map(|domain| format!("{domain}/{path}")).collect()
}

fn namespace_of(namespace: &StringMatch) -> Principal {
    let pattern = match namespace {
        StringMatch::Exact(text) => regex::escape(text),
        StringMatch::Prefix(text) => format!("{}[^/]*", regex::escape(text)),
        StringMatch::Suffix(text) => format!("[^/]*{}", regex::escape(text)),
        StringMatch::Present => "[^/]+".to_owned(),
        StringMatch::Regex(regex) => regex.to_string(),
    };
    Principal::Authenticated(StringMatch::Regex(format!("spiffe://[^/]+/ns/{pattern}/.*").into()))
}

fn account(namespace: &str, name: &str) -> Principal {
    let (namespace, name) = (regex::escape(namespace), regex::escape(name));
    Principal::Authenticated(StringMatch::Regex(format!("spiffe://[^/]+/ns/{namespace}/sa/{name}").into()))
}

/// A network or a single address. Lowering has checked the text; what is none matches nothing.
fn network(value: &StringMatch) -> Option<IpNet> {
    let StringMatch::Exact(text) = value else { return None };
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

fn port(value: &StringMatch) -> Option<u16> {
    match value {
        StringMatch::Exact(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::access;

    fn exact(text: &str) -> StringMatch {
        StringMatch::Exact(text.into())
    }

    fn from(source: Source) -> AccessRule {
        AccessRule { from: vec![source], ..AccessRule::default() }
    }

    fn to(operation: Operation) -> AccessRule {
        AccessRule { to: vec![operation], ..AccessRule::default() }
    }

    fn get() -> Operation {
        Operation { methods: vec![exact("GET")], ..Operation::default() }
    }

    fn filters(policies: &[Arc<AccessPolicy>], layer: Layer) -> Vec<AccessFilter> {
        access_filters(&MeshDefaults::default(), policies, layer)
    }

    /// The names of enforced policies, by action.
    fn enforced(policies: &[Arc<AccessPolicy>], layer: Layer) -> Vec<(AccessAction, Option<Vec<String>>)> {
        let names = |f: AccessFilter| f.policies.map(|p| p.into_keys().map(|name| name.to_string()).collect());
        filters(policies, layer).into_iter().map(|f| (f.action.clone(), names(f))).collect()
    }

    #[test]
    fn audit_comes_before_deny_before_allow() {
        let all = [AccessAction::Allow, AccessAction::Deny, AccessAction::Audit];
        let policies: Vec<_> = all.map(|action| access("p", action, vec![AccessRule::default()])).into();
        let order: Vec<AccessAction> = filters(&policies, Layer::Http).into_iter().map(|f| f.action).collect();
        assert_eq!(order, [AccessAction::Audit, AccessAction::Deny, AccessAction::Allow]);
    }

    #[test]
    fn an_allow_policy_without_rules_is_written_out_as_one_that_never_matches() {
        let filter = filters(&[access("none", AccessAction::Allow, vec![])], Layer::Http).remove(0);
        let policies = filter.policies.unwrap();
        assert_eq!(policies.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), ["ns[shop]-policy[none]-rule[0]"]);
        assert_eq!(policies.values().next(), Some(&never()));
    }

    #[test]
    fn a_rule_without_conditions_matches_everything() {
        let filter = filters(&[access("all", AccessAction::Deny, vec![AccessRule::default()])], Layer::Http).remove(0);
        let policy = filter.policies.unwrap().into_values().next().unwrap();
        assert_eq!(policy.permissions, [Permission::And(vec![Permission::Any])]);
        assert_eq!(policy.principals, [Principal::And(vec![Principal::Any])]);
    }

    #[test]
    fn http_attributes_remove_an_allow_rule_from_connections_but_only_widen_a_deny_rule() {
        let operation = Operation { ports: vec![80], ..get() };
        let allow = access("allow", AccessAction::Allow, vec![to(operation.clone())]);
        let deny = access("deny", AccessAction::Deny, vec![to(operation)]);
        let enforced = enforced(&[allow, deny.clone()], Layer::Tcp);
        let denied = Some(vec!["ns[shop]-policy[deny]-rule[0]".to_owned()]);
        assert_eq!(enforced, [(AccessAction::Deny, denied), (AccessAction::Allow, Some(vec![]))]);
        let policy = filters(&[deny], Layer::Tcp).remove(0).policies.unwrap().into_values().next().unwrap();
        assert_eq!(policy.permissions, [Permission::And(vec![Permission::Or(vec![Permission::Port(80)])])]);
    }

    #[test]
    fn a_token_that_nothing_verifies_never_allows_and_its_absence_still_denies() {
        let anyone = Source { not_request_principals: vec![StringMatch::Present], ..Source::default() };
        let claim = AccessRule {
            when: vec![Condition {
                key: ConditionKey::Unavailable("request.auth.claims[group]".into()),
                values: Vec::new(),
                not_values: vec![exact("admins")],
            }],
            ..AccessRule::default()
        };
        for rule in [from(anyone.clone()), claim] {
            let allow = filters(&[access("a", AccessAction::Allow, vec![rule])], Layer::Http).remove(0);
            assert_eq!(allow.policies.unwrap().into_values().next(), Some(never()));
        }
        let deny = filters(&[access("d", AccessAction::Deny, vec![from(anyone)])], Layer::Http).remove(0);
        let policy = deny.policies.unwrap().into_values().next().unwrap();
        let without = Principal::Not(Box::new(Principal::Or(vec![nobody()])));
        assert_eq!(policy.principals, [Principal::And(vec![without])]);
    }

    #[test]
    fn a_dry_run_enforces_nothing() {
        let mut policy = (*access("p", AccessAction::Allow, vec![AccessRule::default()])).clone();
        policy.dry_run = true;
        let filter = filters(&[Arc::new(policy)], Layer::Http).remove(0);
        assert_eq!((filter.policies, filter.shadow.len()), (None, 1));
    }

    #[test]
    fn principals_hold_under_every_name_of_the_trust_domain() {
        let mesh = MeshDefaults {
            trust_domain: ferromesh_proto::TrustDomain::new("new.example").unwrap(),
            trust_domain_aliases: vec!["old.example".into()],
            ..MeshDefaults::default()
        };
        let both = |path: &str| vec![format!("spiffe://new.example/{path}"), format!("spiffe://old.example/{path}")];
        let table = [
            ("new.example/ns/a/sa/b", both("ns/a/sa/b")),
            ("old.example/ns/a/sa/b", both("ns/a/sa/b")),
            ("cluster.local/ns/a/sa/b", both("ns/a/sa/b")),
            ("other.example/ns/a/sa/b", vec!["spiffe://other.example/ns/a/sa/b".to_owned()]),
        ];
        for (principal, expected) in table {
            let expected: Vec<StringMatch> = expected.iter().map(|id| exact(id)).collect();
            assert_eq!(spiffe_ids(&mesh, &exact(principal)), expected, "{principal}");
        }
    }

    #[test]
    fn namespaces_match_whole_segments_only() {
        let table = [
            (exact("shop"), "spiffe://[^/]+/ns/shop/.*"),
            (StringMatch::Prefix("shop.".into()), r"spiffe://[^/]+/ns/shop\.[^/]*/.*"),
            (StringMatch::Suffix("op".into()), "spiffe://[^/]+/ns/[^/]*op/.*"),
            (StringMatch::Present, "spiffe://[^/]+/ns/[^/]+/.*"),
        ];
        for (namespace, expected) in table {
            assert_eq!(namespace_of(&namespace), Principal::Authenticated(StringMatch::Regex(expected.into())));
        }
    }
}
