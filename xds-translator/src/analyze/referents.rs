//! Policies that refer to objects which are not there: ports of workloads, and callers.

use super::input::Input;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    ir::{Field, ObjectId, Origin, SharedPorts, WhichPorts},
    snapshot::Item,
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for item in input.items() {
        match item {
            Item::Access(policy) => {
                check_ports(input, &policy.origin, policy.ports.as_ref(), findings);
                let sets = input.snapshot.caller_sets();
                for shared in &policy.shared_callers {
                    if sets.of(&shared.set).is_none() {
                        let then = "the policy lets nobody pass";
                        findings.push(missing(
                            input,
                            &policy.origin,
                            &shared.at,
                            &shared.set,
                            then,
                        ));
                    }
                }
            }
            Item::RateLimit(limit) => {
                check_ports(input, &limit.origin, limit.ports.as_ref(), findings);
            }
            _ => {}
        }
    }
}

fn check_ports(
    input: &Input<'_>,
    origin: &Origin,
    shared: Option<&SharedPorts>,
    findings: &mut Vec<Diagnostic>,
) {
    let Some(shared) = shared else { return };
    let mut described = input.snapshot.workload_ports().of(&origin.id.namespace);
    if described.any(|port| shared.contains(port)) {
        return;
    }
    findings.push(match &shared.which {
        WhichPorts::Of(id) => missing(input, origin, &shared.at, id, "this does nothing"),
        WhichPorts::Labelled(_) => {
            let message = "selects no description of a port, so that this does nothing";
            let field = FieldPath::of(&shared.at);
            let finding = Diagnostic::warning(Code::SelectsNothing, field, message)
                .fix("labels that such objects have");
            input.diagnose(&origin.id, finding)
        }
    });
}

fn missing(
    input: &Input<'_>,
    origin: &Origin,
    at: &Field,
    wanted: &ObjectId,
    then: &str,
) -> Diagnostic {
    let (kind, ObjectId { namespace, name, .. }) = (wanted.kind, wanted);
    let message = format!("no {kind} `{name}` is in namespace `{namespace}`: until it is, {then}");
    let finding = Diagnostic::warning(Code::MissingReference, FieldPath::of(at), message)
        .fix(format!("create it, or give the name of a {kind} that is there"));
    input.diagnose(&origin.id, finding)
}
