//! The control plane put together: opens what is on disk, binds every port, then starts sources, pipeline and servers,
//! and stops them in order.

use std::{
    collections::BTreeSet,
    fs,
    future::Future,
    io::IsTerminal,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow};
use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use ferromesh_cert_authority::{
    Authenticator, Authority, CertificateService, FirstStart, Settings as AuthoritySettings, TrustBundle,
};
use ferromesh_proto::SpiffeId;
use ferromesh_xds_translator::{compiler::Compiler, ir::MeshDefaults};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::InterceptorLayer,
    transport::{Server, server::TcpIncoming},
};
use tracing_subscriber::EnvFilter;

use crate::{
    admin::{self, AdminToken, Api, Guard},
    ads::{
        auth::Trust,
        service::{Discovery, Parts, Shared},
    },
    cluster::{
        Cluster,
        authority::{self, Opening},
        leader,
        objects::Objects,
        status::{Board, Writer},
        token_review::TokenReviews,
        trust, webhooks,
    },
    config::Settings,
    metrics::Metrics,
    pipeline::Mesh,
    secret::{Secrets, sealed::Vault},
    source::{
        SourceId, directory, kubernetes,
        rest::{Kept, RestSource, Shelf},
    },
    status::Proxies,
    store::{Durable, Recovery},
    tls::{Door, ServerNames, introduce},
    webhook::{self, TlsListener, Webhooks},
};

/// Time for streams and requests to end after a signal.
const GRACE: Duration = Duration::from_secs(5);
/// How often a silent peer is asked whether it is there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// A busy machine renews a certificate of this life well before its end.
const SHORTEST_SERVER_TTL: Duration = Duration::from_secs(30);
/// Streams on one connection; a proxy needs two.
const STREAMS_PER_CONNECTION: u32 = 128;

/// What is logged by default: the client of the API server repeats what its user says better.
const DEFAULT_LOG: &str = "info,kube_client=off,kube_runtime=off";

/// Runs the control plane until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start, or something that it cannot be without has failed; each in one line that says what to do.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    start_log();
    let mut plane = ControlPlane::start(settings).await?;
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
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
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).try_init();
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
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

/// Every port, bound before anything starts, so that a port in use stops the start and nothing else.
struct Listeners {
    xds: TcpListener,
    xds_tls: TcpListener,
    http: TcpListener,
    metrics: TcpListener,
    webhook: Option<TcpListener>,
}

impl Listeners {
    async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            xds: bind(settings.xds_address, "plaintext xDS", "--xds-address").await?,
            xds_tls: bind(settings.xds_tls_address, "xDS over TLS", "--xds-tls-address").await?,
            http: bind(settings.http_address, "the REST API", "--http-address").await?,
            metrics: bind(settings.metrics_address, "metrics", "--metrics-address").await?,
            webhook: match settings.webhook_address {
                Some(address) => Some(bind(address, "webhooks", "--webhook-address").await?),
                None => None,
            },
        })
    }

    fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            xds: self.xds.local_addr()?,
            xds_tls: self.xds_tls.local_addr()?,
            http: self.http.local_addr()?,
            metrics: self.metrics.local_addr()?,
            webhook: self.webhook.as_ref().map(TcpListener::local_addr).transpose()?,
        })
    }
}

