//! What all streams of a server have in common: where they read, where they count, and what ends
//! them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    arrivals::Arrivals,
    inbox::{self, Begun},
    keeping::{self, Kept},
};
use crate::{
    metrics::Metrics, pipeline::Mesh, secret::SecretProvider, source::connections::Connections,
    status::Proxies,
};

/// What all streams of the server share.
pub struct Shared {
    /// Views and classes.
    pub mesh: Mesh,
    /// Gateways' credentials.
    pub secrets: Arc<dyn SecretProvider>,
    /// Who is connected.
    pub proxies: Arc<Proxies>,
    /// Tells the pipeline who is connected with proof.
    pub connections: Arc<Connections>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How this server calls itself: shown by Envoy as `control_plane.identifier`.
    pub identifier: String,
    /// Tells the time.
    pub clock: fn() -> SystemTime,
    /// Ends every stream.
    pub stop: CancellationToken,
    /// The streams' tasks.
    pub tasks: TaskTracker,
    arrivals: Arc<Arrivals>,
    begun: Begun,
    kept: Kept,
    streams: AtomicU64,
}

/// What [`Shared::new`] needs.
pub struct Parts {
    /// Views and classes.
    pub mesh: Mesh,
    /// Gateways' credentials.
    pub secrets: Arc<dyn SecretProvider>,
    /// Who is connected.
    pub proxies: Arc<Proxies>,
    /// Tells the pipeline who is connected with proof.
    pub connections: Arc<Connections>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How this server calls itself.
    pub identifier: String,
    /// Tells the time.
    pub clock: fn() -> SystemTime,
    /// Ends every stream.
    pub stop: CancellationToken,
}

impl Shared {
    /// What the ports of one server share.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { mesh, secrets, proxies, connections, metrics, identifier, clock, stop } = parts;
        let (tasks, arrivals, streams) = (TaskTracker::new(), Arrivals::new(), AtomicU64::new(1));
        let (begun, kept) = (inbox::budget(), keeping::budget());
        Arc::new(Self {
            mesh,
            secrets,
            proxies,
            connections,
            metrics,
            identifier,
            clock,
            stop,
            tasks,
            arrivals,
            begun,
            kept,
            streams,
        })
    }

    /// How many streams may begin at a time.
    pub(super) fn arrivals(&self) -> &Arc<Arrivals> {
        &self.arrivals
    }

    /// What requests may cost whose end has not come.
    pub(super) fn begun(&self) -> Begun {
        self.begun.clone()
    }

    /// What streams may keep of their clients' words.
    pub(super) fn kept(&self) -> Kept {
        self.kept.clone()
    }

    /// A number that no other stream of this process has.
    pub(super) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }
}
