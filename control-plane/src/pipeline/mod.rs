//! One thread owns the compiler: events of all sources go in, views come out, and streams ask for
//! theirs.
//!
//! A change is applied at once while changes are few; what arrives meanwhile is applied together,
//! and in a storm rounds keep a pace ([`pace`]). Nothing is published before every source has told
//! what it has, so that a proxy that reconnects after a restart loses nothing. Here is what others
//! know of that thread; its work is in [`rounds`].

mod accounts;
mod blame;
mod pace;
mod rounds;
mod signals;

use std::{collections::BTreeSet, sync::Arc, thread, time::Duration};

use ferromesh_proto::SpiffeId;
use ferromesh_xds_translator::{
    class::{NodeIdentity, ProxyClass, Refusal as ClassRefusal},
    compiler::Compiler,
    diagnostic::Diagnostic,
    dialect::Object,
    ir::ObjectId,
    plan::ViewKey,
    snapshot::{MeshSnapshot, Reclassify},
    view::View,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use self::{
    accounts::Accounts,
    rounds::{Ask, Pipeline},
    signals::Signals,
};
pub use self::{
    blame::{Blame, Complaint},
    signals::{Inventory, Published},
};
use crate::{
    event::{EventSender, SourceId},
    metrics::Metrics,
};

/// Batches of events that may wait; a source that is faster waits itself.
const EVENT_QUEUE: usize = 256;

/// The pipeline has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the server is stopping")]
pub struct Stopped;

/// What streams, the REST API and others know of the pipeline. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mesh {
    asks: mpsc::UnboundedSender<Ask>,
    signals: Arc<Signals>,
}

/// A view for as long as somebody needs it.
#[derive(Debug)]
pub struct Lease {
    key: Arc<ViewKey>,
    views: watch::Receiver<Published>,
}

impl Mesh {
    /// Starts the pipeline. `expected`: the sources that must be synced before anything is
    /// published. `longest_certificate`: how long identities whose last workload went are
    /// remembered. The last result ends when the pipeline does.
    ///
    /// # Panics
    /// When the system gives no thread.
    pub fn start(
        compiler: Compiler,
        expected: BTreeSet<SourceId>,
        longest_certificate: Duration,
        metrics: Arc<Metrics>,
    ) -> (Self, EventSender, oneshot::Receiver<()>) {
        let (asks, questions) = mpsc::unbounded_channel();
        let (events, incoming) = mpsc::channel(EVENT_QUEUE);
        let signals = Arc::new(Signals {
            synced: watch::channel(false).0,
            reclassified: broadcast::channel(64).0,
            news: watch::channel(()).0,
            rounds: watch::channel(0).0,
            changes: watch::channel(()).0,
            accounts: Accounts::new(longest_certificate),
        });
        let pipeline =
            Pipeline::new(compiler, expected, questions, incoming, signals.clone(), metrics);
        let (ended, end) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a timer needs no resources");
        let work = move || {
            runtime.block_on(pipeline.run());
            drop(ended);
        };
        thread::Builder::new()
            .name("compiler".to_owned())
            .spawn(work)
            .expect("a thread at the start");
        (Self { asks, signals }, events, end)
    }

    /// Whether every source has told what it has.
    pub fn is_synced(&self) -> bool {
        *self.signals.synced.borrow()
    }

    /// Waits until every source has told what it has; forever if the pipeline stops before.
    pub async fn until_synced(&self) {
        let mut synced = self.signals.synced.subscribe();
        if synced.wait_for(|s| *s).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether a certificate of this identity may be renewed by itself: not after the last workload
    /// that had it went. An identity that no workload ever had (a proxy outside the registry) may.
    pub fn may_renew(&self, id: &SpiffeId) -> bool {
        !self.signals.accounts.is_gone(id)
    }

    /// Whether some workload has this identity. Nobody knows before every source has told what it
    /// has: the answer is yes.
    pub fn has_workload(&self, id: &SpiffeId) -> bool {
        !self.is_synced() || self.signals.accounts.is_present(id)
    }

    /// How many workloads have this identity, as far as is known now.
    pub fn workloads_of(&self, id: &SpiffeId) -> usize {
        self.signals.accounts.workloads(id)
    }

    /// Word of changes after which some proxies belong to other classes.
    pub fn reclassified(&self) -> broadcast::Receiver<Arc<Reclassify>> {
        self.signals.reclassified.subscribe()
    }

    /// What a proxy gets.
    ///
    /// # Errors
    /// [`Stopped`]; inside, why the proxy gets nothing.
    pub async fn classify(
        &self,
        node: NodeIdentity,
    ) -> Result<Result<ProxyClass, ClassRefusal>, Stopped> {
        self.ask(|reply| Ask::Classify(Box::new(node), reply)).await
    }

    /// A view, planned now if nobody has used it yet.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn lease(&self, key: &Arc<ViewKey>) -> Result<Lease, Stopped> {
        let views = self.ask(|reply| Ask::Lease(key.clone(), reply)).await?;
        Ok(Lease { key: key.clone(), views })
    }

    /// What is said of every resource that a proxy refused, on the objects that it was made from.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn blame(&self, complaint: Complaint) -> Result<Vec<Blame>, Stopped> {
        self.ask(|reply| Ask::Blame(Box::new(complaint), reply)).await
    }

    /// All current diagnostics of sources and translation.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn diagnostics(&self) -> Result<Vec<Diagnostic>, Stopped> {
        self.ask(Ask::Diagnostics).await
    }

    /// Diagnostics of translation and of one source, once everything is applied that sources have
    /// told before.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn findings(&self, source: SourceId) -> Result<Vec<Diagnostic>, Stopped> {
        self.ask(|reply| Ask::Findings(source, reply)).await
    }

    /// Changes whenever diagnostics may have.
    pub fn news(&self) -> watch::Receiver<()> {
        self.signals.news.subscribe()
    }

    /// The object that serves under an identity, if there is one.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn object(&self, id: ObjectId) -> Result<Option<Object>, Stopped> {
        self.ask(|reply| Ask::Object(id, reply)).await
    }

    /// Every object that serves, with its source; sorted by identity.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn objects(&self) -> Result<Vec<(SourceId, Object)>, Stopped> {
        self.ask(Ask::Objects).await
    }

    /// Everything that objects are analyzed among.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn inventory(&self) -> Result<Inventory, Stopped> {
        self.ask(Ask::Inventory).await
    }

    /// Changes whenever the inventory did.
    pub fn inventory_changes(&self) -> watch::Receiver<()> {
        self.signals.changes.subscribe()
    }

    /// How many rounds of changes were applied; changes with every one.
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.signals.rounds.subscribe()
    }

    /// The mesh as it is now.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn snapshot(&self) -> Result<Arc<MeshSnapshot>, Stopped> {
        self.ask(Ask::Snapshot).await
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(question(reply)).map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

impl Lease {
    /// The view as it is now.
    pub fn current(&self) -> Arc<View> {
        self.views.borrow().view.clone()
    }

    /// Every state of the view from now on, beginning with the present one; a slow reader gets only
    /// the newest.
    pub fn follow(&self) -> watch::Receiver<Published> {
        self.views.clone()
    }

    /// Which view.
    pub fn key(&self) -> &Arc<ViewKey> {
        &self.key
    }
}
