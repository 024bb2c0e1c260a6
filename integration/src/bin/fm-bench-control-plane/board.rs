//! What the clients report: who has got everything, and when the signs of a change arrived.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use ferromesh_proto::{ResourceType, discovery::DeltaDiscoveryResponse};

/// Longest wait for all clients.
const LONGEST: Duration = Duration::from_secs(600);
const UNPOISONED: &str = "nobody panics while holding it";

/// Something by which a client knows that a change has arrived.
#[derive(Clone)]
pub(crate) struct Sign {
    /// Of which type.
    pub(crate) kind: ResourceType,
    /// The resource that is sent, or taken back.
    pub(crate) name: String,
    /// Taken back.
    pub(crate) gone: bool,
}

/// When a change arrived at the clients, from just before it was made.
#[derive(Clone, Default)]
pub(crate) struct Arrivals {
    /// The first sign at any client.
    pub(crate) first: Duration,
    /// The last sign of each client, in order.
    pub(crate) complete: Vec<Duration>,
}

/// Shared by all clients.
#[derive(Default)]
pub(crate) struct Board {
    /// Bytes read from all sockets.
    pub(crate) bytes: Arc<AtomicU64>,
    /// Resources received.
    pub(crate) resources: AtomicUsize,
    /// Clients whose stream the server has taken in.
    pub(crate) opened: AtomicUsize,
    /// How often a client was told to come back later.
    pub(crate) turned_away: AtomicUsize,
    /// Clients that have everything they asked for.
    pub(crate) configured: AtomicUsize,
    /// Why a client's stream ended.
    failure: Mutex<Option<String>>,
    watch: Mutex<Watch>,
}

#[derive(Default)]
struct Watch {
    signs: Vec<Sign>,
    began: Option<Instant>,
    /// By client: the signs that it has not seen, as bits.
    missing: Vec<u32>,
    arrivals: Arrivals,
}

impl Board {
    /// Begins to watch `proxies` clients for signs; times count from now.
    pub(crate) fn expect(&self, signs: &[Sign], proxies: usize) {
        let all = (1 << signs.len()) - 1;
        *self.watch.lock().expect(UNPOISONED) = Watch {
            signs: signs.to_vec(),
            began: Some(Instant::now()),
            missing: vec![all; proxies],
            arrivals: Arrivals::default(),
        };
    }

    /// Notes what a client received.
    pub(crate) fn observe(
        &self,
        client: usize,
        kind: ResourceType,
        response: &DeltaDiscoveryResponse,
    ) {
        self.resources.fetch_add(response.resources.len(), Ordering::Relaxed);
        let mut watch = self.watch.lock().expect(UNPOISONED);
        let Watch { signs, began: Some(began), missing, arrivals } = &mut *watch else { return };
        let Some(missing) = missing.get_mut(client).filter(|missing| **missing != 0) else {
            return;
        };
        let before = *missing;
        for (at, sign) in signs.iter().enumerate().filter(|(_, sign)| sign.kind == kind) {
            let seen = match sign.gone {
                true => response.removed_resources.contains(&sign.name),
                false => response.resources.iter().any(|r| r.name == sign.name),
            };
            if seen {
                *missing &= !(1 << at);
            }
        }
        if *missing == before {
            return;
        }
        let now = began.elapsed();
        if arrivals.first.is_zero() {
            arrivals.first = now;
        }
        if *missing == 0 {
            arrivals.complete.push(now);
        }
    }

    /// A client's stream ended.
    pub(crate) fn fail(&self, client: usize, why: &anyhow::Error) {
        self.failure
            .lock()
            .expect(UNPOISONED)
            .get_or_insert_with(|| format!("client {client}: {why:#}"));
    }

    /// Waits until every client has seen every sign.
    ///
    /// # Errors
    /// A stream ended, or that takes too long.
    pub(crate) async fn arrivals(&self, proxies: usize) -> anyhow::Result<Arrivals> {
        self.until(proxies, "heard of the change", || {
            self.watch.lock().expect(UNPOISONED).arrivals.complete.len()
        })
        .await?;
        Ok(std::mem::take(&mut *self.watch.lock().expect(UNPOISONED)).arrivals)
    }

    /// Waits until `count` reaches `proxies`.
    ///
    /// # Errors
    /// A stream ended, or that takes too long.
    pub(crate) async fn until(
        &self,
        proxies: usize,
        what: &str,
        count: impl Fn() -> usize,
    ) -> anyhow::Result<()> {
        let begin = Instant::now();
        while count() < proxies {
            if let Some(why) = &*self.failure.lock().expect(UNPOISONED) {
                bail!("{why}");
            }
            ensure!(begin.elapsed() < LONGEST, "only {} of {proxies} clients {what}", count());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}
