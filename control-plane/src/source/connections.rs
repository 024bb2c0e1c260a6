//! Proxies that are connected, as a source: streams come and go, and the pipeline is told which
//! proxies have any.
//!
//! A stream holds a [`Connected`] and waits for nobody. What changed is told together and at a
//! pace, so that a mesh that comes back at once is few events; a proxy that only changed its stream
//! meanwhile is none.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use ferromesh_xds_translator::ir::Connection;
use tokio::{sync::Notify, time::sleep};

use crate::event::{ConfigEvent, EventSender, SourceChange, SourceId};

const POISONED: &str = "no code panics while it holds this lock";
/// What comes and goes within this time is told together. Rounds of the pipeline are for
/// configuration: connections may take a small part of them.
const GATHER: Duration = Duration::from_millis(500);

/// Every connection of this process.
#[derive(Default, Debug)]
pub struct Connections {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Default, Debug)]
struct Known {
    /// How many streams each connected proxy has; never zero.
    streams: BTreeMap<Connection, usize>,
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
    /// A proxy has one more stream.
    pub fn open(self: &Arc<Self>, connection: Connection) -> Connected {
        let mut known = self.known();
        *known.streams.entry(connection.clone()).or_default() += 1;
        known.changed.insert(connection.clone());
        drop(known);
        self.changed.notify_one();
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
        self.changed.notify_one();
    }

    /// Tells the pipeline who comes and goes, until it is gone.
    pub async fn tell(self: Arc<Self>, events: EventSender) {
        loop {
            self.changed.notified().await;
            let changes = self.known().changes();
            if changes.is_empty() {
                continue;
            }
            let source = SourceId::Connections;
            let event = ConfigEvent { source, changes, diagnostics: None, synced: true };
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
    /// What is another than what was told last.
    fn changes(&mut self) -> Vec<SourceChange> {
        let mut changes = Vec::new();
        for connection in mem::take(&mut self.changed) {
            let connected = self.streams.contains_key(&connection);
            let news = match connected {
                true => self.told.insert(connection.clone()),
                false => self.told.remove(&connection),
            };
            if news {
                changes.push(SourceChange::Connection { connection, connected });
            }
        }
        changes
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
}
