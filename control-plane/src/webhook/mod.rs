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

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
    serve::Listener,
};
use ferromesh_xds_translator::ir::MeshDefaults;
use futures_util::StreamExt;
use tokio::sync::Semaphore;

use crate::{
    inject::InjectionSettings,
    metrics::Metrics,
    pipeline::Mesh,
    tls::{Connection, Incoming},
};

/// Protocols that the port speaks: API servers ask over HTTP/1.1.
pub const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];
/// Largest review: an object of the API server's limit (3 MiB), before and after a change.
const MAX_BODY: usize = 8 << 20;
/// Time for a whole request; the API server's own patience is shorter (10 s and 5 s in our configurations).
const REQUEST: Duration = Duration::from_secs(15);
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
    judgements: Semaphore,
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
        Self { mesh, defaults, settings, metrics, judgements: Semaphore::new(JUDGEMENTS), patience: PATIENCE }
    }
}

/// The webhooks' routes.
pub fn router(webhooks: Arc<Webhooks>) -> Router {
    Router::new()
        .route("/inject", post(inject::answer))
        .route("/validate", post(validate::answer))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(limit_time))
        .with_state(webhooks)
}

/// A client that sends slowly does not keep its request for ever.
async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response(),
    }
}

/// Connections of the TLS door, for a server of HTTP.
pub struct TlsListener {
    /// Where they come from.
    pub incoming: Incoming,
    /// Where the door is.
    pub address: SocketAddr,
}

impl Listener for TlsListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.incoming.next().await {
                Some(Ok(connection)) => {
                    let remote = connection.remote();
                    return (connection, remote);
                }
                // The door logs its troubles itself.
                Some(Err(_)) => {}
                // It is closed; the server is stopping.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
