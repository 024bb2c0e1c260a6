//! Parts of pods in the settings, which pods ask for by name: what is none, or what no pod could be
//! made with, is said when the settings are read, since every pod that asks for it would be refused.

use std::{collections::BTreeMap, sync::Arc};

use ferromesh_xds_translator::dialect::decode::Decoder;
use serde_json::Value;

/// The templates that are the proxy's own.
const OWN_TEMPLATES: [&str; 2] = ["sidecar", "gateway"];

/// Notes what is no part of a pod. Templates of Istio's are texts in Go's language; here they are
/// objects, since what is made of a text depends on what else is said.
pub(super) fn check(name: &str, part: &Value, at: &mut Decoder) {
    if OWN_TEMPLATES.contains(&name) {
        return at.invalid(format!("`{name}` is the proxy's own and cannot be replaced"), None);
    }
    let Value::Object(fields) = part else {
        let fix = "write the part of the pod as YAML, without Go's `{{ }}`";
        return at.wrong_type("an object with metadata and spec", part, Some(fix.to_owned()));
    };
    if let Some(field) = fields.keys().find(|field| !matches!(&***field, "metadata" | "spec")) {
        at.invalid(format!("`{field}`: expected metadata and spec alone"), None);
    }
    for field in ["metadata", "spec"] {
        at.within(field, |at| match fields.get(field) {
            Some(value) if !value.is_object() => at.wrong_type("an object", value, None),
            Some(metadata) if field == "metadata" => check_metadata(metadata, at),
            Some(spec) => check_spec(spec, at),
            None => {}
        });
    }
    if part.to_string().contains("{{") {
        let fix = "write values as they are; those of one pod belong into the pod";
        at.invalid("`{{`: Go's templates are not rendered", Some(fix.to_owned()));
    }
}

/// What decides about a pod before its templates are merged into it.
const DECIDED: [&str; 4] = [
    "inject.istio.io/templates",
    "sidecar.istio.io/inject",
    "sidecar.istio.io/status",
    "istio.io/rev",
];

/// Notes what no pod could be made with: every pod that asks for the template would be refused.
fn check_metadata(metadata: &Value, at: &mut Decoder) {
    for (field, value) in metadata.as_object().into_iter().flatten() {
        at.within_key(field, |at| match (field.as_str(), value) {
            ("labels" | "annotations", Value::Object(texts)) => {
                for (key, text) in texts {
                    at.within_key(key, |at| check_mark(key, text, at));
                }
            }
            ("labels" | "annotations", _) => at.wrong_type("a map of texts", value, None),
            _ => at.invalid("expected labels and annotations alone", None),
        });
    }
}

fn check_mark(key: &str, text: &Value, at: &mut Decoder) {
    if !text.is_string() {
        at.wrong_type("text", text, Some(format!("quote it: \"{text}\"")));
    }
    if DECIDED.contains(&key) {
        at.invalid("is read before templates are merged: a pod has to say it itself", None);
    }
}

fn check_spec(spec: &Value, at: &mut Decoder) {
    for field in ["initContainers", "containers", "volumes"] {
        let Some(list) = spec.get(field) else { continue };
        let named = |item: &Value| item.get("name").is_some_and(Value::is_string);
        if !list.as_array().is_some_and(|items| items.iter().all(named)) {
            at.within(field, |at| at.wrong_type("a list of objects with names", list, None));
        }
    }
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        let message = "pods in their node's network get no proxy: redirection would be the node's";
        at.within("hostNetwork", |at| at.invalid(message, None));
    }
}

/// Notes defaults that no pod could be made with.
pub(super) fn check_defaults(
    names: &[Arc<str>],
    templates: &BTreeMap<Arc<str>, Value>,
    at: &mut Decoder,
) {
    let own = names.iter().filter(|name| OWN_TEMPLATES.contains(&&***name)).count();
    if own != 1 {
        at.invalid("expected one of sidecar, gateway, and other templates", None);
    }
    let known = |name: &str| OWN_TEMPLATES.contains(&name) || templates.contains_key(name);
    for (index, name) in names.iter().enumerate().filter(|(_, name)| !known(name)) {
        at.within_index(index, |at| at.invalid(format!("no template `{name}`"), None));
    }
}
