//! What the pipeline's thread tells everybody, and in which form.

use std::sync::Arc;

use ferromesh_xds_translator::{
    dialect::Object,
    snapshot::{Credentials, Reclassify},
    view::View,
};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use super::accounts::Accounts;

/// A view with the moment it was published.
#[derive(Clone, Debug)]
pub struct Published {
    /// The view.
    pub view: Arc<View>,
    /// When the change that led to it was taken up.
    pub at: Instant,
}

/// What the thread tells everybody.
#[derive(Debug)]
pub(super) struct Signals {
    /// Whether every source has told what it has.
    pub(super) synced: watch::Sender<bool>,
    pub(super) reclassified: broadcast::Sender<Arc<Reclassify>>,
    /// Diagnostics may have changed.
    pub(super) news: watch::Sender<()>,
    /// How many rounds there were.
    pub(super) rounds: watch::Sender<u64>,
    /// The inventory changed.
    pub(super) changes: watch::Sender<()>,
    pub(super) accounts: Accounts,
}

/// Everything that objects may refer to, or be in conflict with: what they are analyzed among.
#[derive(Default, Debug)]
pub struct Inventory {
    /// Objects that serve, of kinds that [matter](ferromesh_xds_translator::analyze::matters);
    /// sorted by identity.
    pub objects: Vec<Object>,
    /// Credentials, whose Secrets are not among the objects.
    pub credentials: Arc<Credentials>,
}
