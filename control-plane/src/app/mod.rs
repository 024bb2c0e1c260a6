//! The control plane put together: opens what outlives it, binds every port, then starts sources, pipeline and servers,
//! and stops them in order.

mod in_cluster;
mod servers;
mod state;

use std::{
    collections::BTreeSet,
    future::Future,
    io::IsTerminal,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow};
use ferromesh_cert_authority::Authority;
use ferromesh_xds_translator::{compiler::Compiler, ir::MeshDefaults};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use self::{
    servers::{Doors, Listeners},
    state::State,
};
use crate::{
    admin::{AdminToken, Api, Guard},
    ads::service::{Parts, Shared},
    cluster::{Cluster, objects::Objects},
    config::Settings,
    metrics::Metrics,
    pipeline::Mesh,
    secret::Secrets,
    source::{
        EventSender, SourceId, directory,
        rest::{RestSource, Shelf},
    },
    status::Proxies,
};

/// Time for streams and requests to end after a signal.
const GRACE: Duration = Duration::from_secs(5);
/// What is logged by default: the client of the API server repeats what its user says better.
const DEFAULT_LOG: &str = "info,kube_client=off,kube_runtime=off";

/// Work that the control plane cannot be without.
type Tasks = JoinSet<anyhow::Result<()>>;

/// Keeps keys and tokens in memory from others of the same user: no core is written, and no debugger may look
/// (`PR_SET_DUMPABLE`, prctl(2)). What a kernel does not know is left out.
pub fn keep_memory_private() {
    use nix::sys::resource::{Resource, setrlimit};
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Runs the control plane until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start, or something that it cannot be without has failed; each in one line that says what to do.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    start_log();
    // The allocator asks for huge pages, of which many small objects use a part each: a sixth of the memory, for no speed
    // that could be measured. A kernel without them refuses, which is as well.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
    servers::raise_files();
    // Watched from the first moment: process 1 of a container does not hear what it does not watch for.
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for SIGINT")?;
    let mut told = std::pin::pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let mut plane = tokio::select! {
        plane = ControlPlane::start(settings) => plane?,
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

/// Logs to stderr; `RUST_LOG` chooses what. In tests and embedders that log already, theirs stays.
fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let colours = std::io::stderr().is_terminal();
    // Where nobody reads the log any more, a complaint about it would end the process: it would go to the same place.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let _ = log.log_internal_errors(false).try_init();
}

/// Where a running control plane listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// Plaintext xDS.
    pub xds: SocketAddr,
    /// xDS and certificates over TLS.
    pub xds_tls: SocketAddr,
    /// REST and health.
    pub http: SocketAddr,
    /// Metrics.
    pub metrics: SocketAddr,
    /// Webhooks, where a cluster asks them.
    pub webhook: Option<SocketAddr>,
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
    shared: Arc<Shared>,
    tasks: Tasks,
    stop: CancellationToken,
}

/// What the parts of a control plane are made of.
struct Core {
    settings: Settings,
    /// The cluster that it belongs to.
    cluster: Option<Cluster>,
    authority: Arc<Authority>,
    secrets: Arc<Secrets>,
    /// To the pipeline.
    events: EventSender,
    /// The mesh's settings where nobody wrote any.
    defaults: MeshDefaults,
    shared: Arc<Shared>,
}

impl Core {
    /// Starts the pipeline; it publishes nothing before every source has told what it has.
    fn new(tasks: &mut Tasks, settings: Settings, cluster: Option<Cluster>, authority: Arc<Authority>) -> Self {
        let defaults = MeshDefaults {
            trust_domain: settings.trust_domain.clone(),
            root_namespace: settings.root_namespace.clone(),
            ..MeshDefaults::default()
        };
        let mut expected = BTreeSet::from([SourceId::Rest]);
        expected.extend(cluster.is_some().then_some(SourceId::Kubernetes));
        expected.extend((!settings.config.is_empty()).then_some(SourceId::Directory));
        let metrics = Metrics::new();
        let (mesh, events, end) = Mesh::start(Compiler::new(defaults.clone()), expected, metrics.clone());
        tasks.spawn(async move {
            let _ = end.await;
            Err(anyhow!("the compiler stopped: this is a bug; restart the control plane"))
        });
        let secrets = Arc::new(Secrets::default());
        let shared = Shared::new(Parts {
            mesh,
            secrets: secrets.clone(),
            proxies: Arc::new(Proxies::default()),
            metrics,
            identifier: format!("ferromesh {} {:08x}", env!("CARGO_PKG_VERSION"), rand::random::<u32>()),
            clock: SystemTime::now,
            stop: CancellationToken::new(),
        });
        let (proxies, metrics) = (shared.proxies.clone(), shared.metrics.clone());
        tasks.spawn(forever(async move { proxies.tend(&metrics).await }));
        Self { settings, cluster, authority, secrets, events, defaults, shared }
    }

