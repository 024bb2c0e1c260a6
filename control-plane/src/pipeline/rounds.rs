//! The thread that owns the compiler: it collects events, applies them in rounds, publishes views
//! and answers questions.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    time::Duration,
};

use ferromesh_xds_translator::{
    analyze,
    class::{NodeIdentity, ProxyClass, Refusal as ClassRefusal},
    compiler::{Change, Compiler},
    diagnostic::Diagnostic,
    dialect::Object,
    ir::ObjectId,
    plan::ViewKey,
    snapshot::MeshSnapshot,
};
use rustc_hash::FxHashMap;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    blame::{Blame, Complaint, blame},
    pace::Pace,
    signals::{Inventory, Published, Signals},
};
use crate::{
    event::{ConfigEvent, SourceChange, SourceId},
    metrics::Metrics,
    precedence::{Effect, Precedence},
};

/// Events applied in one round at most.
const ROUND: usize = 4096;
/// How long a view without streams is kept up to date, for a proxy that only reconnects. A minute
/// after the last has left, what was made for it is gone.
const LINGER: Duration = Duration::from_secs(45);
/// How often it is looked for what nobody needs any more.
const SWEEP: Duration = Duration::from_secs(5);

/// Questions to the thread that owns the compiler.
#[derive(Debug)]
pub(super) enum Ask {
    Classify(Box<NodeIdentity>, oneshot::Sender<Result<ProxyClass, ClassRefusal>>),
    Lease(Arc<ViewKey>, oneshot::Sender<watch::Receiver<Published>>),
    Blame(Box<Complaint>, oneshot::Sender<Vec<Blame>>),
    Diagnostics(oneshot::Sender<Vec<Diagnostic>>),
    Findings(SourceId, oneshot::Sender<Vec<Diagnostic>>),
    Object(ObjectId, oneshot::Sender<Option<Object>>),
    Objects(oneshot::Sender<Vec<(SourceId, Object)>>),
    Inventory(oneshot::Sender<Inventory>),
    Snapshot(oneshot::Sender<Arc<MeshSnapshot>>),
}

struct Served {
    sender: watch::Sender<Published>,
    idle_since: Option<Instant>,
}

/// How many objects a round takes in and takes away; of those that come and go with every pod's
/// condition none.
#[derive(Default)]
struct Taken {
    written: usize,
    deleted: usize,
}

impl Taken {
    fn count(&mut self, change: Option<&Change>) {
        match change {
            Some(Change::Upsert(object)) if analyze::matters(object.id.kind) => self.written += 1,
            Some(Change::Delete(id)) if analyze::matters(id.kind) => self.deleted += 1,
            _ => {}
        }
    }

    fn tell(self, views: usize, took: Duration) {
        let Self { written, deleted } = self;
        if written + deleted > 0 {
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(written, deleted, views, took_ms, "configuration taken in");
        }
    }
}

/// The compiler with everything around it.
pub(super) struct Pipeline {
    compiler: Compiler,
    expected: BTreeSet<SourceId>,
    questions: mpsc::UnboundedReceiver<Ask>,
    incoming: mpsc::Receiver<ConfigEvent>,
    signals: Arc<Signals>,
    metrics: Arc<Metrics>,
    precedence: Precedence,
    pending: Vec<Change>,
    pending_since: Option<Instant>,
    diagnostics: BTreeMap<SourceId, Vec<Diagnostic>>,
    /// Who waits for the end of the next round.
    awaiting: Vec<(SourceId, oneshot::Sender<Vec<Diagnostic>>)>,
    /// Whether what is waiting changes the inventory.
    changed: bool,
    taken: Taken,
    /// Former states may have gathered since the last sweep.
    untidy: bool,
    views: FxHashMap<Arc<ViewKey>, Served>,
    pace: Pace,
}

