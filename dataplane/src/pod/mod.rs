//! What a pod asks of its proxy beside traffic, whichever kind of proxy it is: the application's
//! probes, answered in the clear where mutual TLS would refuse the kubelet; both their metrics in
//! one answer; and an end on request.
//!
//! Served on port 15020, which interception leaves alone. Knows nothing of listeners or
//! configuration.

mod check;
mod health;
mod probe;
mod scrape;
mod server;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode, Uri},
    routing::{any, post},
};
use ferromesh_proto::recurring::Recurring;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::redirect::{PASSTHROUGH_V4, PASSTHROUGH_V6};

pub use self::{health::HealthProbe, probe::AppProbes, scrape::AppMetrics};

/// Prometheus' text format.
pub(crate) const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is known of the application.
#[derive(Clone, Debug)]
pub struct PodSettings {
    /// Where we are asked.
    pub address: SocketAddr,
    /// Where the application is.
    pub application: Application,
    /// Its probes, by the path at which the kubelet asks for them.
    pub probes: AppProbes,
    /// Its metrics, if it has any.
    pub metrics: Option<AppMetrics>,
    /// Failures to read them, as far as they were logged.
    pub unread: Arc<Mutex<Recurring>>,
}

/// How the application is reached without meeting its proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Application {
    /// The pod's address, as the kubelet itself would use: an application may listen on no other.
    pub address: IpAddr,
    /// Whether connections are captured: then ours bear the source that interception lets through.
    pub captured: bool,
}

impl Application {
    async fn connect(self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if self.captured && to.ip() == self.address {
            let source = if to.is_ipv4() { PASSTHROUGH_V4.into() } else { PASSTHROUGH_V6.into() };
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl PodSettings {
    /// `/app-health/CONTAINER/PROBE`: the answer is the application's.
    pub fn probe_routes(&self) -> Router {
        Router::new().route("/app-health/{*probe}", any(answer_probe)).with_state(self.clone())
    }

    /// Adds the application's metrics to our own; an application that does not answer takes nothing
    /// away.
    ///
    /// `headers` are those of the scrape, whose time limit is kept.
    pub async fn merge_metrics(&self, mut own: String, headers: &HeaderMap) -> String {
        let Some(metrics) = &self.metrics else { return own };
        match scrape::fetch(self.application, metrics, scrape::limit(headers)).await {
            Ok(text) => {
                scrape::append(&mut own, &text);
                if let Some(failures) = self.unread().worked(Instant::now()) {
                    tracing::info!(failures, "metrics of the application again");
                }
            }
            Err(why) => {
                if let Some(failures) = self.unread().failed(&why, Instant::now()) {
                    let AppMetrics { port, path } = metrics;
                    tracing::warn!(port, path, %why, failures, "no metrics of the application");
                }
            }
        }
        own
    }

    fn unread(&self) -> MutexGuard<'_, Recurring> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer_probe(
    State(pod): State<PodSettings>,
    uri: Uri,
    headers: HeaderMap,
) -> (StatusCode, String) {
    let Some(probe) = pod.probes.of(uri.path()) else {
        return (StatusCode::NOT_FOUND, format!("{}: the pod has no such probe\n", uri.path()));
    };
    match check::run(pod.application, probe, &headers).await {
        Ok(status) => (status, format!("the application answers {status}\n")),
        Err(why) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the application's probe failed: {why}\n"))
        }
    }
}

/// `POST /quitquitquit`, for programs of this pod that want their proxy to end with them.
pub fn quit_route(quit: CancellationToken) -> Router {
    Router::new().route("/quitquitquit", post(end)).with_state(quit)
}

async fn end(
    State(quit): State<CancellationToken>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> (StatusCode, &'static str) {
    let peer = peer.ip().to_canonical();
    // What comes by the passthrough source came from outside, through the proxy.
    if !peer.is_loopback() || peer == PASSTHROUGH_V4 {
        return (StatusCode::FORBIDDEN, "only from this host\n");
    }
    quit.cancel();
    (StatusCode::OK, "draining, then ending\n")
}

/// Serves routes that want to know who asks, within limits for all who do.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, routes: Router) -> io::Result<()> {
    server::serve(listener, routes, server::Limits::default()).await
}

#[cfg(test)]
mod tests;
