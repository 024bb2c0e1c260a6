//! The little of Envoy's admin interface that a supervisor needs.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Envoy answers from its main thread, which a large update may keep busy.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Metrics of a large mesh are the longest answer.
const MAX_BODY: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens, or the connection broke.
    #[error("Envoy's admin interface {address}: {why}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What happened.
        why: String,
    },
    /// It answered with an error.
    #[error("Envoy's admin interface answers {status} to {path}")]
    Status {
        /// What was asked.
        path: String,
        /// What it said.
        status: StatusCode,
    },
}

/// What a drain should cover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrainScope {
    /// Listeners for traffic to the workload: a sidecar's application may still call others while
    /// it finishes.
    Inbound,
    /// Every listener: a gateway has no other side.
    All,
}

/// Talks to one Envoy.
#[derive(Clone, Copy, Debug)]
pub struct EnvoyAdmin {
    address: SocketAddr,
}

impl EnvoyAdmin {
    /// The Envoy whose admin interface listens on `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Whether it has its configuration and serves: Envoy says so after its first listeners and
    /// clusters are in place.
    ///
    /// # Errors
    /// [`AdminError`] says how far it is.
    pub async fn check_ready(&self) -> Result<(), AdminError> {
        self.request(Method::GET, "/ready").await.map(drop)
    }

    /// Begins to close listeners: answers carry `connection: close`, and new connections are
    /// refused at the end.
    ///
    /// # Errors
    /// [`AdminError`] when it does not answer.
    pub async fn drain(&self, scope: DrainScope) -> Result<(), AdminError> {
        let path = match scope {
            DrainScope::Inbound => "/drain_listeners?graceful&inboundonly",
            DrainScope::All => "/drain_listeners?graceful",
        };
        self.request(Method::POST, path).await.map(drop)
    }

    /// How many downstream connections are open, without those to the admin interface and to
    /// probes.
    ///
    /// # Errors
    /// [`AdminError`] when it does not answer.
    pub async fn active_connections(&self) -> Result<u64, AdminError> {
        let text =
            self.request(Method::GET, "/stats?filter=downstream_cx_active&type=Gauges").await?;
        Ok(sum_active(&text))
    }

    /// Its metrics as Prometheus' text.
    ///
    /// # Errors
    /// [`AdminError`] when it does not answer.
    pub async fn metrics(&self) -> Result<String, AdminError> {
        self.request(Method::GET, "/stats/prometheus").await
    }

    async fn request(&self, method: Method, path: &str) -> Result<String, AdminError> {
        let unreachable = |why: String| AdminError::Unreachable { address: self.address, why };
        let (status, body) = tokio::time::timeout(TIMEOUT, exchange(self.address, method, path))
            .await
            .map_err(|_| unreachable("no answer in time".into()))?
            .map_err(|e| unreachable(e.to_string()))?;
        if status.is_success() {
            Ok(body)
        } else {
            Err(AdminError::Status { path: path.to_owned(), status })
        }
    }
}

type ExchangeError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    address: SocketAddr,
    method: Method,
    path: &str,
) -> Result<(StatusCode, String), ExchangeError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await?.to_bytes();
        Ok::<_, ExchangeError>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    // The connection is driven here, beside the exchange, so that nothing outlives this call.
    tokio::pin!(exchange, connection);
    tokio::select! {
        outcome = &mut exchange => outcome,
        ended = &mut connection => { ended?; exchange.await }
    }
}

/// Adds up lines `listener.ADDRESS.downstream_cx_active: N`; per-worker lines repeat the sum.
fn sum_active(stats: &str) -> u64 {
    stats
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| {
            name.starts_with("listener.") && name.ends_with(".downstream_cx_active")
        })
        .filter(|(name, _)| !name.starts_with("listener.admin.") && !name.contains(".worker_"))
        .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};

    #[test]
    fn connections_are_counted_once_and_without_the_admin_s_own() {
        let stats = "http.admin.downstream_cx_active: 1\n\
            listener.0.0.0.0_15006.downstream_cx_active: 3\n\
            listener.0.0.0.0_15006.worker_0.downstream_cx_active: 3\n\
            listener.127.0.0.1_9080.downstream_cx_active: 2\n\
            listener.admin.downstream_cx_active: 1\n\
            listener.admin.main_thread.downstream_cx_active: 1\n\
            rubbish\n";
        assert_eq!(sum_active(stats), 5);
        assert_eq!(sum_active(""), 0);
    }

    #[tokio::test]
    async fn answers_errors_and_silence_are_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stats = get(|| async { "listener.x.downstream_cx_active: 7\n" });
        let app = Router::new()
            .route("/stats", stats)
            .route("/ready", get(|| async { StatusCode::SERVICE_UNAVAILABLE }));
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let admin = EnvoyAdmin::new(address);
        assert_eq!(admin.active_connections().await.unwrap(), 7);
        assert!(matches!(admin.check_ready().await, Err(AdminError::Status { .. })));
        server.abort();
        let _ = server.await;
        assert!(matches!(admin.check_ready().await, Err(AdminError::Unreachable { .. })));
    }
}
