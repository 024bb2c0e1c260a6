//! What all workers of a process share: the configuration in force, certificates, counters, and how
//! far the process has come in its life.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::config::ActiveConfig;
use crate::{
    codec::recording::Budget,
    identity::IdentityWatch,
    telemetry::{LogWriter, Metrics, Node},
    tls::TlsContexts,
    upstream::StateRegistry,
};

/// How far the process has come in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Connections are accepted and kept.
    Serving,
    /// Connections are accepted, but clients are asked to go elsewhere.
    Draining,
    /// Workers end, whatever is still open.
    Stopped,
}

/// A listener address that a worker could not open.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("listener {listener}: cannot listen on {address}: {reason}")]
pub struct BindFailure {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    pub reason: String,
}

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// Cluster states, to which accepted clusters are bound.
    pub registry: Arc<StateRegistry>,
    /// The workload's identity.
    pub identity: IdentityWatch,
    /// TLS configurations in use.
    pub tls: TlsContexts,
    /// Counters; `render` gives Prometheus' text.
    pub metrics: Metrics,
    /// The access log.
    pub log: LogWriter,
    /// What request bodies keep for other attempts.
    pub(crate) kept_bodies: Arc<Budget>,
    /// How long a connection goes on that the configuration would not take any more.
    pub(crate) drain_time: Duration,
    config: ArcSwap<ActiveConfig>,
    generation: watch::Sender<u64>,
    admission: watch::Sender<u64>,
    phase: watch::Sender<Phase>,
    connections: AtomicUsize,
    most_connections: AtomicUsize,
    workers: watch::Sender<BTreeMap<usize, Applied>>,
}

/// What a worker has made of the configuration.
#[derive(Clone, Default, Debug)]
pub(crate) struct Applied {
    pub(crate) generation: u64,
    pub(crate) failures: Vec<BindFailure>,
}

impl Shared {
    /// Nothing is configured yet.
    ///
    /// # Errors
    /// The access log's thread cannot be started.
    pub fn new(
        registry: Arc<StateRegistry>,
        identity: IdentityWatch,
        node: Node,
        drain_time: Duration,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            registry,
            tls: TlsContexts::new(identity.clone()),
            metrics: Metrics::new(node, identity.clone()),
            identity,
            log: LogWriter::start()?,
            kept_bodies: Arc::default(),
            drain_time,
            config: ArcSwap::default(),
            generation: watch::channel(0).0,
            admission: watch::channel(0).0,
            phase: watch::channel(Phase::Serving).0,
            connections: AtomicUsize::new(0),
            most_connections: AtomicUsize::new(usize::MAX),
            workers: watch::channel(BTreeMap::new()).0,
        }))
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<ActiveConfig> {
        self.config.load_full()
    }

    /// The configuration in force; `generation` tells of every one that is published later.
    pub(crate) fn newest(&self, generation: &mut watch::Receiver<u64>) -> Arc<ActiveConfig> {
        // In this order: the other way round, one that is published in between would be taken for
        // seen, and nobody would apply it until the next.
        generation.mark_unchanged();
        self.config()
    }

    /// Puts a configuration in force. Requests that come later use it; workers open and close
    /// sockets soon after.
    pub fn publish(&self, config: ActiveConfig) {
        let config = Arc::new(config);
        let before = self.config.swap(Arc::clone(&config));
        self.generation.send_replace(config.generation);
        if !config.admits_as(&before) {
            self.admission.send_replace(config.generation);
        }
    }

    /// Notes what worker number `index` has made of the configuration; before its first word it has
    /// applied none, and [`Self::applied`] waits for it.
    pub(crate) fn note_applied(&self, index: usize, applied: Applied) {
        self.workers.send_modify(|workers| {
            workers.insert(index, applied);
        });
    }

    /// Tells of each configuration that is published.
    pub(crate) fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Tells of each configuration that may take other connections than the one before it: every
    /// connection that is open listens, and most configurations concern none of them.
    pub(crate) fn admissions(&self) -> watch::Receiver<u64> {
        self.admission.subscribe()
    }

    /// Tells of each phase that is entered.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Waits until every worker has opened the sockets of this configuration or a later one; tells
    /// which it could not.
    pub async fn applied(&self, generation: u64) -> Vec<BindFailure> {
        let mut workers = self.workers.subscribe();
        let all = |workers: &BTreeMap<usize, Applied>| {
            workers.values().all(|applied| applied.generation >= generation)
        };
        // The sender is ours, so waiting cannot fail.
        let Ok(workers) = workers.wait_for(all).await else { return Vec::new() };
        distinct(&workers)
    }

    /// The listener addresses that workers cannot open now, each once; they are tried again.
    pub fn bind_failures(&self) -> Vec<BindFailure> {
        distinct(&self.workers.borrow())
    }

    /// Enters a phase; there is no way back.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let later = phase > *current;
            *current = phase.max(*current);
            later
        });
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Allows no more connections from downstream at a time: what they leave is for connections to
    /// endpoints and for the proxy's own ports.
    pub fn limit_connections(&self, most: usize) {
        self.most_connections.store(most, Relaxed);
    }

    /// Connections from downstream that are open now.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

/// What workers cannot open, each address once.
fn distinct(workers: &BTreeMap<usize, Applied>) -> Vec<BindFailure> {
    let failures = workers.values().flat_map(|applied| &applied.failures);
    let by_place: BTreeMap<(&str, SocketAddr), &BindFailure> =
        failures.map(|failure| ((&*failure.listener, failure.address), failure)).collect();
    by_place.into_values().cloned().collect()
}

/// One downstream connection, counted until dropped.
pub(crate) struct Counted(Arc<Shared>);

impl Counted {
    /// `None`: there are as many as are allowed.
    pub(crate) fn new(shared: &Arc<Shared>) -> Option<Self> {
        let before = shared.connections.fetch_add(1, Relaxed);
        let counted = Self(Arc::clone(shared));
        (before < shared.most_connections.load(Relaxed)).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::RuntimeConfig;

    #[test]
    fn no_configuration_is_missed_whenever_it_is_published() {
        const LAST: u64 = 20_000;
        let identity = watch::channel(None).1;
        let shared =
            Shared::new(Arc::default(), identity, Node::default(), Duration::ZERO).unwrap();
        let mut generation = shared.generations();
        let publisher = Arc::clone(&shared);
        let publishing = std::thread::spawn(move || {
            for number in 1..=LAST {
                let runtime = RuntimeConfig::new(number, vec![], []);
                publisher.publish(ActiveConfig::new(runtime, []));
                // As long as the next is away, nothing hides that this one was missed.
                (0..number % 500).for_each(|_| std::hint::spin_loop());
            }
        });
        let mut applied = 0;
        while applied < LAST {
            applied = shared.newest(&mut generation).generation;
            let published = *generation.borrow();
            // Nothing was told since: then there is nothing newer.
            assert!(generation.has_changed().unwrap() || applied >= published, "{published}");
        }
        publishing.join().unwrap();
    }
}
