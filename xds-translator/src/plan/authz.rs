//! Access policies as RBAC: one filter per action, audit before deny before allow.
//!
//! Fails closed: what cannot be known (a JWT, an HTTP attribute of a TCP connection) narrows an ALLOW rule to nobody, and
//! is left out of a DENY or AUDIT rule, which so covers more than it says.

use std::{collections::BTreeMap, sync::Arc};

use super::{AccessFilter, AccessPolicyPlan, Permission, Principal, identity, naming};
use crate::{
    ir::{AccessAction, AccessPolicy, AccessRule, CallMatch, CallerMatch, Labels, MeshDefaults, StringMatch, Values},
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

/// `None`: no policy takes the action.
fn access_filter(
    mesh: &MeshDefaults,
    policies: &[Arc<AccessPolicy>],
    layer: Layer,
    action: AccessAction,
) -> Option<AccessFilter> {
    let mut filter = AccessFilter { action, policies: None, shadow: None };
    let mut found = false;
    for policy in policies.iter().filter(|p| p.action == action) {
        found = true;
        let compiler = Rules { mesh, layer, action };
        let target = if policy.dry_run { &mut filter.shadow } else { &mut filter.policies };
        target.get_or_insert_default().extend(compiler.compile(policy));
    }
    found.then_some(filter)
}

struct Rules<'a> {
    mesh: &'a MeshDefaults,
    layer: Layer,
    action: AccessAction,
}

impl Rules<'_> {
    /// By name, which tells the place of the rule in its object.
    fn compile(&self, policy: &AccessPolicy) -> BTreeMap<Arc<str>, AccessPolicyPlan> {
        let id = &policy.origin.id;
        let name = |index: usize| format!("{}{index}]", naming::access_policy(id)).into();
        if policy.rules.is_empty() && self.action == AccessAction::Allow {
            // Written out, so that whoever looks at the filter finds the policy that refuses everything.
            return BTreeMap::from([(name(0), never())]);
        }
        let compiled = policy.rules.iter().enumerate().filter_map(|(i, rule)| Some((name(i), self.rule(rule)?)));
        compiled.collect()
    }

    /// `None`: an ALLOW rule that cannot hold on this layer. It grants nothing by being left out; the filter is there all
    /// the same and refuses what no other rule allows. Rules of other actions are never left out.
    fn rule(&self, rule: &AccessRule) -> Option<AccessPolicyPlan> {
        if self.action == AccessAction::Allow {
            if self.layer == Layer::Tcp && rule.needs_http() {
                return None;
            }
            if rule.needs_unserved() {
                return Some(never());
            }
        }
        let asked = self.permissions(&rule.when_to);
        let asking = self.principals(&rule.when_from);
        let permissions: Vec<Permission> = if rule.to.is_empty() {
            vec![all_of(Vec::new(), &asked)]
        } else {
            rule.to.iter().map(|operation| all_of(self.permissions(operation), &asked)).collect()
        };
        let principals: Vec<Principal> = if rule.from.is_empty() {
            vec![all_who(Vec::new(), &asking)]
        } else {
            rule.from.iter().map(|source| all_who(self.principals(source), &asking)).collect()
        };
        Some(AccessPolicyPlan { permissions, principals })
    }

    fn permissions(&self, conditions: &[CallMatch]) -> Vec<Permission> {
        let mut all = Vec::new();
        for condition in conditions {
            match condition {
                CallMatch::Host(_) | CallMatch::Method(_) | CallMatch::Path(_) if self.layer == Layer::Tcp => {}
                CallMatch::Host(hosts) => {
                    permit(&mut all, hosts, |m| Permission::Header(":authority".into(), m.clone(), true));
                }
                CallMatch::Method(methods) => {
                    permit(&mut all, methods, |m| Permission::Header(":method".into(), m.clone(), false));
                }
                CallMatch::Path(paths) => permit(&mut all, paths, |m| Permission::Path(m.clone())),
                CallMatch::Port(ports) => permit(&mut all, ports, |port| Permission::Port(*port)),
                CallMatch::Ip(networks) => permit(&mut all, networks, |net| Permission::DestinationIp(*net)),
                CallMatch::Sni(names) => permit(&mut all, names, |m| Permission::Sni(m.clone())),
            }
        }
        all
    }

    fn principals(&self, conditions: &[CallerMatch]) -> Vec<Principal> {
        let mesh = self.mesh;
        let mut all = Vec::new();
        for condition in conditions {
            match condition {
                CallerMatch::Unserved(_) => {}
                CallerMatch::Header(..) if self.layer == Layer::Tcp => {}
                CallerMatch::Header(name, values) => {
                    admit(&mut all, values, |m| vec![Principal::Header(name.clone(), m.clone())]);
                }
                CallerMatch::Principal(ids) => admit(&mut all, ids, |m| peers(identity::principal(mesh, m))),
                CallerMatch::TrustDomain(names) => {
                    admit(&mut all, names, |m| peers(identity::trust_domain(mesh, m)));
                }
                CallerMatch::Namespace(names) => admit(&mut all, names, |m| peers([identity::namespace(m)])),
                CallerMatch::Account(accounts) => admit(&mut all, accounts, |a| peers([identity::account(a)])),
                CallerMatch::DirectIp(networks) => {
                    admit(&mut all, networks, |net| vec![Principal::DirectIp(*net)]);
                }
                CallerMatch::RemoteIp(networks) => {
                    admit(&mut all, networks, |net| vec![Principal::RemoteIp(*net)]);
                }
            }
        }
        all
    }
}

/// A policy that matches nothing.
fn never() -> AccessPolicyPlan {
    AccessPolicyPlan {
        permissions: vec![Permission::Not(Box::new(Permission::Any))],
        principals: vec![Principal::Not(Box::new(Principal::Any))],
    }
}

fn peers(ids: impl IntoIterator<Item = StringMatch>) -> Vec<Principal> {
    ids.into_iter().map(Principal::Authenticated).collect()
}

/// Adds "one of the wanted" and "none of the refused" where they are given.
fn permit<T>(all: &mut Vec<Permission>, values: &Values<T>, one: impl Fn(&T) -> Permission) {
    if !values.wanted.is_empty() {
        all.push(Permission::Or(values.wanted.iter().map(&one).collect()));
    }
    if !values.refused.is_empty() {
        all.push(Permission::Not(Box::new(Permission::Or(values.refused.iter().map(&one).collect()))));
    }
}

/// As [`permit`], for callers, where one value may have several spellings.
fn admit<T>(all: &mut Vec<Principal>, values: &Values<T>, spellings: impl Fn(&T) -> Vec<Principal>) {
    if !values.wanted.is_empty() {
        all.push(Principal::Or(values.wanted.iter().flat_map(&spellings).collect()));
    }
    if !values.refused.is_empty() {
        all.push(Principal::Not(Box::new(Principal::Or(values.refused.iter().flat_map(&spellings).collect()))));
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

#[cfg(test)]
mod tests;
