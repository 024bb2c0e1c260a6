//! The control plane put together: opens what outlives it, binds every port, then starts sources,
//! pipeline and servers, and stops them in order.

mod in_cluster;
mod parts;
mod servers;
mod state;
mod witness;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use ferromesh_cert_authority::{Authority, files};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use self::servers::Addresses;
use self::{
    parts::{Core, Tasks},
    servers::{Acceptors, Listeners},
    state::{LocalState, PersistentState},
    witness::WitnessKeeper,
};
use crate::{
    admin::{AdminToken, Api, Guard, users::Users},
    ads::shared::Shared,
    config::Settings,
    kube_cluster::{KubeCluster, objects::Objects},
    log::Log,
    pipeline::Mesh,
    source::{
        directory,
        keys::{Fetcher, Keys, Reachable},
        rest::{ObjectStore, RestSource},
    },
    status::Proxies,
};

/// More of a file with roots is not read.
const LARGEST_ROOTS: u64 = 4 << 20;
/// Time for streams and requests to end after a signal.
const GRACE: Duration = Duration::from_secs(5);

/// Keeps keys and tokens in memory from others of the same user: no core is written, and no
/// debugger may look (`PR_SET_DUMPABLE`, prctl(2)). What a kernel does not know is left out.
pub fn keep_memory_private() {
    use nix::sys::resource::{Resource, setrlimit};
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Runs the control plane until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start, or something that it cannot be without has failed; each in one line that says
/// what to do.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let log = Arc::new(Log::start(&settings.log, settings.log_style)?);
    // The allocator asks for huge pages, of which many small objects use a part each: a sixth of
    // the memory, for no speed that could be measured. A kernel without them refuses, which is as
    // well.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
    servers::raise_files();
    // Watched from the first moment: process 1 of a container does not hear what it does not watch
    // for.
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for SIGINT")?;
    let mut told = std::pin::pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let mut plane = tokio::select! {
        plane = ControlPlane::start(settings, log) => plane?,
        () = &mut told => return Ok(()),
    };
    let outcome = tokio::select! {
        () = &mut told => Ok(()),
        failed = plane.failed() => Err(failed),
    };
    tracing::info!("stopping");
    plane.stop().await;
    outcome
}

/// A running control plane.
pub struct ControlPlane {
    /// Where it listens.
    pub addresses: Addresses,
    /// What it serves.
    pub mesh: Mesh,
    /// Who it serves.
    pub proxies: Arc<Proxies>,
    /// Who vouches for whom.
    pub authority: Arc<Authority>,
    witness: Option<Arc<WitnessKeeper>>,
    shared: Arc<Shared>,
    tasks: Tasks,
    stop: CancellationToken,
}

impl ControlPlane {
    /// Opens state, binds ports and starts everything. Proxies are served once every source has
    /// been read. `log` is what the API shows and changes.
    ///
    /// # Errors
    /// State or a port cannot be used; says what to do.
    pub async fn start(settings: Settings, log: Arc<Log>) -> anyhow::Result<Self> {
        // Before anything is made.
        directory::must_be_there(&settings.config)?;
        let users = settings.api_users.as_deref().map(Users::open).transpose()?.map(Arc::new);
        let cluster = match &settings.cluster {
            Some(access) => Some(KubeCluster::connect(access).await?),
            None => None,
        };
        let listeners = Listeners::bind(&settings)?;
        let addresses = listeners.addresses()?;
        let PersistentState { authority, token, local } =
            PersistentState::open(&settings, cluster.as_ref()).await?;
        let mut tasks = Tasks::new();
        let core = Core::new(&mut tasks, settings, cluster, authority);
        core.tend_authority(&mut tasks)?;
        let witness = local.as_ref().map(|local| local.witness.clone());
        let objects = start_sources(&core, &mut tasks, local, addresses.webhook.is_some()).await?;
        state::end_of_first_start(&core.settings)?;
        serve(&core, &mut tasks, listeners, Doors { objects, token, users, log }).await?;
        tracing::info!(xds = %addresses.xds, xds_tls = %addresses.xds_tls, http = %addresses.http, metrics = %addresses.metrics, "listening");
        let Core { authority, shared, .. } = core;
        let (mesh, proxies, stop) =
            (shared.mesh.clone(), shared.proxies.clone(), shared.stop.clone());
        Ok(Self { addresses, mesh, proxies, authority, witness, shared, tasks, stop })
    }

