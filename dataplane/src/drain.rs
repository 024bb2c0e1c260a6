//! The end of a proxy: clients are asked to go elsewhere, what is open may finish, then the workers
//! stop.

use std::{sync::Arc, time::Duration};

use ferromesh_proto::bootstrap::ProxyType;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use crate::worker::{Phase, Shared};

/// New connections still come to a gateway for a while after an orchestrator has decided to end it:
/// balancers before it learn from its readiness and from its removal from the service.
const GATEWAY_GRACE: Duration = Duration::from_secs(5);
/// They come to a sidecar, too, but it is told to end only after its application, and callers in
/// the mesh learn at once.
const SIDECAR_GRACE: Duration = Duration::from_secs(1);
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
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How long a proxy that was told to end goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrainSettings {
    /// New connections are accepted for this time at least, since clients learn late that we go.
    pub grace: Duration,
    /// Open connections may finish until then.
    pub limit: Duration,
}

impl DrainSettings {
    /// What suits this kind of proxy, within `limit`.
    pub fn of(kind: ProxyType, limit: Duration) -> Self {
        let grace = match kind {
            ProxyType::Sidecar => SIDECAR_GRACE,
            ProxyType::Router => GATEWAY_GRACE,
        };
        Self { grace: grace.min(limit), limit }
    }
}

/// Enters draining, waits until nothing is open or the limit is over, and stops the workers.
pub async fn drain(shared: &Arc<Shared>, settings: DrainSettings) {
    let DrainSettings { grace, limit } = settings;
    shared.enter(Phase::Draining);
    let start = Instant::now();
    tracing::info!(connections = shared.connections(), limit_ms = millis(limit), "draining");
    while start.elapsed() < limit && (start.elapsed() < grace || shared.connections() > 0) {
        tokio::time::sleep(POLL).await;
    }
    tracing::info!(
        connections = shared.connections(),
        after_ms = millis(start.elapsed()),
        "drained"
    );
    shared.enter(Phase::Stopped);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::worker::shared::Counted;

    /// Enters draining with one connection open until `open_for`, and tells how long it took at
    /// least and at most.
    async fn check(
        settings: DrainSettings,
        open_for: Duration,
        at_least: Duration,
        at_most: Duration,
    ) {
        let (_, identity) = tokio::sync::watch::channel(None);
        let shared =
            Shared::new(Arc::default(), identity, Default::default(), settings.limit).unwrap();
        let connection = Counted::new(&shared).expect("nothing is limited");
        tokio::spawn(async move {
            sleep(open_for).await;
            drop(connection);
        });
        let start = Instant::now();
        drain(&shared, settings).await;
        assert_eq!(shared.phase(), Phase::Stopped);
        let took = start.elapsed();
        assert!((at_least..at_most).contains(&took), "{took:?}, expected {at_least:?} at least");
    }

    #[tokio::test]
    async fn a_drain_lasts_for_its_grace_and_then_as_long_as_connections_but_not_for_ever() {
        let millis = Duration::from_millis;
        let long = Duration::from_secs(60);
        let settings = DrainSettings { grace: millis(100), limit: long };
        check(settings, millis(0), millis(100), long).await;
        check(settings, millis(200), millis(200), long).await;
        check(DrainSettings { limit: millis(300), ..settings }, long, millis(300), long).await;
    }
}
