//! The certificate authority's state in a Secret of the root namespace, so that it outlives every
//! pod, and replicas that start at once share one root.
//!
//! A Secret and no volume: it needs no storage class and no node, several replicas can hold it at
//! once, the API server decides who was first, and RBAC and encryption at rest guard it as they
//! guard every other key of the cluster. All that the authority must remember is in it (root,
//! signer, key of join tokens, revocations; a few kilobytes, sealed); the ledger of issued
//! certificates is an inventory and stays with each replica.
//!
//! A root is made only where none was: a missing Secret beside a published root is a loss, and
//! refused.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ferromesh_cert_authority::{
    Authority, FirstStart, IssueError, OpenError, Settings, StateStore,
    store::{KEY, Kept, Revision, SEALED, StoreError},
};
use ferromesh_proto::recurring::Recurring;
use futures_util::StreamExt;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Error,
    api::{ObjectMeta, PartialObjectMeta, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;
use tokio::{
    runtime::Handle,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::{KubeCluster, MANAGED_BY, OURS, Trouble, said, trust};

/// Name of the Secret, in the root namespace.
pub const SECRET: &str = "ferromesh-ca";
/// Its type: none that anybody takes for a credential.
const TYPE: &str = "ferromesh.io/certificate-authority";
/// How long one question to the API server may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a start waits for an API server that does not answer, and the pause between two tries.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1));
/// Pause before state that could not be read is read again.
const AGAIN: Duration = Duration::from_secs(15);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The mesh had a root, and its key is gone.
    #[error(
        "there is no Secret {namespace}/{SECRET}, but ConfigMap {namespace}/{map} shows that this mesh has a root: its key is \
         lost, and a new root would cut off every workload; restore the Secret from a backup (kubectl apply -f), or give \
         --new-root to begin a new mesh and then restart every pod of it", map = trust::CONFIG_MAP
    )]
    Lost {
        /// The root namespace.
        namespace: String,
    },
    /// The API server was asked for a minute.
    #[error("the certificate authority's Secret {namespace}/{SECRET} cannot be read: {why}")]
    NoAnswer {
        /// The root namespace.
        namespace: String,
        /// What the API server said last.
        why: String,
    },
    /// What is in the Secret cannot be used, or nothing could be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The runtime is stopping.
    #[error("stopped")]
    Stopped,
}

/// What decides how an authority is opened.
pub struct Opening {
    /// Where the Secret is.
    pub root_namespace: Arc<str>,
    /// What the operator chose.
    pub settings: Settings,
    /// Directory of this replica's ledger.
    pub ledger: PathBuf,
    /// A new root may be made although the mesh had one.
    pub new_root: bool,
}

/// Opens the mesh's authority, or makes it if there was none. Waits a minute for an API server that
/// does not answer.
///
/// # Errors
/// [`AuthorityError`] says what to do.
pub async fn open(cluster: &KubeCluster, opening: Opening) -> Result<Authority, AuthorityError> {
    let namespace = opening.root_namespace.to_string();
    let store = SecretStore::new(cluster, &namespace);
    let first_start = match opening.new_root {
        true => FirstStart::Allowed,
        // Looked at before the Secret: a root is published only after its Secret is there.
        false => had_root(cluster, &namespace).await?,
    };
    let Opening { settings, ledger, .. } = opening;
    let opened = spawn_blocking(move || {
        Authority::open_in(Arc::new(store), &ledger, settings, first_start, SystemTime::now())
    });
    match opened.await.map_err(|_| AuthorityError::Stopped)? {
        Err(OpenError::Lost { .. }) => Err(AuthorityError::Lost { namespace }),
        outcome => Ok(outcome?),
    }
}

/// Whether a root of ours was ever published.
async fn had_root(cluster: &KubeCluster, namespace: &str) -> Result<FirstStart, AuthorityError> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), namespace);
    let until = Instant::now() + PATIENCE.0;
    let mut trouble = Trouble::default();
    loop {
        let why = match timeout(ANSWER, maps.get_opt(trust::CONFIG_MAP)).await {
            Ok(Ok(map)) if map.as_ref().is_some_and(trust::is_ours) => {
                return Ok(FirstStart::Refused);
            }
            Ok(Ok(_)) => return Ok(FirstStart::Allowed),
            Ok(Err(error)) => said(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        if Instant::now() >= until {
            return Err(AuthorityError::NoAnswer { namespace: namespace.to_owned(), why });
        }
        trouble.tell_why("the API server is needed to start: waiting for it", &why);
        sleep(PATIENCE.1).await;
    }
}

/// Takes over what other replicas change in the Secret, and puts it back when it is deleted.
///
/// # Errors
/// [`IssueError::Replaced`]: the Secret holds another root, and this replica must not go on.
pub async fn follow(
    cluster: KubeCluster,
    root_namespace: Arc<str>,
    authority: Arc<Authority>,
) -> Result<(), IssueError> {
    let secrets: Api<PartialObjectMeta<Secret>> =
        Api::namespaced(cluster.client(), &root_namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={SECRET}"));
    // Its metadata tells that it changed; the keys travel only when somebody needs them.
    let mut events = pin!(watcher(secrets, only).default_backoff());
    let (mut trouble, mut unread) = (Trouble::default(), Recurring::default());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => {}
            Ok(Event::Init | Event::InitApply(_)) => continue,
            Err(error) => {
                trouble.tell("the authority's Secret cannot be watched, trying again", &error);
                continue;
            }
        }
        trouble.over();
        while let Err(error) = refresh(&authority).await {
            if let IssueError::Replaced(_) = error {
                return Err(error);
            }
            if let Some(failures) = unread.failed(&error, std::time::Instant::now()) {
                tracing::error!(%error, failures, "restore Secret {root_namespace}/{SECRET} from a backup if it is damaged; serving what is known");
            }
            sleep(AGAIN).await;
        }
        if let Some(failures) = unread.worked(std::time::Instant::now()) {
            tracing::info!(failures, "the authority's Secret is read again");
        }
    }
    Ok(())
}

