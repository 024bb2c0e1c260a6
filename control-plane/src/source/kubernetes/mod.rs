//! A Kubernetes API server as a source: one watch per kind, driven by the table of kinds.
//!
//! Every watch ([`watch`]) says what it sees, [`known`] makes changes of it, and what arrives together goes to the pipeline
//! together. The source is synced once every kind that the cluster has was listed; a kind whose definition is missing is
//! looked for again and again. The only place of the control plane that talks to the API server. A proxy of the
//! environment is left alone: the API server is reached directly.

mod kinds;
mod known;
mod watch;

use std::{path::PathBuf, sync::Arc};

use ferromesh_xds_translator::diagnostic::Diagnostic;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{sync::mpsc, task::JoinSet};

use self::{
    kinds::watched,
    known::{Known, Step},
};
use super::{ConfigEvent, EventSender, SourceId};
use crate::{config::ClusterAccess, metrics::Metrics, secret::Secrets};

/// Words of watches that may wait; a watch that is faster waits itself.
const STEP_QUEUE: usize = 4096;
/// Words that make one event at most.
const BATCH: usize = 1024;
/// The first version of Kubernetes, 1.x, whose servers send a first list as a stream.
const STREAMING_LISTS: u32 = 34;

/// Why a cluster cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {path}: {reason}; give another with --kubeconfig", path = path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Not in a pod, or the pod has no token.
    #[error("cannot use the cluster of this pod: {0}; mount its service account's token, or give --kubeconfig")]
    Pod(String),
    /// The addresses, certificates or credentials make no client.
    #[error("cannot make a client for the API server: {0}")]
    Client(String),
    /// A watch ended by itself, which none should.
    #[error("a watch of the API server ended: this is a bug; restart the control plane")]
    WatchEnded,
}

/// A cluster to follow.
pub struct Cluster {
    client: Client,
}

impl Cluster {
    /// Prepares a client; the API server need not answer yet.
    ///
    /// # Errors
    /// What says how to reach the API server cannot be used.
    pub async fn connect(access: &ClusterAccess) -> Result<Self, KubernetesError> {
        let mut config = match access {
            ClusterAccess::Kubeconfig(path) => {
                let unusable = |reason: String| KubernetesError::Kubeconfig { path: path.clone(), reason };
                let file = Kubeconfig::read_from(path).map_err(|e| unusable(first_line(&e)))?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(file, &options).await.map_err(|e| unusable(first_line(&e)))?
            }
            ClusterAccess::Pod => Config::incluster().map_err(|e| KubernetesError::Pod(first_line(&e)))?,
        };
        config.proxy_url = None;
        let client = Client::try_from(config).map_err(|e| KubernetesError::Client(first_line(&e)))?;
        Ok(Self { client })
    }

    /// Follows the cluster until the pipeline is gone. `root_namespace` holds the mesh's configuration.
    ///
    /// # Errors
    /// [`KubernetesError::WatchEnded`]. Trouble with the API server is no error: what was seen last keeps serving, and a
    /// diagnostic says so.
    pub async fn run(
        self,
        root_namespace: Arc<str>,
        secrets: Arc<Secrets>,
        events: EventSender,
        metrics: Arc<Metrics>,
    ) -> Result<(), KubernetesError> {
        let (steps, told) = mpsc::channel(STEP_QUEUE);
        let mut watches = JoinSet::new();
        let kinds = watched(&root_namespace);
        let streaming = self.streams_lists().await;
        for (place, kind) in kinds.iter().enumerate() {
            watches.spawn(watch::follow(self.client.clone(), kind.clone(), streaming, place, steps.clone()));
        }
        drop(steps);
        let known = kinds.into_iter().map(Known::new).collect();
        let source = Source { known, secrets, events, metrics, diagnostics: Vec::new(), synced: false };
        tokio::select! {
            outcome = source.run(told) => outcome,
            Some(_) = watches.join_next() => Err(KubernetesError::WatchEnded),
        }
    }

    /// Whether the server sends a first list as a stream; a server that does not answer is taken for one that does not.
    async fn streams_lists(&self) -> bool {
        let version = self.client.apiserver_version().await;
        let minor = version.ok().and_then(|v| v.minor.trim_end_matches('+').parse::<u32>().ok());
        minor.is_some_and(|minor| minor >= STREAMING_LISTS)
    }
}

/// An error without the excerpt that parsers of YAML print below it, which may hold a credential.
fn first_line(error: &dyn std::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// What was told, and to whom.
struct Source {
    known: Vec<Known>,
    secrets: Arc<Secrets>,
    events: EventSender,
    metrics: Arc<Metrics>,
    diagnostics: Vec<Diagnostic>,
    synced: bool,
}

impl Source {
    async fn run(mut self, mut told: mpsc::Receiver<(usize, Step)>) -> Result<(), KubernetesError> {
        let mut batch = Vec::new();
        while told.recv_many(&mut batch, BATCH).await > 0 {
            let Some(event) = self.event(batch.drain(..)) else { continue };
            if self.events.send(event).await.is_err() {
                return Ok(());
            }
        }
        Err(KubernetesError::WatchEnded)
    }

    /// What a batch of words comes to; `None`: nothing new.
    fn event(&mut self, batch: impl Iterator<Item = (usize, Step)>) -> Option<ConfigEvent> {
        let mut changes = Vec::new();
        for (place, step) in batch {
            let known = &mut self.known[place];
            let failed = matches!(step, Step::Failing(_));
            known.take(step, &self.secrets, &mut changes);
            self.metrics.watched(known.kind_name(), known.listed(), failed);
        }
        let current: Vec<Diagnostic> = self.known.iter().flat_map(Known::diagnostics).cloned().collect();
        let diagnostics = (current != self.diagnostics).then(|| {
            self.diagnostics.clone_from(&current);
            current
        });
        // A kind that appears later does not take the word back.
        let newly_synced = !self.synced && self.known.iter().all(Known::settled);
        self.synced |= newly_synced;
        let news = newly_synced || !changes.is_empty() || diagnostics.is_some();
        news.then_some(ConfigEvent { source: SourceId::Kubernetes, changes, diagnostics, synced: self.synced })
    }
}
