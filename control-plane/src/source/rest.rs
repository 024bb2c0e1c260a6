//! The REST API as a source: validates, stores, and tells the pipeline, in this order. Where a
//! cluster holds the configuration, its API server stores, and the source that follows the cluster
//! tells the pipeline.

mod condition;
mod local;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ferromesh_xds_translator::{
    diagnostic::{Diagnostic, Severity},
    dialect::{Kind, Object, parse_value},
    ir::ObjectId,
};
use serde_json::Value;

pub use self::local::LocalStore;
use self::{
    condition::{Condition, OF_DELETION, OF_OBJECT, revision, take_version},
    local::{Writer, closed, identity, tell, to_its_end},
};
use super::appeared;
use crate::{
    event::{EventSender, SourceChange, SourceId},
    judge::Judge,
    kube_cluster::objects::{Objects, ObjectsError},
    secret::{self, Secrets, sealed::SealError},
    store::{Entry, Expect, StoreError, StoreKey},
};

/// Why a write is refused.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The object has errors; nothing was changed.
    #[error("{} in the object: {}", plural(.0.len()), .0.first().map(ToString::to_string).unwrap_or_default())]
    Invalid(Vec<Diagnostic>),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another revision is stored than the one that a field names.
    #[error("{cause}; {field} asks for that: without it the write is taken whatever is there")]
    Outdated {
        /// The field.
        field: &'static str,
        /// What is stored, and what was expected.
        cause: Box<StoreError>,
    },
    /// The write's conditions cannot be understood, or cannot hold together.
    #[error("{0}")]
    Condition(String),
    /// The cluster's API server did not take it.
    #[error(transparent)]
    KubeCluster(#[from] ObjectsError),
    /// The mesh configuration of a cluster is no object of its own.
    #[error(
        "in a cluster the mesh configuration is key `mesh` of ConfigMap istio in the root namespace: write that"
    )]
    Elsewhere,
    /// The object could not be judged.
    #[error("the object cannot be judged: this is a bug, which the log of the control plane names")]
    Unjudged,
    /// The server is stopping.
    #[error("the server is stopping; the write may be repeated later")]
    Stopping,
}

impl WriteError {
    /// Whether the condition of a request does not hold.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Store(StoreError::Conflict { .. }) => true,
            Self::KubeCluster(ObjectsError::Refused { code, .. }) => *code == 412,
            _ => false,
        }
    }
}

fn plural(count: usize) -> String {
    if count == 1 { "an error".to_owned() } else { format!("{count} errors") }
}

/// An accepted write.
#[derive(Debug)]
pub struct Accepted {
    /// What became of it where objects are kept; for a dry run what would.
    pub kept: Kept,
    /// The object as it serves, a Secret's values replaced.
    pub object: Value,
    /// Warnings and remarks about it.
    pub diagnostics: Vec<Diagnostic>,
}

/// A write that was kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Its revision; 0 for a dry run.
    pub revision: u64,
    /// Whether there was no such object before.
    pub created: bool,
}

/// Whether a write really happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It does.
    Commit,
    /// Everything but storing it is done.
    DryRun,
}

/// Objects written through the REST API.
pub struct RestSource {
    backend: Backend,
    secrets: Arc<Secrets>,
    events: EventSender,
    judge: Judge,
}

/// Where objects are kept.
pub enum ObjectStore {
    /// Here.
    Local(LocalStore),
    /// At the API server of a cluster.
    KubeCluster(Objects),
}

/// Who keeps objects.
enum Backend {
    Local(Writer),
    KubeCluster(Arc<Objects>),
}

/// A deletion that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Deletion<'a> {
    /// What the request expects.
    pub expect: Expect,
    /// The revision that the options of the deletion name; empty: none.
    pub version: &'a str,
    /// Who asks.
    pub who: &'a str,
    /// Whether it really happens.
    pub mode: Mode,
}

impl RestSource {
    /// A source that keeps objects in `store`, once `judge` has nothing against them.
    pub fn new(
        store: ObjectStore,
        secrets: Arc<Secrets>,
        events: EventSender,
        judge: Judge,
    ) -> Self {
        let backend = match store {
            ObjectStore::Local(local) => {
                Backend::Local(Writer::new(Arc::new(local), secrets.clone(), events.clone()))
            }
            ObjectStore::KubeCluster(objects) => Backend::KubeCluster(Arc::new(objects)),
        };
        Self { backend, secrets, events, judge }
    }

