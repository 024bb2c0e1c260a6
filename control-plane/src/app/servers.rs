//! The ports: bound before anything starts, then served until the end.

use std::{
    io,
    net::SocketAddr,
    num::NonZero,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::anyhow;
use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap,
        header::{ACCEPT, CONTENT_TYPE, VARY},
    },
    middleware,
    routing::get,
};
use ferromesh_cert_authority::{Authenticator, CertificateService, IdentityRegistry};
use ferromesh_proto::SpiffeId;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::parts::{Core, Tasks, forever};
use crate::{
    accept::{
        Acceptor, ClientNetwork, Limits, Port, Spoken, TlsAcceptor, budget::Budget,
        requests::Requests, seats::Seats, turns::Turns,
    },
    admin::{self, Api, Guard},
    ads::{auth::Trust, service::Discovery, shared::Shared},
    config::Settings,
    kube_cluster::token_review::TokenReviews,
    metrics::{Exposition, Metrics},
    pipeline::Mesh,
    tls::{ServerIdentity, ServerNames},
    webhook::{self, Webhooks},
};

/// What a connection of a proxy may cost: it speaks at once, and is quiet between two certificates
/// only.
const XDS: Limits = Limits {
    connections: 50_000,
    first_byte: Duration::from_secs(5),
    handshake: Duration::from_secs(10),
    head: Duration::from_secs(10),
    quiet: Duration::from_secs(300),
    answer: Duration::from_secs(30),
};
/// What a connection of an administrator, a probe, a scraper or an API server may cost.
const HTTP: Limits = Limits {
    connections: 512,
    head: Duration::from_secs(15),
    quiet: Duration::from_secs(90),
    ..XDS
};
/// Time for the body of a request that is read whole.
const BODY: Duration = Duration::from_secs(10);
/// Memory of one port for small bodies, and for others.
const BODIES: usize = 32 << 20;
/// Requests of one port that are answered at a time, and for which others wait their turn.
const REST_AT_A_TIME: usize = 16;
const WEBHOOKS_AT_A_TIME: usize = 64;
const METRICS_AT_A_TIME: usize = 2;

/// Connections that wait to be accepted: a whole mesh may come back at once. The system may allow
/// fewer (`somaxconn`).
const BACKLOG: u32 = 4096;

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

/// Every port, bound before anything starts, so that a port in use stops the start and nothing
/// else.
pub(super) struct Listeners {
    pub(super) xds: TcpListener,
    pub(super) xds_tls: TcpListener,
    pub(super) http: TcpListener,
    pub(super) metrics: TcpListener,
    pub(super) webhook: Option<TcpListener>,
}

impl Listeners {
    pub(super) fn bind(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            xds: bind(settings.xds_address, "plaintext xDS", "--xds-address")?,
            xds_tls: bind(settings.xds_tls_address, "xDS over TLS", "--xds-tls-address")?,
            http: bind(settings.http_address, "the REST API", "--http-address")?,
            metrics: bind(settings.metrics_address, "metrics", "--metrics-address")?,
            webhook: settings
                .webhook_address
                .map(|address| bind(address, "webhooks", "--webhook-address"))
                .transpose()?,
        })
    }

    pub(super) fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            xds: self.xds.local_addr()?,
            xds_tls: self.xds_tls.local_addr()?,
            http: self.http.local_addr()?,
            metrics: self.metrics.local_addr()?,
            webhook: self.webhook.as_ref().map(TcpListener::local_addr).transpose()?,
        })
    }
}

fn bind(address: SocketAddr, what: &str, option: &str) -> anyhow::Result<TcpListener> {
    listen(address).map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("stop the process that uses it, or choose another with {option}")
            }
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

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What the ports of a control plane share.
pub(super) struct Acceptors {
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// TLS handshakes that are computed at a time: one processor stays free for everything else.
    handshakes: Arc<Turns<ClientNetwork>>,
    /// Files that this process may have open.
    files: usize,
}

