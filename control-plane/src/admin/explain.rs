//! What becomes of a request, over REST: `POST /api/v1/explain`.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use ferromesh_xds_translator::explain::{Asker, Explanation, Request};
use serde::Deserialize;

use super::{
    api::Api,
    objects::{Body, content},
    parameters::{NoParameters, Parameters},
    problem::Problem,
};
use crate::judge::Beside;

/// A request, and who sends it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    gateway: Option<String>,
    method: String,
    url: String,
    /// As `name: value`.
    #[serde(default)]
    headers: Vec<String>,
}

/// `POST /api/v1/explain`: nothing is sent.
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    _: Parameters<NoParameters>,
    body: Body,
) -> Result<Json<Explanation>, Problem> {
    let question: Question = serde_json::from_value(content(body)?).map_err(|error| {
        Problem::bad_request(format!("expected from or gateway, method, url, headers: {error}"))
    })?;
    let asker = match (question.from, question.gateway) {
        (Some(name), None) => Asker::From(name),
        (None, Some(name)) => Asker::Gateway(name),
        _ => return Err(Problem::bad_request("expected either from or gateway")),
    };
    let request = Request::parse(&question.method, &question.url, &question.headers)
        .map_err(|error| Problem::bad_request(error.to_string()))?;
    let proxies = api.proxies.clone();
    let beside = Beside {
        refused: api.proxies.refused_in_words(),
        running: Box::new(move |workload| {
            let proxy = proxies.find(&format!("{}.{}", workload.name, workload.namespace))?;
            Some(proxy.view_keys()).filter(|keys| !keys.is_empty())
        }),
    };
    match api.judge.explain(asker, request, beside).await? {
        Some(Ok(explanation)) => Ok(Json(explanation)),
        Some(Err(error)) => Err(Problem::not_found(error.to_string())),
        None => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "no explanation",
            "what becomes of the request cannot be told; see the log",
        )),
    }
}
