//! Writes to the store of this machine. What is stored is told to the pipeline: both or neither,
//! whoever leaves meanwhile, and in the order of revisions, or what is in force would part from
//! what is stored.

use std::sync::Arc;

use ferromesh_xds_translator::{
    diagnostic::Diagnostic,
    dialect::{Kind, Object, parse_value, stand_in},
    ir::ObjectId,
};
use tokio::sync::Mutex;

use super::{Kept, WriteError, condition::Condition, sealed_shut};
use crate::{
    event::{ConfigEvent, EventSender, SourceChange, SourceId},
    secret::{Secrets, sealed::Vault},
    source::{announced, prepared, vanished},
    store::{Entry, Store, StoreError, StoreKey},
};

/// A store, and the key of the Secrets in it.
pub struct LocalStore {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Seals the content of Secrets.
    pub vault: Vault,
}

impl LocalStore {
    /// An entry as the object that it holds.
    pub(super) fn parse(&self, entry: Entry) -> Result<(Object, Vec<Diagnostic>), Vec<Diagnostic>> {
        match self.vault.open_object(&entry.key, entry.value) {
            Ok(value) => parse_value(value),
            Err(error) => Err(vec![sealed_shut(&error)]),
        }
    }

    /// Who is in force while the entry is stored; `None`: nobody, since it cannot be read.
    fn serving(&self, entry: &Entry) -> Option<ObjectId> {
        let object = self.parse(entry.clone()).ok().map(|(object, _)| object);
        object.or_else(|| closed(entry)).map(|object| object.id)
    }
}

/// What stands in for a stored guard that cannot be read.
pub(super) fn closed(entry: &Entry) -> Option<Object> {
    stand_in::closed(&identity(entry)?, &entry.value)
}

/// Which object an entry is, whether it can be read or not.
pub(super) fn identity(entry: &Entry) -> Option<ObjectId> {
    let kind = Kind::of_value(&entry.value).ok()?;
    let [_, namespace, name] = entry.key.0.splitn(3, '/').collect::<Vec<_>>()[..] else {
        return None;
    };
    Some(ObjectId { kind, namespace: namespace.into(), name: name.into() })
}

/// Stores, and tells the pipeline.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) local: Arc<LocalStore>,
    secrets: Arc<Secrets>,
    events: EventSender,
    /// Held from before a write is stored until it is told.
    turn: Arc<Mutex<()>>,
}

impl Writer {
    pub(super) fn new(local: Arc<LocalStore>, secrets: Arc<Secrets>, events: EventSender) -> Self {
        Self { local, secrets, events, turn: Arc::default() }
    }

    /// Stores an object.
    pub(super) async fn put(
        &self,
        key: StoreKey,
        object: Object,
        condition: Condition,
        who: &str,
    ) -> Result<Kept, WriteError> {
        let prepared = prepared(&object).map_err(|d| WriteError::Invalid(vec![*d]))?;
        let who = who.to_owned();
        self.write(move |local, secrets| {
            let sealed = local.vault.seal(&key, object.raw());
            let created = local.store.revision(&key).is_none();
            let put = local.store.put(&key, sealed, condition.expect, &who);
            let revision = put.map_err(|error| condition.refusal(error))?;
            tracing::info!(target: "audit", object = %object.id, revision, who, "object written by the API");
            let change = announced(SourceId::Rest, secrets, &object, prepared);
            Ok((Kept { revision, created }, Some(change)))
        })
        .await
    }

    /// Deletes an object; the revision of the deletion.
    pub(super) async fn delete(
        &self,
        key: StoreKey,
        condition: Condition,
        who: &str,
    ) -> Result<u64, WriteError> {
        let who = who.to_owned();
        self.write(move |local, secrets| {
            let stored = local.store.get(&key);
            let stored = stored.ok_or_else(|| StoreError::NotFound(key.clone()))?;
            let deleted = local.store.delete(&key, condition.expect, &who);
            let revision = deleted.map_err(|error| condition.refusal(error))?;
            tracing::info!(target: "audit", object = %key.0, revision, who, "object deleted by the API");
            let served = local.serving(&stored);
            Ok((revision, served.map(|id| vanished(SourceId::Rest, secrets, &id))))
        })
        .await
    }

    /// What [`Self::put`] would be refused for, now.
    pub(super) fn check(&self, key: &StoreKey, condition: Condition) -> Result<(), WriteError> {
        let checked = self.local.store.check(key, condition.expect);
        checked.map_err(|error| condition.refusal(error))
    }

    /// Takes a turn, then stores and tells. Whoever leaves before the turn has written nothing;
    /// from then on it is done to its end.
    async fn write<T: Send + 'static>(
        &self,
        store: impl FnOnce(&LocalStore, &Secrets) -> Outcome<T> + Send + 'static,
    ) -> Result<T, WriteError> {
        let turn = self.turn.clone().lock_owned().await;
        let writer = self.clone();
        to_its_end(async move {
            let _turn = turn;
            let (local, secrets) = (writer.local.clone(), writer.secrets.clone());
            // The journal waits for the disk.
            let stored = tokio::task::spawn_blocking(move || store(&local, &secrets)).await;
            let (written, change) = stored.map_err(|_| WriteError::Stopping)??;
            if let Some(change) = change {
                tell(&writer.events, vec![change], None).await?;
            }
            Ok(written)
        })
        .await
    }
}

/// What a write came to, and what is to be told of it.
type Outcome<T> = Result<(T, Option<SourceChange>), WriteError>;

/// Does `work` to its end, even when nobody waits for it any more: a request's future is dropped
/// as soon as its client leaves.
pub(super) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, WriteError>> + Send + 'static,
) -> Result<T, WriteError> {
    tokio::spawn(work).await.map_err(|_| WriteError::Stopping)?
}

/// Tells the pipeline.
pub(super) async fn tell(
    events: &EventSender,
    changes: Vec<SourceChange>,
    diagnostics: Option<Vec<Diagnostic>>,
) -> Result<(), WriteError> {
    let event = ConfigEvent { source: SourceId::Rest, changes, diagnostics, synced: true };
    events.send(event).await.map_err(|_| WriteError::Stopping)
}
