//! The webhooks that the API server asks on 15017: `/inject` changes pods, `/validate` judges objects of the mesh.
//!
//! TLS by the control plane's own certificate ([`crate::tls`]); the API server is told the root by
//! [`crate::cluster::webhooks`]. Decisions are made elsewhere: in [`crate::inject`], and by the checks of `ferromesh
//! analyze`. Knows no client of the API server: what it needs of the cluster, the mesh knows.

mod inject;
mod review;
pub mod settings;
#[cfg(test)]
mod tests;
mod validate;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use ferromesh_xds_translator::ir::MeshDefaults;

use crate::{
    door::{Source, requests::Requests, turns::Turns},
    inject::InjectionSettings,
    metrics::Metrics,
    pipeline::Mesh,
};

/// Protocols that the port speaks: API servers ask over HTTP/1.1.
pub const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];
/// Largest review: an object of the API server's limit (3 MiB), before and after a change.
pub const MAX_BODY: usize = 8 << 20;
/// How long a pod waits for the mesh to be known; less than API servers wait for us.
const PATIENCE: Duration = Duration::from_secs(8);
/// Objects judged at a time; each judgement looks at the whole mesh.
const JUDGEMENTS: usize = 2;

/// What the webhooks' answers are made of.
pub struct Webhooks {
    /// The mesh as the pipeline knows it.
    pub mesh: Mesh,
    /// What the mesh's configuration does not say.
    pub defaults: MeshDefaults,
    /// What injected pods get.
    pub settings: Arc<ArcSwap<InjectionSettings>>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    judgements: Arc<Turns<Source>>,
    /// How long a pod may wait for the mesh to be known, right after a start.
    patience: Duration,
}

impl Webhooks {
    /// Webhooks of a mesh.
    pub fn new(
        mesh: Mesh,
        defaults: MeshDefaults,
        settings: Arc<ArcSwap<InjectionSettings>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { mesh, defaults, settings, metrics, judgements: Turns::new(JUDGEMENTS), patience: PATIENCE }
    }
}

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
