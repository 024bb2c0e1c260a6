//! Proxies that are connected, as a source: streams come and go, and the pipeline is told which
//! proxies have any.
//!
//! A stream holds a [`Connected`] and waits for nobody. What changed is told together and at a
//! pace, so that a mesh that comes back at once is few events; a proxy that only changed its stream
//! meanwhile is none.
//!
//! A proxy that names a WorkloadGroup says of its machine that it is of that group, and perhaps how it
//! is. What it said counts for a while after its last stream, so that a proxy that only reconnects
//! does not leave. Whether the group takes it, the snapshot decides.
//!
//! Without a cluster, a proxy at the address of its workload counts as connected for longer: what
//! nobody labelled is called by mutual TLS because of it, and must not be called in plaintext when
//! its proxy, or this process, goes for a moment ([`kept`]).
//!
//! Replicas of one cluster know the same connections: each tells the others its own ([`replicas`]),
//! but for those of pods, whose lives the API server tells every replica.

mod kept;
pub mod replicas;

use std::{
    collections::{BTreeMap, BTreeSet},
    future, mem,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use ferromesh_xds_translator::{
    class::{NodeIdentity, ProxyClass},
    ir::{Connection, Member},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};

use self::kept::Kept;
use crate::event::{ConfigEvent, EventSender, SourceChange, SourceId};

const POISONED: &str = "no code panics while it holds this lock";
/// What comes and goes within this time is told together. Rounds of the pipeline are for
/// configuration: connections may take a small part of them.
const GATHER: Duration = Duration::from_millis(500);
/// How long a machine stays of its group after its last stream.
const GRACE: Duration = Duration::from_secs(10);

/// Connected proxies, and what those say of their machines that name a group.
pub type Crowd = BTreeMap<Connection, Option<Member>>;

/// Every connection of this process, and what other replicas tell of theirs.
#[derive(Default, Debug)]
pub struct Connections {
    /// There may be other replicas.
    shared: bool,
    known: Mutex<Known>,
    changed: Notify,
    /// Follows the connections of this process alone.
    here: watch::Sender<()>,
    /// Where proxies at their workloads are kept; `None`: they go with their last streams.
    kept: Option<Kept>,
}

#[derive(Default, Debug)]
struct Known {
    /// How many streams each connected proxy has; never zero.
    streams: BTreeMap<Connection, usize>,
    /// What proxies say of their machines: those of [`Self::streams`], and those that are leaving.
    members: BTreeMap<Connection, Member>,
    /// Until when those count that have no stream any more.
    leaving: BTreeMap<Connection, Instant>,
    /// Proxies at the addresses of their workloads, and until when those count that have no stream.
    placed: BTreeMap<Connection, Option<Instant>>,
    /// Whether [`Self::placed`] is another than what is kept.
    unsaved: bool,
    /// What is connected to other replicas; `None` until they were heard.
    elsewhere: Option<Crowd>,
    /// What the pipeline was told.
    told: BTreeMap<Connection, Told>,
    /// Proxies that may be another than what was told.
    changed: BTreeSet<Connection>,
}

/// What the pipeline was told of a proxy.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Told {
    connected: bool,
    member: Option<Member>,
}

/// A stream of a proxy, for as long as it lives.
#[derive(Debug)]
pub struct Connected {
    connections: Arc<Connections>,
    connection: Connection,
}

impl Connections {
    /// Connections of a control plane that may be one of several replicas in a cluster. The
    /// pipeline hears that all is told once [`Self::elsewhere`] was said.
    pub fn of_replica() -> Self {
        Self { shared: true, ..Self::default() }
    }

    /// Connections of a control plane without a cluster. Proxies at the addresses of their workloads
    /// count until `stay` after their last stream, and are kept in `file`. The pipeline hears that all
    /// is told with the first event.
    pub fn kept(file: PathBuf, stay: Duration) -> Self {
        let kept = Kept::new(file, stay);
        let placed = kept.load();
        let changed = placed.keys().cloned().collect();
        // There is nobody else to be heard.
        let known = Known { placed, changed, elsewhere: Some(Crowd::new()), ..Known::default() };
        Self { known: Mutex::new(known), kept: Some(kept), ..Self::default() }
    }

    /// The connection of a stream of `node`; `None` where it counts for nobody: it proves nothing,
    /// or is of a pod, of which other replicas would not hear from here.
    pub fn enter(self: &Arc<Self>, node: &NodeIdentity, class: &ProxyClass) -> Option<Connected> {
        let identity = node.proven.clone()?;
        let counts = !(self.shared && class.in_slices);
        let group = node.facts.group.clone();
        let connection = Connection { identity, address: node.address };
        counts.then(|| {
            let connected = self.open(connection, group);
            self.place(&connected.connection, class.at_workload);
            connected
        })
    }

