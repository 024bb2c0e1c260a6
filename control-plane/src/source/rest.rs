//! The REST API as a source: validates, stores, and tells the pipeline, in this order. Where a cluster holds the
//! configuration, its API server stores, and the source that follows the cluster tells the pipeline.

use std::sync::Arc;

use ferromesh_xds_translator::{
    diagnostic::{Diagnostic, Severity},
    dialect::{Kind, Object, parse_value},
    ir::{MeshDefaults, ObjectId},
    lower::lower,
};
use serde_json::Value;

use super::{ConfigEvent, EventSender, SourceChange, SourceId};
use crate::{
    cluster::objects::{Objects, ObjectsError},
    secret::{
        self, Secrets,
        sealed::{SealError, Vault},
    },
    store::{Entry, Expect, Store, StoreError, StoreKey},
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
    /// The cluster's API server did not take it.
    #[error(transparent)]
    Cluster(#[from] ObjectsError),
    /// The mesh configuration of a cluster is no object of its own.
    #[error("in a cluster the mesh configuration is key `mesh` of ConfigMap istio in the root namespace: write that")]
    Elsewhere,
    /// The server is stopping.
    #[error("the server is stopping; the write may be repeated later")]
    Stopping,
}

fn plural(count: usize) -> String {
    if count == 1 { "an error".to_owned() } else { format!("{count} errors") }
}

/// An accepted write.
#[derive(Debug)]
pub struct Accepted {
    /// Its revision; 0 for a dry run.
    pub revision: u64,
    /// The object as it serves, a Secret's values replaced.
    pub object: Value,
    /// Warnings and remarks about it.
    pub diagnostics: Vec<Diagnostic>,
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
    shelf: Shelf,
    secrets: Arc<Secrets>,
    events: EventSender,
}

/// Where objects are kept.
pub enum Shelf {
    /// Here.
    Store(Kept),
    /// At the API server of a cluster.
    Cluster(Objects),
}

/// A store, and the key of the Secrets in it.
pub struct Kept {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Seals the content of Secrets.
    pub vault: Vault,
}

impl RestSource {
    /// A source that keeps objects on `shelf`.
    pub fn new(shelf: Shelf, secrets: Arc<Secrets>, events: EventSender) -> Self {
        Self { shelf, secrets, events }
    }

    /// Tells the pipeline everything that is stored. An object that this version cannot read any more is reported and
    /// stays in the store.
    ///
    /// # Errors
    /// [`WriteError::Stopping`] when the pipeline is gone.
    pub async fn start(&self) -> Result<(), WriteError> {
        let (mut changes, mut diagnostics) = (Vec::new(), Vec::new());
        let stored = self.kept().map(|kept| kept.store.list().into_iter().map(|entry| kept.parse(entry)));
        for object in stored.into_iter().flatten() {
            match object {
                Ok((object, remarks)) => {
                    diagnostics.extend(remarks);
                    match SourceChange::appeared(SourceId::Rest, &self.secrets, &object) {
                        Ok(change) => changes.push(change),
                        Err(diagnostic) => diagnostics.push(*diagnostic),
                    }
                }
                Err(errors) => diagnostics.extend(errors),
            }
        }
        self.tell(changes, Some(diagnostics)).await
    }

    /// One object of the store, redacted.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Entry> {
        let kept = self.kept()?;
        let mut entry = kept.store.get(&StoreKey::new(kind.kind_name(), namespace, name))?;
        if let Ok((object, _)) = kept.parse(entry.clone()) {
            entry.value = object.to_json();
        }
        Some(entry)
    }

    /// Validates an object and, unless it is a dry run, stores it and tells the pipeline.
    ///
    /// # Errors
    /// It is invalid, the store refuses, or the server is stopping. Nothing was changed then.
    pub async fn put(&self, value: Value, expect: Expect, who: &str, mode: Mode) -> Result<Accepted, WriteError> {
        let (object, mut diagnostics) = parse_value(value).map_err(WriteError::Invalid)?;
        // What an object means is asked here too, as `analyze` and admission do, or it would be stored and never serve.
        diagnostics.extend(lower(&object, &MeshDefaults::default()).diagnostics);
        if diagnostics.iter().any(|d| d.severity == Severity::Error) {
            return Err(WriteError::Invalid(diagnostics));
        }
        secret::split(&object).map_err(|d| WriteError::Invalid(vec![*d]))?;
        let answer = object.to_json();
        let revision = match (&self.shelf, mode) {
            (Shelf::Cluster(_), _) if object.id.kind == Kind::MeshConfig => return Err(WriteError::Elsewhere),
            (Shelf::Cluster(cluster), _) => cluster.put(&object, expect, mode == Mode::DryRun).await?,
            (Shelf::Store(_), Mode::DryRun) => 0,
            (Shelf::Store(kept), Mode::Commit) => self.store(kept, &object, expect, who).await?,
        };
        if mode == Mode::Commit {
            tracing::info!(target: "audit", object = %object.id, revision, who, "object written by the API");
        }
        Ok(Accepted { revision, object: answer, diagnostics })
    }

    async fn store(&self, kept: &Kept, object: &Object, expect: Expect, who: &str) -> Result<u64, WriteError> {
        let key = key_of(object);
        let sealed = kept.vault.seal(&key, object.raw());
        let (store, owner) = (kept.store.clone(), who.to_owned());
        // The journal waits for the disk.
        let written = tokio::task::spawn_blocking(move || store.put(&key, sealed, expect, &owner)).await;
        let revision = written.map_err(|_| WriteError::Stopping)??;
        let change =
            SourceChange::appeared(SourceId::Rest, &self.secrets, object).map_err(|d| WriteError::Invalid(vec![*d]))?;
        self.tell(vec![change], None).await?;
        Ok(revision)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        expect: Expect,
        who: &str,
    ) -> Result<u64, WriteError> {
        let kept = match &self.shelf {
            Shelf::Store(kept) => kept,
            Shelf::Cluster(cluster) => {
                let id = ObjectId { kind, namespace: namespace.into(), name: name.into() };
                let revision = cluster.delete(&id, expect).await?;
                tracing::info!(target: "audit", object = %id, who, "object deleted by the API");
                return Ok(revision);
            }
        };
        let key = StoreKey::new(kind.kind_name(), namespace, name);
        let key_text = key.0.clone();
        let stored = kept.store.get(&key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
        let (store, owner) = (kept.store.clone(), who.to_owned());
        let deleted = tokio::task::spawn_blocking(move || store.delete(&key, expect, &owner)).await;
        let revision = deleted.map_err(|_| WriteError::Stopping)??;
        tracing::info!(target: "audit", object = %key_text, revision, who, "object deleted by the API");
        // An object that could not be read was never told to the pipeline.
        if let Ok((object, _)) = kept.parse(stored) {
            let change = SourceChange::vanished(SourceId::Rest, &self.secrets, &object.id);
            self.tell(vec![change], None).await?;
        }
        Ok(revision)
    }

    fn kept(&self) -> Option<&Kept> {
        match &self.shelf {
            Shelf::Store(kept) => Some(kept),
            Shelf::Cluster(_) => None,
        }
    }

    async fn tell(&self, changes: Vec<SourceChange>, diagnostics: Option<Vec<Diagnostic>>) -> Result<(), WriteError> {
        let event = ConfigEvent { source: SourceId::Rest, changes, diagnostics, synced: true };
        self.events.send(event).await.map_err(|_| WriteError::Stopping)
    }
}

impl Kept {
    fn parse(&self, entry: Entry) -> Result<(Object, Vec<Diagnostic>), Vec<Diagnostic>> {
        match self.vault.open_object(&entry.key, entry.value) {
            Ok(value) => parse_value(value),
            Err(error) => Err(vec![sealed_shut(&error)]),
        }
    }
}

fn key_of(object: &Object) -> StoreKey {
    StoreKey::new(object.id.kind.kind_name(), &object.id.namespace, &object.id.name)
}

fn sealed_shut(error: &SealError) -> Diagnostic {
    use ferromesh_xds_translator::diagnostic::{Code, FieldPath};
    Diagnostic::error(Code::UnreadableFile, FieldPath::root(), error.to_string())
        .fix("restore the key file, or write the Secret again")
}