impl Acceptors {
    pub(super) fn new(shared: &Shared) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let files = getrlimit(Resource::RLIMIT_NOFILE)
            .map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(1 << 20));
        let handshakes = Turns::new(processors.saturating_sub(1).max(1));
        Self { metrics: shared.metrics.clone(), stop: shared.stop.clone(), handshakes, files }
    }

    /// The acceptor of a port that takes at most a share of the process's files; over TLS with an
    /// `identity`.
    fn of(
        &self,
        name: &'static str,
        limits: Limits,
        spoken: Spoken,
        identity: Option<Arc<ServerIdentity>>,
    ) -> Acceptor {
        let share = if spoken == Spoken::Grpc { 3 * self.files / 10 } else { self.files / 10 };
        let handshakes = self.handshakes.clone();
        let (metrics, stop) = (self.metrics.clone(), self.stop.clone());
        Acceptor {
            port: Arc::new(Port { name, limits, spoken, metrics, stop }),
            tls: identity.map(|identity| TlsAcceptor { identity, handshakes }),
            seats: Seats::new(limits.connections.min(share)),
        }
    }

    /// What requests of a port may cost that are read whole.
    fn requests(&self, port: &'static str, largest: usize, at_a_time: usize) -> Requests {
        Requests {
            port,
            largest,
            body: BODY,
            bodies: Budget::new(BODIES.max(4 * largest), (BODIES / 4).max(largest)),
            small: Budget::new(BODIES, BODIES / 4),
            turns: Turns::new(at_a_time),
            metrics: self.metrics.clone(),
        }
    }
}

/// Lets this process have as many files open as it may: each connection is one.
pub(super) fn raise_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where that is not allowed, there is room for fewer connections.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Certificates and join tokens of the authority; in a cluster, tokens of its service accounts too.
fn authenticator(core: &Core) -> Arc<dyn Authenticator> {
    let trust_domain = &core.authority.settings().trust_domain;
    let reviews = core.cluster.as_ref().map(|cluster| -> Arc<dyn Authenticator> {
        Arc::new(TokenReviews::new(cluster, trust_domain.clone(), core.shared.metrics.clone()))
    });
    Arc::new(core.authority.authenticator(reviews))
}

/// Serves xDS to callers who are believed.
pub(super) fn serve_plaintext(
    tasks: &mut Tasks,
    acceptors: &Acceptors,
    shared: &Arc<Shared>,
    listener: TcpListener,
) {
    let routes = Routes::new(Discovery::server(shared.clone(), Trust::Believed));
    let acceptor = acceptors.of("xds", XDS, Spoken::Grpc, None);
    tasks.spawn(forever(acceptor.serve(listener, routes.prepare().into_axum_router())));
}

/// Serves xDS and certificates to callers who prove who they are.
///
/// # Errors
/// The authority gives no certificate for the port.
pub(super) async fn serve_tls(
    tasks: &mut Tasks,
    acceptors: &Acceptors,
    core: &Core,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let Core { settings, authority, shared, .. } = core;
    let authenticator = authenticator(core);
    let names = ServerNames {
        names: settings.server_names.clone(),
        addresses: Settings::server_addresses(settings.xds_tls_address),
        protocols: &[b"h2"],
    };
    let (identity, renewal) =
        ServerIdentity::open(authority.clone(), names, SystemTime::now).await?;
    tasks.spawn(forever(identity.clone().keep_fresh(renewal)));
    // A cluster knows all its workloads; elsewhere a proxy may stand for none that is registered.
    let registry = Registry { mesh: shared.mesh.clone(), complete: settings.cluster.is_some() };
    let certificates =
        CertificateService::new(authority.clone(), authenticator.clone(), SystemTime::now)
            .with_registry(Arc::new(registry));
    let trust = Trust::Proven { authenticator, clock: SystemTime::now };
    let routes = Routes::new(Discovery::server(shared.clone(), trust))
        .add_service(certificates.into_server());
    let acceptor = acceptors.of("xds-tls", XDS, Spoken::Grpc, Some(identity));
    tasks.spawn(forever(acceptor.serve(listener, routes.prepare().into_axum_router())));
    Ok(())
}

