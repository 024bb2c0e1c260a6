//! DestinationRules: their hosts, their levels, and each other.

use std::collections::BTreeMap;

use serde_json::Value;

use super::world::{Typed, World, by_age, reason};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{Object, istio::destination_rule::DestinationRule},
    ir::Hostname,
};

pub(super) fn check(world: &World<'_>, findings: &mut Vec<Diagnostic>) {
    let mut same_host: BTreeMap<(&str, Hostname), Vec<Typed<'_, DestinationRule>>> = BTreeMap::new();
    for (object, rule) in &world.backends {
        let host = world.qualify(&rule.host, &object.id.namespace);
        if !rule.host.is_empty() && !world.knows_any(&host) {
            let message = format!("`{host}` is no host of a Service or ServiceEntry");
            findings.push(
                world.diagnose(
                    object,
                    Diagnostic::error_ref(Code::MissingReference, FieldPath::of("spec.host"), message),
                ),
            );
        }
        findings.extend(dropped_blocks(object, rule).into_iter().map(|f| world.diagnose(object, f)));
        findings.extend(subsets_without_pods(world, &host, rule).into_iter().map(|f| world.diagnose(object, f)));
        same_host.entry((&object.id.namespace, host)).or_default().push((object, rule));
    }
    for ((_, host), mut rules) in same_host.into_iter().filter(|(_, rules)| rules.len() > 1) {
        rules.sort_by(|a, b| by_age(a.0, b.0));
        check_merge(world, &host, &rules, findings);
    }
}

/// A block of a subset replaces the whole block above it: what only the upper one says is lost.
fn dropped_blocks(object: &Object, rule: &DestinationRule) -> Vec<Diagnostic> {
    let policy = |value: &Value, block: &str| value.get("trafficPolicy").and_then(|p| p.get(block)).cloned();
    let written = object.raw();
    let Some(spec) = written.get("spec") else { return Vec::new() };
    let mut found = Vec::new();
    for block in ["connectionPool", "outlierDetection"] {
        let Some(upper) = policy(spec, block) else { continue };
        for index in 0..rule.subsets.len() {
            let Some(lower) = spec.get("subsets").and_then(|s| s.get(index)).and_then(|s| policy(s, block)) else {
                continue;
            };
            let kept = leaves(&lower);
            let dropped: Vec<String> =
                leaves(&upper).into_iter().filter(|l| !kept.contains(l)).map(|l| format!("`{l}`")).collect();
            if !dropped.is_empty() {
                let path = FieldPath::of("spec.subsets").index(index).field("trafficPolicy").field(block);
                let message = format!("replaces the block above whole, and so drops {}", dropped.join(", "));
                found.push(Diagnostic::warning(Code::DropsSettings, path, message).fix("repeat them here"));
            }
        }
    }
    found
}

/// Names of the scalar fields below a value.
fn leaves(value: &Value) -> Vec<String> {
    let Value::Object(map) = value else { return Vec::new() };
    map.iter().flat_map(|(key, value)| if value.is_object() { leaves(value) } else { vec![key.clone()] }).collect()
}

/// Subsets that select nothing, where pods are known.
fn subsets_without_pods(world: &World<'_>, host: &Hostname, rule: &DestinationRule) -> Vec<Diagnostic> {
    let Some((service, spec)) = world.service(host) else { return Vec::new() };
    let pods = || {
        world
            .workloads
            .get(&*service.id.namespace)
            .into_iter()
            .flatten()
            .filter(|w| super::world::carries(&w.labels, &spec.spec.selector))
    };
    if spec.spec.selector.is_empty() || pods().next().is_none() {
        return Vec::new();
    }
    let empty = |(_, s): &(usize, &crate::dialect::istio::destination_rule::Subset)| {
        !pods().any(|p| super::world::carries(&p.labels, &s.labels))
    };
    let finding = |(i, s): (usize, &crate::dialect::istio::destination_rule::Subset)| {
        let message = format!("subset `{}` selects no pod of `{host}`", s.name);
        Diagnostic::info(Code::NoEffect, FieldPath::of("spec.subsets").index(i).field("labels"), message)
    };
    rule.subsets.iter().enumerate().filter(empty).map(finding).collect()
}

/// Several rules for one host in one namespace: new subsets are added, the first top-level policy wins.
fn check_merge(
    world: &World<'_>,
    host: &Hostname,
    rules: &[Typed<'_, DestinationRule>],
    findings: &mut Vec<Diagnostic>,
) {
    for (i, (object, rule)) in rules.iter().enumerate() {
        // Rules with other readers or clients are not merged.
        let earlier: Vec<_> = rules[..i]
            .iter()
            .filter(|(_, r)| r.export_to == rule.export_to && r.workload_selector == rule.workload_selector)
            .collect();
        if rule.traffic_policy.is_some()
            && let Some((winner, _)) = earlier.iter().find(|(_, r)| r.traffic_policy.is_some())
        {
            let message = format!(
                "ignored: {} for `{host}` has one too and comes first ({}); subsets of both stay",
                winner.id,
                reason(winner, object)
            );
            let field = FieldPath::of("spec.trafficPolicy");
            let finding =
                Diagnostic::warning(Code::NoEffect, field.clone(), message).fix("merge them into one DestinationRule");
            findings.push(world.diagnose(object, finding).related(winner.id.clone(), world.locate(winner, &field)));
        }
        for (index, subset) in rule.subsets.iter().enumerate() {
            if let Some((winner, _)) =
                earlier.iter().find(|(_, r)| r.subsets.iter().any(|s| s.name == subset.name && s != subset))
            {
                let message = format!("ignored: {} defines subset `{}` already", winner.id, subset.name);
                let field = FieldPath::of("spec.subsets").index(index);
                findings.push(
                    object
                        .diagnose(Diagnostic::warning(Code::NoEffect, field, message))
                        .related(winner.id.clone(), world.locate(winner, &FieldPath::of("spec.subsets"))),
                );
            }
        }
    }
}
