//! The REST API as a source: validates, stores, and tells the pipeline, in this order.

use std::sync::Arc;

use ferromesh_xds_translator::{
    diagnostic::{Diagnostic, Severity},
    dialect::{Kind, Object, parse_value},
};
use serde_json::Value;

use super::{ConfigEvent, EventSender, SourceChange, SourceId};
use crate::{
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
    /// The cluster's API server holds the configuration.
    #[error(
        "this control plane follows a Kubernetes cluster, whose API server holds the configuration: write with kubectl"
    )]
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
    store: Arc<dyn Store>,
    vault: Vault,
    secrets: Arc<Secrets>,
    events: EventSender,
    writes: Writes,
}

/// Where objects are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writes {
    /// Here.
    Here,
    /// At the API server of a cluster, by others; here they are only checked.
    InTheCluster,
}

impl RestSource {
    /// A source over `store`, which keeps the content of Secrets sealed by `vault`.
    pub fn new(
        store: Arc<dyn Store>,
        vault: Vault,
        secrets: Arc<Secrets>,
        events: EventSender,
        writes: Writes,
    ) -> Self {
        Self { store, vault, secrets, events, writes }
    }

    /// Tells the pipeline everything that is stored. An object that this version cannot read any more is reported and
    /// stays in the store.
    ///
    /// # Errors
    /// [`WriteError::Stopping`] when the pipeline is gone.
    pub async fn start(&self) -> Result<(), WriteError> {
        let (mut changes, mut diagnostics) = (Vec::new(), Vec::new());
        for entry in self.store.list() {
            match self.parse_stored(entry) {
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

    /// Every stored object, Secrets redacted, sorted by key; each with its revision.
    pub fn list(&self) -> Vec<(Entry, Option<Object>)> {
        let redacted = |mut entry: Entry| {
            let object = self.parse_stored(entry.clone()).ok().map(|(object, _)| object);
            if let Some(object) = &object {
                entry.value = object.to_json();
            }
            (entry, object)
        };
        self.store.list().into_iter().map(redacted).collect()
    }

    /// One stored object, redacted.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Entry> {
        let mut entry = self.store.get(&StoreKey::new(kind.kind_name(), namespace, name))?;
        if let Ok((object, _)) = self.parse_stored(entry.clone()) {
            entry.value = object.to_json();
        }
        Some(entry)
    }

    /// Validates an object and, unless it is a dry run, stores it and tells the pipeline.
    ///
    /// # Errors
    /// It is invalid, the store refuses, or the server is stopping. Nothing was changed then.
    pub async fn put(&self, value: Value, expect: Expect, who: &str, mode: Mode) -> Result<Accepted, WriteError> {
        let (object, diagnostics) = parse_value(value).map_err(WriteError::Invalid)?;
        if diagnostics.iter().any(|d| d.severity == Severity::Error) {
            return Err(WriteError::Invalid(diagnostics));
        }
        secret::split(&object).map_err(|d| WriteError::Invalid(vec![*d]))?;
        let answer = object.to_json();
        if mode == Mode::DryRun {
            return Ok(Accepted { revision: 0, object: answer, diagnostics });
        }
        self.writable()?;
        let key = key_of(&object);
        let sealed = self.vault.seal(&key, (**object.raw()).clone());
        let (store, owner) = (self.store.clone(), who.to_owned());
        // The journal waits for the disk.
        let written = tokio::task::spawn_blocking(move || store.put(&key, sealed, expect, &owner)).await;
        let revision = written.map_err(|_| WriteError::Stopping)??;
        let change = SourceChange::appeared(SourceId::Rest, &self.secrets, &object)
            .map_err(|d| WriteError::Invalid(vec![*d]))?;
        self.tell(vec![change], None).await?;
        Ok(Accepted { revision, object: answer, diagnostics })
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
        self.writable()?;
        let key = StoreKey::new(kind.kind_name(), namespace, name);
        let stored = self.store.get(&key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
        let (store, owner) = (self.store.clone(), who.to_owned());
        let deleted = tokio::task::spawn_blocking(move || store.delete(&key, expect, &owner)).await;
        let revision = deleted.map_err(|_| WriteError::Stopping)??;
        // An object that could not be read was never told to the pipeline.
        if let Ok((object, _)) = self.parse_stored(stored) {
            let change = SourceChange::vanished(SourceId::Rest, &self.secrets, &object.id);
            self.tell(vec![change], None).await?;
        }
        Ok(revision)
    }

    fn writable(&self) -> Result<(), WriteError> {
        match self.writes {
            Writes::Here => Ok(()),
            Writes::InTheCluster => Err(WriteError::Elsewhere),
        }
    }

    fn parse_stored(&self, entry: Entry) -> Result<(Object, Vec<Diagnostic>), Vec<Diagnostic>> {
        match self.vault.open_object(&entry.key, entry.value) {
            Ok(value) => parse_value(value),
            Err(error) => Err(vec![sealed_shut(&error)]),
        }
    }

    async fn tell(&self, changes: Vec<SourceChange>, diagnostics: Option<Vec<Diagnostic>>) -> Result<(), WriteError> {
        let event = ConfigEvent { source: SourceId::Rest, changes, diagnostics, synced: true };
        self.events.send(event).await.map_err(|_| WriteError::Stopping)
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