    /// A connected proxy is at the address of its workload, or not.
    fn place(&self, connection: &Connection, at_workload: bool) {
        if self.kept.is_none() {
            return;
        }
        let mut known = self.known();
        let known = &mut *known;
        known.unsaved |= match at_workload {
            true => known.placed.insert(connection.clone(), None) != Some(None),
            false => known.placed.remove(connection).is_some(),
        };
    }

    /// A proxy has one more stream, by which it names this group.
    pub fn open(self: &Arc<Self>, connection: Connection, group: Option<Arc<str>>) -> Connected {
        let mut known = self.known();
        *known.streams.entry(connection.clone()).or_default() += 1;
        known.leaving.remove(&connection);
        known.join(&connection, group);
        known.changed.insert(connection.clone());
        drop(known);
        self.tell_change();
        Connected { connections: self.clone(), connection }
    }

    fn close(&self, connection: &Connection) {
        let mut known = self.known();
        if let Some(streams) = known.streams.get_mut(connection) {
            *streams -= 1;
            if *streams == 0 {
                known.streams.remove(connection);
                if known.members.contains_key(connection) {
                    known.leaving.insert(connection.clone(), Instant::now() + GRACE);
                }
                if let (Some(kept), Some(end)) = (&self.kept, known.placed.get_mut(connection)) {
                    *end = Some(Instant::now() + kept.stay());
                    known.unsaved = true;
                }
            }
        }
        known.changed.insert(connection.clone());
        drop(known);
        self.tell_change();
    }

    fn tell_change(&self) {
        self.changed.notify_one();
        self.here.send_replace(());
    }

    /// A proxy tells whether its machine is well.
    fn report(&self, connection: &Connection, healthy: bool) {
        let mut known = self.known();
        let Some(member) = known.members.get_mut(connection) else { return };
        if member.healthy.replace(healthy) != Some(healthy) {
            known.changed.insert(connection.clone());
            drop(known);
            self.tell_change();
        }
    }

    /// What is connected to this process.
    pub fn here(&self) -> Crowd {
        let known = self.known();
        let said = |connection: &Connection| known.members.get(connection).cloned();
        known.streams.keys().map(|connection| (connection.clone(), said(connection))).collect()
    }

    /// Changes with [`Self::here`].
    pub fn changes_here(&self) -> watch::Receiver<()> {
        self.here.subscribe()
    }

    /// Other replicas tell that these proxies are connected, and no others.
    pub fn elsewhere(&self, connected: Crowd) {
        let mut known = self.known();
        let former = known.elsewhere.replace(connected.clone());
        let before = former.clone().unwrap_or_default();
        let either = before.keys().chain(connected.keys());
        let differs =
            |connection: &&Connection| before.get(*connection) != connected.get(*connection);
        let news: BTreeSet<Connection> = either.filter(differs).cloned().collect();
        let tells = former.is_none() || !news.is_empty();
        known.changed.extend(news);
        drop(known);
        if tells {
            self.changed.notify_one();
        }
    }

    /// Tells the pipeline who comes and goes, until it is gone.
    pub async fn tell(self: Arc<Self>, events: EventSender) {
        let mut synced = !self.shared && self.kept.is_none();
        loop {
            let (changes, heard) = self.known().changes(Instant::now());
            self.keep().await;
            if changes.is_empty() && (synced || !heard) {
                let end = self.known().next_end();
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = until(end) => {}
                }
                continue;
            }
            synced |= heard;
            let source = SourceId::Connections;
            let event = ConfigEvent { source, changes, diagnostics: None, synced };
            if events.send(event).await.is_err() {
                return;
            }
            sleep(GATHER).await;
        }
    }

    /// Keeps what has changed of the proxies at their workloads.
    async fn keep(&self) {
        let Some(kept) = &self.kept else { return };
        let placed = {
            let mut known = self.known();
            mem::take(&mut known.unsaved).then(|| known.placed.clone())
        };
        if let Some(placed) = placed {
            kept.save(placed).await;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect(POISONED)
    }
}

impl Known {
    /// A proxy names a group, or none. Of the same group it is as it was.
    fn join(&mut self, connection: &Connection, group: Option<Arc<str>>) {
        let same = |member: &Member| Some(&member.group) == group.as_ref();
        let before = self.members.remove(connection).filter(same);
        let fresh = |group| Member { group, healthy: None };
        if let Some(member) = before.or_else(|| group.map(fresh)) {
            self.members.insert(connection.clone(), member);
        }
    }