    /// Tells the pipeline everything that is stored. An object that this version cannot read any
    /// more is reported and stays in the store; one that guards access is in force closed.
    ///
    /// # Errors
    /// [`WriteError::Stopping`] when the pipeline is gone.
    pub async fn start(&self) -> Result<(), WriteError> {
        let (mut changes, mut diagnostics) = (Vec::new(), Vec::new());
        let stored = self
            .local()
            .map(|local| local.store.list().into_iter().map(|e| (e.clone(), local.parse(e))));
        for (entry, object) in stored.into_iter().flatten() {
            match object {
                Ok((object, remarks)) => {
                    diagnostics.extend(remarks);
                    match appeared(SourceId::Rest, &self.secrets, &object) {
                        Ok(change) => changes.push(change),
                        Err(diagnostic) => diagnostics.push(*diagnostic),
                    }
                }
                Err(errors) => {
                    diagnostics.extend(errors);
                    if let Some(object) = closed(&entry) {
                        let id = &object.id;
                        tracing::error!(object = %id, "it guards access and cannot be read: it is in force closed");
                        changes.push(SourceChange::Upsert(object.into()));
                    }
                }
            }
        }
        tell(&self.events, changes, Some(diagnostics)).await
    }

    /// One object of the store, redacted.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Entry> {
        let local = self.local()?;
        let mut entry = local.store.get(&StoreKey::new(kind.kind_name(), namespace, name))?;
        let _ = take_version(&mut entry.value);
        entry.value = match local.parse(entry.clone()) {
            Ok((object, _)) => object.to_json(),
            // As it is stored, but for what nobody may read.
            Err(_) => secret::sealed::readable(&entry.value).unwrap_or(entry.value),
        };
        Some(entry)
    }

    /// The revision of an object of the store.
    pub fn revision(&self, id: &ObjectId) -> Option<u64> {
        self.local()?.store.revision(&key_of(id))
    }

    /// The Secrets that are stored, sorted by identity, with their revisions. The mesh knows of their
    /// fingerprints only.
    pub fn secrets(&self) -> Vec<(ObjectId, u64)> {
        let stored = self.local().map(|local| local.store.list()).unwrap_or_default();
        let named = stored.into_iter().filter_map(|e| Some((identity(&e)?, e.revision)));
        named.filter(|(id, _)| id.kind == Kind::SECRET).collect()
    }

    /// Validates an object and, unless it is a dry run, stores it and tells the pipeline.
    ///
    /// # Errors
    /// It is invalid, the store refuses, or the server is stopping. Nothing was changed then.
    pub async fn put(
        &self,
        value: Value,
        expect: Expect,
        who: &str,
        mode: Mode,
    ) -> Result<Accepted, WriteError> {
        let Written { object, mut diagnostics, version } = read(value)?;
        let condition = Condition::new(expect, OF_OBJECT, version)?;
        diagnostics.extend(self.judged(vec![object.clone()]).await?);
        self.keep(object, diagnostics, condition, who, mode).await
    }

    /// What [`Self::put`] would come to for each of several objects if the others served beside it,
    /// in their order. Nothing is stored.
    ///
    /// # Errors
    /// Nothing can be judged: the server is stopping.
    pub async fn rehearse(
        &self,
        values: Vec<Value>,
    ) -> Result<Vec<Result<Accepted, WriteError>>, WriteError> {
        let objects: Vec<_> = values.into_iter().map(read).collect();
        let readable = objects.iter().flatten().map(|written| written.object.clone());
        let together = self.judged(readable.collect()).await?;
        let mut outcomes = Vec::with_capacity(objects.len());
        for read in objects {
            outcomes.push(match read {
                Err(refused) => Err(refused),
                Ok(written) => self.rehearse_one(written, &together).await,
            });
        }
        Ok(outcomes)
    }

    async fn rehearse_one(
        &self,
        written: Written,
        together: &[Diagnostic],
    ) -> Result<Accepted, WriteError> {
        let Written { object, mut diagnostics, version } = written;
        let own = |d: &&Diagnostic| d.object.as_ref() == Some(&object.id);
        diagnostics.extend(together.iter().filter(own).cloned());
        let condition = Condition::new(Expect::Any, OF_OBJECT, version)?;
        self.keep(object, diagnostics, condition, "", Mode::DryRun).await
    }

    /// Keeps an object, unless something that was found in it is an error.
    async fn keep(
        &self,
        object: Object,
        diagnostics: Vec<Diagnostic>,
        condition: Condition,
        who: &str,
        mode: Mode,
    ) -> Result<Accepted, WriteError> {
        if diagnostics.iter().any(|d| d.severity == Severity::Error) {
            return Err(WriteError::Invalid(diagnostics));
        }
        let answer = object.to_json();
        let kept = match (&self.backend, mode) {
            (Backend::KubeCluster(_), _) if object.id.kind == Kind::MESH_CONFIG => {
                return Err(WriteError::Elsewhere);
            }
            (Backend::KubeCluster(cluster), _) => {
                write_to(cluster.clone(), object, condition.expect, who.to_owned(), mode).await?
            }
            (Backend::Local(writer), Mode::DryRun) => {
                let key = key_of(&object.id);
                writer.check(&key, condition)?;
                Kept { revision: 0, created: writer.local.store.revision(&key).is_none() }
            }
            (Backend::Local(writer), Mode::Commit) => {
                writer.put(key_of(&object.id), object, condition, who).await?
            }
        };
        Ok(Accepted { kept, object: answer, diagnostics })
    }

    /// Everything that is to be said of objects as if they served: what they mean is asked before
    /// they are stored, as `analyze` and admission do, or they would be stored and never serve.
    async fn judged(&self, objects: Vec<Object>) -> Result<Vec<Diagnostic>, WriteError> {
        let findings = self.judge.among_others(objects).await.map_err(|_| WriteError::Stopping)?;
        findings.ok_or(WriteError::Unjudged)
    }

    /// Deletes an object, unless it is a dry run: the revision of the deletion, or 0.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(&self, id: &ObjectId, asked: Deletion<'_>) -> Result<u64, WriteError> {
        let version = revision(OF_DELETION, asked.version)?;
        let condition = Condition::new(asked.expect, OF_DELETION, version)?;
        let key = key_of(id);
        match (&self.backend, asked.mode) {
            (Backend::KubeCluster(cluster), mode) => {
                let (cluster, who) = (cluster.clone(), asked.who.to_owned());
                delete_from(cluster, id.clone(), condition.expect, who, mode).await
            }
            (Backend::Local(writer), Mode::DryRun) => {
                let stored = writer.local.store.get(&key);
                stored.ok_or_else(|| StoreError::NotFound(key.clone()))?;
                writer.check(&key, condition)?;
                Ok(0)
            }
            (Backend::Local(writer), Mode::Commit) => {
                writer.delete(key, condition, asked.who).await
            }
        }
    }

    fn local(&self) -> Option<&LocalStore> {
        match &self.backend {
            Backend::Local(writer) => Some(&writer.local),
            Backend::KubeCluster(_) => None,
        }
    }
}

