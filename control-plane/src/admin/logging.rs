//! What the control plane logs, over REST.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};

use super::{
    api::Api,
    parameters::{NoParameters, Parameters},
    problem::Problem,
    users::Who,
};
use crate::log::{self, LogError};

/// What is logged.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chosen {
    /// A level, or `target=level` pairs with commas.
    filter: String,
}

/// `GET /api/v1/log`
pub(super) async fn read(State(api): State<Arc<Api>>, _: Parameters<NoParameters>) -> Json<Chosen> {
    Json(Chosen { filter: api.log.chosen() })
}

/// `PUT /api/v1/log`
pub(super) async fn choose(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    _: Parameters<NoParameters>,
    body: Result<Json<Chosen>, JsonRejection>,
) -> Result<Json<Chosen>, Problem> {
    let Json(wanted) =
        body.map_err(|r| Problem::new(r.status(), "unreadable body", r.body_text()))?;
    log::filter(&wanted.filter)?;
    // Said by what was chosen before, so that nobody silences the log unseen.
    tracing::warn!(target: "audit", who = %who.name, filter = wanted.filter, "what is logged is to be changed");
    api.log.choose(&wanted.filter)?;
    Ok(Json(wanted))
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        let detail = error.to_string();
        match error {
            LogError::Unreadable { .. } => Self::bad_request(detail),
            LogError::Elsewhere => Self::new(StatusCode::CONFLICT, "logged elsewhere", detail),
        }
    }
}
