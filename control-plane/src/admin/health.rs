//! Probes: alive as long as it answers; ready once every source has told what it has.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{Method, StatusCode},
};

use super::{api::Api, problem::Problem};

/// `GET /healthz/live`
pub(super) async fn live() -> &'static str {
    "alive\n"
}

/// `GET /healthz/ready`
pub(super) async fn ready(State(api): State<Arc<Api>>) -> (StatusCode, &'static str) {
    if api.mesh.is_synced() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "reading configuration\n")
    }
}

/// Any other method.
pub(super) async fn no_such_method(method: Method) -> Problem {
    let detail = format!("expected GET, got {method}");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", detail)
}