    /// Starts the sources; objects written over REST stand in the cluster, where there is one.
    async fn start_sources(&self, tasks: &mut Tasks, webhooks: bool) -> anyhow::Result<RestSource> {
        let shelf = match &self.cluster {
            Some(cluster) => Shelf::Cluster(Objects::new(cluster.clone())),
            None => Shelf::Store(state::open_store(&self.settings).await?),
        };
        let objects = RestSource::new(shelf, self.secrets.clone(), self.events.clone());
        objects.start().await?;
        if let Some(cluster) = &self.cluster {
            in_cluster::join(tasks, self, cluster, webhooks);
        }
        if !self.settings.config.is_empty() {
            let directories = directory::run(self.settings.config.clone(), self.secrets.clone(), self.events.clone());
            tasks.spawn(async { Ok(directories.await?) });
        }
        Ok(objects)
    }

    /// Keeps the authority going, and its roots in a file for agents on this machine.
    fn tend_authority(&self, tasks: &mut Tasks) -> anyhow::Result<()> {
        let (authority, metrics, file) = (&self.authority, &self.shared.metrics, self.settings.root_file());
        tasks.spawn(forever(authority.clone().run_upkeep(SystemTime::now)));
        let roots = authority.trust_bundle().borrow().clone();
        state::publish_roots(&file, &roots, metrics)?;
        tasks.spawn(forever(state::follow_roots(authority.clone(), file, metrics.clone())));
        Ok(())
    }

    async fn serve(
        &self,
        tasks: &mut Tasks,
        listeners: Listeners,
        objects: RestSource,
        token: AdminToken,
    ) -> anyhow::Result<()> {
        let shared = &self.shared;
        let loopback = listeners.addresses()?.http.ip().is_loopback();
        let doors = Doors::new(shared);
        servers::serve_plaintext(tasks, &doors, shared, listeners.xds);
        servers::serve_tls(tasks, &doors, self, listeners.xds_tls).await?;
        if let Some(listener) = listeners.webhook {
            servers::serve_webhooks(tasks, &doors, self, listener).await?;
        }
        let (mesh, proxies) = (shared.mesh.clone(), shared.proxies.clone());
        let api = Api { objects, mesh, proxies, authority: self.authority.clone() };
        servers::serve_rest(tasks, &doors, listeners.http, api, Guard { token, loopback });
        servers::serve_metrics(tasks, &doors, listeners.metrics);
        Ok(())
    }
}

impl ControlPlane {
    /// Opens state, binds ports and starts everything. Proxies are served once every source has been read.
    ///
    /// # Errors
    /// State or a port cannot be used; says what to do.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let cluster = match &settings.cluster {
            Some(access) => Some(Cluster::connect(access).await?),
            None => None,
        };
        let listeners = Listeners::bind(&settings)?;
        let addresses = listeners.addresses()?;
        let State { authority, token } = State::open(&settings, cluster.as_ref()).await?;
        let mut tasks = Tasks::new();
        let core = Core::new(&mut tasks, settings, cluster, authority);
        core.tend_authority(&mut tasks)?;
        let objects = core.start_sources(&mut tasks, addresses.webhook.is_some()).await?;
        core.serve(&mut tasks, listeners, objects, token).await?;
        tracing::info!(xds = %addresses.xds, xds_tls = %addresses.xds_tls, http = %addresses.http, metrics = %addresses.metrics, "listening");
        let Core { authority, shared, .. } = core;
        let (mesh, proxies, stop) = (shared.mesh.clone(), shared.proxies.clone(), shared.stop.clone());
        Ok(Self { addresses, mesh, proxies, authority, shared, tasks, stop })
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
    }
}

async fn forever(work: impl Future<Output = ()>) -> anyhow::Result<()> {
    work.await;
    Ok(())
}
