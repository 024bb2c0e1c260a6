//! Proxies that are connected, as a source: streams come and go, and the pipeline is told which
//! proxies have any.
//!
//! A stream holds a [`Connected`] and waits for nobody. What changed is told together and at a
//! pace, so that a mesh that comes back at once is few events; a proxy that only changed its stream
//! meanwhile is none.
//!
//! Replicas of one cluster know the same connections: each tells the others its own ([`replicas`]),
//! but for those of pods, whose lives the API server tells every replica.

pub mod replicas;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use ferromesh_xds_translator::{
    class::{NodeIdentity, ProxyClass},
    ir::Connection,
};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use crate::event::{ConfigEvent, EventSender, SourceChange, SourceId};

const POISONED: &str = "no code panics while it holds this lock";
/// What comes and goes within this time is told together. Rounds of the pipeline are for
/// configuration: connections may take a small part of them.
const GATHER: Duration = Duration::from_millis(500);

/// Every connection of this process, and what other replicas tell of theirs.
#[derive(Default, Debug)]
pub struct Connections {
    /// There may be other replicas.
    shared: bool,
    known: Mutex<Known>,
    changed: Notify,
    /// Follows the connections of this process alone.
    here: watch::Sender<()>,
}

#[derive(Default, Debug)]
struct Known {
    /// How many streams each connected proxy has; never zero.
    streams: BTreeMap<Connection, usize>,
    /// What is connected to other replicas; `None` until they were heard.
    elsewhere: Option<BTreeSet<Connection>>,
    /// What the pipeline was told to be connected.
    told: BTreeSet<Connection>,
    /// Proxies that may be another than what was told.
    changed: BTreeSet<Connection>,
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

    /// The connection of a stream of `node`; `None` where it counts for nobody: it proves nothing,
    /// or is of a pod, of which other replicas would not hear from here.
    pub fn enter(self: &Arc<Self>, node: &NodeIdentity, class: &ProxyClass) -> Option<Connected> {
        let identity = node.proven.clone()?;
        let counts = !(self.shared && class.in_slices);
        counts.then(|| self.open(Connection { identity, address: node.address }))
    }

    /// A proxy has one more stream.
    pub fn open(self: &Arc<Self>, connection: Connection) -> Connected {
        let mut known = self.known();
        *known.streams.entry(connection.clone()).or_default() += 1;
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

    /// What is connected to this process; sorted.
    pub fn here(&self) -> Vec<Connection> {
        self.known().streams.keys().cloned().collect()
    }

    /// Changes with [`Self::here`].
    pub fn changes_here(&self) -> watch::Receiver<()> {
        self.here.subscribe()
    }

    /// Other replicas tell that these proxies are connected, and no others.
    pub fn elsewhere(&self, connected: BTreeSet<Connection>) {
        let mut known = self.known();
        let former = known.elsewhere.replace(connected);
        let news: BTreeSet<Connection> = match (&former, &known.elsewhere) {
            (Some(former), Some(now)) => former.symmetric_difference(now).cloned().collect(),
            (_, now) => now.clone().unwrap_or_default(),
        };
        let tells = former.is_none() || !news.is_empty();
        known.changed.extend(news);
        drop(known);
        if tells {
            self.changed.notify_one();
        }
    }

    /// Tells the pipeline who comes and goes, until it is gone.
    pub async fn tell(self: Arc<Self>, events: EventSender) {
        // What is alone has nobody to wait for.
        let mut synced = !self.shared;
        loop {
            let (changes, heard) = self.known().changes();
            if changes.is_empty() && (synced || !heard) {
                self.changed.notified().await;
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

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect(POISONED)
    }
}

impl Known {
    /// What is another than what was told last, and whether other replicas were heard.
    fn changes(&mut self) -> (Vec<SourceChange>, bool) {
        let mut changes = Vec::new();
        for connection in mem::take(&mut self.changed) {
            let elsewhere = || self.elsewhere.iter().any(|all| all.contains(&connection));
            let connected = self.streams.contains_key(&connection) || elsewhere();
            let news = match connected {
                true => self.told.insert(connection.clone()),
                false => self.told.remove(&connection),
            };
            if news {
                changes.push(SourceChange::Connection { connection, connected });
            }
        }
        (changes, self.elsewhere.is_some())
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
            other => panic!("{other:?}"),
        };
        event.changes.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_is_connected_until_its_last_stream_ends() {
        let connections = Arc::<Connections>::default();
        let (sender, mut events) = mpsc::channel(1);
        tokio::spawn(connections.clone().tell(sender));
        let (first, second) = (connections.open(proxy(1)), connections.open(proxy(1)));
        assert_eq!(next(&mut events).await, "+1");
        drop(first);
        let other = connections.open(proxy(2));
        assert_eq!(next(&mut events).await, "+2", "one of two streams is left");
        drop(second);
        assert_eq!(next(&mut events).await, "-1");
        drop(other);
        assert_eq!(next(&mut events).await, "-2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mesh_that_comes_back_is_one_event_and_a_new_stream_is_none() {
        let connections = Arc::<Connections>::default();
        let (sender, mut events) = mpsc::channel(1);
        tokio::spawn(connections.clone().tell(sender));
        let first = connections.open(proxy(0));
        assert_eq!(next(&mut events).await, "+0");
        let mesh: Vec<Connected> = (1..=3).map(|last| connections.open(proxy(last))).collect();
        drop(first);
        let again = connections.open(proxy(0));
        assert_eq!(next(&mut events).await, "+1 +2 +3");
        drop((mesh, again));
        assert_eq!(next(&mut events).await, "-0 -1 -2 -3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_changes_its_replica_stays_connected() {
        let connections = Arc::new(Connections::of_replica());
        let (sender, mut events) = mpsc::channel(1);
        tokio::spawn(connections.clone().tell(sender));
        let here = connections.open(proxy(1));
        let first = events.recv().await.expect("the source lives");
        assert!(!first.synced && first.changes.len() == 1, "others were not heard: {first:?}");
        connections.elsewhere(BTreeSet::from([proxy(1), proxy(2)]));
        let heard = events.recv().await.expect("the source lives");
        assert!(heard.synced && heard.changes.len() == 1, "{heard:?}");
        drop(here);
        connections.elsewhere(BTreeSet::from([proxy(1)]));
        assert_eq!(next(&mut events).await, "-2", "the first is connected elsewhere");
        let again = connections.open(proxy(1));
        connections.elsewhere(BTreeSet::new());
        let other = connections.open(proxy(3));
        assert_eq!(next(&mut events).await, "+3", "the first came back");
        drop((again, other));
        assert_eq!(next(&mut events).await, "-1 -3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_hears_nobody_is_told_of_all_the_same() {
        let connections = Arc::new(Connections::of_replica());
        let (sender, mut events) = mpsc::channel(1);
        tokio::spawn(connections.clone().tell(sender));
        connections.elsewhere(BTreeSet::new());
        let event = events.recv().await.expect("the source lives");
        assert!(event.synced && event.changes.is_empty(), "{event:?}");
    }
}
