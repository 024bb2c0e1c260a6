//! The agent's own HTTP endpoint: probes, the certificate's expiry as a metric, and a way to end it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    http::StatusCode,
    routing::{get, post},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::admin::EnvoyAdmin;
use crate::identity::IdentityWatch;

/// What probes look at.
#[derive(Clone)]
pub struct Health {
    identity: IdentityWatch,
    envoy: EnvoyAdmin,
    draining: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Health {
    /// Ready once `identity` holds a valid certificate and `envoy` says that it serves; `stop` ends the agent.
    pub fn new(identity: IdentityWatch, envoy: EnvoyAdmin, stop: CancellationToken) -> Self {
        Self { identity, envoy, draining: Arc::default(), stop }
    }

    /// From now on the agent is not ready, so that nobody sends new work.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why the proxy is not ready, if it is not.
    async fn obstacle(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("draining".into());
        }
        match self.certificate_end() {
            None => return Some("no certificate yet".into()),
            Some(end) if end <= SystemTime::now() => return Some("the certificate has expired".into()),
            Some(_) => {}
        }
        self.envoy.check_ready().await.err().map(|e| e.to_string())
    }

    fn certificate_end(&self) -> Option<SystemTime> {
        self.identity.borrow().as_ref().map(|identity| identity.not_after)
    }
}

/// Serves until the agent ends, during its drain too: `/healthz/ready`, `/healthz/live`, `/metrics`, `POST /quitquitquit` (loopback only).
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, health: Health) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz/ready", get(ready))
        .route("/healthz/live", get(|| async { "live\n" }))
        .route("/metrics", get(metrics))
        .route("/quitquitquit", post(quit))
        .with_state(health);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    match health.obstacle().await {
        None => (StatusCode::OK, "ready\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn metrics(State(health): State<Health>) -> String {
    let seconds =
        health.certificate_end().map_or(0, |end| end.duration_since(SystemTime::now()).unwrap_or_default().as_secs());
    format!(
        "# HELP istio_agent_cert_expiry_seconds The time remaining, in seconds, before the certificate expires.\n\
         # TYPE istio_agent_cert_expiry_seconds gauge\n\
         istio_agent_cert_expiry_seconds{{resource_name=\"default\"}} {seconds}\n"
    )
}

async fn quit(State(health): State<Health>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> (StatusCode, &'static str) {
    if !peer.ip().is_loopback() {
        return (StatusCode::FORBIDDEN, "only from this host\n");
    }
    health.stop.cancel();
    (StatusCode::OK, "ending\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing;
    use tokio::sync::watch;

    #[tokio::test]
    async fn the_obstacle_is_named() {
        let (sender, identity) = watch::channel(None);
        // Port 9 (discard) is closed: an Envoy that is not there.
        let health = Health::new(identity, EnvoyAdmin::new(([127, 0, 0, 1], 9).into()), CancellationToken::new());
        assert_eq!(health.obstacle().await.as_deref(), Some("no certificate yet"));
        sender.send_replace(Some(Arc::new(testing::identity("spiffe://cluster.local/ns/shop/sa/cart"))));
        assert!(health.obstacle().await.unwrap().contains("admin interface"));
        assert!(metrics(State(health.clone())).await.contains("resource_name=\"default\"} 3"));
        health.drain();
        assert_eq!(ready(State(health)).await, (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n".into()));
    }
}
