//! Kubernetes' `ObjectMeta`, as far as it is read.

use std::{collections::BTreeMap, sync::Arc};

use super::schema::object;

/// The annotation in which kubectl keeps a copy of the whole object.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

object! { open;
    /// What every object says about itself.
    ObjectMeta {
        /// Its name.
        "name" name: Arc<str>,
        /// Its namespace.
        "namespace" namespace: Arc<str>,
        /// Labels.
        "labels" labels: BTreeMap<Arc<str>, Arc<str>>,
        /// Annotations.
        "annotations" annotations: BTreeMap<Arc<str>, Arc<str>>,
        /// When it was made, RFC 3339.
        "creationTimestamp" creation_timestamp: Arc<str>,
        /// When it was told to go, RFC 3339; empty while it stays.
        "deletionTimestamp" deletion_timestamp: Arc<str>,
        /// Its version in the store.
        "resourceVersion" resource_version: Arc<str>,
        /// Its unique id.
        "uid" uid: Arc<str>,
        /// Number of changes of its spec.
        "generation" generation: Option<i64>,
        /// What it belongs to.
        "ownerReferences" owner_references: Vec<OwnerReference>,
    }
}

object! { open;
    /// What an object belongs to.
    OwnerReference {
        /// Kind.
        "kind" kind: Arc<str>,
        /// Name.
        "name" name: Arc<str>,
        /// Whether it is the managing controller.
        "controller" controller: Option<bool>,
    }
}