async fn refresh(authority: &Arc<Authority>) -> Result<(), IssueError> {
    let authority = authority.clone();
    // The runtime is stopping: nobody asks any more.
    spawn_blocking(move || authority.refresh()).await.unwrap_or(Ok(()))
}

/// The state as a Secret. Its methods wait for the API server: call them where blocking is allowed.
struct SecretStore {
    namespace: String,
    secrets: Api<Secret>,
    runtime: Handle,
}

impl SecretStore {
    fn new(cluster: &KubeCluster, namespace: &str) -> Self {
        let secrets = Api::namespaced(cluster.client(), namespace);
        Self { namespace: namespace.to_owned(), secrets, runtime: Handle::current() }
    }

    fn ask<T>(&self, question: impl Future<Output = Result<T, Error>>) -> Result<T, Asked> {
        match self.runtime.block_on(async { timeout(ANSWER, question).await }) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Error::Api(status))) => {
                Err(Asked { code: status.code, why: said(&Error::Api(status)) })
            }
            Ok(Err(error)) => Err(Asked { code: 0, why: said(&error) }),
            Err(_) => Err(Asked { code: 0, why: "the API server does not answer".to_owned() }),
        }
    }

    fn failed(&self, asked: &Asked) -> StoreError {
        StoreError::Failed(format!("{}: {}", self.place(), asked.why))
    }
}

/// A question that failed: the status, or 0, and the reason.
struct Asked {
    code: u16,
    why: String,
}

impl StateStore for SecretStore {
    fn place(&self) -> String {
        format!("Secret {}/{SECRET}", self.namespace)
    }

    fn read(&self) -> Result<Option<Kept>, StoreError> {
        let found = self.ask(self.secrets.get_opt(SECRET)).map_err(|asked| self.failed(&asked))?;
        found.map(kept).transpose()
    }

    fn create(&self, key: &[u8], sealed: &[u8]) -> Result<Revision, StoreError> {
        let secret = self.ask(self.secrets.create(&PostParams::default(), &secret(key, sealed)));
        secret.map(|s| revision(&s.metadata)).map_err(|asked| match asked.code {
            409 => StoreError::Conflict,
            404 => StoreError::Failed(format!(
                "namespace {ns} does not exist: make it with `kubectl create namespace {ns}`, or choose another with --root-namespace",
                ns = self.namespace
            )),
            _ => self.failed(&asked),
        })
    }

    fn replace(&self, sealed: &[u8], revision: &Revision) -> Result<Revision, StoreError> {
        let change = json!({
            "metadata": { "resourceVersion": revision.0 },
            "data": { SEALED: STANDARD.encode(sealed) },
        });
        let secret =
            self.ask(self.secrets.patch(SECRET, &PatchParams::default(), &Patch::Merge(change)));
        secret.map(|s| self::revision(&s.metadata)).map_err(|asked| match asked.code {
            409 => StoreError::Conflict,
            404 => StoreError::Gone,
            _ => self.failed(&asked),
        })
    }
}

fn revision(metadata: &ObjectMeta) -> Revision {
    Revision(metadata.resource_version.clone().unwrap_or_default())
}

fn secret(key: &[u8], sealed: &[u8]) -> Secret {
    let data = [(KEY, key), (SEALED, sealed)]
        .map(|(name, half)| (name.to_owned(), ByteString(half.to_vec())));
    let metadata = ObjectMeta {
        name: Some(SECRET.to_owned()),
        labels: Some([(MANAGED_BY.to_owned(), OURS.to_owned())].into()),
        ..ObjectMeta::default()
    };
    Secret { metadata, data: Some(data.into()), type_: Some(TYPE.to_owned()), ..Secret::default() }
}

/// Both halves; a Secret without one of them is not to be written over.
fn kept(secret: Secret) -> Result<Kept, StoreError> {
    let revision = revision(&secret.metadata);
    let mut data: BTreeMap<String, ByteString> = secret.data.unwrap_or_default();
    let mut half = |name: &str| match data.remove(name) {
        Some(ByteString(bytes)) => Ok(bytes),
        None => Err(StoreError::Incomplete(format!("{name} is missing"))),
    };
    Ok(Kept { key: half(KEY)?.into(), sealed: half(SEALED)?, revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_keeps_both_halves_and_one_without_either_is_incomplete() {
        let whole = secret(b"key", b"sealed");
        let read = kept(whole.clone()).expect("complete");
        assert_eq!(
            (read.key.as_slice(), read.sealed.as_slice()),
            (b"key".as_slice(), b"sealed".as_slice())
        );
        for half in [KEY, SEALED] {
            let mut broken = whole.clone();
            broken.data.as_mut().expect("there is data").remove(half);
            let error = kept(broken).err().expect("refused");
            assert!(matches!(&error, StoreError::Incomplete(why) if why.contains(half)), "{error}");
        }
        assert!(kept(Secret::default()).is_err());
    }
}
