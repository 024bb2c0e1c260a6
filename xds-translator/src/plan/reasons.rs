//! Which part of which object is behind a decision that a proxy makes: the rule of a route, the
//! policy of an access rule, of a token, of mutual TLS.
//!
//! Read back from the plan, on demand, as its origins are.

use std::collections::BTreeSet;

use super::{VirtualHostKey, naming, planner, virtual_host};
use crate::{
    ir::{Field, HttpAction, ObjectId},
    plan::ViewKey,
    snapshot::Reader,
};

/// The rule that a route was made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteRule {
    /// The object.
    pub object: ObjectId,
    /// Where the rule is written there.
    pub field: Field,
    /// The route's name.
    pub name: std::sync::Arc<str>,
}

/// The rule behind the route with this place in a virtual host; `None`: no object says it.
pub(crate) fn rule_of(
    reader: &Reader<'_>,
    key: &VirtualHostKey,
    place: usize,
) -> Option<RouteRule> {
    let attachments = virtual_host::attachments(key);
    let scope = virtual_host::scope(reader, key, &attachments);
    let tables = virtual_host::tables(reader, key);
    let reached = virtual_host::reached(&scope, key, &tables);
    let rule = reached.get(place)?;
    let name = scope.route(rule.table, rule.rule, rule.matched).name;
    // A rule of a part keeps what it says of where it leads.
    let part = match &rule.rule.action {
        HttpAction::Forward { destinations, .. } => {
            destinations.iter().find_map(|weighted| weighted.destination.of.clone())
        }
        _ => None,
    };
    let object = part.unwrap_or_else(|| rule.table.origin.id.clone());
    Some(RouteRule { object, field: rule.rule.at.clone(), name })
}

/// The policy behind an access rule, and where that rule is written.
pub(crate) fn access_rule_of(
    reader: &Reader<'_>,
    key: &ViewKey,
    rule: &str,
) -> Option<(ObjectId, Field)> {
    let (namespace, labels) = planner(key).guarded()?;
    let policies = reader.access_policies(namespace, labels);
    policies.iter().find_map(|policy| {
        let id = &policy.origin.id;
        let number = rule.split_once(&naming::access_policy(id))?.1.strip_suffix(']')?;
        Some((id.clone(), format!("spec.rules[{number}]").into()))
    })
}

/// The access policies in force for a view's workload; sorted, unique.
pub(crate) fn access_policies_of(reader: &Reader<'_>, key: &ViewKey) -> BTreeSet<ObjectId> {
    let Some((namespace, labels)) = planner(key).guarded() else { return BTreeSet::new() };
    let policies = reader.access_policies(namespace, labels);
    policies.iter().map(|policy| policy.origin.id.clone()).collect()
}

/// The token policies in force for a view's workload; sorted, unique.
pub(crate) fn token_policies_of(reader: &Reader<'_>, key: &ViewKey) -> BTreeSet<ObjectId> {
    let Some((namespace, labels)) = planner(key).guarded() else { return BTreeSet::new() };
    let policies = reader.token_policies(namespace, labels);
    policies.iter().map(|policy| policy.origin.id.clone()).collect()
}

/// The policies about mutual TLS in force for a view's workload; sorted, unique.
pub(crate) fn peer_tls_of(reader: &Reader<'_>, key: &ViewKey) -> BTreeSet<ObjectId> {
    let Some((namespace, labels)) = planner(key).guarded() else { return BTreeSet::new() };
    reader.peer_tls_origins(namespace, labels)
}
