//! Errors of the REST API as RFC 9457 problem documents.

use axum::{
    Json,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use ferromesh_xds_translator::diagnostic::Diagnostic;
use serde::Serialize;

use crate::{
    kube_cluster::objects::ObjectsError, pipeline::Stopped, source::rest::WriteError,
    store::StoreError,
};

/// An error answer.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    /// HTTP status.
    pub status: u16,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// What exactly, and what to do.
    pub detail: String,
    /// Findings about the object, when it is one that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

impl Problem {
    /// An error answer without findings.
    pub(super) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status: status.as_u16(), title, detail: detail.into(), diagnostics: Vec::new() }
    }

    /// 404.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found", detail)
    }

    /// 400.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad request", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(CONTENT_TYPE, "application/problem+json")], Json(self)).into_response()
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let detail = error.to_string();
        match error {
            WriteError::Invalid(diagnostics) => Self {
                diagnostics,
                ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid object", detail)
            },
            WriteError::Store(StoreError::Conflict { .. }) => {
                Self::new(StatusCode::PRECONDITION_FAILED, "conflict", detail)
            }
            WriteError::Store(StoreError::NotFound(_)) => Self::not_found(detail),
            WriteError::Store(StoreError::Unstorable { .. }) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "not stored", detail)
            }
            WriteError::Outdated { .. } => Self::new(StatusCode::CONFLICT, "conflict", detail),
            WriteError::Condition(_) => Self::bad_request(detail),
            WriteError::Store(_) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "not stored", detail)
            }
            WriteError::KubeCluster(ObjectsError::Refused { code, .. }) => {
                let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
                Self::new(status, "refused by the API server", detail)
            }
            WriteError::KubeCluster(ObjectsError::Unreachable(_)) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "not stored", detail)
            }
            WriteError::Elsewhere => Self::new(StatusCode::CONFLICT, "written elsewhere", detail),
            WriteError::Unjudged => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "not judged", detail)
            }
            WriteError::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", detail),
        }
    }
}

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", stopped.to_string())
    }
}
