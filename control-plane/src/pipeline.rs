//! One thread owns the compiler: events of all sources go in, views come out, and streams ask for theirs.
//!
//! A change is applied at once while changes are few; what arrives meanwhile is applied together, and in a storm rounds
//! keep a pace (pauses of at most [`LONGEST_GAP`]). Nothing is published before every source has told what
//! it has, so that a proxy that reconnects after a restart loses nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, RwLock},
    thread,
    time::Duration,
};

use ferromesh_proto::{ResourceType, SpiffeId};
use ferromesh_xds_translator::{
    analyze,
    class::{NodeIdentity, ProxyClass, Refusal as ClassRefusal},
    compiler::{Change, Compiler},
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::Object,
    ir::ObjectId,
    plan::ViewKey,
    snapshot::{Credentials, MeshSnapshot, Reclassify},
    view::View,
};
use rustc_hash::FxHashMap;
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    ads::Refusal,
    metrics::Metrics,
    precedence::{Effect, Precedence},
    source::{ConfigEvent, EventSender, SourceChange, SourceId},
};

/// Batches of events that may wait; a source that is faster waits itself.
const EVENT_QUEUE: usize = 256;
/// Events applied in one round at most.
const ROUND: usize = 4096;
/// Rounds that follow each other at once after quiet.
const BURST: f64 = 20.0;
/// Rounds per second in a storm.
const RATE: f64 = 10.0;
/// Longest pause between two rounds.
const LONGEST_GAP: Duration = Duration::from_secs(1);
/// CPU time to send a small change to one proxy.
const SEND: Duration = Duration::from_micros(25);
/// How long a view without streams is kept up to date, for a proxy that only reconnects.
const LINGER: Duration = Duration::from_secs(30);

const POISONED: &str = "no code panics while it holds this lock";

/// A view with the moment it was published.
#[derive(Clone, Debug)]
pub struct Published {
    /// The view.
    pub view: Arc<View>,
    /// When the change that led to it was taken up.
    pub at: Instant,
}

/// The pipeline has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the server is stopping")]
pub struct Stopped;

/// What streams, the REST API and others know of the pipeline. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mesh {
    asks: mpsc::UnboundedSender<Ask>,
    synced: watch::Receiver<bool>,
    reclassified: broadcast::Sender<Arc<Reclassify>>,
    news: watch::Sender<()>,
    changes: watch::Sender<()>,
    accounts: Arc<RwLock<Accounts>>,
}

/// Everything that objects may refer to, or be in conflict with: what they are analyzed among.
#[derive(Default, Debug)]
pub struct Inventory {
    /// Objects that serve, of kinds that [matter](analyze::matters); sorted by identity.
    pub objects: Vec<Object>,
    /// Credentials, whose Secrets are not among the objects.
    pub credentials: Arc<Credentials>,
}

/// Identities of workloads: those that exist, and those of which the last workload went.
#[derive(Default, Debug)]
struct Accounts {
    present: BTreeSet<(Arc<str>, Arc<str>)>,
    gone: BTreeSet<(Arc<str>, Arc<str>)>,
}

/// What a proxy refused.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// Its node id.
    pub proxy: String,
    /// The views that it gets.
    pub views: Vec<Arc<ViewKey>>,
    /// Its words.
    pub refusal: Refusal,
}

/// A view for as long as somebody needs it.
#[derive(Debug)]
pub struct Lease {
    key: Arc<ViewKey>,
    views: watch::Receiver<Published>,
}

/// Questions to the thread that owns the compiler.
#[derive(Debug)]
enum Ask {
    Classify(Box<NodeIdentity>, oneshot::Sender<Result<ProxyClass, ClassRefusal>>),
    Lease(Arc<ViewKey>, oneshot::Sender<watch::Receiver<Published>>),
    Blame(Box<Complaint>, oneshot::Sender<Vec<Diagnostic>>),
    Diagnostics(oneshot::Sender<Vec<Diagnostic>>),
    Findings(SourceId, oneshot::Sender<Vec<Diagnostic>>),
    Object(ObjectId, oneshot::Sender<Option<Object>>),
    Objects(oneshot::Sender<Vec<(SourceId, Object)>>),
    Inventory(oneshot::Sender<Inventory>),
    Snapshot(oneshot::Sender<Arc<MeshSnapshot>>),
}

