//! DestinationRules: their hosts, their levels, and each other.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::input::{Input, reason};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::Object,
    ir::{BackendPolicy, Hostname, Service, Subset, TrafficPolicy},
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let mut same_host: BTreeMap<(&str, &Hostname), Vec<&BackendPolicy>> = BTreeMap::new();
    for policy in input.backends() {
        let id = &policy.origin.id;
        let mut found: Vec<Diagnostic> = unknown_host(input, &policy.host).into_iter().collect();
        found.extend(input.object(id).into_iter().flat_map(dropped_blocks));
        found.extend(subsets_without_pods(input, policy));
        findings.extend(found.into_iter().map(|f| input.diagnose(id, f)));
        same_host.entry((&id.namespace, &policy.host)).or_default().push(policy);
    }
    for ((_, host), mut policies) in same_host {
        policies.sort_by(|a, b| a.origin.by_age(&b.origin));
        check_merge(input, host, &policies, findings);
    }
}

fn unknown_host(input: &Input<'_>, host: &Hostname) -> Option<Diagnostic> {
    let services = input.snapshot.services();
    let known =
        services.defining(host).next().is_some() || services.overlapping(host).next().is_some();
    (!known && !host.as_str().is_empty()).then(|| {
        let message = format!("`{host}` is no host of a Service or ServiceEntry");
        Diagnostic::error_ref(Code::MissingReference, FieldPath::of("spec.host"), message)
    })
}

/// A block of a subset replaces the whole block above it: what only the upper one says is lost.
fn dropped_blocks(object: &Object) -> Vec<Diagnostic> {
    let policy =
        |value: &Value, block: &str| value.get("trafficPolicy").and_then(|p| p.get(block)).cloned();
    let written = object.raw();
    let Some(spec) = written.get("spec") else { return Vec::new() };
    let mut found = Vec::new();
    for block in ["connectionPool", "outlierDetection"] {
        let Some(upper) = policy(spec, block) else { continue };
        let subsets = spec.get("subsets").and_then(Value::as_array).into_iter().flatten();
        for (index, subset) in subsets.enumerate() {
            let Some(lower) = policy(subset, block) else { continue };
            let kept = leaves(&lower);
            let dropped: Vec<String> = leaves(&upper)
                .into_iter()
                .filter(|l| !kept.contains(l))
                .map(|l| format!("`{l}`"))
                .collect();
            if !dropped.is_empty() {
                let path =
                    FieldPath::of("spec.subsets").index(index).field("trafficPolicy").field(block);
                let message =
                    format!("replaces the block above whole, and so drops {}", dropped.join(", "));
                found.push(
                    Diagnostic::warning(Code::DropsSettings, path, message).fix("repeat them here"),
                );
            }
        }
    }
    found
}

/// Names of the scalar fields below a value.
fn leaves(value: &Value) -> Vec<String> {
    let Value::Object(map) = value else { return Vec::new() };
    map.iter()
        .flat_map(|(key, value)| if value.is_object() { leaves(value) } else { vec![key.clone()] })
        .collect()
}

/// Subsets that select nothing, where pods are known.
fn subsets_without_pods(input: &Input<'_>, policy: &BackendPolicy) -> Vec<Diagnostic> {
    let snapshot = &input.snapshot;
    let services: Vec<&Arc<Service>> = snapshot.services().defining(&policy.host).collect();
    let pods = || services.iter().flat_map(|service| snapshot.behind(service));
    if pods().next().is_none() {
        return Vec::new();
    }
    let empty = |s: &&Subset| !pods().any(|pod| s.selects(&pod.labels));
    let finding = |s: &Subset| {
        let message = format!("subset `{}` selects no pod of `{}`", s.name, policy.host);
        Diagnostic::info(Code::NoEffect, FieldPath::of(&s.at).field("labels"), message)
    };
    policy.subsets.iter().filter(empty).map(finding).collect()
}

/// Several rules for one host in one namespace: new subsets are added, the first top-level policy
/// wins, as when they are planned.
fn check_merge(
    input: &Input<'_>,
    host: &Hostname,
    policies: &[&BackendPolicy],
    findings: &mut Vec<Diagnostic>,
) {
    for (i, policy) in policies.iter().enumerate() {
        // Who uses this one uses those too, unless some are for other clients.
        let earlier: Vec<&BackendPolicy> = policies[..i]
            .iter()
            .copied()
            .filter(|other| {
                other.export_to.covers(&policy.export_to)
                    && other.workload_selector == policy.workload_selector
            })
            .collect();
        findings.extend(ignored_settings(input, host, policy, &earlier));
        findings.extend(
            policy
                .subsets
                .iter()
                .filter_map(|subset| ignored_subset(input, policy, subset, &earlier)),
        );
    }
}

fn ignored_settings(
    input: &Input<'_>,
    host: &Hostname,
    policy: &BackendPolicy,
    earlier: &[&BackendPolicy],
) -> Option<Diagnostic> {
    let speaks = |policy: &&BackendPolicy| policy.traffic != TrafficPolicy::default();
    let winner = earlier.iter().copied().find(speaks).filter(|_| speaks(&policy))?;
    let message = format!(
        "ignored: {} for `{host}` has one too and comes first ({}); subsets of both stay",
        winner.origin.id,
        reason(&winner.origin, &policy.origin)
    );
    let field = FieldPath::of("spec.trafficPolicy");
    let finding = Diagnostic::warning(Code::NoEffect, field.clone(), message)
        .fix("merge them into one DestinationRule");
    let finding = input.diagnose(&policy.origin.id, finding);
    Some(input.relate(finding, &winner.origin.id, &field))
}

fn ignored_subset(
    input: &Input<'_>,
    policy: &BackendPolicy,
    subset: &Subset,
    earlier: &[&BackendPolicy],
) -> Option<Diagnostic> {
    let same = |s: &Subset| (&s.labels, &s.traffic) == (&subset.labels, &subset.traffic);
    let another = |p: &&BackendPolicy| p.subsets.iter().any(|s| s.name == subset.name && !same(s));
    let winner = earlier.iter().copied().find(another)?;
    let message = format!("ignored: {} defines subset `{}` already", winner.origin.id, subset.name);
    let finding = Diagnostic::warning(Code::NoEffect, FieldPath::of(&subset.at), message);
    let finding = input.diagnose(&policy.origin.id, finding);
    Some(input.relate(finding, &winner.origin.id, &FieldPath::of("spec.subsets")))
}