async fn bind(address: SocketAddr, what: &str, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => format!("stop the process that uses it, or choose another with {option}"),
            std::io::ErrorKind::PermissionDenied => {
                format!("choose a port above 1023 with {option}, or grant the right")
            }
            std::io::ErrorKind::AddrNotAvailable => {
                format!("this machine has no such address; choose another with {option}")
            }
            _ => format!("choose another with {option}"),
        };
        anyhow!("cannot listen on {address} for {what}: {error}; {advice}")
    })
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
        let listeners = Listeners::bind(&settings).await?;
        let addresses = listeners.addresses()?;
        let State { authority, token } = State::open(&settings, cluster.as_ref()).await?;
        let metrics = Metrics::new();
        let base = MeshDefaults {
            trust_domain: settings.trust_domain.clone(),
            root_namespace: settings.root_namespace.clone(),
            ..MeshDefaults::default()
        };
        let mut expected = BTreeSet::from([SourceId::Rest]);
        expected.extend(cluster.is_some().then_some(SourceId::Kubernetes));
        expected.extend((!settings.config.is_empty()).then_some(SourceId::Directory));
        let (mesh, events, pipeline_end) = Mesh::start(Compiler::new(base.clone()), expected, metrics.clone());
        let secrets = Arc::new(Secrets::default());
        let proxies = Arc::new(Proxies::default());
        let stop = CancellationToken::new();
        let shared = Shared::new(Parts {
            mesh: mesh.clone(),
            secrets: secrets.clone(),
            proxies: proxies.clone(),
            metrics: metrics.clone(),
            identifier: format!("ferromesh {} {:08x}", env!("CARGO_PKG_VERSION"), rand::random::<u32>()),
            clock: SystemTime::now,
            stop: stop.clone(),
        });

        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = pipeline_end.await;
            Err(anyhow!("the compiler stopped: this is a bug; restart the control plane"))
        });
        tasks.spawn(forever(authority.clone().run_upkeep(SystemTime::now)));
        let root_file = settings.root_file();
        publish_roots(&root_file, &authority.trust_bundle().borrow().clone(), &metrics)?;
        tasks.spawn(forever(follow_roots(authority.clone(), root_file, metrics.clone())));
        let shelf = match &cluster {
            Some(cluster) => Shelf::Cluster(Objects::new(cluster.clone())),
            None => Shelf::Store(open_store(&settings).await?),
        };
        let objects = RestSource::new(shelf, secrets.clone(), events.clone());
        objects.start().await?;
        if let Some(cluster) = &cluster {
            let root_namespace = settings.root_namespace.clone();
            let board = Arc::new(Board::default());
            let watches = kubernetes::run(
                cluster.clone(),
                root_namespace,
                secrets.clone(),
                events.clone(),
                board.clone(),
                metrics.clone(),
            );
            tasks.spawn(async { Ok(watches.await?) });
            let leads = elect(cluster, &settings, &shared, &metrics);
            let writer = Writer {
                cluster: cluster.clone(),
                mesh: mesh.clone(),
                proxies: proxies.clone(),
                board,
                metrics: metrics.clone(),
                instance: settings.pod_name.clone(),
                root_namespace: settings.root_namespace.clone(),
            };
            tasks.spawn(forever(writer.clone().tell(leads.clone())));
            tasks.spawn(forever(writer.run(leads.clone())));
            let (cluster, namespace) = (cluster.clone(), settings.root_namespace.clone());
            let follow = authority::follow(cluster.clone(), namespace.clone(), authority.clone());
            tasks.spawn(async { Ok(follow.await?) });
            let (bundle, take_over) = (authority.trust_bundle(), settings.take_over_roots);
            if listeners.webhook.is_some() {
                let known = mesh.clone();
                let ready = async move { known.until_synced().await };
                tasks.spawn(forever(webhooks::keep(cluster.clone(), ready, bundle.clone(), leads.clone())));
            }
            tasks.spawn(forever(trust::publish(cluster, namespace, take_over, bundle, leads, metrics.clone())));
        }
        if !settings.config.is_empty() {
            let directories = directory::run(settings.config.clone(), secrets, events);
            tasks.spawn(async { Ok(directories.await?) });
        }

        serve_plaintext(&mut tasks, &shared, listeners.xds);
        let authenticator = authenticator(&authority, cluster.as_ref(), &metrics);
        serve_tls(&mut tasks, &shared, &settings, authority.clone(), authenticator, listeners.xds_tls).await?;
        if let Some(listener) = listeners.webhook {
            serve_webhooks(&mut tasks, &shared, &settings, authority.clone(), base, listener).await?;
        }
        let api = Api { objects, mesh: mesh.clone(), proxies: proxies.clone(), authority: authority.clone() };
        let guard = Guard { token, loopback: addresses.http.ip().is_loopback() };
        serve_http(&mut tasks, &stop, listeners.http, admin::router(Arc::new(api), Arc::new(guard)));
        serve_http(&mut tasks, &stop, listeners.metrics, metrics_router(metrics));
        tracing::info!(xds = %addresses.xds, xds_tls = %addresses.xds_tls, http = %addresses.http, metrics = %addresses.metrics, "listening");
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

