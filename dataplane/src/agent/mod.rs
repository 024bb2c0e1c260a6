//! The agent beside a stock Envoy: gets its certificate, serves it over SDS, writes its bootstrap,
//! runs it and drains it, and makes Istio's metrics of what it logs.
//!
//! ```text
//! control plane ◀─CSR─ identity ─watch─▶ sds (Unix socket) ◀─SDS─ Envoy ─ADS─▶ control plane
//!                                  └──▶ health ◀─probes, scrapes─ Envoy's static listeners
//!                     stats (Unix socket) ◀─log entries─ Envoy
//! ```
//! It sees no xDS but what users add to the bootstrap, before there is an Envoy: that speaks to the
//! control plane itself.

pub mod additions;
pub mod admin;
pub mod beside;
pub mod bootstrap;
pub mod code;
pub mod envoy;
pub mod health;
pub mod image;
pub mod sds;
pub mod secret_stream;
pub mod stats;
pub mod tied;

use std::{
    collections::BTreeSet,
    fs::DirBuilder,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ferromesh_proto::bootstrap::{
    BootstrapSettings, Discovery, MoreStatistics, NodeSettings, ProxyType, Statistics,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{
    admin::{DrainScope, EnvoyAdmin},
    beside::Asker,
    bootstrap::Start,
    code::Relay,
    envoy::EnvoySettings,
    health::Health,
    image::{Images, registry::Network},
    tied::Tie,
};
pub use self::{envoy::EnvoyError, sds::SdsError};
use crate::{
    drain::DrainSettings,
    identity::{
        IdentityWatch,
        csr_client::{CsrClient, CsrSettings},
        kept::Kept,
        rotate,
    },
    machine::Machine,
    node::discovery_node,
    pod::{self, HealthProbe, PodSettings},
    telemetry::{Metrics, Node},
};

/// Envoy starts without a certificate after this time: it then waits for one itself, but reconnects
/// less eagerly.
const FIRST_CERTIFICATE: Duration = Duration::from_secs(5);

/// Everything that an agent depends on.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// Who the proxy is.
    pub node: NodeSettings,
    /// How Envoy reaches the control plane: plaintext, or mutual TLS with the agent's certificate.
    pub discovery: Discovery,
    /// How the agent gets certificates.
    pub csr: CsrSettings,
    /// A directory of this agent's own, made with mode 0700 if missing: key and certificate,
    /// bootstrap and, by default, the SDS socket.
    pub run_dir: PathBuf,
    /// The SDS socket, `RUN_DIR/sds` by default; its path has at most 100 bytes.
    pub sds_socket: Option<PathBuf>,
    /// Mode of the socket: 0600, or 0660 for an Envoy of another user in the same group.
    pub sds_mode: u32,
    /// Envoy's admin interface.
    pub admin: SocketAddr,
    /// What a pod asks of its proxy.
    pub pod: PodSettings,
    /// How the machine is asked whether it is well; `None`: it is no machine of a group, or its
    /// group asks nothing.
    pub health: Option<HealthProbe>,
    /// Registries of images, `HOST` or `HOST:PORT`, that are called without TLS, and wherever they
    /// are.
    pub insecure_registries: BTreeSet<String>,
    /// Where Envoy answers readiness probes.
    pub readiness: Option<SocketAddr>,
    /// Where Envoy serves its metrics.
    pub prometheus: Option<SocketAddr>,
    /// Whether Istio's metrics are made of what Envoy logs.
    pub istio_metrics: bool,
    /// Which statistics Envoy keeps.
    pub statistics: Statistics,
    /// What else is wanted of them.
    pub more_statistics: MoreStatistics,
    /// The Envoy program, a name to look up in PATH or a path.
    pub envoy: PathBuf,
    /// How this program ties Envoy's life to its own; `None` starts it untied.
    pub tie: Option<Tie>,
    /// Envoy's worker threads.
    pub concurrency: Option<u32>,
    /// Envoy's log level.
    pub log_level: String,
    /// Further arguments for Envoy.
    pub extra_args: Vec<String>,
    /// How long Envoy goes on when the agent is told to end.
    pub drain: DrainSettings,
}

/// Why an agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its directory or bootstrap file cannot be written.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its health endpoint cannot be opened.
    #[error("health endpoint {address}: {source}")]
    Health {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// One of its sockets cannot be served.
    #[error(transparent)]
    Sds(#[from] SdsError),
    /// Its Envoy failed.
    #[error(transparent)]
    Envoy(#[from] EnvoyError),
}

/// Runs an agent with its Envoy until `stop` (then drains) or until Envoy ends.
///
/// # Errors
/// [`AgentError`] when something it needs cannot be had; missing certificates are waited for, not
/// an error.
pub async fn run(settings: AgentSettings, stop: CancellationToken) -> Result<(), AgentError> {
    make_private(&settings.run_dir)?;
    let socket = settings.sds_socket.clone().unwrap_or_else(|| settings.run_dir.join("sds"));
    let (publish, mut identity) = watch::channel(None);
    let source = Arc::new(CsrClient::new(settings.csr.clone()));
    let kept = Kept::new(&settings.run_dir, settings.csr.id.clone());
    let _rotation = AbortOnDropHandle::new(tokio::spawn(rotate::run(source, Some(kept), publish)));

    let _machine = settings.health.clone().map(|probe| {
        let machine = Machine {
            node: discovery_node(&settings.node),
            target: settings.csr.target.clone(),
            identity: identity.clone(),
            application: settings.pod.application,
            probe,
        };
        AbortOnDropHandle::new(tokio::spawn(machine.run()))
    });

    let asker =
        Asker::new(discovery_node(&settings.node), settings.csr.target.clone(), identity.clone());
    let relay = Relay::default();
    let network = Network::new(settings.insecure_registries.clone());
    let images = Images::new(settings.run_dir.join("modules"), network);
    let relayed = relay.clone().run(asker.clone(), images);
    let _relay = AbortOnDropHandle::new(tokio::spawn(relayed));
    let sds = serve_sds(&socket, settings.sds_mode, identity.clone(), relay).await?;
    let stats = start_stats(&settings, identity.clone()).await?;
    let health =
        Health::new(identity.clone(), EnvoyAdmin::new(settings.admin), settings.pod.clone())
            .with_stats(stats.as_ref().map(|stats| Arc::clone(&stats.metrics)));
    let _health = serve_health(&health, stop.clone()).await?;
    let mut envoy = envoy_settings(&settings, &socket)?;
    let extended = async {
        let first = identity.wait_for(Option::is_some);
        let _ = tokio::time::timeout(FIRST_CERTIFICATE, first).await;
        additions::extend(&mut envoy, asker).await
    };
    let follower = tokio::select! {
        follower = extended => follower,
        () = stop.cancelled() => None,
    };
    let _follower = follower.map(|follower| AbortOnDropHandle::new(tokio::spawn(follower.run())));
    let outcome = supervise(&envoy, &health, sds, stop).await;
    // A stale socket would only mislead: nobody answers there any more.
    let _ = std::fs::remove_file(&socket);
    let _ = std::fs::remove_file(stats_socket(&settings));
    outcome
}

/// Metrics that the agent makes, and the server that hears of what they count.
struct StatsTask {
    metrics: Arc<Metrics>,
    _server: AbortOnDropHandle<()>,
}

async fn start_stats(
    settings: &AgentSettings,
    identity: IdentityWatch,
) -> Result<Option<StatsTask>, SdsError> {
    if !settings.istio_metrics {
        return Ok(None);
    }
    let listener = sds::bind(&stats_socket(settings), settings.sds_mode).await?;
    let metrics = Arc::new(Metrics::new(Node::from(&settings.node), identity));
    let counted = Arc::clone(&metrics);
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = stats::serve(listener, counted).await {
            tracing::error!(%error, "Istio's metrics are made no more");
        }
    }));
    Ok(Some(StatsTask { metrics, _server }))
}