    /// Waits until something fails that the control plane cannot be without.
    pub async fn failed(&mut self) -> anyhow::Error {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Err(error))) => return error,
                Some(Ok(Ok(()))) => {}
                Some(Err(error)) => return anyhow!("a part of the control plane failed: {error}"),
                None => return anyhow!("everything stopped"),
            }
        }
    }

    /// Ends every stream and server, waits a little for them, and lets go.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(GRACE, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("some streams did not end in time");
        }
        self.tasks.shutdown().await;
        if let Some(witness) = self.witness {
            witness.write_now().await;
        }
    }
}

/// Starts the sources; objects written over REST stand in the cluster, where there is one.
async fn start_sources(
    core: &Core,
    tasks: &mut Tasks,
    local: Option<LocalState>,
    webhooks: bool,
) -> anyhow::Result<RestSource> {
    let store = match (&core.cluster, local) {
        (Some(cluster), _) => ObjectStore::KubeCluster(Objects::new(cluster.clone())),
        (None, Some(LocalState { objects, witness })) => {
            tasks.spawn(parts::forever(witness.follow()));
            ObjectStore::Local(objects)
        }
        (None, None) => bail!("there is neither a cluster nor a store: this is a bug"),
    };
    let (secrets, events) = (core.secrets.clone(), core.events.clone());
    let objects = RestSource::new(store, secrets, events, core.judge.clone());
    objects.start().await?;
    let keys = key_source(&core.settings)?;
    tasks.spawn(parts::forever(keys.follow(core.shared.mesh.clone(), core.events.clone())));
    if let Some(cluster) = &core.cluster {
        in_cluster::join(tasks, core, cluster, webhooks);
    }
    if !core.settings.config.is_empty() {
        let directories = directory::run(
            core.settings.config.clone(),
            core.settings.root_namespace.clone(),
            core.secrets.clone(),
            core.events.clone(),
            core.shared.metrics.clone(),
        );
        tasks.spawn(async { Ok(directories.await?) });
    }
    Ok(objects)
}

/// The source of keys, with the roots that are trusted beside the system's.
fn key_source(settings: &Settings) -> anyhow::Result<Keys> {
    let further = match &settings.jwks_roots {
        Some(path) => files::read_named(path, LARGEST_ROOTS)
            .with_context(|| format!("--jwks-roots {}", path.display()))?,
        None => String::new(),
    };
    let reachable = Reachable::new(settings.jwks_networks.clone());
    let fetcher = Fetcher::new(reachable, further.as_bytes()).context("--jwks-roots")?;
    Ok(Keys::new(fetcher, settings.jwks_refresh))
}

/// What the REST API needs beside the core.
struct Doors {
    objects: RestSource,
    token: AdminToken,
    users: Option<Arc<Users>>,
    log: Arc<Log>,
}

/// Serves every port.
async fn serve(
    core: &Core,
    tasks: &mut Tasks,
    listeners: Listeners,
    doors: Doors,
) -> anyhow::Result<()> {
    let Doors { objects, token, users, log } = doors;
    let shared = &core.shared;
    let addresses = listeners.addresses()?;
    let token = Arc::new(token);
    let guard = |address: SocketAddr| Guard {
        token: token.clone(),
        users: users.clone(),
        loopback: address.ip().is_loopback(),
    };
    let acceptors = Acceptors::new(shared);
    servers::serve_plaintext(tasks, &acceptors, shared, listeners.xds);
    servers::serve_tls(tasks, &acceptors, core, listeners.xds_tls).await?;
    if let Some(listener) = listeners.webhook {
        servers::serve_webhooks(tasks, &acceptors, core, listener).await?;
    }
    let (mesh, proxies) = (shared.mesh.clone(), shared.proxies.clone());
    let (judge, authority) = (core.judge.clone(), core.authority.clone());
    let findings = core.findings();
    tasks.spawn(parts::forever(findings.clone().follow(shared.metrics.clone())));
    let api = Arc::new(Api { objects, mesh, judge, findings, proxies, authority, log });
    let (rest, metrics) = (guard(addresses.http), guard(addresses.metrics));
    servers::serve_rest(tasks, &acceptors, listeners.http, api.clone(), rest);
    servers::serve_metrics(tasks, &acceptors, listeners.metrics, api, metrics);
    Ok(())
}