/// What must outlive this process.
struct State {
    authority: Arc<Authority>,
    token: AdminToken,
}

impl State {
    async fn open(settings: &Settings, cluster: Option<&Cluster>) -> anyhow::Result<Self> {
        let data = &settings.data_dir;
        fs::create_dir_all(data)
            .with_context(|| format!("cannot make {}; choose another --data-dir", data.display()))?;
        // The authority first: once there is a store, a missing root is a loss and is not made anew.
        let authority = match cluster {
            Some(cluster) => authority::open(cluster, opening(settings)?).await?,
            None => local_authority(settings).await?,
        };
        let settings = settings.clone();
        // Keys are made and files are read.
        tokio::task::spawn_blocking(move || Self::read(&settings, authority)).await.context("opening state")?
    }

    fn read(settings: &Settings, authority: Authority) -> anyhow::Result<Self> {
        let token = administrator(settings)?;
        Ok(Self { authority: Arc::new(authority), token })
    }
}

/// Opens the store of objects, and the key of the Secrets in it.
async fn open_store(settings: &Settings) -> anyhow::Result<Kept> {
    let (store_dir, vault_file) = (settings.store_dir(), settings.vault_file());
    let open = move || -> anyhow::Result<Kept> {
        let (store, recovery) = Durable::open(&store_dir)?;
        match recovery {
            Recovery::Clean => {}
            Recovery::TornTail => {
                tracing::warn!("the journal's last line was incomplete: a write that was never acknowledged is dropped")
            }
            Recovery::Rebuilt(reason) => tracing::warn!(reason, "the store's database was rebuilt from the journal"),
        }
        Ok(Kept { store: Arc::new(store), vault: Vault::open(&vault_file)? })
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

/// Shows the new administrator's token to a person; a log file only learns where it lies.
#[allow(clippy::print_stderr, reason = "a token is shown to a person and must not enter the log")]
fn show_token(token: &str, file: &Path) {
    if std::io::stderr().is_terminal() {
        eprintln!("administrator's token, kept in {}: {token}", file.display());
    } else {
        tracing::info!(file = %file.display(), "an administrator's token was made");
    }
}

/// Takes part in the election of a leader until the end; says whether this replica leads.
fn elect(cluster: &Cluster, settings: &Settings, shared: &Shared, metrics: &Arc<Metrics>) -> watch::Receiver<bool> {
    let (leading, leads) = watch::channel(false);
    let (cluster, stop, metrics) = (cluster.clone(), shared.stop.clone(), metrics.clone());
    let (namespace, identity) = (settings.root_namespace.clone(), settings.pod_name.clone());
    let mut shown = leads.clone();
    // Waited for at the end, so that the Lease is given up.
    shared.tasks.spawn(async move { leader::run(cluster, &namespace, identity, leading, stop).await });
    shared.tasks.spawn(async move {
        while shown.changed().await.is_ok() {
            metrics.leader.set((*shown.borrow_and_update()).into());
        }
    });
    leads
}

async fn forever(work: impl Future<Output = ()>) -> anyhow::Result<()> {
    work.await;
    Ok(())
}

/// Keeps the file of roots up to date.
async fn follow_roots(authority: Arc<Authority>, file: PathBuf, metrics: Arc<Metrics>) {
    let mut bundle = authority.trust_bundle();
    while bundle.changed().await.is_ok() {
        let roots = bundle.borrow_and_update().clone();
        if let Err(error) = publish_roots(&file, &roots, &metrics) {
            tracing::error!(%error, "the file of roots is out of date");
        }
    }
}

/// Writes beside the file and renames, so that nobody reads half of it.
fn publish_roots(file: &Path, bundle: &TrustBundle, metrics: &Metrics) -> anyhow::Result<()> {
    let end =
        |root: &_| x509_parser::parse_x509_certificate(root).ok().map(|(_, c)| c.validity().not_after.timestamp());
    metrics.root_expiry.set(bundle.roots().iter().filter_map(|root| end(root)).min().unwrap_or(0));
    let fresh = file.with_extension("pem.new");
    let written = fs::write(&fresh, bundle.pem()).and_then(|()| fs::rename(&fresh, file));
    written.with_context(|| format!("cannot write the mesh's roots to {}", file.display()))
}

fn grpc_server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(Some(STREAMS_PER_CONNECTION))
}

/// Certificates and join tokens of the authority; in a cluster, tokens of its service accounts too.
fn authenticator(authority: &Authority, cluster: Option<&Cluster>, metrics: &Arc<Metrics>) -> Arc<dyn Authenticator> {
    let trust_domain = &authority.settings().trust_domain;
    let accounts = cluster
        .map(|c| -> Arc<dyn Authenticator> { Arc::new(TokenReviews::new(c, trust_domain.clone(), metrics.clone())) });
    Arc::new(authority.authenticator(accounts))
}

fn serve_plaintext(tasks: &mut JoinSet<anyhow::Result<()>>, shared: &Arc<Shared>, listener: TcpListener) {
    let service = Discovery::server(shared.clone(), Trust::Believed);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let stopped = shared.stop.clone().cancelled_owned();
    let server = grpc_server().add_service(service).serve_with_incoming_shutdown(incoming, stopped);
    tasks.spawn(async { server.await.context("the plaintext xDS port") });
}

async fn serve_tls(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    shared: &Arc<Shared>,
    settings: &Settings,
    authority: Arc<Authority>,
    authenticator: Arc<dyn Authenticator>,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let names = ServerNames {
        names: settings.server_names.clone(),
        addresses: Settings::server_addresses(settings.xds_tls_address),
        protocols: &[b"h2"],
    };
    let (door, renewal) = Door::open(authority.clone(), names, SystemTime::now).await?;
    tasks.spawn(forever(door.clone().keep_fresh(renewal)));
    let mesh = shared.mesh.clone();
    // A cluster knows all its workloads; elsewhere a proxy may stand for none that is registered.
    let complete = settings.cluster.is_some();
    let registry = move |id: &SpiffeId| if complete { mesh.has_workload(id) } else { mesh.may_renew(id) };
    let certificates =
        CertificateService::new(authority, authenticator.clone(), SystemTime::now).with_registry(Arc::new(registry));
    let trust = Trust::Proven { authenticator, clock: SystemTime::now };
    let stopped = shared.stop.clone().cancelled_owned();
    let server = grpc_server()
        .layer(InterceptorLayer::new(introduce))
        .add_service(Discovery::server(shared.clone(), trust))
        .add_service(certificates.into_server())
        .serve_with_incoming_shutdown(door.accept(listener), stopped);
    tasks.spawn(async { server.await.context("the TLS xDS port") });
    Ok(())
}

/// Serves what the API server of a cluster asks.
async fn serve_webhooks(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    shared: &Arc<Shared>,
    settings: &Settings,
    authority: Arc<Authority>,
    defaults: MeshDefaults,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let names = ServerNames {
        names: settings.webhook_names(),
        addresses: Settings::server_addresses(address),
        protocols: webhook::PROTOCOLS,
    };
    let (door, renewal) = Door::open(authority, names, SystemTime::now).await?;
    tasks.spawn(forever(door.clone().keep_fresh(renewal)));
    let followed = webhook::settings::Followed::open(settings)?;
    let webhooks = Webhooks::new(shared.mesh.clone(), defaults, followed.settings.clone(), shared.metrics.clone());
    tasks.spawn(forever(followed.follow()));
    let stopped = shared.stop.clone().cancelled_owned();
    let listener = TlsListener { incoming: door.accept(listener), address };
    let server = axum::serve(listener, webhook::router(Arc::new(webhooks))).with_graceful_shutdown(stopped);
    tasks.spawn(async { server.await.context("the port of the webhooks") });
    Ok(())
}

fn serve_http(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    stop: &CancellationToken,
    listener: TcpListener,
    router: Router,
) {
    let stopped = stop.clone().cancelled_owned();
    tasks.spawn(async { axum::serve(listener, router).with_graceful_shutdown(stopped).await.context("an HTTP port") });
}

fn metrics_router(metrics: Arc<Metrics>) -> Router {
    let headers = [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    Router::new().route("/metrics", get(move || async move { (headers, metrics.render()) }))
}
