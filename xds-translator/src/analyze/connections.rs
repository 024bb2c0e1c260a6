//! AuthorizationPolicies with conditions on HTTP that meet ports where something else is spoken.
//!
//! There a DENY rule holds without those conditions and an ALLOW rule does not hold
//! ([`crate::plan`]): both may be more than their author meant, so the ports are named.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::input::Input;
use crate::{
    class::is_gateway,
    diagnostic::{Code, Diagnostic, FieldPath},
    ir::{AccessAction, AccessPolicy, AccessRule, Labels, Protocol, ServicePort},
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for policy in input.access().filter(|p| p.rules.iter().any(AccessRule::needs_http)) {
        let ports = other_ports(input, policy);
        for (i, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| rule.needs_http()) {
            let met: Vec<&str> = ports
                .iter()
                .filter(|(port, _)| {
                    policy.target.reaches(Some(**port)) && rule.reaches_port(**port)
                })
                .map(|(_, name)| &**name)
                .collect();
            if !met.is_empty() {
                let finding =
                    finding(policy.action, FieldPath::of("spec.rules").index(i), &met.join(", "));
                findings.push(input.diagnose(&policy.origin.id, finding));
            }
        }
    }
}

fn finding(action: AccessAction, rule: FieldPath, ports: &str) -> Diagnostic {
    const REASON: &str =
        "connections that are not HTTP have nothing that the HTTP conditions could look at";
    let (message, fix) = match action {
        AccessAction::Allow => (
            format!("{REASON}: the rule lets nobody in at {ports}"),
            "a rule without HTTP conditions for these ports",
        ),
        AccessAction::Deny | AccessAction::Audit | AccessAction::Ask => (
            format!(
                "{REASON}: the rule holds without them at {ports}, and covers more than it says"
            ),
            "`to.operation.ports` with the ports that are meant",
        ),
    };
    let finding = match action {
        AccessAction::Deny | AccessAction::Ask => {
            Diagnostic::warning(Code::HttpOnly, rule, message)
        }
        AccessAction::Allow | AccessAction::Audit => {
            Diagnostic::info(Code::HttpOnly, rule, message)
        }
    };
    finding.fix(fix)
}

/// Ports of selected workloads at which something other than HTTP is declared, with the names they
/// have in services. A gateway speaks what its Gateways say, whatever its Service declares.
fn other_ports(input: &Input<'_>, policy: &AccessPolicy) -> BTreeMap<u16, String> {
    let snapshot = &input.snapshot;
    let selected = snapshot
        .all_workloads()
        .filter(|w| policy.governs(&w.id.namespace, &w.labels))
        .filter(|w| input.is_proxied(w) && !is_gateway(snapshot, w));
    // Replicas have the same ports.
    let mut seen: BTreeSet<(&Arc<str>, &Labels)> = BTreeSet::new();
    let different = selected.filter(|w| seen.insert((&w.id.namespace, &w.labels)));
    let mut ports = BTreeMap::new();
    for workload in different {
        for (key, number, target) in snapshot.ports_of(workload) {
            let port = snapshot.services().service(&key).and_then(|s| s.port(number));
            let other = |p: &ServicePort| !p.protocol.is_http() && p.protocol != Protocol::Auto;
            if port.is_some_and(other) {
                let name = || format!("port {target} ({}:{number})", key.host);
                ports.entry(target).or_insert_with(name);
            }
        }
    }
    ports
}
