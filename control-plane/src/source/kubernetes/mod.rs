//! A Kubernetes API server as a source: one watch per kind, driven by the table of kinds.
//!
//! Every watch ([`watch`]) says what it sees, [`known`] makes changes of it, and what arrives
//! together goes to the pipeline together. The source is synced once every kind that the cluster
//! has was listed; a kind whose definition is missing is looked for again and again. It only reads;
//! what is written to the API server goes through [`crate::cluster`].

mod kinds;
mod known;
mod object;
mod watch;

pub(super) use self::kinds::MESH_CONFIG_MAP;

use std::sync::Arc;

use ferromesh_xds_translator::diagnostic::Diagnostic;
use kube::Client;
use tokio::{sync::mpsc, task::JoinSet};

use self::{
    kinds::watched,
    known::{Known, News, Step},
};
use crate::{
    event::{ConfigEvent, EventSender, SourceId},
    kube_cluster::{
        KubeCluster,
        status_cache::{StatusCache, StatusChange},
    },
    metrics::Metrics,
    secret::Secrets,
};

/// Words of watches that may wait; a watch that is faster waits itself.
const STEP_QUEUE: usize = 4096;
/// Words that make one event at most.
const BATCH: usize = 1024;
/// The first version of Kubernetes, 1.x, whose servers send a first list as a stream.
const STREAMING_LISTS: u32 = 34;

/// A watch ended by itself, which none should.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a watch of the API server ended: this is a bug; restart the control plane")]
pub struct WatchEnded;

/// Follows the cluster until the pipeline is gone. `root_namespace` holds the mesh's configuration;
/// `statuses` is told those of objects, after the pipeline has heard of them.
///
/// # Errors
/// [`WatchEnded`]. Trouble with the API server is no error: what was seen last keeps serving, and a
/// diagnostic says so.
pub async fn run(
    cluster: KubeCluster,
    root_namespace: Arc<str>,
    secrets: Arc<Secrets>,
    events: EventSender,
    statuses: Arc<StatusCache>,
    metrics: Arc<Metrics>,
) -> Result<(), WatchEnded> {
    let (steps, told) = mpsc::channel(STEP_QUEUE);
    let mut watches = JoinSet::new();
    let kinds = watched(&root_namespace);
    let streaming = streams_lists(&cluster.client()).await;
    for (place, kind) in kinds.iter().enumerate() {
        watches.spawn(watch::follow(
            cluster.client(),
            kind.clone(),
            streaming,
            place,
            steps.clone(),
        ));
    }
    drop(steps);
    let known = kinds.into_iter().map(Known::new).collect();
    let source = Source {
        known,
        secrets,
        events,
        statuses,
        metrics,
        diagnostics: Vec::new(),
        synced: false,
    };
    tokio::select! {
        outcome = source.run(told) => outcome,
        Some(_) = watches.join_next() => Err(WatchEnded),
    }
}

/// Whether the server sends a first list as a stream; a server that does not answer is taken for
/// one that does not.
async fn streams_lists(client: &Client) -> bool {
    let version = client.apiserver_version().await;
    let minor = version.ok().and_then(|v| v.minor.trim_end_matches('+').parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= STREAMING_LISTS)
}

/// What was told, and to whom.
struct Source {
    known: Vec<Known>,
    secrets: Arc<Secrets>,
    events: EventSender,
    statuses: Arc<StatusCache>,
    metrics: Arc<Metrics>,
    diagnostics: Vec<Diagnostic>,
    synced: bool,
}

impl Source {
    async fn run(mut self, mut told: mpsc::Receiver<(usize, Step)>) -> Result<(), WatchEnded> {
        let mut batch = Vec::new();
        while told.recv_many(&mut batch, BATCH).await > 0 {
            let (event, statuses) = self.event(batch.drain(..));
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return Ok(());
            }
            self.statuses.update(statuses);
        }
        Err(WatchEnded)
    }

    /// What a batch of words comes to for the pipeline, if it is anything new, and for who writes
    /// statuses.
    fn event(
        &mut self,
        batch: impl Iterator<Item = (usize, Step)>,
    ) -> (Option<ConfigEvent>, Vec<StatusChange>) {
        let mut news = News::default();
        for (place, step) in batch {
            let known = &mut self.known[place];
            let failed = matches!(step, Step::Failing(_));
            known.take(step, &self.secrets, &mut news);
            self.metrics.watched(known.kind_name(), known.listed(), failed);
        }
        let current: Vec<Diagnostic> =
            self.known.iter().flat_map(Known::diagnostics).cloned().collect();
        let diagnostics = (current != self.diagnostics).then(|| {
            self.diagnostics.clone_from(&current);
            current
        });
        // A kind that appears later does not take the word back.
        let newly_synced = !self.synced && self.known.iter().all(Known::settled);
        self.synced |= newly_synced;
        let News { changes, statuses } = news;
        let is_news = newly_synced || !changes.is_empty() || diagnostics.is_some();
        let event =
            ConfigEvent { source: SourceId::Kubernetes, changes, diagnostics, synced: self.synced };
        (is_news.then_some(event), statuses)
    }
}