    /// What is another than what was told last, and whether other replicas were heard.
    fn changes(&mut self, now: Instant) -> (Vec<SourceChange>, bool) {
        let ended = self.leaving.iter().filter(|(_, end)| **end <= now);
        let ended: Vec<Connection> = ended.map(|(connection, _)| connection.clone()).collect();
        for connection in ended {
            self.leaving.remove(&connection);
            self.members.remove(&connection);
            self.changed.insert(connection);
        }
        let over = self.placed.iter().filter(|(_, end)| end.is_some_and(|end| end <= now));
        let over: Vec<Connection> = over.map(|(connection, _)| connection.clone()).collect();
        self.unsaved |= !over.is_empty();
        for connection in over {
            self.placed.remove(&connection);
            self.changed.insert(connection);
        }
        let mut changes = Vec::new();
        for connection in mem::take(&mut self.changed) {
            let now = self.state(&connection);
            let told = match now == Told::default() {
                true => self.told.remove(&connection),
                false => self.told.insert(connection.clone(), now.clone()),
            };
            let told = told.unwrap_or_default();
            if told.connected != now.connected {
                let (connection, connected) = (connection.clone(), now.connected);
                changes.push(SourceChange::Connection { connection, connected });
            }
            if told.member != now.member {
                changes.push(SourceChange::Member { connection, member: now.member });
            }
        }
        (changes, self.elsewhere.is_some())
    }

    /// What there is to tell of a proxy now. What it tells this process of its machine is newer than
    /// what it told others.
    fn state(&self, connection: &Connection) -> Told {
        let elsewhere = self.elsewhere.as_ref().and_then(|crowd| crowd.get(connection));
        let here = self.members.get(connection);
        let reported = here.filter(|member| member.healthy.is_some());
        let member = reported.or_else(|| elsewhere?.as_ref()).or(here);
        Told {
            connected: self.streams.contains_key(connection)
                || self.placed.contains_key(connection)
                || elsewhere.is_some(),
            member: member.cloned(),
        }
    }

    /// When the next machine leaves, or proxy counts no longer.
    fn next_end(&self) -> Option<Instant> {
        self.leaving.values().chain(self.placed.values().flatten()).min().copied()
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => future::pending().await,
    }
}

impl Connected {
    /// The proxy tells whether its machine is well.
    pub fn report(&self, healthy: bool) {
        self.connections.report(&self.connection, healthy);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.connections.close(&self.connection);
    }
}

#[cfg(test)]
mod tests {
    use ferromesh_proto::{SpiffeId, TrustDomain};
    use tokio::sync::mpsc;

    use super::*;

    fn proxy(last: u8) -> Connection {
        let identity = SpiffeId::new(TrustDomain::default(), "shop", "cart").expect("good names");
        Connection { identity, address: [10, 0, 0, last].into() }
    }

