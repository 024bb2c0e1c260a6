//! Access policies as RBAC: one filter per action, audit before deny before allow.
//!
//! Fails closed: what cannot be known (an attribute of HTTP, of a TCP connection) narrows an ALLOW
//! rule to nobody, and is left out of a DENY or AUDIT rule, which so covers more than it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    AccessFilter, AccessPolicyPlan, AskFilter, Asked, MetadataMatch, MetadataSource, Permission,
    Principal, TextPlace, TokenFilter, authorizer::authorizer, identity, naming,
};
use crate::{
    ir::{
        AccessAction, AccessPolicy, AccessRule, CallMatch, CallerMatch, Labels, MeshDefaults,
        MetadataText, PolicyTarget, RequestPrincipal, StringMatch, Unmatched, Values, WorkloadSet,
    },
    snapshot::{Addresses, Reader},
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
    pub(crate) ask_http: Option<AskFilter>,
    pub(crate) ask_tcp: Option<AskFilter>,
    pub(crate) tokens: Option<TokenFilter>,
    pub(crate) http: Vec<AccessFilter>,
    pub(crate) tcp: Vec<AccessFilter>,
}

impl Access {
    pub(crate) fn of(reader: &Reader<'_>, namespace: &str, labels: &Labels) -> Self {
        let policies = reader.access_policies(namespace, labels);
        let sets = policies.iter().flat_map(|policy| policy.calling_workloads());
        let callers = sets.map(|set| (set.clone(), reader.addresses(set))).collect();
        let facts = Facts { mesh: reader.mesh(), callers: &callers };
        Self {
            ask_http: ask_filter(reader, facts, &policies, Layer::Http),
            ask_tcp: ask_filter(reader, facts, &policies, Layer::Tcp),
            tokens: TokenFilter::of(reader, namespace, labels),
            http: access_filters(facts, &policies, Layer::Http),
            tcp: access_filters(facts, &policies, Layer::Tcp),
        }
    }
}

/// What rules are compiled with.
#[derive(Clone, Copy)]
struct Facts<'a> {
    mesh: &'a MeshDefaults,
    /// The addresses of every set of workloads that a rule names.
    callers: &'a BTreeMap<WorkloadSet, Addresses>,
}

/// One filter per action that some policy takes, in evaluation order.
fn access_filters(
    facts: Facts<'_>,
    policies: &[Arc<AccessPolicy>],
    layer: Layer,
) -> Vec<AccessFilter> {
    let compiler = |action| Rules { facts, layer, action };
    let audit = compiler(AccessAction::Audit).matched(policies);
    let deny = compiler(AccessAction::Deny).matched(policies);
    let allow = compiler(AccessAction::Allow).allowed(policies);
    [audit, deny, allow].into_iter().flatten().collect()
}

/// What is asked about. Of several authorizers nobody can tell which is to decide, as in Istio:
/// then what any of them would be asked about is refused.
fn ask_filter(
    reader: &Reader<'_>,
    facts: Facts<'_>,
    policies: &[Arc<AccessPolicy>],
    layer: Layer,
) -> Option<AskFilter> {
    let compiler = Rules { facts, layer, action: AccessAction::Ask };
    let asking = policies.iter().filter(|p| p.action == AccessAction::Ask && !p.dry_run);
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let mut plans = Plans::new();
    for policy in asking {
        let name = policy.authorizer.as_deref().unwrap_or_default();
        let prefix = naming::asking(name);
        let rules = compiler.compile(policy).into_iter();
        plans.extend(rules.map(|(rule, plan)| (format!("{prefix}{rule}").into(), plan)));
        names.insert(name);
    }
    let only = names.first().filter(|_| names.len() == 1);
    let found = only.and_then(|name| Some((name, authorizer(reader, name).ok()?)));
    let asked = found.map(|(name, (authorizer, cluster))| Asked {
        prefix: naming::asking(name).into(),
        cluster,
        authorizer: authorizer.clone(),
    });
    (!plans.is_empty()).then_some(AskFilter { policies: plans, asked })
}

/// Policies by name.
type Plans = BTreeMap<Arc<str>, AccessPolicyPlan>;

struct Rules<'a> {
    facts: Facts<'a>,
    layer: Layer,
    action: AccessAction,
}

