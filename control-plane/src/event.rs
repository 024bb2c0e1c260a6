//! What sources tell the pipeline: the one event type that all of them feed into it.
//!
//! Below sources and pipeline, so that neither has to know the other.

use std::sync::Arc;

use ferromesh_xds_translator::{
    diagnostic::Diagnostic,
    dialect::Object,
    ir::{Connection, KeySet, KeySource, Member, ObjectId, Presence},
    snapshot::CredentialFact,
};

/// A source, in order of precedence: when several hold an object with the same identity, the first
/// one serves, and the next one takes over when it is deleted there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceId {
    /// A Kubernetes API server.
    Kubernetes,
    /// The REST API and its store.
    Rest,
    /// A directory of YAML.
    Directory,
    /// The proxies that are connected; it holds no objects.
    Connections,
    /// Keys that tokens are verified with; it holds no objects.
    Keys,
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
    /// A gateway credential appeared, changed or went; its key material is with the secret
    /// provider.
    Credential {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// `None`: it is gone.
        fact: Option<CredentialFact>,
    },
    /// A proxy came, or is gone.
    Connection {
        /// Which proxy.
        connection: Connection,
        /// What is known of it now.
        presence: Presence,
    },
    /// A connected proxy says something of its machine.
    Member {
        /// Which proxy.
        connection: Connection,
        /// What it says; `None`: it is gone, or of no group.
        member: Option<Member>,
    },
    /// Keys of a source were fetched, are others, or are in force no more.
    KeySet {
        /// Where they are fetched from.
        source: KeySource,
        /// `None`: no token is valid by it.
        keys: Option<KeySet>,
    },
}

/// Where sources send their events.
pub type EventSender = tokio::sync::mpsc::Sender<ConfigEvent>;
