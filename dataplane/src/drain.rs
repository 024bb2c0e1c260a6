//! The end of a proxy: clients are asked to go elsewhere, what is open may finish, then the workers stop.

use std::{sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use crate::listen::{Phase, Shared};

/// New connections still come for a while after an orchestrator has decided to end a workload.
const LONGEST_GRACE: Duration = Duration::from_secs(5);
/// How often the open connections are counted.
const POLL: Duration = Duration::from_millis(20);

/// The signals that end a proxy.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on the signals are ours.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for SIGTERM or SIGINT.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Enters draining, waits until nothing is open or `limit` is over, and stops the workers.
///
/// New connections are accepted for a fifth of the limit at least, since clients learn late that we go.
pub async fn drain(shared: &Arc<Shared>, limit: Duration) {
    shared.enter(Phase::Draining);
    let start = Instant::now();
    tracing::info!(connections = shared.connections(), limit_ms = millis(limit), "draining");
    let grace = (limit / 5).min(LONGEST_GRACE);
    while start.elapsed() < limit && (start.elapsed() < grace || shared.connections() > 0) {
        tokio::time::sleep(POLL).await;
    }
    tracing::info!(connections = shared.connections(), after_ms = millis(start.elapsed()), "drained");
    shared.enter(Phase::Stopped);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
