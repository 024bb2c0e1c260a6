//! What outlives a process: the certificate authority, the store of objects, the administrator's token, and the file of
//! roots for agents on this machine.

use std::{
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use ferromesh_cert_authority::{Authority, FirstStart, Settings as AuthoritySettings, TrustBundle};
use ferromesh_proto::SpiffeId;

use crate::{
    admin::AdminToken,
    cluster::{
        Cluster,
        authority::{self, Opening},
    },
    config::Settings,
    metrics::Metrics,
    secret::sealed::Vault,
    source::rest::Kept,
    store::{Durable, Expect, Recovery, Store, StoreKey},
};

/// A busy machine renews a certificate of this life well before its end.
const SHORTEST_SERVER_TTL: Duration = Duration::from_secs(30);

/// What must outlive this process.
pub(super) struct State {
    pub(super) authority: Arc<Authority>,
    pub(super) token: AdminToken,
}

impl State {
    /// Opens everything but the store of objects, which a cluster has itself.
    ///
    /// # Errors
    /// Something cannot be used, with what to do.
    pub(super) async fn open(settings: &Settings, cluster: Option<&Cluster>) -> anyhow::Result<Self> {
        let data = &settings.data_dir;
        fs::create_dir_all(data)
            .with_context(|| format!("cannot make {}; choose another --data-dir", data.display()))?;
        // The authority first: once there is a store, a missing root is a loss and is not made anew.
        let authority = match cluster {
            Some(cluster) => authority::open(cluster, opening(settings)?).await?,
            None => local_authority(settings).await?,
        };
        let settings = settings.clone();
        let token = tokio::task::spawn_blocking(move || administrator(&settings)).await.context("opening state")??;
        Ok(Self { authority: Arc::new(authority), token })
    }
}

/// Opens the store of objects, and the key of the Secrets in it.
pub(super) async fn open_store(settings: &Settings) -> anyhow::Result<Kept> {
    let (store_dir, vault_file, discards) =
        (settings.store_dir(), settings.vault_file(), settings.discard_sealed_secrets);
    let open = move || -> anyhow::Result<Kept> {
        let (store, recovery) = Durable::open(&store_dir)?;
        match recovery {
            Recovery::Clean => {}
            Recovery::TornTail => {
                tracing::warn!("the journal's last line was incomplete: a write that was never acknowledged is dropped")
            }
            Recovery::Rebuilt(reason) => tracing::warn!(reason, "the store's database was rebuilt from the journal"),
        }
        let discard = |key: &StoreKey| -> anyhow::Result<()> {
            store.delete(key, Expect::Any, "--discard-sealed-secrets")?;
            tracing::warn!(target: "audit", object = %key.0, "a Secret whose key is lost was deleted");
            Ok(())
        };
        let vault = Vault::open_beside(&vault_file, &store.list(), discards.then_some(discard))?;
        Ok(Kept { store: Arc::new(store), vault })
    };
    tokio::task::spawn_blocking(open).await.context("opening the store")?
}

fn administrator(settings: &Settings) -> anyhow::Result<AdminToken> {
    if let Some(given) = &settings.admin_token_file {
        return Ok(AdminToken::read(given)?);
    }
    let (token, shown) = AdminToken::open(&settings.token_file())?;
    if let Some(shown) = shown {
        show_token(&shown, &settings.token_file());
    }
    Ok(token)
}

/// Shows the new administrator's token to a person; a log file only learns where it lies.
fn show_token(token: &str, file: &Path) {
    if std::io::stderr().is_terminal() {
        // To the terminal itself: it must not enter the log. One that is gone shows nothing.
        let _ = writeln!(std::io::stderr(), "administrator's token, kept in {}: {token}", file.display());
    } else {
        tracing::info!(file = %file.display(), "an administrator's token was made");
    }
}

/// The authority on this machine's disk.
async fn local_authority(settings: &Settings) -> anyhow::Result<Authority> {
    let first = if Durable::existed(&settings.store_dir()) { FirstStart::Refused } else { FirstStart::Allowed };
    let (wanted, dir) = (authority_settings(settings)?, settings.authority_dir());
    let opened = tokio::task::spawn_blocking(move || Authority::open(&dir, wanted, first, SystemTime::now()));
    Ok(opened.await.context("opening the certificate authority")??)
}

/// The authority of a cluster.
fn opening(settings: &Settings) -> anyhow::Result<Opening> {
    Ok(Opening {
        root_namespace: settings.root_namespace.clone(),
        settings: authority_settings(settings)?,
        ledger: settings.ledger_dir(),
        new_root: settings.new_root,
    })
}

fn authority_settings(settings: &Settings) -> anyhow::Result<AuthoritySettings> {
    let mut wanted = AuthoritySettings::new(settings.trust_domain.clone());
    wanted.leaf_ttl = settings.leaf_ttl;
    wanted.max_ttl = settings.leaf_ttl;
    wanted.intermediate_ttl = settings.signer_ttl.unwrap_or(wanted.intermediate_ttl.max(6 * settings.leaf_ttl));
    // Ours live no longer than others', so that who tries out short lives tries out ours too.
    wanted.server_ttl = wanted.server_ttl.min(settings.leaf_ttl.max(SHORTEST_SERVER_TTL));
    let account = wanted.server_id.service_account().to_owned();
    wanted.server_id =
        SpiffeId::new(settings.trust_domain.clone(), &settings.root_namespace, &account).context("--root-namespace")?;
    Ok(wanted)
}

/// Keeps the file of roots up to date.
pub(super) async fn follow_roots(authority: Arc<Authority>, file: PathBuf, metrics: Arc<Metrics>) {
    let mut bundle = authority.trust_bundle();
    while bundle.changed().await.is_ok() {
        let roots = bundle.borrow_and_update().clone();
        if let Err(error) = publish_roots(&file, &roots, &metrics) {
            tracing::error!(%error, "the file of roots is out of date");
        }
    }
}

/// Writes beside the file and renames, so that nobody reads half of it.
pub(super) fn publish_roots(file: &Path, bundle: &TrustBundle, metrics: &Metrics) -> anyhow::Result<()> {
    let end =
        |root: &_| x509_parser::parse_x509_certificate(root).ok().map(|(_, c)| c.validity().not_after.timestamp());
    metrics.root_expiry.set(bundle.roots().iter().filter_map(|root| end(root)).min().unwrap_or(0));
    let fresh = file.with_extension("pem.new");
    let written = fs::write(&fresh, bundle.pem()).and_then(|()| fs::rename(&fresh, file));
    written.with_context(|| format!("cannot write the mesh's roots to {}", file.display()))
}
