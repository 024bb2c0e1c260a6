//! The annotation by which an AuthorizationPolicy is only tried out: what it would refuse is counted.

use std::{any::Any, collections::BTreeMap, sync::Arc};

use super::security::{Action, AuthorizationPolicy};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{decode::Decoder, spec::Spec},
    ir::Kind,
};

/// Its key.
pub(crate) const ANNOTATION: &str = "istio.io/dry-run";

/// What a value means, by the words of Go's `ParseBool`, which Istio reads it with; `None`: nothing.
pub fn means(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Notes the annotation on an object that cannot be tried out, and a value that says neither yes
/// nor no. The decoder stands at the object's top.
pub(crate) fn check(
    kind: Kind,
    annotations: &BTreeMap<Arc<str>, Arc<str>>,
    spec: &dyn Spec,
    at: &mut Decoder,
) {
    let Some(written) = annotations.get(ANNOTATION) else { return };
    let spec: &dyn Any = spec;
    let policy = spec.downcast_ref::<AuthorizationPolicy>();
    if policy.is_none() && !kind.group().ends_with("istio.io") {
        return;
    }
    let path = at.path().field("metadata").field("annotations").field(ANNOTATION);
    match policy.map(|policy| policy.action) {
        Some(Action::Allow | Action::Deny) if means(written).is_some() => {}
        Some(Action::Allow | Action::Deny) => {
            let finding = Diagnostic::error(Code::InvalidValue, path, "not a boolean");
            at.note(finding.expected("true or false", format!("`{written}`")).fix("`\"true\"`"));
        }
        Some(action) => {
            let message = "only actions ALLOW and DENY can be tried out";
            let finding = Diagnostic::error(Code::InvalidValue, path, message);
            at.note(finding.expected("ALLOW or DENY", action.as_str()).fix("take it out"));
        }
        None => {
            let message = format!("{kind} cannot be tried out: it is in force, or not there");
            at.note(Diagnostic::error(Code::InvalidValue, path, message).fix("take it out"));
        }
    }
}
