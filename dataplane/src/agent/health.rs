//! The agent's own HTTP endpoint: probes, the application's and Envoy's metrics with the
//! certificate's expiry, and a way to end it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use ferromesh_proto::{bootstrap::SCRAPE_PATH, recurring::Recurring};
use tokio_util::sync::CancellationToken;

use super::admin::EnvoyAdmin;
use crate::{
    identity::IdentityWatch,
    pod::{self, METRICS_TYPE, PodSettings},
    telemetry::Metrics,
};

/// What probes look at.
#[derive(Clone)]
pub struct Health {
    identity: IdentityWatch,
    envoy: EnvoyAdmin,
    draining: Arc<AtomicBool>,
    /// Failures to read Envoy's metrics.
    unread: Arc<Mutex<Recurring>>,
    pub(super) pod: PodSettings,
    /// What the agent counts of what Envoy logs.
    stats: Option<Arc<Metrics>>,
}

impl Health {
    /// Ready once `identity` holds a valid certificate and `envoy` says that it serves.
    pub fn new(identity: IdentityWatch, envoy: EnvoyAdmin, pod: PodSettings) -> Self {
        let (draining, unread) = (Arc::default(), Arc::default());
        Self { identity, envoy, draining, unread, pod, stats: None }
    }

    /// With metrics that the agent makes of what Envoy logs.
    #[must_use]
    pub fn with_stats(self, stats: Option<Arc<Metrics>>) -> Self {
        Self { stats, ..self }
    }

    /// What is answered until the agent ends, during its drain too; `stop` is cancelled to end it.
    pub fn routes(&self, stop: CancellationToken) -> Router {
        Router::new()
            .route("/healthz/ready", get(ready))
            .route("/healthz/live", get(|| async { "live\n" }))
            .route("/metrics", get(metrics))
            .route("/stats/prometheus", get(all_metrics))
            .route(SCRAPE_PATH, get(proxy_metrics))
            .with_state(self.clone())
            .merge(self.pod.probe_routes())
            .merge(pod::quit_route(stop))
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
            Some(end) if end <= SystemTime::now() => {
                return Some("the certificate has expired".into());
            }
            Some(_) => {}
        }
        self.envoy.check_ready().await.err().map(|e| e.to_string())
    }

    /// Ours, those made of what Envoy logs, and Envoy's own.
    async fn proxy_metrics(&self) -> String {
        let mut text = metrics(State(self.clone())).await;
        if let Some(stats) = &self.stats {
            text.push_str(&stats.render_istio());
        }
        let envoy = self.envoy.metrics().await;
        self.tell_of_metrics(&envoy);
        text.push_str(&envoy.unwrap_or_default());
        text
    }

    /// Logs whether Envoy's metrics can be read, where that is news.
    fn tell_of_metrics(&self, answer: &Result<String, impl fmt::Display>) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(_) => {
                if let Some(failures) = unread.worked(Instant::now()) {
                    tracing::info!(failures, "metrics of Envoy again");
                }
            }
            Err(error) => {
                if let Some(failures) = unread.failed(error, Instant::now()) {
                    tracing::warn!(%error, failures, "no metrics of Envoy");
                }
            }
        }
    }

    fn certificate_end(&self) -> Option<SystemTime> {
        self.identity.borrow().as_ref().map(|identity| identity.not_after)
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    match health.obstacle().await {
        None => (StatusCode::OK, "ready\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn metrics(State(health): State<Health>) -> String {
    let seconds = health
        .certificate_end()
        .map_or(0, |end| end.duration_since(SystemTime::now()).unwrap_or_default().as_secs());
    format!(
        "# HELP istio_agent_cert_expiry_seconds The time remaining, in seconds, before the certificate expires.\n\
         # TYPE istio_agent_cert_expiry_seconds gauge\n\
         istio_agent_cert_expiry_seconds{{resource_name=\"default\"}} {seconds}\n"
    )
}

/// Envoy's metrics and ours.
async fn proxy_metrics(State(health): State<Health>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], health.proxy_metrics().await)
}

/// Envoy's metrics, ours and the application's.
async fn all_metrics(State(health): State<Health>, headers: HeaderMap) -> impl IntoResponse {
    let text = health.proxy_metrics().await;
    ([(CONTENT_TYPE, METRICS_TYPE)], health.pod.merge_metrics(text, &headers).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::testing,
        pod::{AppProbes, Application},
    };
    use tokio::sync::watch;

    #[tokio::test]
    async fn the_obstacle_is_named() {
        let (sender, identity) = watch::channel(None);
        // Port 9 (discard) is closed: an Envoy that is not there.
        let pod = PodSettings {
            address: ([127, 0, 0, 1], 0).into(),
            application: Application { address: [127, 0, 0, 1].into(), captured: false },
            probes: AppProbes::default(),
            metrics: None,
            unread: Arc::default(),
        };
        let health = Health::new(identity, EnvoyAdmin::new(([127, 0, 0, 1], 9).into()), pod);
        assert_eq!(health.obstacle().await.as_deref(), Some("no certificate yet"));
        sender.send_replace(Some(Arc::new(testing::identity(
            "spiffe://cluster.local/ns/shop/sa/cart",
        ))));
        assert!(health.obstacle().await.unwrap().contains("admin interface"));
        assert!(metrics(State(health.clone())).await.contains("resource_name=\"default\"} 3"));
        health.drain();
        assert_eq!(
            ready(State(health)).await,
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n".into())
        );
    }
}
