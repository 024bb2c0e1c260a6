//! Workers: threads that accept connections and carry them to their end.
//!
//! ```text
//! Shared (config by ArcSwap, certificates, counters) ─▶ Worker per core ─▶ accept ─▶ sniff ─▶ tls ─▶ http | tcp
//! ```
//! Every worker opens its own socket for each listener (SO_REUSEPORT) and keeps its connections, pools and timers on
//! its own thread; nothing on the way of a request is locked. A new configuration opens and closes sockets; what is
//! connected goes on.

pub mod accept;
pub mod original_dst;
pub mod sniff;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::watch, task::AbortHandle};

use crate::{
    identity::IdentityWatch,
    runtime::RuntimeConfig,
    telemetry::{LogWriter, Metrics, Node, metrics::WorkerMetrics},
    tls::TlsContexts,
    upstream::{StateRegistry, dns, pool::Pools},
};

/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

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
    /// Cluster states, which the compiler asks for, too.
    pub registry: Arc<StateRegistry>,
    /// The workload's identity.
    pub identity: IdentityWatch,
    /// TLS configurations in use.
    pub tls: TlsContexts,
    /// Counters; `render` gives Prometheus' text.
    pub metrics: Metrics,
    /// The access log.
    pub log: LogWriter,
    config: ArcSwap<RuntimeConfig>,
    generation: watch::Sender<u64>,
    phase: watch::Sender<Phase>,
    connections: AtomicUsize,
    workers: watch::Sender<BTreeMap<usize, Applied>>,
}

/// What a worker has made of the configuration.
#[derive(Clone, Default, Debug)]
struct Applied {
    generation: u64,
    failures: Vec<BindFailure>,
}

impl Shared {
    /// Nothing is configured yet.
    ///
    /// # Errors
    /// The access log's thread cannot be started.
    pub fn new(registry: Arc<StateRegistry>, identity: IdentityWatch, node: Node) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            registry,
            tls: TlsContexts::new(identity.clone()),
            metrics: Metrics::new(node, identity.clone()),
            identity,
            log: LogWriter::start()?,
            config: ArcSwap::default(),
            generation: watch::channel(0).0,
            phase: watch::channel(Phase::Serving).0,
            connections: AtomicUsize::new(0),
            workers: watch::channel(BTreeMap::new()).0,
        }))
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<RuntimeConfig> {
        self.config.load_full()
    }

    /// Puts a configuration in force. Requests that come later use it; workers open and close sockets soon after.
    pub fn publish(&self, config: RuntimeConfig) {
        let generation = config.generation;
        self.config.store(Arc::new(config));
        self.generation.send_replace(generation);
    }

    /// Waits until every worker has opened the sockets of this configuration or a later one; tells which it could not.
    pub async fn applied(&self, generation: u64) -> Vec<BindFailure> {
        let mut workers = self.workers.subscribe();
        let all = |workers: &BTreeMap<usize, Applied>| workers.values().all(|applied| applied.generation >= generation);
        // The sender is ours, so waiting cannot fail.
        let Ok(workers) = workers.wait_for(all).await else { return Vec::new() };
        let mut failures: Vec<BindFailure> = workers.values().flat_map(|applied| applied.failures.clone()).collect();
        failures.dedup();
        failures
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

    /// Connections from downstream that are open now.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

/// One downstream connection, counted until dropped.
pub(crate) struct Counted(Arc<Shared>);

impl Counted {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// A worker as its tasks see it. Lives on one thread.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pools: Pools,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) generation: watch::Receiver<u64>,
}

/// Starts worker number `index` on a thread of its own; it ends when [`Phase::Stopped`] is entered.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn_worker(index: usize, shared: Arc<Shared>) -> io::Result<thread::JoinHandle<io::Result<()>>> {
    // Registered before the thread runs, so that `applied` waits for it.
    shared.workers.send_modify(|workers| {
        workers.insert(index, Applied::default());
    });
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let runtime = tokio::runtime::LocalRuntime::new()?;
        runtime.block_on(run(index, shared));
        Ok(())
    })
}

/// Serves until [`Phase::Stopped`] is entered. Must run on a local runtime.
pub(crate) async fn run(index: usize, shared: Arc<Shared>) {
    let metrics = shared.metrics.worker();
    let worker = Rc::new(Worker {
        pools: Pools::new(Arc::clone(&metrics)),
        metrics,
        phase: shared.phase.subscribe(),
        generation: shared.generation.subscribe(),
        shared: Arc::clone(&shared),
    });
    if index == 0 {
        tokio::spawn(dns::run(Arc::clone(&shared.registry)));
    }
    let sockets = Sockets::default();
    let (mut generation, mut phase) = (worker.generation.clone(), worker.phase.clone());
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let config = shared.config();
        generation.mark_unchanged();
        let failures = sockets.apply(&worker, &config);
        let applied = Applied { generation: config.generation, failures };
        shared.workers.send_modify(|workers| {
            workers.insert(index, applied);
        });
        // The failed addresses are tried again with the sweep.
        loop {
            tokio::select! {
                _ = generation.changed() => break,
                _ = phase.wait_for(|phase| *phase == Phase::Stopped) => return,
                _ = sweep.tick() => {
                    worker.pools.sweep(&shared.config());
                    if sockets.retry_due() { break }
                }
            }
        }
    }
}

/// The sockets of one worker, by address.
#[derive(Default)]
struct Sockets {
    open: RefCell<HashMap<SocketAddr, Socket>>,
    failed: RefCell<Vec<SocketAddr>>,
}

struct Socket {
    listener: Arc<str>,
    accepting: AbortHandle,
}

impl Sockets {
    /// Opens what is new, closes what is gone, and leaves the rest alone.
    fn apply(&self, worker: &Rc<Worker>, config: &RuntimeConfig) -> Vec<BindFailure> {
        let bound = config.listeners.iter().filter(|listener| listener.bind_to_port);
        let wanted: HashMap<SocketAddr, Arc<str>> = bound
            .flat_map(|listener| listener.addresses.iter().map(|address| (*address, Arc::clone(&listener.name))))
            .collect();
        let mut open = self.open.borrow_mut();
        open.retain(|address, socket| {
            let kept = wanted.get(address) == Some(&socket.listener);
            if !kept {
                socket.accepting.abort();
            }
            kept
        });
        let mut failures = Vec::new();
        for (address, listener) in wanted {
            if open.contains_key(&address) {
                continue;
            }
            match accept::open(worker, address, &listener) {
                Ok(accepting) => {
                    open.insert(address, Socket { listener, accepting });
                }
                Err(error) => {
                    tracing::warn!(%listener, %address, %error, "cannot listen");
                    failures.push(BindFailure { listener, address, reason: error.to_string() });
                }
            }
        }
        *self.failed.borrow_mut() = failures.iter().map(|failure| failure.address).collect();
        failures
    }

    fn retry_due(&self) -> bool {
        !self.failed.borrow().is_empty()
    }
}