impl Mesh {
    /// Starts the pipeline. `expected`: the sources that must be synced before anything is published. The last result
    /// ends when the pipeline does.
    ///
    /// # Panics
    /// When the system gives no thread.
    pub fn start(
        compiler: Compiler,
        expected: BTreeSet<SourceId>,
        metrics: Arc<Metrics>,
    ) -> (Self, EventSender, oneshot::Receiver<()>) {
        let (asks, questions) = mpsc::unbounded_channel();
        let (events, incoming) = mpsc::channel(EVENT_QUEUE);
        let (synced, sync_watch) = watch::channel(false);
        let (reclassified, _) = broadcast::channel(64);
        let (news, _) = watch::channel(());
        let (changes, _) = watch::channel(());
        let accounts: Arc<RwLock<Accounts>> = Arc::default();
        let pipeline = Pipeline {
            compiler,
            expected,
            questions,
            incoming,
            synced,
            reclassified: reclassified.clone(),
            metrics,
            precedence: Precedence::default(),
            pending: Vec::new(),
            pending_since: None,
            diagnostics: BTreeMap::new(),
            awaiting: Vec::new(),
            news: news.clone(),
            changes: changes.clone(),
            changed: false,
            views: FxHashMap::default(),
            pace: Pace::default(),
            accounts: accounts.clone(),
        };
        let (ended, end) = oneshot::channel();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a timer needs no resources");
        let work = move || {
            runtime.block_on(pipeline.run());
            drop(ended);
        };
        thread::Builder::new().name("compiler".to_owned()).spawn(work).expect("a thread at the start");
        (Self { asks, synced: sync_watch, reclassified, news, changes, accounts }, events, end)
    }

    /// Whether every source has told what it has.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until every source has told what it has; forever if the pipeline stops before.
    pub async fn until_synced(&self) {
        let mut synced = self.synced.clone();
        if synced.wait_for(|s| *s).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether a certificate of this identity may be renewed by itself: not after the last workload that had it went.
    /// An identity that no workload ever had (a proxy outside the registry) may.
    ///
    /// # Panics
    /// Never.
    pub fn may_renew(&self, id: &SpiffeId) -> bool {
        !self.accounts.read().expect(POISONED).gone.contains(&account(id))
    }

    /// Whether some workload has this identity. Nobody knows before every source has told what it has: the answer is yes.
    ///
    /// # Panics
    /// Never.
    pub fn has_workload(&self, id: &SpiffeId) -> bool {
        !self.is_synced() || self.accounts.read().expect(POISONED).present.contains(&account(id))
    }

    /// Word of changes after which some proxies belong to other classes.
    pub fn reclassified(&self) -> broadcast::Receiver<Arc<Reclassify>> {
        self.reclassified.subscribe()
    }

    /// What a proxy gets.
    ///
    /// # Errors
    /// [`Stopped`]; inside, why the proxy gets nothing.
    pub async fn classify(&self, node: NodeIdentity) -> Result<Result<ProxyClass, ClassRefusal>, Stopped> {
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

    /// Diagnostics on the objects whose translation a proxy refused.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn blame(&self, complaint: Complaint) -> Result<Vec<Diagnostic>, Stopped> {
        self.ask(|reply| Ask::Blame(Box::new(complaint), reply)).await
    }

    /// All current diagnostics of sources and translation.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn diagnostics(&self) -> Result<Vec<Diagnostic>, Stopped> {
        self.ask(Ask::Diagnostics).await
    }

    /// Diagnostics of translation and of one source, once everything is applied that sources have told before.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn findings(&self, source: SourceId) -> Result<Vec<Diagnostic>, Stopped> {
        self.ask(|reply| Ask::Findings(source, reply)).await
    }

    /// Changes whenever diagnostics may have.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
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
        self.changes.subscribe()
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

    /// Every state of the view from now on, beginning with the present one; a slow reader gets only the newest.
    pub fn follow(&self) -> watch::Receiver<Published> {
        self.views.clone()
    }

    /// Which view.
    pub fn key(&self) -> &Arc<ViewKey> {
        &self.key
    }
}

