//! PeerAuthentications, AuthorizationPolicies and Sidecars: whom they select, and each other.

use std::collections::BTreeMap;

use super::world::{World, by_age, reason};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{Kind, Object, Spec, istio::security::Action},
    ir::Labels,
};

pub(super) fn check(world: &World<'_>, findings: &mut Vec<Diagnostic>) {
    check_same_selector(world, findings);
    check_denials(world, findings);
    check_selectors(world, findings);
}

/// The labels that an object selects workloads by, and the field they stand in; `None` for kinds that select none.
fn selector(object: &Object) -> Option<(Labels, &'static str)> {
    let labels = |s: &Option<crate::dialect::istio::shared::WorkloadSelector>| {
        s.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default()
    };
    match &object.spec {
        Spec::PeerAuthentication(policy) => Some((labels(&policy.selector), "selector")),
        Spec::AuthorizationPolicy(policy) => Some((labels(&policy.selector), "selector")),
        Spec::Sidecar(sidecar) => {
            Some((sidecar.workload_selector.as_ref().map(|s| s.labels.clone()).unwrap_or_default(), "workloadSelector"))
        }
        _ => None,
    }
}

/// Of these kinds one object serves a workload: two with one selector are ambiguous.
fn check_same_selector(world: &World<'_>, findings: &mut Vec<Diagnostic>) {
    let mut groups: BTreeMap<(Kind, &str, Labels), Vec<&Object>> = BTreeMap::new();
    for object in world.by_id.values().filter(|o| matches!(o.id.kind, Kind::PeerAuthentication | Kind::Sidecar)) {
        if let Some((labels, _)) = selector(object) {
            groups.entry((object.id.kind, &object.id.namespace, labels)).or_default().push(object);
        }
    }
    for ((_, _, labels), mut group) in groups.into_iter().filter(|(_, group)| group.len() > 1) {
        group.sort_by(|a, b| by_age(a, b));
        let Some((winner, losers)) = group.split_first() else { continue };
        for loser in losers {
            findings.push(ambiguous(world, winner, loser, &labels));
        }
    }
}

fn ambiguous(world: &World<'_>, winner: &Object, loser: &Object, labels: &Labels) -> Diagnostic {
    let name = selector(loser).map_or("selector", |(_, field)| field);
    let (what, field) = if labels.is_empty() {
        ("no selector, as", FieldPath::of("spec"))
    } else {
        ("same selector as", FieldPath::of("spec").field(name))
    };
    let message = format!("{what} `{}`, which wins ({}); this one is ignored", winner.id.name, reason(winner, loser));
    let finding = Diagnostic::error_ref(Code::ConflictingPolicies, field.clone(), message).fix("delete one of them");
    world.diagnose(loser, finding).related(winner.id.clone(), world.locate(winner, &field))
}

/// ALLOW without rules allows nothing.
fn check_denials(world: &World<'_>, findings: &mut Vec<Diagnostic>) {
    for (object, policy) in &world.access {
        let denies_all = match policy.action {
            Action::Allow => policy.rules.is_empty(),
            Action::Deny => policy.rules.iter().any(|r| r.from.is_empty() && r.to.is_empty() && r.when.is_empty()),
            Action::Audit | Action::Custom => false,
        };
        if denies_all {
            let labels = selector(object).map(|(labels, _)| labels).unwrap_or_default();
            let count = world.selected(&object.id.namespace, &labels).filter(|w| w.proxied).count();
            let scope = if *object.id.namespace == *world.root_namespace() { "the mesh" } else { &object.id.namespace };
            let workloads = if count == 1 { "workload" } else { "workloads" };
            let message = format!("denies all traffic to {count} {workloads} in {scope}");
            findings.push(world.diagnose(object, Diagnostic::info(Code::DeniesAll, FieldPath::of("spec"), message)));
        }
    }
}

/// Selectors that select nothing, where workloads are known.
fn check_selectors(world: &World<'_>, findings: &mut Vec<Diagnostic>) {
    if !world.knows_workloads() {
        return;
    }
    for object in world.by_id.values() {
        let Some((labels, field)) = selector(object).filter(|(labels, _)| !labels.is_empty()) else { continue };
        if world.selected(&object.id.namespace, &labels).next().is_none() {
            let path = FieldPath::of("spec").field(field);
            findings.push(world.diagnose(object, Diagnostic::info(Code::NoEffect, path, "selects no workload")));
        }
    }
}