/// Identities as the mesh knows them.
struct Registry {
    mesh: Mesh,
    /// Whether the mesh knows every workload.
    complete: bool,
}

impl IdentityRegistry for Registry {
    fn exists(&self, id: &SpiffeId) -> bool {
        if self.complete { self.mesh.has_workload(id) } else { self.mesh.may_renew(id) }
    }
    fn workloads(&self, id: &SpiffeId) -> usize {
        self.mesh.workloads_of(id)
    }
}

/// Serves what the API server of a cluster asks.
///
/// # Errors
/// The authority gives no certificate for the port, or the settings of injection cannot be used.
pub(super) async fn serve_webhooks(
    tasks: &mut Tasks,
    acceptors: &Acceptors,
    core: &Core,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let Core { settings, authority, shared, judge, .. } = core;
    let address = listener.local_addr()?;
    let names = ServerNames {
        names: settings.webhook_names(),
        addresses: Settings::server_addresses(address),
        protocols: webhook::PROTOCOLS,
    };
    let (identity, renewal) =
        ServerIdentity::open(authority.clone(), names, SystemTime::now).await?;
    tasks.spawn(forever(identity.clone().keep_fresh(renewal)));
    let followed = webhook::settings::Followed::open(settings)?;
    let webhooks = Webhooks::new(
        shared.mesh.clone(),
        judge.clone(),
        followed.settings.clone(),
        shared.metrics.clone(),
    );
    tasks.spawn(forever(followed.follow()));
    let requests = acceptors.requests("webhooks", webhook::MAX_BODY, WEBHOOKS_AT_A_TIME);
    let router = webhook::router(Arc::new(webhooks), Arc::new(requests));
    let acceptor = acceptors.of("webhooks", HTTP, Spoken::Http, Some(identity));
    tasks.spawn(forever(acceptor.serve(listener, router)));
    Ok(())
}

/// Serves the REST API and health.
pub(super) fn serve_rest(
    tasks: &mut Tasks,
    acceptors: &Acceptors,
    listener: TcpListener,
    api: Arc<Api>,
    guard: Guard,
) {
    let requests = acceptors.requests("http", admin::MAX_BODY, REST_AT_A_TIME);
    let router = admin::router(api, Arc::new(guard), Arc::new(requests));
    tasks.spawn(forever(acceptors.of("http", HTTP, Spoken::Http, None).serve(listener, router)));
}

/// Serves the metrics in the form that is asked for, and beside them what tools of Istio's ask on this
/// port.
pub(super) fn serve_metrics(
    tasks: &mut Tasks,
    acceptors: &Acceptors,
    listener: TcpListener,
    api: Arc<Api>,
    guard: Guard,
) {
    let (metrics, requests) =
        (acceptors.metrics.clone(), Arc::new(acceptors.requests("metrics", 0, METRICS_AT_A_TIME)));
    let admit = async |State(requests): State<Arc<Requests>>, request, next| {
        requests.pass(request, next).await
    };
    let answer = move |headers: HeaderMap| {
        let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let form = Exposition::asked(&accept.collect::<Vec<_>>().join(","));
        let answer =
            ([(CONTENT_TYPE, form.media_type()), (VARY, "accept")], form.spell(metrics.render()));
        std::future::ready(answer)
    };
    let router = Router::new()
        .route("/metrics", get(answer))
        .layer(middleware::from_fn_with_state(requests.clone(), admit))
        .merge(admin::debug_router(api, Arc::new(guard), requests));
    tasks.spawn(forever(acceptors.of("metrics", HTTP, Spoken::Http, None).serve(listener, router)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mesh_that_comes_back_at_once_finds_room_to_wait() {
        let listener = listen((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let waiting: io::Result<Vec<_>> = (0..500)
            .map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5)))
            .collect();
        assert_eq!(waiting.unwrap().len(), 500, "nobody has accepted any of them");
    }
}