impl Pipeline {
    /// Nothing is known yet; `expected` are the sources without which nothing is published.
    pub(super) fn new(
        compiler: Compiler,
        expected: BTreeSet<SourceId>,
        questions: mpsc::UnboundedReceiver<Ask>,
        incoming: mpsc::Receiver<ConfigEvent>,
        signals: Arc<Signals>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            compiler,
            expected,
            questions,
            incoming,
            signals,
            metrics,
            precedence: Precedence::default(),
            pending: Vec::new(),
            pending_since: None,
            diagnostics: BTreeMap::new(),
            awaiting: Vec::new(),
            changed: false,
            taken: Taken::default(),
            untidy: false,
            views: FxHashMap::default(),
            pace: Pace::default(),
        }
    }

    /// Runs until nobody can ask any more.
    pub(super) async fn run(mut self) {
        let mut sweep = tokio::time::interval(SWEEP);
        let mut sources_left = true;
        loop {
            let due = self.due();
            tokio::select! {
                ask = self.questions.recv() => match ask {
                    // Who asks about a write that was acknowledged must find it.
                    Some(ask) => {
                        self.collect_waiting();
                        self.answer(ask);
                    }
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

    /// When the next round is due; `None`: nothing is waiting, or not everything has arrived. Which
    /// keys are wanted only a round tells.
    fn due(&self) -> Option<Instant> {
        let missing = self.expected.iter().any(|source| *source != SourceId::Keys);
        (self.pending_since.is_some() && !missing).then(|| self.pace.next())
    }

    fn collect(&mut self, event: ConfigEvent) {
        let ConfigEvent { source, changes, diagnostics, synced } = event;
        if synced && self.expected.remove(&source) {
            // The first round publishes even if there is nothing at all.
            self.pending_since.get_or_insert_with(Instant::now);
        }
        if let Some(diagnostics) = diagnostics {
            self.diagnostics.insert(source, diagnostics);
            self.signals.news.send_replace(());
        }
        for change in changes {
            let change = match change {
                SourceChange::Upsert(object) => {
                    self.precedence.upsert(source, *object).into_change()
                }
                SourceChange::Delete(id) => self.precedence.delete(source, &id).into_change(),
                SourceChange::Credential { namespace, name, fact } => {
                    Some(Change::Credential { namespace, name, fact })
                }
                SourceChange::Connection { connection, presence } => {
                    Some(Change::Connection { connection, presence })
                }
                SourceChange::Member { connection, member } => {
                    Some(Change::Member { connection, member })
                }
                SourceChange::KeySet { source, keys } => Some(Change::KeySet { source, keys }),
            };
            self.changed |= change.as_ref().is_some_and(changes_inventory);
            self.taken.count(change.as_ref());
            self.pending.extend(change);
        }
        if !self.pending.is_empty() {
            self.pending_since.get_or_insert_with(Instant::now);
        }
    }

    /// Collects what sources have told already.
    fn collect_waiting(&mut self) {
        while self.pending.len() < ROUND
            && let Ok(event) = self.incoming.try_recv()
        {
            self.collect(event);
        }
    }

    /// Applies what is waiting and publishes what changed.
    fn round(&mut self) {
        self.collect_waiting();
        let begin = Instant::now();
        let at = self.pending_since.take().unwrap_or(begin);
        let outcome = self.compiler.apply(mem::take(&mut self.pending));
        self.untidy = true;
        if outcome.full && *self.signals.synced.borrow() {
            self.metrics.full_rebuilds.inc();
        }
        let views = outcome.views.len();
        for view in outcome.views {
            if let Some(served) = self.views.get(&view.key) {
                served.sender.send_replace(Published { view, at });
            }
        }
        if !outcome.reclassify.is_empty() {
            self.signals.accounts.update(self.compiler.snapshot());
            // No stream may be there to hear it.
            let _ = self.signals.reclassified.send(Arc::new(outcome.reclassify));
        }
        if self.expected.is_empty() {
            self.signals.synced.send_if_modified(|synced| !mem::replace(synced, true));
        }
        self.signals.rounds.send_modify(|rounds| *rounds += 1);
        if mem::take(&mut self.changed) {
            self.signals.changes.send_replace(());
        }
        self.signals.news.send_replace(());
        self.tell_findings();
        self.metrics.push_triggers.inc();
        self.metrics.push_time.observe(begin.elapsed().as_secs_f64());
        let streams = u32::try_from(self.metrics.streams.get()).unwrap_or(0);
        self.pace.ran(begin, Instant::now(), streams);
        mem::take(&mut self.taken).tell(views, begin.elapsed());
    }

    /// Answers; whoever asked may be gone.
    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Classify(node, reply) => drop(reply.send(self.compiler.classify(&node))),
            Ask::Lease(key, reply) => drop(reply.send(self.view(key))),
            Ask::Blame(complaint, reply) => {
                drop(reply.send(blame(&self.compiler, &self.precedence, &complaint)))
            }
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
        let (compiler, before) = (&mut self.compiler, self.views.len());
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
        if self.views.len() < before || mem::take(&mut self.untidy) {
            self.compiler.trim();
            self.views.shrink_to(2 * self.views.len());
        }
        self.metrics.views.set(self.views.len().try_into().unwrap_or(i64::MAX));
    }

    /// Answers those who waited for everything to be applied.
    fn tell_findings(&mut self) {
        for (source, reply) in mem::take(&mut self.awaiting) {
            // What is said of keys is said of objects of any source.
            let told = [source, SourceId::Keys];
            let told = told.iter().filter_map(|source| self.diagnostics.get(source)).flatten();
            let translated = self.compiler.diagnostics().flat_map(|(_, found)| found);
            // Whoever asked may be gone.
            let _ = reply.send(told.chain(translated).cloned().collect());
        }
    }

    fn inventory(&self) -> Inventory {
        let mut objects: Vec<Object> = self
            .precedence
            .all()
            .filter(|object| analyze::matters(object.id.kind))
            .cloned()
            .collect();
        objects.sort_by(|a, b| a.id.cmp(&b.id));
        Inventory { objects, credentials: self.compiler.snapshot().credentials().clone() }
    }

    fn all_diagnostics(&self) -> Vec<Diagnostic> {
        let mut all = self.diagnostics.values().flatten().cloned().collect::<Vec<_>>();
        all.extend(self.compiler.diagnostics().flat_map(|(_, found)| found).cloned());
        all
    }
}

fn changes_inventory(change: &Change) -> bool {
    match change {
        Change::Upsert(object) => analyze::matters(object.id.kind),
        Change::Delete(id) => analyze::matters(id.kind),
        Change::Credential { .. } => true,
        Change::Connection { .. } | Change::Member { .. } | Change::KeySet { .. } => false,
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