/// Writes to the API server of a cluster. What is done is audited, whoever leaves meanwhile.
async fn write_to(
    cluster: Arc<Objects>,
    object: Object,
    expect: Expect,
    who: String,
    mode: Mode,
) -> Result<Kept, WriteError> {
    to_its_end(async move {
        let (revision, created) = cluster.put(&object, expect, mode == Mode::DryRun).await?;
        if mode == Mode::Commit {
            tracing::info!(target: "audit", object = %object.id, revision, who, "object written by the API");
        }
        Ok(Kept { revision, created })
    })
    .await
}

/// Deletes at the API server of a cluster, as [`write_to`] writes.
async fn delete_from(
    cluster: Arc<Objects>,
    id: ObjectId,
    expect: Expect,
    who: String,
    mode: Mode,
) -> Result<u64, WriteError> {
    to_its_end(async move {
        let revision = cluster.delete(&id, expect, mode == Mode::DryRun).await?;
        if mode == Mode::Commit {
            tracing::info!(target: "audit", object = %id, revision, who, "object deleted by the API");
        }
        Ok(revision)
    })
    .await
}

/// An object as it was written.
struct Written {
    object: Object,
    /// What is to be said of it alone.
    diagnostics: Vec<Diagnostic>,
    /// The revision that it is meant to replace.
    version: Option<u64>,
}

/// An object from its content.
fn read(mut value: Value) -> Result<Written, WriteError> {
    let version = take_version(&mut value)?;
    let (object, diagnostics) = parse_value(value).map_err(WriteError::Invalid)?;
    secret::split(&object).map_err(|d| WriteError::Invalid(vec![*d]))?;
    Ok(Written { object, diagnostics, version })
}

fn key_of(id: &ObjectId) -> StoreKey {
    StoreKey::new(id.kind.kind_name(), &id.namespace, &id.name)
}

fn sealed_shut(error: &SealError) -> Diagnostic {
    use ferromesh_xds_translator::diagnostic::{Code, FieldPath};
    Diagnostic::error(Code::UnreadableFile, FieldPath::root(), error.to_string())
        .fix("restore the key file, or write the Secret again")
}
