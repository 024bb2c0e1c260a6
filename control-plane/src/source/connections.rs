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
//! Without a cluster nobody else tells that a workload is gone. A proxy at the address of its
//! workload that does not come back after its last stream is away: nobody is sent to its workload
//! until it is back. What was never connected is never away. Nobody can be told while nobody is
//! connected, and then it is this process that nobody reaches; so that time does not pass meanwhile,
//! and begins with whoever comes first. Who is away is known over a restart, and so is who was not:
//! what nobody labelled is called by mutual TLS because of its proxy, and must not be called in
//! plaintext when that, or this process, goes for a moment ([`kept`]).
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
    ir::{Connection, Member, Presence},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};

use self::kept::{Kept, Placed, Stay};
use crate::event::{ConfigEvent, EventSender, SourceChange, SourceId};

const POISONED: &str = "no code panics while it holds this lock";
/// What comes and goes within this time is told together. Rounds of the pipeline are for
/// configuration: connections may take a small part of them.
const GATHER: Duration = Duration::from_millis(500);
/// How long a machine stays of its group after its last stream.
const GRACE: Duration = Duration::from_secs(10);
/// Proxies that are known to be away; of more, one that is there again has to show it.
const MOST_AWAY: usize = 50_000;

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
    /// Where proxies at their workloads are kept; `None`: they are forgotten with their last streams.
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
    /// Proxies at the addresses of their workloads.
    placed: Placed,
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
    presence: Presence,
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
    /// are away `grace` after their last stream, and are kept in `file`. The pipeline hears that all is
    /// told with the first event.
    pub fn kept(file: PathBuf, grace: Duration) -> Self {
        let kept = Kept::new(file, grace);
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
            true => {
                let before = known.placed.insert(connection.clone(), Stay::Here);
                if before == Some(Stay::Away) {
                    let Connection { identity, address } = connection;
                    tracing::info!(%identity, %address, "a proxy that was away is back");
                }
                before.is_none_or(|before| before == Stay::Away)
            }
            false => known.placed.remove(connection).is_some(),
        };
    }

    /// A proxy has one more stream, by which it names this group.
    pub fn open(self: &Arc<Self>, connection: Connection, group: Option<Arc<str>>) -> Connected {
        let mut known = self.known();
        if let (Some(kept), true) = (&self.kept, known.streams.is_empty()) {
            known.wait_for_all(kept.departing());
        }
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
                if let (Some(kept), Some(stay)) = (&self.kept, known.placed.get_mut(connection)) {
                    *stay = kept.departing();
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

    /// Somebody is the first to be connected: everybody who is not away has time from now.
    fn wait_for_all(&mut self, departing: Stay) {
        let stays = self.placed.values_mut().filter(|stay| **stay != Stay::Away);
        stays.for_each(|stay| *stay = departing);
    }

    /// Whose time to come back is over is away.
    fn take_leave(&mut self, now: Instant) {
        if self.streams.is_empty() {
            return;
        }
        for (connection, stay) in &mut self.placed {
            if matches!(stay, Stay::Until(end) if *end <= now) {
                let Connection { identity, address } = connection;
                tracing::warn!(%identity, %address, "a proxy is away: nobody is sent there until it is back");
                *stay = Stay::Away;
                self.unsaved = true;
                self.changed.insert(connection.clone());
            }
        }
        let away = self.placed.iter().filter(|(_, stay)| **stay == Stay::Away);
        let more: Vec<Connection> = away.skip(MOST_AWAY).map(|(c, _)| c.clone()).collect();
        self.unsaved |= !more.is_empty();
        for connection in more {
            self.placed.remove(&connection);
            self.changed.insert(connection);
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
        self.take_leave(now);
        let mut changes = Vec::new();
        for connection in mem::take(&mut self.changed) {
            let now = self.state(&connection);
            let told = match now == Told::default() {
                true => self.told.remove(&connection),
                false => self.told.insert(connection.clone(), now.clone()),
            };
            let told = told.unwrap_or_default();
            if told.presence != now.presence {
                let (connection, presence) = (connection.clone(), now.presence);
                changes.push(SourceChange::Connection { connection, presence });
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
        let connected = self.streams.contains_key(connection) || elsewhere.is_some();
        let presence = match self.placed.get(connection) {
            _ if connected => Presence::Connected,
            Some(Stay::Here | Stay::Until(_)) => Presence::Connected,
            Some(Stay::Away) => Presence::Away,
            None => Presence::Unknown,
        };
        Told { presence, member: member.cloned() }
    }

    /// When the next machine leaves, or proxy is away.
    fn next_end(&self) -> Option<Instant> {
        let ends = self.placed.values().filter_map(|stay| match stay {
            Stay::Until(end) if !self.streams.is_empty() => Some(end),
            _ => None,
        });
        self.leaving.values().chain(ends).min().copied()
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

    /// The next event in words: `+LAST`, `-LAST`, and `~LAST` where it is away.
    async fn next(events: &mut mpsc::Receiver<ConfigEvent>) -> String {
        let event = events.recv().await.expect("the source lives");
        let word = |change: &SourceChange| match change {
            SourceChange::Connection { connection, presence } => {
                let sign = match presence {
                    Presence::Connected => '+',
                    Presence::Unknown => '-',
                    Presence::Away => '~',
                };
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

    /// A control plane that starts with what a file keeps.
    struct Started {
        connections: Arc<Connections>,
        events: mpsc::Receiver<ConfigEvent>,
        telling: tokio::task::JoinHandle<()>,
    }

    impl Started {
        fn on(file: &std::path::Path, grace: Duration) -> Self {
            let connections = Arc::new(Connections::kept(file.to_owned(), grace));
            let (sender, events) = mpsc::channel(1);
            let telling = tokio::spawn(connections.clone().tell(sender));
            Self { connections, events, telling }
        }

        /// A stream of the proxy at its workload.
        fn placed(&self, last: u8) -> Connected {
            let connected = self.connections.open(proxy(last), None);
            self.connections.place(&connected.connection, true);
            connected
        }

        async fn next(&mut self) -> String {
            next(&mut self.events).await
        }

        /// Ends it, a moment after what was told last, when that is kept.
        async fn end(self) {
            tokio::time::sleep(2 * GATHER).await;
            self.telling.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_at_its_workload_is_away_after_a_time_and_comes_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let grace = Duration::from_secs(60);
        let mut plane = Started::on(&directory.path().join("proxies"), grace);
        assert_eq!(plane.next().await, "", "nobody is known, which is said");
        let (placed, other) = (plane.placed(1), plane.placed(3));
        let stray = plane.connections.open(proxy(2), None);
        plane.connections.place(&stray.connection, false);
        assert_eq!(plane.next().await, "+1 +2 +3");
        drop(stray);
        assert_eq!(plane.next().await, "-2", "it was no workload's");
        drop(placed);
        let gone = Instant::now();
        assert_eq!(plane.next().await, "~1");
        assert!(gone.elapsed() >= grace, "{:?}", gone.elapsed());
        let back = plane.placed(1);
        assert_eq!(plane.next().await, "+1");
        plane.connections.place(&back.connection, false);
        drop(back);
        assert_eq!(plane.next().await, "-1", "its workload is another now");
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_another_stream_or_is_back_in_time_is_not_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let grace = Duration::from_secs(60);
        let mut plane = Started::on(&directory.path().join("proxies"), grace);
        assert_eq!(plane.next().await, "");
        let (first, other) = (plane.placed(1), plane.placed(3));
        assert_eq!(plane.next().await, "+1 +3");
        let second = plane.placed(1);
        drop(first);
        tokio::time::sleep(2 * grace).await;
        drop(second);
        tokio::time::sleep(grace / 2).await;
        let back = plane.placed(1);
        tokio::time::sleep(2 * grace).await;
        drop(other);
        assert_eq!(plane.next().await, "~3", "and nothing was told of the first");
        drop(back);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_away_while_nobody_is_connected_and_time_begins_with_the_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let grace = Duration::from_secs(60);
        let mut plane = Started::on(&directory.path().join("proxies"), grace);
        assert_eq!(plane.next().await, "");
        let mesh = (plane.placed(1), plane.placed(2), plane.placed(3));
        assert_eq!(plane.next().await, "+1 +2 +3");
        drop(mesh);
        tokio::time::sleep(100 * grace).await;
        let first = plane.placed(1);
        let begin = Instant::now();
        tokio::time::sleep(grace / 2).await;
        let second = plane.placed(2);
        assert_eq!(plane.next().await, "~3", "and nobody else was");
        assert!(begin.elapsed() >= grace, "{:?}", begin.elapsed());
        drop((first, second));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_away_is_so_after_a_restart_and_others_have_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("proxies");
        let grace = Duration::from_secs(60);
        let mut plane = Started::on(&file, grace);
        assert_eq!(plane.next().await, "");
        let mesh = (plane.placed(1), plane.placed(2), plane.placed(3));
        assert_eq!(plane.next().await, "+1 +2 +3");
        drop(mesh.0);
        assert_eq!(plane.next().await, "~1");
        plane.end().await;

        let mut plane = Started::on(&file, grace);
        assert_eq!(plane.next().await, "~1 +2 +3", "before they are back");
        tokio::time::sleep(100 * grace).await;
        let second = plane.placed(2);
        assert_eq!(plane.next().await, "~3");
        let first = plane.placed(1);
        assert_eq!(plane.next().await, "+1");
        plane.end().await;
        drop((first, second));

        let mut plane = Started::on(&file, grace);
        assert_eq!(plane.next().await, "+1 +2 ~3");
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