    /// The next event in words: `+LAST` and `-LAST`.
    async fn next(events: &mut mpsc::Receiver<ConfigEvent>) -> String {
        let event = events.recv().await.expect("the source lives");
        let word = |change: &SourceChange| match change {
            SourceChange::Connection { connection, connected } => {
                let sign = if *connected { '+' } else { '-' };
                format!("{sign}{}", connection.address.to_string().trim_start_matches("10.0.0."))
            }
            SourceChange::Member { member: None, .. } => "left".to_owned(),
            SourceChange::Member { member: Some(Member { group, healthy }), .. } => {
                format!("{group}:{healthy:?}")
            }
            other => panic!("{other:?}"),
        };
        event.changes.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_is_connected_until_its_last_stream_ends() {
        let connections = Arc::<Connections>::default();
        let (sender, mut events) = mpsc::channel(1);
        tokio::spawn(connections.clone().tell(sender));
        let (first, second) = (connections.open(proxy(1), None), connections.open(proxy(1), None));
        assert_eq!(next(&mut events).await, "+1");
        drop(first);
        let other = connections.open(proxy(2), None);
        assert_eq!(next(&mut events).await, "+2", "one of two streams is left");
        drop(second);
        assert_eq!(next(&mut events).await, "-1");
        drop(other);
        assert_eq!(next(&mut events).await, "-2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_at_its_workload_counts_for_a_time_and_over_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("proxies");
        let stay = Duration::from_secs(3600);
        let start = || {
            let connections = Arc::new(Connections::kept(file.clone(), stay));
            let (sender, events) = mpsc::channel(1);
            let telling = tokio::spawn(connections.clone().tell(sender));
            (connections, events, telling)
        };
        let (connections, mut events, telling) = start();
        assert_eq!(next(&mut events).await, "", "nobody is known, which is said");
        let (placed, stray) = (connections.open(proxy(1), None), connections.open(proxy(2), None));
        connections.place(&placed.connection, true);
        connections.place(&stray.connection, false);
        assert_eq!(next(&mut events).await, "+1 +2");
        drop(stray);
        assert_eq!(next(&mut events).await, "-2", "it was no workload's");
        telling.abort();
        drop((placed, connections));

        let (connections, mut events, telling) = start();
        assert_eq!(next(&mut events).await, "+1", "before it is back");
        let back = connections.open(proxy(1), None);
        connections.place(&back.connection, true);
        drop(back);
        let gone = Instant::now();
        assert_eq!(next(&mut events).await, "-1");
        assert!(gone.elapsed() >= stay, "{:?}", gone.elapsed());
        // What was told is kept a moment later.
        tokio::time::sleep(2 * GATHER).await;
        telling.abort();
        drop(connections);

        let (connections, mut events, _telling) = start();
        assert_eq!(next(&mut events).await, "");
        let moved = connections.open(proxy(1), None);
        connections.place(&moved.connection, true);
        assert_eq!(next(&mut events).await, "+1");
        connections.place(&moved.connection, false);
        drop(moved);
        assert_eq!(next(&mut events).await, "-1", "its workload is another now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_is_of_its_group_until_some_time_after_its_last_stream() {
        let connections = Arc::<Connections>::default();
        let (sender, mut events) = mpsc::channel(1);
        tokio::spawn(connections.clone().tell(sender));
        let vms = || Some(Arc::from("vms"));
        let first = connections.open(proxy(1), vms());
        assert_eq!(next(&mut events).await, "+1 vms:None");
        first.report(true);
        assert_eq!(next(&mut events).await, "vms:Some(true)");
        drop(first);
        assert_eq!(next(&mut events).await, "-1", "it may come back");
        let again = connections.open(proxy(1), vms());
        assert_eq!(next(&mut events).await, "+1", "and is as it was");
        again.report(false);
        assert_eq!(next(&mut events).await, "vms:Some(false)");
        drop(again);
        let gone = Instant::now();
        assert_eq!(next(&mut events).await, "-1");
        assert_eq!(next(&mut events).await, "left");
        assert!(gone.elapsed() >= GRACE, "{:?}", gone.elapsed());
        let other = connections.open(proxy(1), Some("others".into()));
        assert_eq!(next(&mut events).await, "+1 others:None", "of another group it is new");
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_machine_tells_another_replica_counts_here() {
        let connections = Arc::new(Connections::of_replica());
        let (sender, mut events) = mpsc::channel(1);
        tokio::spawn(connections.clone().tell(sender));
        let said = |healthy| Some(Member { group: "vms".into(), healthy });
        connections.elsewhere(Crowd::from([(proxy(1), said(Some(true)))]));
        assert_eq!(next(&mut events).await, "+1 vms:Some(true)");
        let here = connections.open(proxy(1), Some("vms".into()));
        connections.elsewhere(Crowd::from([(proxy(1), said(Some(false)))]));
        assert_eq!(next(&mut events).await, "vms:Some(false)", "nothing is said here yet");
        here.report(true);
        assert_eq!(next(&mut events).await, "vms:Some(true)");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mesh_that_comes_back_is_one_event_and_a_new_stream_is_none() {
        let connections = Arc::<Connections>::default();
        let (sender, mut events) = mpsc::channel(1);
        tokio::spawn(connections.clone().tell(sender));
        let first = connections.open(proxy(0), None);
        assert_eq!(next(&mut events).await, "+0");
        let mesh: Vec<Connected> =
            (1..=3).map(|last| connections.open(proxy(last), None)).collect();
        drop(first);
        let again = connections.open(proxy(0), None);
        assert_eq!(next(&mut events).await, "+1 +2 +3");
        drop((mesh, again));
        assert_eq!(next(&mut events).await, "-0 -1 -2 -3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_changes_its_replica_stays_connected() {
        let connections = Arc::new(Connections::of_replica());
        let (sender, mut events) = mpsc::channel(1);
        tokio::spawn(connections.clone().tell(sender));
        let here = connections.open(proxy(1), None);
        let first = events.recv().await.expect("the source lives");
        assert!(!first.synced && first.changes.len() == 1, "others were not heard: {first:?}");
        connections.elsewhere(Crowd::from([(proxy(1), None), (proxy(2), None)]));
        let heard = events.recv().await.expect("the source lives");
        assert!(heard.synced && heard.changes.len() == 1, "{heard:?}");
        drop(here);
        connections.elsewhere(Crowd::from([(proxy(1), None)]));
        assert_eq!(next(&mut events).await, "-2", "the first is connected elsewhere");
        let again = connections.open(proxy(1), None);
        connections.elsewhere(Crowd::new());
        let other = connections.open(proxy(3), None);
        assert_eq!(next(&mut events).await, "+3", "the first came back");
        drop((again, other));
        assert_eq!(next(&mut events).await, "-1 -3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_hears_nobody_is_told_of_all_the_same() {
        let connections = Arc::new(Connections::of_replica());
        let (sender, mut events) = mpsc::channel(1);
        tokio::spawn(connections.clone().tell(sender));
        connections.elsewhere(Crowd::new());
        let event = events.recv().await.expect("the source lives");
        assert!(event.synced && event.changes.is_empty(), "{event:?}");
    }
}
