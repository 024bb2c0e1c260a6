//! The proxy's own HTTP endpoints: readiness, metrics, and for people on this machine what it runs
//! and why not, and what it logs.
//!
//! Nothing here shows key material: secrets appear by name and version only.

use std::{fmt::Write, sync::Arc, time::SystemTime};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::{get, post},
};
use ferromesh_proto::ResourceType;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    log::{Log, LogError},
    pod::{self, METRICS_TYPE, PodSettings},
    runtime::endpoint::HealthStatus,
    upstream::LiveEndpoint,
    worker::{Phase, Shared},
    xds::{
        Accepted, Progress,
        accepted::{Refusal, Summary},
        client::without_sockets,
    },
};

/// What the endpoints read, and the switches that they have.
#[derive(Clone)]
pub struct Admin {
    /// What workers share.
    pub shared: Arc<Shared>,
    /// How far configuration has come.
    pub progress: Arc<Progress>,
    /// Our node id.
    pub node_id: Arc<str>,
    /// Whether a certificate is needed to be ready.
    pub needs_identity: bool,
    /// Cancelled to end the proxy.
    pub quit: CancellationToken,
    /// What is logged.
    pub log: Arc<Log>,
}

impl Admin {
    /// Everything, for loopback.
    pub fn admin_routes(&self) -> Router {
        Router::new()
            .route("/config_dump", get(config_dump))
            .route("/listeners", get(listeners))
            .route("/clusters", get(clusters))
            .route("/certs", get(certs))
            .route("/logging", post(logging))
            .route("/drain", post(drain))
            .route("/quitquitquit", post(quit))
            .with_state(self.clone())
            .merge(self.status_routes())
            .merge(self.metrics_routes())
    }

    /// Probes.
    pub fn status_routes(&self) -> Router {
        let routes = Router::new().route("/ready", get(ready)).route("/healthz/ready", get(ready));
        routes.route("/healthz/live", get(|| async { "live\n" })).with_state(self.clone())
    }

    /// Metrics.
    pub fn metrics_routes(&self) -> Router {
        Router::new().route("/stats/prometheus", get(metrics)).with_state(self.clone())
    }

    /// What a pod asks of its proxy.
    pub fn pod_routes(&self, pod: &PodSettings) -> Router {
        let metrics = Router::new()
            .route("/stats/prometheus", get(all_metrics))
            .with_state((self.clone(), pod.clone()));
        self.status_routes()
            .merge(metrics)
            .merge(pod.probe_routes())
            .merge(pod::quit_route(self.quit.clone()))
    }

    /// What traffic has shown, and what of the configuration is refused.
    fn own_metrics(&self) -> String {
        self.shared.metrics.render() + &refusals(&self.refused(&self.progress.accepted()))
    }

    /// What is refused now, for what it says or since there is no socket to be had for it.
    fn refused(&self, accepted: &Accepted) -> Vec<Refusal> {
        let of_sockets = without_sockets(accepted, &self.shared);
        accepted.refusals().cloned().chain(of_sockets).collect()
    }

    /// Why the proxy is not ready, or `None` if it is.
    fn missing(&self) -> Option<&'static str> {
        if self.shared.phase() != Phase::Serving {
            Some("draining")
        } else if !self.progress.is_ready() {
            Some("waiting for the first configuration")
        } else if self.needs_identity && self.shared.identity.borrow().is_none() {
            Some("waiting for the first certificate")
        } else {
            None
        }
    }
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    match admin.missing() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], admin.own_metrics())
}

/// Ours, then the application's.
async fn all_metrics(
    State((admin, pod)): State<(Admin, PodSettings)>,
    headers: HeaderMap,
) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], pod.merge_metrics(admin.own_metrics(), &headers).await)
}

async fn quit(State(admin): State<Admin>) -> &'static str {
    admin.quit.cancel();
    "draining, then ending\n"
}

/// What is logged, and other levels where the query names some, as Envoy's admin interface has it.
async fn logging(
    State(admin): State<Admin>,
    Query(asked): Query<Vec<(String, String)>>,
) -> Result<String, (StatusCode, String)> {
    let refused = |error: LogError| (StatusCode::BAD_REQUEST, format!("{error}\n"));
    admin.log.ask(&asked).map_err(refused)?;
    Ok(admin.log.to_string())
}

