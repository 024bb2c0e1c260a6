//! Starts workers: threads that accept connections and carry them to their end.
//!
//! ```text
//! worker (config by ArcSwap, pools, counters) ─▶ one per core: accept ─▶ sniff ─▶ tls ─▶ http | tcp
//! ```
//! Every worker opens its own socket for each listener (SO_REUSEPORT) and keeps its connections,
//! pools and timers on its own thread; nothing on the way of a request is locked. A new
//! configuration opens and closes sockets; what is connected goes on.

pub mod accept;
pub mod original_dst;
pub mod sniff;

use std::{
    cell::RefCell, collections::HashMap, io, net::SocketAddr, rc::Rc, sync::Arc, thread,
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

use crate::{
    runtime::RuntimeConfig,
    upstream::dns,
    worker::{BindFailure, Phase, Shared, Worker, shared::Applied},
};

/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// Longest time between attempts to open an address.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Starts worker number `index` on a thread of its own; it ends when [`Phase::Stopped`] is entered.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn_worker(
    index: usize,
    shared: Arc<Shared>,
) -> io::Result<thread::JoinHandle<io::Result<()>>> {
    // Registered before the thread runs, so that `applied` waits for it.
    shared.note_applied(index, Applied::default());
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let runtime = tokio::runtime::LocalRuntime::new()?;
        runtime.block_on(run(index, shared));
        Ok(())
    })
}

/// Serves until [`Phase::Stopped`] is entered. Must run on a local runtime.
pub(crate) async fn run(index: usize, shared: Arc<Shared>) {
    let worker = Rc::new(Worker::new(&shared));
    if index == 0 {
        tokio::spawn(dns::run(Arc::clone(&shared.registry)));
    }
    // One speaks for all of what none can open.
    let sockets = Sockets { speaks: index == 0, ..Sockets::default() };
    let (mut generation, mut phase) = (worker.generation.clone(), worker.phase.clone());
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let config = shared.newest(&mut generation);
        let failures = sockets.apply(&worker, &config);
        shared.note_applied(index, Applied { generation: config.generation, failures });
        // The failed addresses are tried again with the sweep.
        loop {
            tokio::select! {
                _ = generation.changed() => break,
                _ = phase.wait_for(|phase| *phase == Phase::Stopped) => return,
                _ = sweep.tick() => {
                    let config = shared.config();
                    worker.pools.sweep(|name| config.cluster(name));
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
    failed: RefCell<HashMap<SocketAddr, Failed>>,
    /// Failures are logged.
    speaks: bool,
}

/// An address that could not be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Failed {
    reason: String,
    /// How long to wait from this failure to the next attempt, and the next line in the log.
    wait: Duration,
    /// When to try again.
    next: Instant,
}

impl Failed {
    /// A failure at `now`, and whether it is to be told: waits double as long as the reason stays,
    /// and what another configuration tries in between is no news.
    fn after(before: Option<Self>, reason: String, now: Instant) -> (Self, bool) {
        let wait = match before {
            Some(before) if before.reason == reason && now < before.next => return (before, false),
            Some(before) if before.reason == reason => (before.wait * 2).min(LONGEST_RETRY),
            _ => SWEEP,
        };
        (Self { reason, wait, next: now + wait }, true)
    }
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
            .flat_map(|listener| {
                listener.addresses.iter().map(|address| (*address, Arc::clone(&listener.name)))
            })
            .collect();
        let mut open = self.open.borrow_mut();
        open.retain(|address, socket| {
            let kept = wanted.get(address) == Some(&socket.listener);
            if !kept {
                socket.accepting.abort();
            }
            kept
        });
        let (mut failures, mut failed) = (Vec::new(), HashMap::new());
        let mut before = self.failed.take();
        for (address, listener) in wanted {
            if open.contains_key(&address) {
                continue;
            }
            match accept::open(worker, address, &listener) {
                Ok(accepting) => {
                    open.insert(address, Socket { listener, accepting });
                }
                Err(error) => {
                    let reason = error.to_string();
                    let (failure, is_news) =
                        Failed::after(before.remove(&address), reason.clone(), Instant::now());
                    if is_news && self.speaks {
                        let retry_in_s = failure.wait.as_secs();
                        tracing::warn!(%listener, %address, %error, retry_in_s, "cannot listen");
                    }
                    failed.insert(address, failure);
                    failures.push(BindFailure { listener, address, reason });
                }
            }
        }
        *self.failed.borrow_mut() = failed;
        failures
    }

    fn retry_due(&self) -> bool {
        let now = Instant::now();
        self.failed.borrow().values().any(|failure| failure.next <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_told_and_tried_less_and_less_often() {
        let mut now = Instant::now();
        let (mut failed, is_news) = Failed::after(None, "in use".to_owned(), now);
        assert!(is_news);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(failed.wait, Duration::from_secs(seconds));
            let between = Failed::after(Some(failed.clone()), "in use".to_owned(), now);
            assert_eq!(between, (failed.clone(), false));
            now = failed.next;
            let (next, is_news) = Failed::after(Some(failed), "in use".to_owned(), now);
            assert!(is_news);
            failed = next;
        }
        let (other, is_news) = Failed::after(Some(failed), "denied".to_owned(), now);
        assert_eq!((other.wait, is_news), (SWEEP, true));
    }
}