impl Rules<'_> {
    /// The filter that does something with what matches; `None`: no policy takes the action.
    fn matched(&self, policies: &[Arc<AccessPolicy>]) -> Option<AccessFilter> {
        let of = |dry_run: bool| {
            let own = policies.iter().filter(|p| p.action == self.action && p.dry_run == dry_run);
            own.map(|policy| self.compile(policy)).reduce(joined)
        };
        let filter = AccessFilter { action: self.action, policies: of(false), shadow: of(true) };
        (filter.policies.is_some() || filter.shadow.is_some()).then_some(filter)
    }

    /// The filter that refuses what nothing allows; `None`: no policy refuses what its rules do not
    /// match.
    fn allowed(&self, policies: &[Arc<AccessPolicy>]) -> Option<AccessFilter> {
        let of = |dry_run: bool| {
            let own = || policies.iter().filter(|p| p.dry_run == dry_run);
            let refusing = || own().filter(|p| p.unmatched == Unmatched::Refuse);
            let counts = |p: &&Arc<AccessPolicy>| {
                p.action == self.action || p.unmatched == Unmatched::Refuse
            };
            let plans = own().filter(counts).map(|policy| self.compile(policy)).reduce(joined)?;
            let guarded = refusing().next()?;
            Some(match unguarded(refusing()) {
                Some(there) => joined(plans, elsewhere(guarded, there)),
                None => plans,
            })
        };
        let filter = AccessFilter { action: self.action, policies: of(false), shadow: of(true) };
        (filter.policies.is_some() || filter.shadow.is_some()).then_some(filter)
    }

    /// By name, which tells the place of the rule in its object.
    fn compile(&self, policy: &AccessPolicy) -> Plans {
        let name = |index: usize| rule_name(policy, &index.to_string());
        let rules: &[AccessRule] =
            if policy.action == self.action { &policy.rules } else { Default::default() };
        if rules.is_empty() && self.action == AccessAction::Allow {
            // Written out, so that whoever looks at the filter finds the policy that refuses
            // everything.
            return BTreeMap::from([(name(0), never())]);
        }
        let compiled = rules.iter().enumerate().filter_map(|(i, rule)| {
            let plan = self.rule(rule)?;
            Some((name(i), at_target(&policy.target, plan)))
        });
        compiled.collect()
    }

    /// `None`: an ALLOW rule that cannot hold on this layer. It grants nothing by being left out;
    /// the filter is there all the same and refuses what no other rule allows. Rules of other
    /// actions are never left out.
    fn rule(&self, rule: &AccessRule) -> Option<AccessPolicyPlan> {
        if self.action == AccessAction::Allow && self.layer == Layer::Tcp && rule.needs_http() {
            return None;
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
                CallMatch::Host(_) | CallMatch::Method(_) | CallMatch::Path(_)
                    if self.layer == Layer::Tcp => {}
                CallMatch::Host(hosts) => {
                    permit(&mut all, hosts, |m| {
                        Permission::Header(":authority".into(), m.clone(), true)
                    });
                }
                CallMatch::Method(methods) => {
                    permit(&mut all, methods, |m| {
                        Permission::Header(":method".into(), m.clone(), false)
                    });
                }
                CallMatch::Path(paths) => permit(&mut all, paths, |m| Permission::Path(m.clone())),
                CallMatch::Port(ports) => permit(&mut all, ports, |port| Permission::Port(*port)),
                CallMatch::Ip(networks) => {
                    permit(&mut all, networks, |net| Permission::DestinationIp(*net))
                }
                CallMatch::Sni(names) => permit(&mut all, names, |m| Permission::Sni(m.clone())),
                CallMatch::Metadata(filter, key, texts) => {
                    permit(&mut all, texts, |text| {
                        Permission::Metadata(found_by(filter, key, text))
                    });
                }
            }
        }
        all
    }

    fn principals(&self, conditions: &[CallerMatch]) -> Vec<Principal> {
        let mesh = self.facts.mesh;
        let mut all = Vec::new();
        for condition in conditions {
            match condition {
                CallerMatch::Header(..)
                | CallerMatch::RequestPrincipal(_)
                | CallerMatch::Claim(..)
                    if self.layer == Layer::Tcp => {}
                // Authorizers are asked before tokens are checked.
                CallerMatch::RequestPrincipal(_) | CallerMatch::Claim(..)
                    if self.action == AccessAction::Ask => {}
                CallerMatch::RequestPrincipal(ids) => {
                    admit(&mut all, ids, |id| vec![request_principal(id)]);
                }
                CallerMatch::Claim(path, values) => {
                    admit(&mut all, values, |m| {
                        vec![Principal::Metadata(MetadataMatch::any_claim(path, m))]
                    });
                }
                CallerMatch::Header(name, values) => {
                    admit(&mut all, values, |m| vec![Principal::Header(name.clone(), m.clone())]);
                }
                CallerMatch::Principal(ids) => {
                    admit(&mut all, ids, |m| peers(identity::principal(mesh, m)))
                }
                CallerMatch::TrustDomain(names) => {
                    admit(&mut all, names, |m| peers(identity::trust_domain(mesh, m)));
                }
                CallerMatch::Namespace(names) => {
                    admit(&mut all, names, |m| peers([identity::namespace(m)]))
                }
                CallerMatch::Account(accounts) => {
                    admit(&mut all, accounts, |a| peers([identity::account(a)]))
                }
                CallerMatch::DirectIp(networks) => {
                    admit(&mut all, networks, |net| vec![Principal::DirectIp(*net)]);
                }
                CallerMatch::RemoteIp(networks) => {
                    admit(&mut all, networks, |net| vec![Principal::RemoteIp(*net)]);
                }
                CallerMatch::Workload(sets) => self.workloads(&mut all, sets),
            }
        }
        all
    }

    /// An address that others have too is somebody's only where that lets fewer in.
    fn workloads(&self, all: &mut Vec<Principal>, sets: &Values<WorkloadSet>) {
        let narrows = self.action == AccessAction::Allow;
        let at = |set: &WorkloadSet, shared: bool| {
            let addresses = self.facts.callers.get(set).into_iter();
            let addresses = addresses.flat_map(move |addresses| {
                let shared = addresses.shared.iter().filter(move |_| shared);
                addresses.own.iter().chain(shared)
            });
            addresses.map(|ip| Principal::DirectIp(IpNet::from(*ip))).collect()
        };
        let part = |wanted: &[WorkloadSet], refused: &[WorkloadSet]| Values {
            wanted: wanted.to_vec(),
            refused: refused.to_vec(),
        };
        admit(all, &part(&sets.wanted, &[]), |set| at(set, !narrows));
        admit(all, &part(&[], &sets.refused), |set| at(set, narrows));
    }
}