struct Served {
    sender: watch::Sender<Published>,
    idle_since: Option<Instant>,
}

struct Pipeline {
    compiler: Compiler,
    expected: BTreeSet<SourceId>,
    questions: mpsc::UnboundedReceiver<Ask>,
    incoming: mpsc::Receiver<ConfigEvent>,
    synced: watch::Sender<bool>,
    reclassified: broadcast::Sender<Arc<Reclassify>>,
    metrics: Arc<Metrics>,
    precedence: Precedence,
    pending: Vec<Change>,
    pending_since: Option<Instant>,
    diagnostics: BTreeMap<SourceId, Vec<Diagnostic>>,
    /// Who waits for the end of the next round.
    awaiting: Vec<(SourceId, oneshot::Sender<Vec<Diagnostic>>)>,
    news: watch::Sender<()>,
    changes: watch::Sender<()>,
    /// Whether what is waiting changes the inventory.
    changed: bool,
    views: FxHashMap<Arc<ViewKey>, Served>,
    pace: Pace,
    accounts: Arc<RwLock<Accounts>>,
}

impl Pipeline {
    /// Runs until nobody can ask any more.
    async fn run(mut self) {
        let mut sweep = tokio::time::interval(LINGER / 3);
        let mut sources_left = true;
        loop {
            let due = self.due();
            tokio::select! {
                ask = self.questions.recv() => match ask {
                    Some(ask) => self.answer(ask),
                    None => return,
                },
                event = self.incoming.recv(), if sources_left => match event {
                    Some(event) => self.collect(event),
                    None => sources_left = false,
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.round(),
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    /// When the next round is due; `None`: nothing is waiting, or not everything has arrived.
    fn due(&self) -> Option<Instant> {
        let waiting = self.pending_since.is_some() && self.expected.is_empty();
        waiting.then(|| self.pace.next())
    }

    fn collect(&mut self, event: ConfigEvent) {
        let ConfigEvent { source, changes, diagnostics, synced } = event;
        if synced && self.expected.remove(&source) {
            // The first round publishes even if there is nothing at all.
            self.pending_since.get_or_insert_with(Instant::now);
        }
        if let Some(diagnostics) = diagnostics {
            self.diagnostics.insert(source, diagnostics);
            self.news.send_replace(());
        }
        for change in changes {
            let change = match change {
                SourceChange::Upsert(object) => self.precedence.upsert(source, *object).into_change(),
                SourceChange::Delete(id) => self.precedence.delete(source, &id).into_change(),
                SourceChange::Credential { namespace, name, fact } => {
                    Some(Change::Credential { namespace, name, fact })
                }
            };
            self.changed |= change.as_ref().is_some_and(changes_inventory);
            self.pending.extend(change);
        }
        if !self.pending.is_empty() {
            self.pending_since.get_or_insert_with(Instant::now);
        }
    }

    /// Applies what is waiting and publishes what changed.
    fn round(&mut self) {
        while self.pending.len() < ROUND
            && let Ok(event) = self.incoming.try_recv()
        {
            self.collect(event);
        }
        let begin = Instant::now();
        let at = self.pending_since.take().unwrap_or(begin);
        let outcome = self.compiler.apply(mem::take(&mut self.pending));
        if outcome.full && *self.synced.borrow() {
            self.metrics.full_rebuilds.inc();
        }
        for view in outcome.views {
            if let Some(served) = self.views.get(&view.key) {
                served.sender.send_replace(Published { view, at });
            }
        }
        if !outcome.reclassify.is_empty() {
            self.accounts.write().expect(POISONED).update(self.compiler.snapshot());
            // No stream may be there to hear it.
            let _ = self.reclassified.send(Arc::new(outcome.reclassify));
        }
        self.synced.send_if_modified(|synced| !mem::replace(synced, true));
        if mem::take(&mut self.changed) {
            self.changes.send_replace(());
        }
        self.news.send_replace(());
        self.tell_findings();
        self.metrics.push_triggers.inc();
        self.metrics.push_time.observe(begin.elapsed().as_secs_f64());
        let streams = u32::try_from(self.metrics.streams.get()).unwrap_or(0);
        self.pace.ran(begin, Instant::now(), streams);
    }

    /// Answers; whoever asked may be gone.
    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Classify(node, reply) => drop(reply.send(self.compiler.classify(&node))),
            Ask::Lease(key, reply) => drop(reply.send(self.view(key))),
            Ask::Blame(complaint, reply) => drop(reply.send(self.blame(&complaint))),
            Ask::Diagnostics(reply) => drop(reply.send(self.all_diagnostics())),
            Ask::Findings(source, reply) => {
                self.awaiting.push((source, reply));
                while let Ok(event) = self.incoming.try_recv() {
                    self.collect(event);
                }
                if self.pending_since.is_none() {
                    self.tell_findings();
                }
            }
            Ask::Object(id, reply) => drop(reply.send(self.precedence.serving(&id).cloned())),
            Ask::Objects(reply) => drop(reply.send(self.precedence.list())),
            Ask::Inventory(reply) => drop(reply.send(self.inventory())),
            Ask::Snapshot(reply) => drop(reply.send(self.compiler.snapshot().clone())),
        }
    }

    fn view(&mut self, key: Arc<ViewKey>) -> watch::Receiver<Published> {
        if let Some(served) = self.views.get_mut(&key) {
            served.idle_since = None;
            return served.sender.subscribe();
        }
        let view = self.compiler.view(&key);
        let (sender, receiver) = watch::channel(Published { view, at: Instant::now() });
        self.views.insert(key, Served { sender, idle_since: None });
        self.metrics.views.set(self.views.len().try_into().unwrap_or(i64::MAX));
        receiver
    }

    /// Lets go of views that nobody has used for a while.
    fn sweep(&mut self) {
        let compiler = &mut self.compiler;
        self.views.retain(|key, served| {
            if served.sender.receiver_count() > 0 {
                served.idle_since = None;
                return true;
            }
            let keep = served.idle_since.get_or_insert_with(Instant::now).elapsed() < LINGER;
            if !keep {
                compiler.release(key);
            }
            keep
        });
        self.metrics.views.set(self.views.len().try_into().unwrap_or(i64::MAX));
    }

    /// Answers those who waited for everything to be applied.
    fn tell_findings(&mut self) {
        for (source, reply) in mem::take(&mut self.awaiting) {
            let told = self.diagnostics.get(&source).into_iter().flatten();
            let translated = self.compiler.diagnostics().flat_map(|(_, found)| found);
            // Whoever asked may be gone.
            let _ = reply.send(told.chain(translated).cloned().collect());
        }
    }

    fn inventory(&self) -> Inventory {
        let mut objects: Vec<Object> =
            self.precedence.all().filter(|object| analyze::matters(object.id.kind)).cloned().collect();
        objects.sort_by(|a, b| a.id.cmp(&b.id));
        Inventory { objects, credentials: self.compiler.snapshot().credentials().clone() }
    }

    fn all_diagnostics(&self) -> Vec<Diagnostic> {
        let mut all = self.diagnostics.values().flatten().cloned().collect::<Vec<_>>();
        all.extend(self.compiler.diagnostics().flat_map(|(_, found)| found).cloned());
        all
    }

    fn blame(&self, complaint: &Complaint) -> Vec<Diagnostic> {
        let Complaint { proxy, views, refusal } = complaint;
        let mut diagnostics = Vec::new();
        for name in &refusal.resources {
            // Replicas refuse in the same words: the message is the same for all of them.
            let message = format!("a proxy refused {} {name}: {}", noun(refusal.kind), refusal.message);
            let finding = Diagnostic::error(Code::RefusedByProxy, FieldPath::root(), message)
                .fix(format!("first refused by {proxy}; `ferromesh proxy-status` lists all"));
            let mut origins: Vec<ObjectId> =
                views.iter().flat_map(|key| self.compiler.origins_of(key, refusal.kind, name)).collect();
            origins.sort_unstable();
            origins.dedup();
            if origins.is_empty() {
                diagnostics.push(finding.clone());
            }
            diagnostics.extend(origins.into_iter().map(|id| match self.precedence.serving(&id) {
                Some(object) => object.diagnose(finding.clone()),
                None => finding.clone().object(id),
            }));
        }
        if diagnostics.is_empty() {
            let message = format!("a proxy refused a {}: {}", noun(refusal.kind), refusal.message);
            let finding = Diagnostic::error(Code::RefusedByProxy, FieldPath::root(), message);
            diagnostics.push(finding.fix(format!("first refused by {proxy}; `ferromesh proxy-status` lists all")));
        }
        diagnostics
    }
}

fn changes_inventory(change: &Change) -> bool {
    match change {
        Change::Upsert(object) => analyze::matters(object.id.kind),
        Change::Delete(id) => analyze::matters(id.kind),
        Change::Credential { .. } => true,
    }
}

fn account(id: &SpiffeId) -> (Arc<str>, Arc<str>) {
    (id.namespace().into(), id.service_account().into())
}

impl Accounts {
    fn update(&mut self, snapshot: &MeshSnapshot) {
        let present = snapshot.all_workloads().map(|w| (w.id.namespace.clone(), w.service_account.clone())).collect();
        let before = mem::replace(&mut self.present, present);
        self.gone.extend(before);
        self.gone.retain(|account| !self.present.contains(account));
    }
}

impl Effect {
    fn into_change(self) -> Option<Change> {
        match self {
            Self::Serves(object) => Some(Change::Upsert(object)),
            Self::Gone(id) => Some(Change::Delete(id)),
            Self::Hidden => None,
        }
    }
}

const fn noun(kind: ResourceType) -> &'static str {
    match kind {
        ResourceType::Cluster => "cluster",
        ResourceType::Endpoint => "assignment",
        ResourceType::Listener => "listener",
        ResourceType::Route => "route configuration",
        ResourceType::Secret => "secret",
    }
}

/// How fast rounds follow each other: at once while they are few, at a steady rate in a storm, and never so fast that
/// the machine does nothing else.
#[derive(Debug)]
struct Pace {
    credit: f64,
    /// When the last round ended, and how long to let others work after it.
    last: Option<(Instant, Duration)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { credit: BURST, last: None }
    }
}