async fn drain(State(admin): State<Admin>) -> &'static str {
    admin.shared.enter(Phase::Draining);
    "draining\n"
}

async fn config_dump(State(admin): State<Admin>) -> Json<Value> {
    let generation = admin.shared.config().generation;
    let accepted = admin.progress.accepted();
    let resources: Map<String, Value> = ResourceType::ALL
        .into_iter()
        .map(|kind| {
            let entries: Vec<Value> = accepted.summaries(kind).iter().map(summary).collect();
            (kind.short_name().to_lowercase(), Value::Array(entries))
        })
        .collect();
    Json(json!({
        "node": &*admin.node_id,
        "version": env!("CARGO_PKG_VERSION"),
        "ready": admin.missing().is_none(),
        "connected": admin.progress.is_connected(),
        "generation": generation,
        "resources": resources,
        "refused": admin.refused(&accepted).iter().map(refusal).collect::<Vec<_>>(),
    }))
}

fn summary(summary: &Summary) -> Value {
    json!({ "name": summary.name, "version": summary.serving, "warming": summary.warming })
}

/// How many resources are refused now, and how many of those are closed meanwhile.
fn refusals(refused: &[Refusal]) -> String {
    let mut text = String::from(
        "# HELP ferromesh_refused_resources Resources whose newest version this proxy has refused.\n\
         # TYPE ferromesh_refused_resources gauge\n",
    );
    for kind in ResourceType::ALL {
        for closed in [false, true] {
            let alike = |refusal: &&Refusal| {
                refusal.rejection.kind == kind && refusal.rejection.closed == closed
            };
            let (kind, count) = (kind.short_name(), refused.iter().filter(alike).count());
            let _ = writeln!(
                text,
                "ferromesh_refused_resources{{type=\"{kind}\",closed=\"{closed}\"}} {count}"
            );
        }
    }
    text
}

fn refusal(refusal: &Refusal) -> Value {
    let rejection = &refusal.rejection;
    json!({
        "type": rejection.kind.short_name(),
        "name": rejection.name,
        "version": refusal.version,
        "field": rejection.field,
        "reason": rejection.reason,
        "closed": rejection.closed,
    })
}

async fn listeners(State(admin): State<Admin>) -> Json<Value> {
    let config = admin.shared.config();
    let entries = config.listeners.iter().map(|listener| {
        let chains = listener.chains.iter().chain(&listener.default_chain);
        json!({
            "name": &*listener.name,
            "addresses": listener.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "bound": listener.bind_to_port,
            "filter_chains": chains.map(|chain| &*chain.name).collect::<Vec<_>>(),
        })
    });
    Json(entries.collect())
}

async fn clusters(State(admin): State<Admin>) -> Json<Value> {
    let config = admin.shared.config();
    let mut clusters: Vec<_> = config.clusters().collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    let entries = clusters.into_iter().map(|cluster| {
        let now = cluster.state.now_ms();
        let endpoints = cluster.state.endpoints();
        json!({
            "name": &*cluster.name,
            "endpoints": endpoints.iter().map(|live| endpoint(live, now)).collect::<Vec<_>>(),
        })
    });
    Json(entries.collect())
}

fn endpoint(live: &LiveEndpoint, now_ms: u64) -> Value {
    let health = match live.spec.health {
        HealthStatus::Healthy => "healthy",
        HealthStatus::Degraded => "degraded",
        HealthStatus::Unhealthy => "unhealthy",
        HealthStatus::Draining => "draining",
    };
    json!({
        "address": live.state.address.to_string(),
        "weight": live.spec.weight,
        "health": health,
        "ejected": live.state.is_ejected(now_ms),
        "active": live.state.active.load(std::sync::atomic::Ordering::Relaxed),
        "workload": live.spec.workload.as_deref(),
    })
}

async fn certs(State(admin): State<Admin>) -> Json<Value> {
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    };
    let identity = admin.shared.identity.borrow().clone();
    Json(identity.map_or(Value::Null, |identity| {
        json!({
            "spiffe_id": identity.spiffe_id.to_string(),
            "not_before": seconds(identity.not_before),
            "not_after": seconds(identity.not_after),
            "roots": identity.roots.len(),
        })
    }))
}
