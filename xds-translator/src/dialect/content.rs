//! From a JSON object of a known kind to its typed content.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    Kind, Object, Place, Spec,
    decode::{Decoder, describe},
    istio, kubernetes,
    kubernetes::ObjectMeta,
    schema::{Decode, object},
    suggest::{self, Suggestion},
};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath, Segment},
    ir::ObjectId,
};

object! {
    /// What stands at the top of an object.
    Envelope {
        /// Group and version.
        "apiVersion" api_version: Arc<str>,
        /// Kind.
        "kind" kind: Arc<str>,
        /// Identity, labels, annotations.
        "metadata" metadata: ObjectMeta,
        /// Content.
        "spec" spec: Option<Value>,
        /// Written by controllers, ignored.
        "status" status: Option<Value>,
    }
}

/// The one name of a mesh configuration.
const MESH_CONFIG_NAME: &str = "default";
/// The annotation in which kubectl keeps a copy of the whole object.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Objects that name no namespace live here.
const DEFAULT_NAMESPACE: &str = "default";

/// An object and what is wrong with it. With an error among the findings the object is as good as could be read, and
/// must not be put in force.
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
    let spec = content(kind, &value, map, &mut at);
    istio::rules::check(&spec, &meta, &mut at);
    let mut findings = at.finish();
    if kind == Kind::Secret {
        meta.annotations.remove(LAST_APPLIED);
        findings.iter_mut().for_each(hide_content);
    }
    let object = Object { id, meta: Arc::new((&meta).into()), spec, place, raw: value.to_string().into() };
    Ok(Decoded { object, findings })
}

/// Takes a Secret's content out of a finding.
fn hide_content(finding: &mut Diagnostic) {
    let below = |name: &str| matches!(finding.field.0.first(), Some(Segment::Field(field)) if **field == *name);
    if below("data") || below("stringData") || below("metadata") {
        finding.got = finding.got.take().map(|_| "something else".to_owned());
        finding.fix = None;
    }
}

fn identity(kind: Kind, meta: &ObjectMeta, at: &mut Decoder) -> Option<ObjectId> {
    let name: Arc<str> = match kind {
        Kind::MeshConfig => MESH_CONFIG_NAME.into(),
        // An installer's input needs no name: there is one.
        Kind::IstioOperator if meta.name.is_empty() => "installed-state".into(),
        _ => meta.name.clone(),
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
    let known =
        |key: &str| OTHER_METADATA.contains(&key) || ObjectMeta::SCHEMA.fields.iter().any(|field| field.name == key);
    for (key, value) in meta.as_object().into_iter().flatten().filter(|(key, _)| !known(key)) {
        let suggestion = suggest::for_field(key, value, ObjectMeta::SCHEMA);
        at.within_key(key, |at| at.unknown(&suggestion, ObjectMeta::SCHEMA));
    }
}

fn check_name(name: &str, longest: usize, at: &mut Decoder) {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (c == '.' && longest > 63);
    let edges = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = name.len() <= longest && name.chars().all(allowed) && name.starts_with(edges) && name.ends_with(edges);
    // Kubernetes lets RBAC-like names be freer, but none of the kinds here.
    if !fits {
        let expected =
            format!("at most {longest} lower-case letters, digits{} and `-`", if longest > 63 { ", `.`" } else { "" });
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not a valid name")
            .expected(expected, format!("`{name}`"));
        at.note(finding);
    }
}

fn content(kind: Kind, value: &Value, map: &Map<String, Value>, at: &mut Decoder) -> Spec {
    use istio::{destination_rule, gateway, mesh_config, security, service_entry, sidecar, virtual_service};
    match kind {
        Kind::Namespace => Spec::Namespace(whole::<kubernetes::Namespace>(value)),
        Kind::Node => Spec::Node(whole::<kubernetes::Node>(value)),
        Kind::ServiceAccount => Spec::ServiceAccount(whole::<kubernetes::ServiceAccount>(value)),
        Kind::Service => Spec::Service(Arc::new(Decode::decode(value, at))),
        Kind::Pod => Spec::Pod(Arc::new(Decode::decode(value, at))),
        Kind::Secret => Spec::Secret(Arc::new(Decode::decode(value, at))),
        Kind::EndpointSlice => Spec::EndpointSlice(Arc::new(Decode::decode(value, at))),
        Kind::Deployment => Spec::Deployment(Arc::new(Decode::decode(value, at))),
        Kind::VirtualService => Spec::VirtualService(spec::<virtual_service::VirtualService>(map, at)),
        Kind::DestinationRule => Spec::DestinationRule(spec::<destination_rule::DestinationRule>(map, at)),
        Kind::Gateway => Spec::Gateway(spec::<gateway::Gateway>(map, at)),
        Kind::ServiceEntry => Spec::ServiceEntry(spec::<service_entry::ServiceEntry>(map, at)),
        Kind::WorkloadEntry => Spec::WorkloadEntry(spec::<service_entry::WorkloadEntry>(map, at)),
        Kind::Sidecar => Spec::Sidecar(spec::<sidecar::Sidecar>(map, at)),
        Kind::PeerAuthentication => Spec::PeerAuthentication(spec::<security::PeerAuthentication>(map, at)),
        Kind::AuthorizationPolicy => Spec::AuthorizationPolicy(spec::<security::AuthorizationPolicy>(map, at)),
        Kind::MeshConfig => Spec::MeshConfig(spec::<mesh_config::MeshConfig>(map, at)),
        _ => Spec::Unserved,
    }
}

/// Kinds of which only the metadata matters, whose mistakes are noted already.
fn whole<T: Decode>(value: &Value) -> Arc<T> {
    Arc::new(T::decode(value, &mut Decoder::default()))
}

/// Kinds whose content stands under `spec`, with nothing unknown beside it.
fn spec<T: Decode>(map: &Map<String, Value>, at: &mut Decoder) -> Arc<T> {
    let unknown = map.iter().filter(|(key, _)| Envelope::SCHEMA.fields.iter().all(|f| f.name != key.as_str()));
    let mut stand_in = None;
    for (key, value) in unknown {
        let suggestion = suggest::for_field(key, value, Envelope::SCHEMA);
        at.within_key(key, |at| at.unknown(&suggestion, Envelope::SCHEMA));
        if suggestion == Suggestion::Rename("spec") {
            stand_in = Some(value);
        }
    }
    let empty = Value::Object(Map::new());
    let written = map.get("spec").filter(|v| !v.is_null()).or(stand_in).unwrap_or(&empty);
    Arc::new(at.within("spec", |at| T::decode(written, at)))
}