impl Pace {
    /// When the next round may begin.
    fn next(&self) -> Instant {
        let Some((end, rest)) = self.last else { return Instant::now() };
        let saved = Duration::from_secs_f64((1.0 - self.credit).max(0.0) / RATE);
        end + rest.max(saved).min(LONGEST_GAP)
    }

    /// A round ran; sending its outcome to `streams` proxies takes time too.
    fn ran(&mut self, begin: Instant, end: Instant, streams: u32) {
        let idle = self.last.map_or(Duration::ZERO, |(end, _)| begin.saturating_duration_since(end));
        self.credit = (self.credit + idle.as_secs_f64() * RATE).min(BURST) - 1.0;
        self.last = Some((end, end.duration_since(begin) + SEND * streams));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses between rounds that take `work` each and follow each other as fast as allowed.
    fn pauses(pace: &mut Pace, rounds: usize, work: Duration, streams: u32) -> Vec<u128> {
        let mut now = pace.last.map_or_else(Instant::now, |(end, _)| end);
        let pause = |_| {
            let begin = if pace.last.is_some() { pace.next().max(now) } else { now };
            let paused = begin.duration_since(now);
            now = begin + work;
            pace.ran(begin, now, streams);
            paused.as_millis()
        };
        (0..rounds).map(pause).collect()
    }

    #[test]
    fn few_rounds_go_at_once_and_a_storm_is_batched() {
        let mut pace = Pace::default();
        let burst = pauses(&mut pace, 20, Duration::ZERO, 0);
        assert!(burst.iter().all(|p| *p == 0), "{burst:?}");
        let storm = pauses(&mut pace, 10, Duration::ZERO, 0);
        assert!(storm[1..].iter().all(|p| (99..=101).contains(p)), "{storm:?}");
    }

    #[test]
    fn costly_rounds_leave_time_for_others_but_no_more_than_a_second() {
        let work = Duration::from_millis(80);
        assert_eq!(pauses(&mut Pace::default(), 2, work, 0)[1], 80);
        assert_eq!(pauses(&mut Pace::default(), 2, Duration::ZERO, 1000)[1], 25);
        assert_eq!(pauses(&mut Pace::default(), 2, 100 * work, 0)[1], 1000);
    }
}
