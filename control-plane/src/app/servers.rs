//! The ports: bound before anything starts, then served until the end.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow};
use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use ferromesh_cert_authority::{Authenticator, CertificateService};
use ferromesh_proto::SpiffeId;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::InterceptorLayer,
    transport::{Server, server::TcpIncoming},
};

use super::{Addresses, Core, Tasks, forever};
use crate::{
    ads::{
        auth::Trust,
        service::{Discovery, Shared},
    },
    cluster::token_review::TokenReviews,
    config::Settings,
    metrics::Metrics,
    tls::{Door, ServerNames, introduce},
    webhook::{self, TlsListener, Webhooks},
};

/// How often a silent peer is asked whether it is there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Streams on one connection; a proxy needs two.
const STREAMS_PER_CONNECTION: u32 = 128;

/// Connections that wait to be accepted: a whole mesh may come back at once. The system may allow fewer (`somaxconn`).
const BACKLOG: u32 = 4096;

/// Every port, bound before anything starts, so that a port in use stops the start and nothing else.
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

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn grpc_server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(Some(STREAMS_PER_CONNECTION))
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
pub(super) fn serve_plaintext(tasks: &mut Tasks, shared: &Arc<Shared>, listener: TcpListener) {
    let service = Discovery::server(shared.clone(), Trust::Believed);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let stopped = shared.stop.clone().cancelled_owned();
    let server = grpc_server().add_service(service).serve_with_incoming_shutdown(incoming, stopped);
    tasks.spawn(async { server.await.context("the plaintext xDS port") });
}

/// Serves xDS and certificates to callers who prove who they are.
///
/// # Errors
/// The authority gives no certificate for the port.
pub(super) async fn serve_tls(tasks: &mut Tasks, core: &Core, listener: TcpListener) -> anyhow::Result<()> {
    let Core { settings, authority, shared, .. } = core;
    let authenticator = authenticator(core);
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
    let certificates = CertificateService::new(authority.clone(), authenticator.clone(), SystemTime::now)
        .with_registry(Arc::new(registry));
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
///
/// # Errors
/// The authority gives no certificate for the port, or the settings of injection cannot be used.
pub(super) async fn serve_webhooks(tasks: &mut Tasks, core: &Core, listener: TcpListener) -> anyhow::Result<()> {
    let Core { settings, authority, shared, defaults, .. } = core;
    let address = listener.local_addr()?;
    let names = ServerNames {
        names: settings.webhook_names(),
        addresses: Settings::server_addresses(address),
        protocols: webhook::PROTOCOLS,
    };
    let (door, renewal) = Door::open(authority.clone(), names, SystemTime::now).await?;
    tasks.spawn(forever(door.clone().keep_fresh(renewal)));
    let followed = webhook::settings::Followed::open(settings)?;
    let webhooks =
        Webhooks::new(shared.mesh.clone(), defaults.clone(), followed.settings.clone(), shared.metrics.clone());
    tasks.spawn(forever(followed.follow()));
    let stopped = shared.stop.clone().cancelled_owned();
    let listener = TlsListener { incoming: door.accept(listener), address };
    let server = axum::serve(listener, webhook::router(Arc::new(webhooks))).with_graceful_shutdown(stopped);
    tasks.spawn(async { server.await.context("the port of the webhooks") });
    Ok(())
}

/// Serves a router without TLS.
pub(super) fn serve_http(tasks: &mut Tasks, stop: &CancellationToken, listener: TcpListener, router: Router) {
    let stopped = stop.clone().cancelled_owned();
    tasks.spawn(async { axum::serve(listener, router).with_graceful_shutdown(stopped).await.context("an HTTP port") });
}

/// The metrics, as OpenMetrics text.
pub(super) fn metrics_router(metrics: Arc<Metrics>) -> Router {
    let headers = [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    Router::new().route("/metrics", get(move || async move { (headers, metrics.render()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mesh_that_comes_back_at_once_finds_room_to_wait() {
        let listener = listen((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let waiting: io::Result<Vec<_>> =
            (0..500).map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5))).collect();
        assert_eq!(waiting.unwrap().len(), 500, "nobody has accepted any of them");
    }
}
