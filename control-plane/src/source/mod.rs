//! Configuration sources: where objects come from, and the one event type that they all feed into the pipeline.
//!
//! A source parses at its door, so that everything behind it is typed. Sources know nothing of each other; when two of
//! them hold the same object, the pipeline decides by [`SourceId`]'s order.

pub mod directory;
pub mod kubernetes;
pub mod rest;

use std::sync::Arc;

use ferromesh_xds_translator::{
    diagnostic::Diagnostic,
    dialect::{Kind, Object},
    ir::ObjectId,
    snapshot::CredentialFact,
};

use crate::secret::{self, SecretMaterial, Secrets};

/// A source, in order of precedence: when several hold an object with the same identity, the first one serves, and the
/// next one takes over when it is deleted there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceId {
    /// A Kubernetes API server.
    Kubernetes,
    /// The REST API and its store.
    Rest,
    /// A directory of YAML.
    Directory,
}

/// What a source tells the pipeline. One batch is applied as a whole: no proxy sees half of it.
#[derive(Debug)]
pub struct ConfigEvent {
    /// Who says so.
    pub source: SourceId,
    /// What changed; may be empty.
    pub changes: Vec<SourceChange>,
    /// All current diagnostics of this source, replacing its earlier ones; `None`: unchanged.
    pub diagnostics: Option<Vec<Diagnostic>>,
    /// Everything that existed when the source was started has been told.
    pub synced: bool,
}

/// One change of a source.
#[derive(Debug)]
pub enum SourceChange {
    /// An object appeared or changed. Boxed: objects are large and batches are moved around.
    Upsert(Box<Object>),
    /// An object is gone.
    Delete(ObjectId),
    /// A gateway credential appeared, changed or went; its key material is with the secret provider.
    Credential {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// `None`: it is gone.
        fact: Option<CredentialFact>,
    },
}

impl SourceChange {
    /// The door of every source: a Secret's key material goes to the secret provider, and everybody else hears of its
    /// fingerprint only; any other object passes as it is.
    ///
    /// # Errors
    /// A diagnostic when the Secret cannot be used; nothing was changed then.
    pub fn appeared(source: SourceId, secrets: &Secrets, object: &Object) -> Result<Self, Box<Diagnostic>> {
        if object.id.kind != Kind::Secret {
            return Ok(Self::Upsert(Box::new(object.clone())));
        }
        let material = secret::split(object)?;
        Ok(Self::credential(source, secrets, &object.id, material))
    }

    /// The object is gone from this source.
    pub fn vanished(source: SourceId, secrets: &Secrets, id: &ObjectId) -> Self {
        match id.kind {
            Kind::Secret => Self::credential(source, secrets, id, None),
            _ => Self::Delete(id.clone()),
        }
    }

    fn credential(source: SourceId, secrets: &Secrets, id: &ObjectId, material: Option<SecretMaterial>) -> Self {
        let fact = secrets.set(source, &id.namespace, &id.name, material);
        Self::Credential { namespace: id.namespace.clone(), name: id.name.clone(), fact }
    }
}

/// Where sources send their events.
pub type EventSender = tokio::sync::mpsc::Sender<ConfigEvent>;
