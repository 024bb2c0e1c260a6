//! Namespaces: whether their pods get a sidecar.

use serde_json::Value;

use super::input::Input;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{Kind, Object},
};

const INJECTION: &str = "istio-injection";
const REVISION: &str = "istio.io/rev";

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for namespace in input.objects().filter(|o| o.id.kind == Kind::NAMESPACE) {
        let found = check_namespace(input, namespace).into_iter();
        let found = found.chain(several_labels(input, namespace));
        findings.extend(found.map(|f| input.diagnose(&namespace.id, f)));
    }
    findings.extend(check_revision(input));
}

fn injection_label() -> FieldPath {
    FieldPath::of("metadata.labels").field(INJECTION)
}

fn check_namespace(input: &Input<'_>, namespace: &Object) -> Option<Diagnostic> {
    let labels = &namespace.meta.labels;
    let enabled = labels.get(INJECTION).is_some_and(|v| &**v == "enabled");
    if *namespace.id.name == *input.root() {
        let message = "the control plane's namespace must not be injected";
        return enabled.then(|| {
            Diagnostic::warning(Code::Injection, injection_label(), message).fix("remove the label")
        });
    }
    let says_something = [INJECTION, REVISION, "istio.io/dataplane-mode"]
        .iter()
        .any(|key| labels.contains_key(*key));
    let of_kubernetes = namespace.id.name.starts_with("kube-");
    (!says_something && !of_kubernetes).then(|| {
        let message = "the namespace is not injected: its pods get no sidecar";
        Diagnostic::info(Code::NotInjected, FieldPath::of("metadata.labels"), message)
            .fix("`istio-injection: enabled`")
    })
}

/// Labels that each ask somebody else to inject.
fn several_labels(input: &Input<'_>, namespace: &Object) -> Option<Diagnostic> {
    let labels = &namespace.meta.labels;
    let by_default = labels.get(INJECTION)?;
    let others = [REVISION, "istio.io/dataplane-mode"];
    let other = others.iter().find(|key| labels.contains_key(**key))?;
    (&**by_default == "enabled" && *namespace.id.name != *input.root()).then(|| {
        let message = format!("`{other}` asks for injection too, and which one holds is not said");
        let field = FieldPath::of("metadata.labels").field(*other);
        Diagnostic::warning(Code::Injection, field, message)
            .istio("IST0123")
            .fix(format!("remove `{INJECTION}` or `{other}`"))
    })
}

/// A control plane with a revision leaves alone namespaces that ask for the default one. One
/// finding, on the namespace that stands nearest to the control plane's configuration; the others
/// are named in it.
fn check_revision(input: &Input<'_>) -> Option<Diagnostic> {
    let planes = || input.objects().filter(|o| o.id.kind == Kind::ISTIO_OPERATOR);
    let revision = |plane: &Object| {
        plane
            .raw()
            .pointer("/spec/revision")
            .and_then(Value::as_str)
            .filter(|r| !r.is_empty() && *r != "default")
            .map(str::to_owned)
    };
    if planes().any(|plane| revision(plane).is_none()) {
        return None;
    }
    let plane = planes().next()?;
    let revision = revision(plane)?;
    let waits = |o: &&Object| {
        let labels = &o.meta.labels;
        o.id.kind == Kind::NAMESPACE
            && *o.id.name != *input.root()
            && labels.get(INJECTION).is_some_and(|v| &**v == "enabled")
            && !labels.contains_key(REVISION)
    };
    let mut waiting: Vec<&Object> = input.objects().filter(waits).collect();
    waiting.sort_by_key(|o| o.place.file != plane.place.file);
    let (nearest, others) = waiting.split_first()?;
    let message = format!(
        "no plane will inject: `istio-injection=enabled` selects only the default revision, and the plane has `revision: {revision}`"
    );
    let finding = Diagnostic::warning(Code::Injection, injection_label(), message)
        .fix(format!("`istio.io/rev: {revision}`, or a revision tag"));
    let finding = input.diagnose(&nearest.id, finding);
    let finding = input.relate(finding, &plane.id, &FieldPath::of("spec.revision"));
    let label = injection_label();
    Some(others.iter().fold(finding, |finding, o| input.relate(finding, &o.id, &label)))
}
