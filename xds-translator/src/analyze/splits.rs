//! Splits of a service's traffic: backends that have no share of some of it.

use std::collections::BTreeSet;

use super::input::Input;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::Kind,
    ir::RouteTable,
    plan::destinations,
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for table in input.tables().filter(|table| table.origin.id.kind == Kind::TRAFFIC_SPLIT) {
        let found = portless_backends(input, table);
        findings.extend(found.into_iter().map(|f| input.diagnose(&table.origin.id, f)));
    }
}

/// A backend gets no requests at ports of the split service that it does not have itself: they go
/// to the others.
fn portless_backends(input: &Input<'_>, table: &RouteTable) -> Vec<Diagnostic> {
    let services = input.snapshot.services();
    let Some(host) = table.hosts.first() else { return Vec::new() };
    let Some(root) = services.defining(host).next() else { return Vec::new() };
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for destination in destinations(table).filter(|d| d.host != *host && seen.insert(&d.at)) {
        let Some(backend) = services.defining(&destination.host).next() else { continue };
        let lacking = root.ports.iter().filter(|port| backend.port(port.number).is_none());
        let lacking: Vec<String> = lacking.map(|port| port.number.to_string()).collect();
        if lacking.is_empty() {
            continue;
        }
        let message = format!(
            "`{}` has no port {} of `{host}`: what clients send there goes to the other backends",
            destination.host,
            lacking.join(", ")
        );
        let field = FieldPath::of(&destination.at);
        let finding = Diagnostic::warning(Code::NoEffect, field, message);
        let finding = finding.fix(format!("the ports of `{host}` on `{}`", destination.host));
        found.push(input.relate(finding, &backend.origin.id, &FieldPath::of("spec.ports")));
    }
    found
}
