//! Where an item came from: the object that a user wrote.

use std::{cmp::Ordering, sync::Arc};

use serde::Serialize;

use super::Kind;

/// The object as users name it: kind, namespace and name. Unique among the objects that are in
/// force.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct ObjectId {
    /// What kind of object it is.
    pub kind: Kind,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A field of an object as its author writes it, `spec.http[0].route[1].destination`: where a part
/// of an item was lowered from. Empty where no object says so.
pub type Field = Arc<str>;

/// The object an item was lowered from, with what precedence needs.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Origin {
    /// The object.
    pub id: ObjectId,
    /// `metadata.creationTimestamp` in seconds since the epoch; 0 when unknown (files), so that age
    /// ties go by name.
    pub created: i64,
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

impl Origin {
    /// The one documented precedence among equals: oldest first, then by namespace and name.
    pub fn by_age(&self, other: &Self) -> Ordering {
        (self.created, &self.id.namespace, &self.id.name).cmp(&(
            other.created,
            &other.id.namespace,
            &other.id.name,
        ))
    }

    /// Istio's `metadata.filter_metadata.istio.config` form:
    /// `/apis/GROUP/v1/namespaces/NS/KIND-IN-KEBAB/NAME`.
    pub fn config_path(&self) -> String {
        let kind = self.id.kind;
        format!(
            "/apis/{}/v1/namespaces/{}/{}/{}",
            kind.group(),
            self.id.namespace,
            kind.kebab(),
            self.id.name
        )
    }
}
