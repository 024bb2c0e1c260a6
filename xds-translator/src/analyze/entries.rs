//! ServiceEntries that differ in what they say of one port, and what controllers say of objects.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::input::{Input, reason};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{Kind, Object},
    ir::{Hostname, Service},
    snapshot::Item,
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for object in input.objects().filter(|object| input.is_wanted(&object.id)) {
        let found = negative_conditions(object);
        findings.extend(found.into_iter().map(|finding| input.diagnose(&object.id, finding)));
    }
    check_protocols(input, findings);
}

/// Entries of one host and port that clients may see both of, with different protocols.
fn check_protocols(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let mut by_host: BTreeMap<&Hostname, Vec<&Arc<Service>>> = BTreeMap::new();
    for item in input.items() {
        if let Item::Service(definition) = item
            && definition.service.origin.id.kind == Kind::SERVICE_ENTRY
        {
            by_host.entry(&definition.service.key.host).or_default().push(&definition.service);
        }
    }
    for services in by_host.values_mut().filter(|services| services.len() > 1) {
        services.sort_by(|a, b| a.origin.by_age(&b.origin));
        for (rank, service) in services.iter().enumerate() {
            if input.is_wanted(&service.origin.id) {
                findings.extend(other_protocol(input, service, &services[..rank]));
            }
        }
    }
}

fn other_protocol(
    input: &Input<'_>,
    service: &Service,
    earlier: &[&Arc<Service>],
) -> Option<Diagnostic> {
    let seen = earlier.iter().filter(|other| other.export_to.overlaps(&service.export_to));
    let mut meetings = seen.flat_map(|other| service.ports.iter().map(move |port| (*other, port)));
    let (other, port) = meetings.find(|(other, port)| {
        other.port(port.number).is_some_and(|theirs| theirs.protocol != port.protocol)
    })?;
    let message = format!(
        "port {} of `{}` has another protocol in {}, which comes first ({})",
        port.number,
        service.key.host,
        other.origin.id,
        reason(&other.origin, &service.origin)
    );
    let field = FieldPath::of("spec.ports");
    let finding = Diagnostic::warning(Code::ConflictingProtocols, field.clone(), message)
        .fix("the same protocol in both, or one object for the host");
    Some(input.relate(input.diagnose(&service.origin.id, finding), &other.origin.id, &field))
}

/// Conditions whose being false is bad news, by kind.
const CONDITIONS: [(Kind, &[&str]); 4] = [
    (Kind::SERVICE, &["istio.io/WaypointBound"]),
    (Kind::SERVICE_ENTRY, &["istio.io/WaypointBound"]),
    (Kind::WORKLOAD_ENTRY, &["istio.io/WaypointBound"]),
    (Kind::AUTHORIZATION_POLICY, &["ZtunnelAccepted", "WaypointAccepted"]),
];

fn negative_conditions(object: &Object) -> Vec<Diagnostic> {
    let watched = CONDITIONS.iter().find(|(kind, _)| *kind == object.id.kind);
    let Some((_, watched)) = watched.filter(|_| object.raw.contains("\"conditions\"")) else {
        return Vec::new();
    };
    let raw = object.raw();
    let conditions = raw.pointer("/status/conditions").and_then(Value::as_array);
    let mut found = Vec::new();
    for (index, condition) in conditions.into_iter().flatten().enumerate() {
        let text = |key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default();
        let partial = text("type") == "WaypointAccepted" && text("reason") == "PartiallyInvalid";
        if watched.contains(&text("type")) && (text("status") == "False" || partial) {
            let message = format!(
                "{} is {}: {} {}",
                text("type"),
                text("status"),
                text("reason"),
                text("message")
            );
            let field = FieldPath::of("status.conditions").index(index);
            found.push(Diagnostic::warning(Code::NegativeCondition, field, message.trim_end()));
        }
    }
    found
}
