//! From a JSON object of a known kind to its typed content.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Object, Place,
    decode::{Decoder, describe},
    istio::dry_run,
    object_meta::{LAST_APPLIED, ObjectMeta},
    readable::unreadable,
    scalar,
    schema::Decode,
    suggest,
};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath, Segment, Severity},
    ir::{Kind, ObjectId},
};

/// The one name of a mesh configuration.
const MESH_CONFIG_NAME: &str = "default";
/// Objects that name no namespace live here.
const DEFAULT_NAMESPACE: &str = "default";

/// An object and what is wrong with it. With an error among the findings the object is as good as
/// could be read, and must not be put in force.
pub(super) struct Decoded {
    pub(super) object: Object,
    pub(super) findings: Vec<Diagnostic>,
}

/// Reads an object whose kind is known; `Err` if not even its identity can be read.
pub(super) fn decode(kind: Kind, value: Value, place: Place) -> Result<Decoded, Vec<Diagnostic>> {
    let mut at = Decoder::default();
    let Value::Object(map) = &value else {
        return Err(vec![
            Diagnostic::error(Code::NotAnObject, FieldPath::root(), "not an object")
                .expected("a map", describe(&value)),
        ]);
    };
    let mut meta = at.within("metadata", |at| match map.get("metadata") {
        Some(meta) if !meta.is_null() => {
            check_metadata(meta, at);
            ObjectMeta::decode(meta, at)
        }
        _ => ObjectMeta::default(),
    });
    let Some(id) = identity(kind, &meta, &mut at) else {
        return Err(at.finish());
    };
    at.about(&id);
    let spec = kind.serving().map(|served| (served.decode)(&value, map, &mut at));
    if let Some(spec) = &spec {
        spec.check(&mut at);
        dry_run::check(kind, &meta.annotations, &**spec, &mut at);
    }
    check_creation(&meta, &mut at);
    let mut findings = at.finish();
    if kind.group().ends_with("istio.io") {
        findings.iter_mut().for_each(name_warning);
    }
    let mut raw = value;
    if let Some(finding) = unreadable(&raw) {
        findings.push(finding);
        raw = nothing_but_identity(&raw, &id);
    }
    if kind == Kind::SECRET {
        meta.annotations.remove(LAST_APPLIED);
        forget_last_applied(&mut raw);
        findings.iter_mut().for_each(hide_content);
    }
    let object =
        Object { id, meta: Arc::new((&meta).into()), spec, place, raw: raw.to_string().into() };
    Ok(Decoded { object, findings })
}

/// What is kept of an object whose content cannot be.
fn nothing_but_identity(value: &Value, id: &ObjectId) -> Value {
    json!({
        "apiVersion": value["apiVersion"], "kind": value["kind"],
        "metadata": { "name": &*id.name, "namespace": &*id.namespace },
    })
}

/// Drops the copy of a Secret that kubectl leaves in it: its key would lie there unsealed.
fn forget_last_applied(secret: &mut Value) {
    let annotations = secret.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
}

/// Takes a Secret's content out of a finding.
fn hide_content(finding: &mut Diagnostic) {
    let below = |name: &str| matches!(finding.field.0.first(), Some(Segment::Field(field)) if **field == *name);
    if below("data") || below("stringData") || below("metadata") {
        finding.got = finding.got.take().map(|_| "something else".to_owned());
        finding.fix = None;
    }
}

/// Gives a warning about values the code that Istio has for them. What this release does not act on
/// is none of Istio's business.
fn name_warning(finding: &mut Diagnostic) {
    let ours = finding.code == Code::NotActedOn;
    if finding.severity == Severity::Warning && finding.istio_code.is_none() && !ours {
        finding.istio_code = Some("IST0133");
    }
}

fn identity(kind: Kind, meta: &ObjectMeta, at: &mut Decoder) -> Option<ObjectId> {
    let name: Arc<str> = if kind == Kind::MESH_CONFIG {
        MESH_CONFIG_NAME.into()
    } else if kind == Kind::ISTIO_OPERATOR && meta.name.is_empty() {
        // An installer's input needs no name: there is one.
        "installed-state".into()
    } else {
        meta.name.clone()
    };
    at.within("metadata", |at| {
        if name.is_empty() {
            at.missing("name", None);
            return None;
        }
        at.within("name", |at| check_name(&name, 253, at));
        let namespace = match (kind.namespaced(), &*meta.namespace) {
            (false, _) => "".into(),
            (true, "") => DEFAULT_NAMESPACE.into(),
            (true, namespace) => {
                at.within("namespace", |at| check_name(namespace, 63, at));
                meta.namespace.clone()
            }
        };
        Some(ObjectId { kind, namespace, name })
    })
}

/// What Kubernetes' `ObjectMeta` holds beside what is read here.
const OTHER_METADATA: [&str; 5] =
    ["generateName", "selfLink", "deletionGracePeriodSeconds", "finalizers", "managedFields"];

/// Notes what is no metadata: a slip in `namespace` would move an object to another namespace.
fn check_metadata(meta: &Value, at: &mut Decoder) {
    let known = |key: &str| {
        OTHER_METADATA.contains(&key)
            || ObjectMeta::SCHEMA.fields.iter().any(|field| field.name == key)
    };
    let Some(map) = meta.as_object() else { return };
    for (key, value) in map.iter().filter(|(key, _)| !known(key)) {
        let suggestion = suggest::for_field(key, value, ObjectMeta::SCHEMA);
        at.within_key(key, |at| at.unknown(key, &suggestion, map, ObjectMeta::SCHEMA));
    }
}

/// Notes a time of creation that is none.
fn check_creation(meta: &ObjectMeta, at: &mut Decoder) {
    let written = &*meta.creation_timestamp;
    if !written.is_empty() && scalar::parse_timestamp(written).is_none() {
        let path = at.path().field("metadata").field("creationTimestamp");
        let finding = Diagnostic::error(Code::InvalidValue, path, "not a timestamp");
        let expected = "RFC 3339, such as `2026-01-31T12:00:00Z`";
        at.note(finding.expected(expected, format!("`{written}`")));
    }
}

fn check_name(name: &str, longest: usize, at: &mut Decoder) {
    let allowed = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (c == '.' && longest > 63)
    };
    let edges = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = name.len() <= longest
        && name.chars().all(allowed)
        && name.starts_with(edges)
        && name.ends_with(edges);
    // Kubernetes lets RBAC-like names be freer, but none of the kinds here.
    if !fits {
        let expected = format!(
            "at most {longest} lower-case letters, digits{} and `-`",
            if longest > 63 { ", `.`" } else { "" }
        );
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not a valid name")
            .expected(expected, format!("`{name}`"));
        at.note(finding);
    }
}
