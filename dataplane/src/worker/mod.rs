//! Workers as everything that runs on one sees them: the configuration in force, pools, counters,
//! and the downstream connections that they carry.
//!
//! A worker is a thread that carries its connections to their end; `listen` starts workers and
//! hands connections to `http` and `tcp`, and all three find here what they need of it. Nothing
//! here listens or reads a request.

pub mod config;
pub(crate) mod deadlines;
pub(crate) mod downstream;
pub mod shared;
pub(crate) mod socket;
pub(crate) mod stream;

use std::sync::Arc;

use tokio::sync::watch;

use self::deadlines::Deadlines;
pub use self::{
    config::ActiveConfig,
    shared::{BindFailure, Phase, Shared},
};
use crate::{
    runtime::{access_log::LogService, trace::Tracer},
    telemetry::{batch::Batches, log_service::Record, metrics::WorkerMetrics, trace::Finished},
    upstream::pool::Pools,
};

/// A worker as its tasks see it. Lives on one thread.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pools: Pools,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) generation: watch::Receiver<u64>,
    pub(crate) admission: watch::Receiver<u64>,
    pub(crate) deadlines: Deadlines,
    pub(crate) spans: Batches<Tracer, Finished>,
    pub(crate) entries: Batches<LogService, Record>,
}

impl Worker {
    /// A worker without connections.
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let metrics = shared.metrics.worker();
        Self {
            pools: Pools::new(Arc::clone(&metrics)),
            metrics,
            phase: shared.phases(),
            generation: shared.generations(),
            admission: shared.admissions(),
            deadlines: Deadlines::default(),
            spans: Batches::default(),
            entries: Batches::default(),
            shared: Arc::clone(shared),
        }
    }
}
