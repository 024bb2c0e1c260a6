//! What an object says about itself.

use std::sync::Arc;

use super::{object_meta::ObjectMeta, scalar};
use crate::ir::Labels;

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
            created: scalar::parse_timestamp(&meta.creation_timestamp).unwrap_or(0),
            deleting: !meta.deletion_timestamp.is_empty(),
            resource_version: meta.resource_version.clone(),
            uid: meta.uid.clone(),
            generation: meta.generation.unwrap_or(0),
            controller: controller.map(|o| (o.kind.clone(), o.name.clone())),
        }
    }
}
