//! Writes of the REST API where a cluster holds the configuration: they go to its API server, by
//! server-side apply, so that what others write in the same object stays theirs. What comes of them
//! arrives through the source like any other change.

use std::time::Duration;

use ferromesh_xds_translator::{
    dialect::{Kind, Object, split_api_version},
    ir::ObjectId,
};
use kube::{
    Api, Error, Resource,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
        Preconditions,
    },
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::KubeCluster;
use crate::store::Expect;

/// Who writes, as the API server records it.
const FIELD_MANAGER: &str = "ferromesh";
/// How long the API server may take, its webhooks included.
const ANSWER: Duration = Duration::from_secs(15);

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The API server refuses, in its words.
    #[error("the API server refuses: {reason}")]
    Refused {
        /// Its HTTP status.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// It cannot be asked.
    #[error("the API server cannot be asked: {0}; the write may be repeated later")]
    Unreachable(String),
}

impl From<Error> for ObjectsError {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) => Self::Refused { code: status.code, reason: status.message },
            error => Self::Unreachable(error.to_string()),
        }
    }
}

/// Objects of a cluster.
pub struct Objects {
    cluster: KubeCluster,
}

impl Objects {
    /// The objects of `cluster`.
    pub fn new(cluster: KubeCluster) -> Self {
        Self { cluster }
    }

    /// Writes an object under the version in which it is written; its new resource version, 0 if
    /// that is no number, and whether there was none before.
    ///
    /// # Errors
    /// It was not written: `expect` does not hold, another owns a field, it is not allowed, or
    /// there is no answer.
    pub async fn put(
        &self,
        object: &Object,
        expect: Expect,
        dry_run: bool,
    ) -> Result<(u64, bool), ObjectsError> {
        let raw = object.raw();
        let api_version = raw.pointer("/apiVersion").and_then(Value::as_str).unwrap_or_default();
        let api = self.api(&object.id, api_version);
        let field_manager = Some(FIELD_MANAGER.to_owned());
        let (written, created) = if expect == Expect::Absent {
            let value = serde_json::from_value(raw);
            let value =
                value.map_err(|e| ObjectsError::Refused { code: 400, reason: e.to_string() })?;
            let created = bounded(api.create(&PostParams { dry_run, field_manager }, &value)).await;
            (made(&api, &object.id, created, dry_run).await?, true)
        } else {
            let params = PatchParams { dry_run, field_manager, ..PatchParams::default() };
            let found = found(&api, &object.id, expect).await?;
            // The API server's answer does not say it; who writes at the same time may have been first.
            let created = match (expect, &found) {
                (Expect::Any, _) => bounded(api.get_opt(&object.id.name)).await?.is_none(),
                (_, found) => found.is_none(),
            };
            let patch = Patch::Apply(versioned(&raw, found));
            (bounded(api.patch(&object.id.name, &params, &patch)).await?, created)
        };
        Ok((revision(&written), created))
    }