fn stats_socket(settings: &AgentSettings) -> PathBuf {
    settings.run_dir.join("stats")
}

type SdsTask = AbortOnDropHandle<Result<(), SdsError>>;

async fn supervise(
    envoy: &EnvoySettings,
    health: &Health,
    sds: SdsTask,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let draining = async {
        stop.cancelled().await;
        health.drain();
        std::future::pending().await
    };
    tokio::select! {
        outcome = envoy::supervise(envoy, stop.clone()) => Ok(outcome?),
        failed = sds => match failed {
            Ok(Err(error)) => Err(error.into()),
            // It is never told to stop before Envoy has ended, so it ended with the runtime.
            Ok(Ok(())) | Err(_) => Ok(()),
        },
        () = draining => Ok(()),
    }
}

async fn serve_sds(
    socket: &Path,
    mode: u32,
    identity: IdentityWatch,
    relay: Relay,
) -> Result<SdsTask, SdsError> {
    let listener = sds::bind(socket, mode).await?;
    Ok(AbortOnDropHandle::new(tokio::spawn(sds::serve(
        listener,
        identity,
        relay,
        CancellationToken::new(),
    ))))
}

async fn serve_health(
    health: &Health,
    stop: CancellationToken,
) -> Result<AbortOnDropHandle<io::Result<()>>, AgentError> {
    let address = health.pod.address;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| AgentError::Health { address, source })?;
    Ok(AbortOnDropHandle::new(tokio::spawn(pod::serve(listener, health.routes(stop)))))
}

/// Where a listener on `address` is reached from here.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn envoy_settings(settings: &AgentSettings, socket: &Path) -> Result<EnvoySettings, AgentError> {
    let rendered = BootstrapSettings {
        node: settings.node.clone(),
        discovery: settings.discovery.clone(),
        sds_socket: Some(socket.to_owned()),
        stats_socket: settings.istio_metrics.then(|| stats_socket(settings)),
        admin: settings.admin,
        agent: Some(from_here(settings.pod.address)),
        readiness: settings.readiness,
        prometheus: settings.prometheus,
        statistics: settings.statistics,
        more_statistics: settings.more_statistics.clone(),
    };
    let bootstrap = bootstrap::write(&settings.run_dir, &rendered)
        .map_err(|source| AgentError::File { path: settings.run_dir.clone(), source })?;
    Ok(EnvoySettings {
        binary: settings.envoy.clone(),
        tie: settings.tie.clone(),
        bootstrap: Start::Own(bootstrap),
        admin: settings.admin,
        concurrency: settings.concurrency,
        log_level: settings.log_level.clone(),
        extra_args: settings.extra_args.clone(),
        drain: settings.drain,
        drain_scope: match settings.node.proxy_type {
            ProxyType::Sidecar => DrainScope::Inbound,
            ProxyType::Router => DrainScope::All,
        },
    })
}

fn make_private(dir: &Path) -> Result<(), AgentError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| AgentError::File { path: dir.to_owned(), source })
}