fn request_principal(id: &RequestPrincipal) -> Principal {
    let claim = |name, condition| Principal::Metadata(MetadataMatch::claim(name, condition));
    Principal::And(vec![claim("iss", &id.issuer), claim("sub", &id.subject)])
}

fn found_by(filter: &Arc<str>, key: &Arc<str>, text: &MetadataText) -> MetadataMatch {
    MetadataMatch {
        source: MetadataSource::Filter(filter.clone()),
        path: vec![key.clone()],
        condition: text.condition.clone(),
        place: if text.in_list { TextPlace::Element } else { TextPlace::Value },
    }
}

/// The name of a rule, which begins as all names of its policy do.
fn rule_name(policy: &AccessPolicy, rule: &str) -> Arc<str> {
    format!("{}{rule}]", naming::access_policy(&policy.origin.id)).into()
}

fn joined(mut one: Plans, other: Plans) -> Plans {
    one.extend(other);
    one
}

/// A rule where its policy guards something.
fn at_target(target: &PolicyTarget, plan: AccessPolicyPlan) -> AccessPolicyPlan {
    let there = match target {
        PolicyTarget::All => return plan,
        PolicyTarget::Except(others) if others.is_empty() => return plan,
        PolicyTarget::Ports(ports) => at_ports(ports),
        PolicyTarget::Except(others) => Permission::Not(Box::new(at_ports(others))),
    };
    let permissions = plan.permissions.into_iter();
    let permissions = permissions.map(|p| Permission::And(vec![there.clone(), p])).collect();
    AccessPolicyPlan { permissions, ..plan }
}

fn at_ports(ports: &BTreeSet<u16>) -> Permission {
    let mut each: Vec<Permission> = ports.iter().copied().map(Permission::Port).collect();
    match (each.pop(), each.is_empty()) {
        (Some(only), true) => only,
        (last, _) => Permission::Or(each.into_iter().chain(last).collect()),
    }
}

/// Where none of these policies guards anything; `None`: every port is guarded.
fn unguarded<'a>(policies: impl Iterator<Item = &'a Arc<AccessPolicy>>) -> Option<Permission> {
    let (mut guarded, mut open): (BTreeSet<u16>, Option<BTreeSet<u16>>) = Default::default();
    for policy in policies {
        match &policy.target {
            PolicyTarget::All => return None,
            PolicyTarget::Ports(ports) => guarded.extend(ports),
            PolicyTarget::Except(others) => {
                open = Some(open.map_or_else(|| others.clone(), |open| &open & others));
            }
        }
    }
    let Some(open) = open else {
        let here = guarded.into_iter().map(Permission::Port).collect();
        return Some(Permission::Not(Box::new(Permission::Or(here))));
    };
    let left = &open - &guarded;
    (!left.is_empty()).then(|| at_ports(&left))
}

/// What lets everything pass where no policy guards anything, named after one that guards.
fn elsewhere(guarded: &AccessPolicy, there: Permission) -> Plans {
    let plan = AccessPolicyPlan { permissions: vec![there], principals: vec![Principal::Any] };
    BTreeMap::from([(rule_name(guarded, "other-ports"), plan)])
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
        all.push(Permission::Not(Box::new(Permission::Or(
            values.refused.iter().map(&one).collect(),
        ))));
    }
}

/// As [`permit`], for callers, where one value may have several spellings.
fn admit<T>(
    all: &mut Vec<Principal>,
    values: &Values<T>,
    spellings: impl Fn(&T) -> Vec<Principal>,
) {
    if !values.wanted.is_empty() {
        all.push(Principal::Or(values.wanted.iter().flat_map(&spellings).collect()));
    }
    if !values.refused.is_empty() {
        all.push(Principal::Not(Box::new(Principal::Or(
            values.refused.iter().flat_map(&spellings).collect(),
        ))));
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