    /// Deletes an object under whichever of our versions the API server serves; its last resource
    /// version.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(
        &self,
        id: &ObjectId,
        expect: Expect,
        dry_run: bool,
    ) -> Result<u64, ObjectsError> {
        let mut missing = None;
        for version in id.kind.versions() {
            let api_version = if id.kind.group().is_empty() {
                (*version).to_owned()
            } else {
                format!("{}/{version}", id.kind.group())
            };
            match deleted(&self.api(id, &api_version), id, expect, dry_run).await {
                Ok(revision) => return Ok(revision),
                Err(error @ ObjectsError::Refused { code: 404, .. }) => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(missing.expect("every kind has a version"))
    }

    fn api(&self, id: &ObjectId, api_version: &str) -> Api<DynamicObject> {
        api(&self.cluster, id.kind, &id.namespace, api_version)
    }
}

/// Deletes an object, or only asks whether it would be; its last resource version.
async fn deleted(
    api: &Api<DynamicObject>,
    id: &ObjectId,
    expect: Expect,
    dry_run: bool,
) -> Result<u64, ObjectsError> {
    // What is not there cannot be deleted anyway.
    let expect = if expect == Expect::Present { Expect::Any } else { expect };
    let preconditions = found(api, id, expect)
        .await?
        .map(|version| Preconditions { resource_version: Some(version), uid: None });
    let params = DeleteParams { dry_run, preconditions, ..DeleteParams::default() };
    let deleted = bounded(api.delete(&id.name, &params)).await?;
    Ok(deleted.left().map_or(0, |object| revision(&object)))
}

/// What was created, whose fields become those that applying owns: what the same writer creates and
/// what it applies belong to two owners for the API server, and to apply another value would conflict
/// with oneself.
async fn made(
    api: &Api<DynamicObject>,
    id: &ObjectId,
    created: Result<DynamicObject, ObjectsError>,
    dry_run: bool,
) -> Result<DynamicObject, ObjectsError> {
    let created = created.map_err(|error| match error {
        // The condition of whoever asks that there be none.
        ObjectsError::Refused { code: 409, .. } => not_so(id, "exists"),
        error => error,
    })?;
    let patch = match (dry_run, applied(&created)) {
        (false, Some(patch)) => Patch::Merge(patch),
        _ => return Ok(created),
    };
    let params =
        PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
    match bounded(api.patch(&id.name, &params, &patch)).await {
        Ok(owned) => Ok(owned),
        // It is there all the same; the next write is told whose the fields are.
        Err(error) => {
            tracing::warn!(object = %id, %error, "what was created cannot be made ours to apply");
            Ok(created)
        }
    }
}

/// The change by which what was created counts as applied; `None`: nothing of it is ours.
fn applied(created: &DynamicObject) -> Option<Value> {
    let mut owners = serde_json::to_value(created.meta().managed_fields.as_ref()?).ok()?;
    let own = owners.as_array_mut()?.iter_mut().find(|owner| {
        owner["manager"] == FIELD_MANAGER
            && owner["operation"] == "Update"
            && owner.get("subresource").is_none()
    })?;
    own["operation"] = json!("Apply");
    let version = &created.meta().resource_version;
    Some(json!({ "metadata": { "resourceVersion": version, "managedFields": owners } }))
}

fn not_so(id: &ObjectId, is: &str) -> ObjectsError {
    ObjectsError::Refused {
        code: 412,
        reason: format!("{id} {is}: read it again and repeat the change"),
    }
}

/// The resource version to which a write is tied by what its writer expects; `None`: to none. What
/// Kubernetes cannot be told is looked up, and the write tied to what was found.
async fn found(
    api: &Api<DynamicObject>,
    id: &ObjectId,
    expect: Expect,
) -> Result<Option<String>, ObjectsError> {
    match expect {
        Expect::Any => return Ok(None),
        Expect::Revision(revision) => return Ok(Some(revision.to_string())),
        Expect::Absent | Expect::Present | Expect::OtherThan(_) => {}
    }
    let stored = bounded(api.get_opt(&id.name)).await?.map(|object| {
        let version = object.meta().resource_version.clone().unwrap_or_default();
        (revision(&object), version)
    });
    let conflict = |is: &str| Err(not_so(id, is));
    match (expect, stored) {
        (Expect::Absent, Some(_)) => conflict("exists"),
        (Expect::Present, None) => conflict("does not exist"),
        (Expect::OtherThan(revision), Some((found, _))) if revision == found => {
            conflict("is at the revision that it must not be at")
        }
        (_, stored) => Ok(stored.map(|(_, version)| version)),
    }
}

/// Objects of a kind in a namespace, under a version.
pub(super) fn api(
    cluster: &KubeCluster,
    kind: Kind,
    namespace: &str,
    api_version: &str,
) -> Api<DynamicObject> {
    let (group, version) = split_api_version(api_version);
    let named = GroupVersionKind::gvk(group, version, kind.kind_name());
    let resource = ApiResource::from_gvk_with_plural(&named, kind.plural());
    if kind.namespaced() {
        Api::namespaced_with(cluster.client(), namespace, &resource)
    } else {
        Api::all_with(cluster.client(), &resource)
    }
}

async fn bounded<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, ObjectsError> {
    let answer = timeout(ANSWER, answer).await;
    Ok(answer.map_err(|_| ObjectsError::Unreachable(format!("no answer within {ANSWER:?}")))??)
}

/// The object as it is applied: without what only the API server writes, and tied to the version
/// that must be there.
fn versioned(raw: &Value, version: Option<String>) -> Value {
    let mut value = raw.clone();
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"] {
            meta.remove(name);
        }
        if let Some(version) = version {
            meta.insert("resourceVersion".to_owned(), json!(version));
        }
    }
    value
}

fn revision(object: &DynamicObject) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_has_only_what_its_author_may_say() {
        let read = json!({
            "metadata": { "name": "a", "managedFields": [], "resourceVersion": "7", "generation": 2, "uid": "u", "labels": {} },
            "spec": {}, "status": {},
        });
        for version in [None, Some("9".to_owned())] {
            let mut expected = json!({ "metadata": { "name": "a", "labels": {} }, "spec": {} });
            if let Some(version) = &version {
                expected["metadata"]["resourceVersion"] = json!(version);
            }
            assert_eq!(versioned(&read, version), expected);
        }
    }

    #[test]
    fn what_was_created_counts_as_applied_by_the_same_writer_alone() {
        let fields = json!({ "f:spec": { "f:hosts": {} } });
        let owner = |manager: &str, operation: &str| json!({ "manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields });
        let created = |owners: Value| -> DynamicObject {
            let meta = json!({ "name": "a", "resourceVersion": "7", "managedFields": owners });
            serde_json::from_value(json!({ "metadata": meta })).expect("an object")
        };
        let patch =
            applied(&created(json!([owner("else", "Update"), owner("ferromesh", "Update")])));
        let owners = json!([owner("else", "Update"), owner("ferromesh", "Apply")]);
        let expected = json!({ "metadata": { "resourceVersion": "7", "managedFields": owners } });
        assert_eq!(patch, Some(expected));
        for owners in
            [json!([]), json!([owner("else", "Update")]), json!([owner("ferromesh", "Apply")])]
        {
            assert_eq!(applied(&created(owners.clone())), None, "{owners}");
        }
    }
}
