//! An object of any served kind: identity, metadata, typed content, original content and the place it was written.

use std::{fmt, sync::Arc};

use serde_json::Value;

use super::{
    Kind, istio,
    kubernetes::{self, ObjectMeta},
};
use crate::{
    diagnostic::{Diagnostic, FieldPath, Position},
    ir::{Labels, ObjectId, Origin},
    yaml::{self, Node},
};

/// An object.
#[derive(Clone)]
pub struct Object {
    /// Kind, namespace and name.
    pub id: ObjectId,
    /// What it says about itself.
    pub meta: Arc<Meta>,
    /// Its content.
    pub spec: Spec,
    /// Where it is written.
    pub place: Place,
    /// What was written, as the text of JSON, defaults not filled in: a tree of it takes ten times the memory.
    pub(crate) raw: Arc<str>,
}

/// What an object says about itself.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Meta {
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// `creationTimestamp` in seconds since the epoch; 0 when unknown.
    pub created: i64,
    /// Whether it was told to go.
    pub deleting: bool,
    /// Its version in the store; empty when unknown.
    pub resource_version: Arc<str>,
    /// Its unique id; empty when unknown.
    pub uid: Arc<str>,
    /// Number of changes of its spec; 0 when unknown.
    pub generation: i64,
    /// Kind and name of the controller that owns it.
    pub controller: Option<(Arc<str>, Arc<str>)>,
}

impl From<&ObjectMeta> for Meta {
    fn from(meta: &ObjectMeta) -> Self {
        let controller = meta.owner_references.iter().find(|o| o.controller == Some(true));
        Self {
            labels: meta.labels.clone(),
            annotations: meta.annotations.clone(),
            created: super::scalar::parse_timestamp(&meta.creation_timestamp).unwrap_or(0),
            deleting: !meta.deletion_timestamp.is_empty(),
            resource_version: meta.resource_version.clone(),
            uid: meta.uid.clone(),
            generation: meta.generation.unwrap_or(0),
            controller: controller.map(|o| (o.kind.clone(), o.name.clone())),
        }
    }
}

/// The typed content of an object.
#[derive(Clone, PartialEq, Debug)]
pub enum Spec {
    /// `Namespace`.
    Namespace(Arc<kubernetes::Namespace>),
    /// `Node`.
    Node(Arc<kubernetes::Node>),
    /// `Service`.
    Service(Arc<kubernetes::Service>),
    /// `Pod`.
    Pod(Arc<kubernetes::Pod>),
    /// `ServiceAccount`.
    ServiceAccount(Arc<kubernetes::ServiceAccount>),
    /// `Secret`.
    Secret(Arc<kubernetes::Secret>),
    /// `EndpointSlice`.
    EndpointSlice(Arc<kubernetes::EndpointSlice>),
    /// `Deployment`.
    Deployment(Arc<kubernetes::Deployment>),
    /// `VirtualService`.
    VirtualService(Arc<istio::virtual_service::VirtualService>),
    /// `DestinationRule`.
    DestinationRule(Arc<istio::destination_rule::DestinationRule>),
    /// `Gateway`.
    Gateway(Arc<istio::gateway::Gateway>),
    /// `ServiceEntry`.
    ServiceEntry(Arc<istio::service_entry::ServiceEntry>),
    /// `WorkloadEntry`.
    WorkloadEntry(Arc<istio::service_entry::WorkloadEntry>),
    /// `Sidecar`.
    Sidecar(Arc<istio::sidecar::Sidecar>),
    /// `PeerAuthentication`.
    PeerAuthentication(Arc<istio::security::PeerAuthentication>),
    /// `AuthorizationPolicy`.
    AuthorizationPolicy(Arc<istio::security::AuthorizationPolicy>),
    /// `MeshConfig`.
    MeshConfig(Arc<istio::mesh_config::MeshConfig>),
    /// A known kind that is not served; only its identity and raw content are there.
    Unserved,
}

impl Object {
    /// Its origin, for what is lowered from it.
    pub fn origin(&self) -> Origin {
        Origin { id: self.id.clone(), created: self.meta.created }
    }

    /// What was written, as JSON. A Secret's values are replaced: for answers, logs and dumps.
    pub fn to_json(&self) -> Value {
        let mut value = self.raw();
        if self.id.kind == Kind::Secret {
            redact(&mut value);
        }
        value
    }

    /// What was written, as JSON, a Secret's values included: for stores that seal it.
    ///
    /// # Panics
    /// Never: the text was made from a value.
    pub fn raw(&self) -> Value {
        serde_json::from_str(&self.raw).expect("serde_json reads what it wrote")
    }

    /// Where a field is written; `None` for objects that did not come from a file.
    pub fn locate(&self, field: &FieldPath) -> Option<Position> {
        self.place.locate(field)
    }

    /// Completes diagnostics with this object and the positions of their fields; reads the text once.
    pub fn diagnose_all(&self, diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
        if diagnostics.is_empty() {
            return diagnostics;
        }
        let tree = self.place.tree();
        let complete = |d: Diagnostic| {
            let position = self.place.position(tree.as_ref(), &d.field);
            d.object(self.id.clone()).at(position)
        };
        diagnostics.into_iter().map(complete).collect()
    }

    /// Completes a diagnostic with this object and the position of its field.
    pub fn diagnose(&self, diagnostic: Diagnostic) -> Diagnostic {
        let position = self.locate(&diagnostic.field);
        diagnostic.object(self.id.clone()).at(position)
    }
}

fn redact(secret: &mut Value) {
    for key in ["data", "stringData"] {
        match secret.get_mut(key) {
            Some(Value::Object(values)) => {
                values.values_mut().for_each(|value| *value = Value::String("[redacted]".to_owned()))
            }
            Some(value) => *value = Value::String("[redacted]".to_owned()),
            None => {}
        }
    }
    if let Some(annotations) = secret.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(super::content::LAST_APPLIED);
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("id", &self.id).field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// Where an object is written. Types carry no spans: a position is found by reading the document again, since only
/// diagnostics need one.
#[derive(Clone, Default)]
pub struct Place {
    /// The file as the user named it; empty when there is none.
    pub file: Arc<str>,
    /// The document; empty when there is none, and for Secrets.
    pub(crate) text: Arc<str>,
    /// Line of the file on which the document begins.
    pub(crate) first_line: u32,
    /// Where the object sits in the document (items of a `List`).
    pub(crate) root: FieldPath,
}

impl Place {
    /// The position of the deepest part of `field` that is written; `None` for objects that did not come from a file.
    pub fn locate(&self, field: &FieldPath) -> Option<Position> {
        self.position(self.tree().as_ref(), field)
    }

    /// The document, read again; `None` if there is no text.
    pub(crate) fn tree(&self) -> Option<Node> {
        yaml::parse(&self.text).ok().flatten()
    }

    /// As [`Self::locate`], for whoever has read the document already.
    pub(crate) fn position(&self, tree: Option<&Node>, field: &FieldPath) -> Option<Position> {
        if self.file.is_empty() {
            return None;
        }
        let path = FieldPath(self.root.0.iter().chain(&field.0).cloned().collect());
        let (line, col) = tree.map_or((1, 1), |tree| tree.locate(&path));
        Some(Position { file: self.file.clone(), line: self.first_line + line - 1, col })
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.first_line)
    }
}
