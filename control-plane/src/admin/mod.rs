//! The REST API: objects with validation and dry run, proxies and what they run, workloads, certificates, diagnostics,
//! join tokens, health, and a description of itself.

mod guard;
mod health;
mod mesh;
mod objects;
mod openapi;
mod problem;
mod token;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
use ferromesh_cert_authority::Authority;

pub use guard::Guard;
pub use token::{AdminToken, TokenError};

use crate::{pipeline, source::rest::RestSource, status::Proxies};

/// Largest request body: an object, not a mesh.
const MAX_BODY: usize = 4 << 20;

/// What the API's answers are made of.
pub struct Api {
    /// Objects written through the API.
    pub objects: RestSource,
    /// The mesh as the pipeline knows it.
    pub mesh: pipeline::Mesh,
    /// Connected proxies.
    pub proxies: Arc<Proxies>,
    /// Certificates and join tokens.
    pub authority: Arc<Authority>,
}

/// The API's routes behind its guard.
pub fn router(api: Arc<Api>, guard: Arc<Guard>) -> Router {
    Router::new()
        .route("/healthz/live", get(health::live))
        .route("/healthz/ready", get(health::ready))
        .route("/openapi.json", get(openapi::document))
        .route("/api/v1/objects", get(objects::list).post(objects::create))
        .route(
            "/api/v1/objects/{kind}/{namespace}/{name}",
            get(objects::read).put(objects::replace).delete(objects::delete),
        )
        .route("/api/v1/diagnostics", get(mesh::diagnostics))
        .route("/api/v1/proxies", get(mesh::proxies))
        .route("/api/v1/proxies/{id}/config", get(mesh::config))
        .route("/api/v1/workloads", get(mesh::workloads))
        .route("/api/v1/certificates", get(mesh::certificates))
        .route("/api/v1/tokens", post(mesh::create_token))
        .fallback(objects::no_such_path)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .with_state(api)
}
