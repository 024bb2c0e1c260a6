//! The REST API: objects with validation and dry run, proxies and what they run, workloads,
//! certificates, diagnostics, join tokens, health, and a description of itself.

mod api;
mod debug;
mod deletion;
mod explain;
mod forecast;
mod guard;
mod health;
mod logging;
mod mesh;
mod objects;
mod openapi;
mod page;
mod parameters;
mod precondition;
mod problem;
mod resources;
mod token;
pub mod users;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};

pub use api::Api;
pub use guard::Guard;
pub use token::{AdminToken, TokenError};

use self::problem::Problem;
use crate::accept::requests::Requests;

/// Largest request body: an object, not a mesh.
pub const MAX_BODY: usize = 4 << 20;

/// The API's routes behind its guard. Health answers beside them: it waits for nobody's turn.
pub fn router(api: Arc<Api>, guard: Arc<Guard>, requests: Arc<Requests>) -> Router {
    Router::new()
        .route("/openapi.json", get(openapi::document))
        .route("/api/v1/objects", get(objects::list).post(objects::create))
        .route(
            "/api/v1/objects/{kind}/{namespace}/{name}",
            get(objects::read).put(objects::replace).delete(objects::delete),
        )
        .route("/apis/{group}/{version}/{plural}", get(resources::list))
        .route("/apis/{group}/{version}/{plural}/{name}", resource())
        .route("/apis/{group}/{version}/namespaces/{namespace}/{plural}", get(resources::list))
        .route("/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}", resource())
        .route("/api/v1/namespaces/{namespace}/{plural}", get(resources::list))
        .route("/api/v1/namespaces/{namespace}/{plural}/{name}", resource())
        .route("/api/v1/plan", post(forecast::plan))
        .route("/api/v1/explain", post(explain::explain))
        .route("/api/v1/diagnostics", get(mesh::diagnostics))
        .route("/api/v1/proxies", get(mesh::proxies))
        .route("/api/v1/proxies/{id}/config", get(mesh::config))
        .route("/api/v1/workloads", get(mesh::workloads))
        .route("/api/v1/certificates", get(mesh::certificates))
        .route("/api/v1/log", get(logging::read).put(logging::choose))
        .route("/api/v1/tokens", post(mesh::create_token))
        .merge(debug_routes())
        .fallback(objects::no_such_path)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(requests, admit))
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .layer(middleware::from_fn(problem::always))
        .merge(
            Router::new()
                .route("/healthz/live", get(health::live))
                .route("/healthz/ready", get(health::ready))
                .method_not_allowed_fallback(health::no_such_method),
        )
        .with_state(api)
}

/// What tools of Istio's ask, behind the same guard: for the port of metrics, where they ask it.
pub fn debug_router(api: Arc<Api>, guard: Arc<Guard>, requests: Arc<Requests>) -> Router {
    debug_routes()
        .layer(middleware::from_fn_with_state(requests, admit))
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .layer(middleware::from_fn(problem::always))
        .with_state(api)
}

fn debug_routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/debug/syncz", get(debug::syncz))
        .route("/debug/registryz", get(debug::registryz))
        .route("/debug/endpointz", get(debug::endpointz))
        .route("/debug/clusterz", get(debug::clusterz))
        .route("/debug/configz", get(debug::configz))
        .route("/debug/config_dump", get(debug::config_dump))
}

/// What can be done with one object, at a path as Kubernetes has it.
fn resource() -> MethodRouter<Arc<Api>> {
    get(resources::read).put(resources::replace).delete(resources::delete)
}

/// Reads a request of somebody who may ask, and lets it have its turn.
async fn admit(State(requests): State<Arc<Requests>>, request: Request, next: Next) -> Response {
    match requests.pass(request, next).await {
        Ok(response) => response,
        Err(why) => {
            why.advise(Problem::new(why.status(), "not served", why.to_string()).into_response())
        }
    }
}
