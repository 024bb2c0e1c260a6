//! Where an authority's sealed state is kept: in a directory, or wherever else somebody implements
//! [`StateStore`].
//!
//! A store moves bytes and decides nothing. What it must give is one winner: of two that create or
//! replace at once, one is told [`StoreError::Conflict`], so that authorities that share a store
//! share one root.

pub mod directory;

use zeroize::Zeroizing;

/// Name of the half that opens the other.
pub const KEY: &str = "key";
/// Name of the sealed half.
pub const SEALED: &str = "authority.sealed";

/// Both halves, as they are kept.
pub struct Kept {
    /// Opens `sealed`.
    pub key: Zeroizing<Vec<u8>>,
    /// Everything else.
    pub sealed: Vec<u8>,
    /// Which version this is.
    pub revision: Revision,
}

/// A version of what is kept, as its store counts; equal means unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revision(pub String);

/// Why a store did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote first: read again.
    #[error("somebody else has changed it")]
    Conflict,
    /// Nothing is there that could be replaced.
    #[error("it is gone")]
    Gone,
    /// One half is missing, or what is there is not ours; never to be written over.
    #[error("{0}")]
    Incomplete(String),
    /// It cannot be read or written; names what, and why.
    #[error("{0}")]
    Failed(String),
}

/// Keeps the state of one authority. Calls may block; nobody may be able to read what is kept but
/// its owner.
pub trait StateStore: Send + Sync {
    /// What to call it in messages: `/var/lib/ca`, `Secret mesh/ca`.
    fn place(&self) -> String;

    /// What is kept; `None` only when there is certainly nothing.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] or [`StoreError::Failed`].
    fn read(&self) -> Result<Option<Kept>, StoreError>;

    /// Keeps the first state, durably and both halves at once.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is something already; [`StoreError::Failed`].
    fn create(&self, key: &[u8], sealed: &[u8]) -> Result<Revision, StoreError>;

    /// Replaces the sealed half durably, if `revision` is still what is kept.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not, [`StoreError::Gone`] when nothing is kept;
    /// [`StoreError::Failed`].
    fn replace(&self, sealed: &[u8], revision: &Revision) -> Result<Revision, StoreError>;
}
