//! Probes: alive as long as it answers; ready once every source has told what it has.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};

use super::api::Api;

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
