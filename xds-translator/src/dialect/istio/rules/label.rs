//! Labels, and what selects by them.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    diagnostic::{Change, Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::is_dns_name,
        istio::shared::{LabelSelector, TargetRef, WorkloadSelector},
    },
};

/// Longest name or value of a label (Kubernetes).
const LONGEST: usize = 63;

type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Notes labels of the field `field` that no object can carry.
pub(super) fn check_labels(field: &'static str, labels: &Labels, at: &mut Decoder) {
    at.within(field, |at| {
        for (key, value) in labels {
            at.within_key(key, |at| {
                if !is_key(key) {
                    at.invalid(format!("`{key}` is not the name of a label"), None);
                }
                if !(value.is_empty() || is_word(value)) {
                    let expected =
                        "at most 63 letters, digits, `-`, `_` and `.`, none of these at an end";
                    let finding = Diagnostic::error(
                        Code::InvalidValue,
                        at.path(),
                        "not the value of a label",
                    );
                    at.note(finding.expected(expected, format!("`{value}`")));
                }
            });
        }
    });
}

/// Whether a label can have this name: perhaps a domain and `/`, then a word.
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_word(key),
        Some((domain, name)) => is_dns_name(domain) && !domain.ends_with('.') && is_word(name),
    }
}

fn is_word(text: &str) -> bool {
    let end = |c: char| c.is_ascii_alphanumeric();
    text.len() <= LONGEST
        && text.chars().all(|c| end(c) || matches!(c, '-' | '_' | '.'))
        && text.starts_with(end)
        && text.ends_with(end)
}

/// Notes what a `selector` or `workloadSelector` with `matchLabels` cannot select by, and says
/// where it selects everything.
pub(super) fn check_selector(
    field: &'static str,
    selector: Option<&WorkloadSelector>,
    at: &mut Decoder,
) {
    if let Some(selector) = selector {
        at.within(field, |at| check_selected("matchLabels", &selector.match_labels, at));
    }
}

/// As [`check_selector`], of a `workloadSelector` with `labels`.
pub(super) fn check_workload_selector(selector: Option<&LabelSelector>, at: &mut Decoder) {
    if let Some(selector) = selector {
        at.within("workloadSelector", |at| check_selected("labels", &selector.labels, at));
    }
}

fn check_selected(field: &'static str, labels: &Labels, at: &mut Decoder) {
    if labels.is_empty() {
        return at.remark(|path| {
            let message = format!("without `{field}` it selects every workload of its scope");
            Diagnostic::warning(Code::NoEffect, path, message).fix("labels, or take it out")
        });
    }
    at.within(field, |at| {
        for (key, value) in labels {
            at.within_key(key, |at| {
                if key.is_empty() {
                    at.invalid("a label has a name", None);
                }
                if key.contains('*') || value.contains('*') {
                    let fix = Some("a label with the one value that is meant".to_owned());
                    at.invalid("a selector knows no wildcards", fix);
                }
                if value.len() > LONGEST {
                    at.invalid(format!("longer than {LONGEST} characters, as no label is"), None);
                }
            });
        }
    });
}

/// Kinds that a policy may be attached to, by group (Istio `PolicyTargetReference`).
const TARGETS: [(&str, &str); 4] = [
    ("", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

/// Notes what a policy cannot be attached to, and several ways to attach it.
pub(super) fn check_attachment(
    selector: Option<&WorkloadSelector>,
    target: Option<&TargetRef>,
    targets: &[TargetRef],
    at: &mut Decoder,
) {
    check_selector("selector", selector, at);
    let ways = [selector.is_some(), target.is_some(), !targets.is_empty()];
    if ways.iter().filter(|given| **given).count() > 1 {
        at.invalid("only one of `selector`, `targetRef`, `targetRefs` may be given", None);
    }
    if let Some(target) = target {
        at.within("targetRef", |at| check_target(target, at));
    }
    /// Of Istio's definitions.
    const MOST: usize = 16;
    if targets.len() > MOST {
        let message = format!("{} of them; at most {MOST} are allowed", targets.len());
        at.within("targetRefs", |at| at.invalid(message, None));
    }
    crate::dialect::forms::each("targetRefs", targets, at, check_target);
}

fn check_target(target: &TargetRef, at: &mut Decoder) {
    if !target.namespace.is_empty() {
        at.within("namespace", |at| {
            let fix = Some("remove it; a policy stands in the namespace of its target".to_owned());
            at.invalid("a target of another namespace cannot be named", fix);
        });
    }
    let group = if &*target.group == "core" { "" } else { &*target.group };
    // A missing kind is noted already.
    if !target.kind.is_empty() && !TARGETS.contains(&(group, &*target.kind)) {
        let own = TARGETS.iter().find(|(_, kind)| **kind == *target.kind);
        let field = if own.is_some() { "group" } else { "kind" };
        let path = at.path().field(field);
        let finding = Diagnostic::error(Code::InvalidValue, path, "not what policies attach to");
        let kinds = TARGETS.map(|(group, kind)| match group {
            "" => kind.to_owned(),
            group => format!("{kind} of {group}"),
        });
        let got = format!("`{}` of `{}`", target.kind, target.group);
        let mut finding = finding.expected(format!("one of {}", kinds.join(", ")), got);
        finding.fix = own.map(|(group, _)| format!("`group: {group:?}`"));
        finding.change = own.map(|(own, _)| match target.group.is_empty() {
            true => Change::Add(at.path(), "group", (*own).into()),
            false => Change::Set(at.path().field("group"), (*own).into()),
        });
        at.note(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_kubernetes() {
        for key in ["app", "a/b", "topology.istio.io/subzone", "A_b.c-d", "1"] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", "/b", "a/", "a/b/c", "-a", "a-", "a b", "a_/b", "\u{e9}"] {
            assert!(!is_key(key), "{key}");
        }
        assert!(is_key(&"a".repeat(63)) && !is_key(&"a".repeat(64)));
    }
}
