//! The webhooks that the API server asks on 15017: `/inject` changes pods, `/validate` judges
//! objects of the mesh.
//!
//! TLS by the control plane's own certificate ([`crate::tls`]); the API server is told the root by
//! [`crate::kube_cluster::webhooks`]. Decisions are made elsewhere: in [`crate::inject`], and by
//! the checks of `ferromesh analyze`. Knows no client of the API server: what it needs of the
//! cluster, the mesh knows.

mod inject;
mod review;
pub mod settings;
#[cfg(test)]
mod tests;
mod validate;
mod webhooks;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};

pub use self::webhooks::Webhooks;
use crate::accept::requests::Requests;

/// Protocols that the port speaks: API servers ask over HTTP/1.1.
pub const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];
/// Largest review: an object of the API server's limit (3 MiB), before and after a change.
pub const MAX_BODY: usize = 8 << 20;
/// The webhooks' routes.
pub fn router(webhooks: Arc<Webhooks>, requests: Arc<Requests>) -> Router {
    Router::new()
        .route("/inject", post(inject::answer))
        .route("/validate", post(validate::answer))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(requests, admit))
        .with_state(webhooks)
}

async fn admit(State(requests): State<Arc<Requests>>, request: Request, next: Next) -> Response {
    requests.pass(request, next).await.into_response()
}
