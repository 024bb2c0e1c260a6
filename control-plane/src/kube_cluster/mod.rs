//! The Kubernetes cluster that this control plane belongs to: how it is reached, and everything
//! that is asked of its API server or written to it. Reading configuration from it is a source
//! ([`crate::source::kubernetes`]).
//!
//! A proxy of the environment is left alone: the API server is reached directly.

pub mod authority;
pub mod connection_pages;
pub mod events;
pub mod leader;
mod mirror;
pub mod objects;
pub mod replica_map;
pub mod status;
pub mod status_cache;
pub mod token_review;
pub mod trust;
pub mod webhooks;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use ferromesh_proto::recurring::Recurring;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher,
};

use tokio::time::timeout;

use crate::config::KubeClusterAccess;

/// The label that says who keeps an object, on everything that this control plane makes by itself,
/// and its value.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Who that is; also the name under which fields are written.
pub const OURS: &str = "ferromesh";

/// How long an answer of the API server is waited for.
const ANSWER: Duration = Duration::from_secs(4);

/// Why a cluster cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum KubeClusterError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {path}: {reason}; give another with --kubeconfig", path = path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Not in a pod, or the pod has no token.
    #[error(
        "cannot use the cluster of this pod: {0}; mount its service account's token, or give --kubeconfig"
    )]
    Pod(String),
    /// The addresses, certificates or credentials make no client.
    #[error("cannot make a client for the API server: {0}")]
    Client(String),
}

/// A cluster. Cheap to clone.
#[derive(Clone)]
pub struct KubeCluster {
    client: Client,
}

impl KubeCluster {
    /// Prepares a client; the API server need not answer yet.
    ///
    /// # Errors
    /// What says how to reach the API server cannot be used.
    pub async fn connect(access: &KubeClusterAccess) -> Result<Self, KubeClusterError> {
        let mut config = match access {
            KubeClusterAccess::Kubeconfig(path) => {
                let unusable =
                    |reason: String| KubeClusterError::Kubeconfig { path: path.clone(), reason };
                let file = Kubeconfig::read_from(path).map_err(|e| unusable(first_line(&e)))?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .map_err(|e| unusable(first_line(&e)))?
            }
            KubeClusterAccess::Pod => {
                Config::incluster().map_err(|e| KubeClusterError::Pod(first_line(&e)))?
            }
        };
        config.proxy_url = None;
        let client =
            Client::try_from(config).map_err(|e| KubeClusterError::Client(first_line(&e)))?;
        Ok(Self { client })
    }

    /// A client of the API server.
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

/// Something that is asked of the API server again and again, as far as its failures were logged.
#[derive(Default)]
pub(crate) struct Trouble {
    what: &'static str,
    recurring: Recurring,
}

impl Trouble {
    /// Logs what failed and why, as often as [`Recurring`] says.
    pub(crate) fn tell(&mut self, what: &'static str, error: &dyn std::error::Error) {
        self.tell_why(what, &first_line(error));
    }

    /// As [`Self::tell`], for a reason that is a text.
    pub(crate) fn tell_why(&mut self, what: &'static str, why: &str) {
        self.what = what;
        let both = format_args!("{what}: {why}");
        if let Some(failures) = self.recurring.failed(&both, Instant::now()) {
            tracing::warn!(why, failures, "{what}");
        }
    }

    /// It works if `event` says that the API server has answered: a watcher announces its next list
    /// before it asks for it.
    pub(crate) fn over_with<K>(&mut self, event: &watcher::Event<K>) {
        if !matches!(event, watcher::Event::Init) {
            self.over();
        }
    }

    /// It works: logs so, if failures were logged.
    pub(crate) fn over(&mut self) {
        if let Some(failures) = self.recurring.worked(Instant::now()) {
            tracing::info!(failures, "over: {}", self.what);
        }
    }
}

/// An answer of the API server, or an error after [`ANSWER`].
async fn bounded<T>(
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    let late = || kube::Error::Service("no answer in time".into());
    timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(late()))
}

/// What went wrong between us and the API server, in one line.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            format!("the API server says {}: {}", status.code, status.message)
        }
        error => format!("the API server cannot be asked: {}", first_line(error)),
    }
}

/// An error without the excerpt that parsers of YAML print below it, which may hold a credential.
fn first_line(error: &dyn std::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_only_announced_is_no_answer_of_the_api_server() {
        let mut trouble = Trouble::default();
        trouble.tell_why("it cannot be watched", "connection refused");
        trouble.over_with(&watcher::Event::<()>::Init);
        let told = |trouble: &Trouble| trouble.recurring.clone().worked(Instant::now());
        assert_eq!(told(&trouble), Some(1), "that it works is still to be told");
        trouble.over_with(&watcher::Event::<()>::InitDone);
        assert_eq!(told(&trouble), None);
    }

    #[test]
    fn two_things_that_fail_for_one_reason_are_both_told() {
        let mut trouble = Trouble::default();
        trouble.tell_why("one", "no answer");
        let before = trouble.recurring.clone();
        assert!(before.clone().failed(&"one: no answer", Instant::now()).is_none());
        assert!(before.clone().failed(&"two: no answer", Instant::now()).is_some());
    }
}
