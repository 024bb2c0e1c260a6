//! Errors of the REST API as RFC 9457 problem documents.

use axum::{
    Json,
    body::to_bytes,
    extract::Request,
    http::{
        HeaderName, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use ferromesh_xds_translator::diagnostic::{Diagnostic, FieldPath, Segment, Severity};
use serde::Serialize;

use crate::{
    kube_cluster::objects::ObjectsError, pipeline::Stopped, source::rest::WriteError,
    store::StoreError,
};

/// The media type of a problem.
const PROBLEM: &str = "application/problem+json";
/// More of what others say is not passed on.
const LONGEST_DETAIL: usize = 16 << 10;

/// An error answer.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    /// HTTP status.
    pub status: u16,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// What exactly, and what to do.
    pub detail: String,
    /// Where in the request's object what is wrong, when it is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Findings about the object, when it is one that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// What is wrong with a field, as RFC 9457 section 3 shows it.
#[derive(Debug, Serialize)]
pub(super) struct FieldError {
    /// The field, as the fragment of a URI (RFC 6901 section 6).
    pub pointer: String,
    /// What is wrong.
    pub detail: String,
}

impl FieldError {
    fn of(finding: &Diagnostic) -> Option<Self> {
        let errs = matches!(finding.severity, Severity::Error | Severity::ErrorRef);
        errs.then(|| Self { pointer: pointer(&finding.field), detail: finding.message.clone() })
    }
}

/// A path as the fragment of a URI; the whole object is the empty pointer.
fn pointer(path: &FieldPath) -> String {
    // What a fragment may hold as it is (RFC 3986 section 3.5), without what a pointer escapes.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._!$&'()*+,;=:@?".contains(&b);
    let encoded = |name: &str| {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        let byte = |b: u8| match plain(b) || b == b'~' {
            true => char::from(b).to_string(),
            false => format!("%{b:02X}"),
        };
        escaped.bytes().map(byte).collect::<String>()
    };
    let segment = |segment: &Segment| match segment {
        Segment::Field(name) => format!("/{}", encoded(name)),
        Segment::Index(index) => format!("/{index}"),
    };
    format!("#{}", path.0.iter().map(segment).collect::<String>())
}

/// Makes whatever else answers with an error a problem: methods that a path does not have, paths that
/// are no text.
pub(super) async fn always(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let kind = response.headers().get(CONTENT_TYPE);
    let is_problem = kind.is_some_and(|kind| kind.as_bytes().starts_with(PROBLEM.as_bytes()));
    if !(status.is_client_error() || status.is_server_error()) || is_problem {
        return response;
    }
    let (head, body) = response.into_parts();
    let said = to_bytes(body, LONGEST_DETAIL).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let title = status.canonical_reason().unwrap_or("error");
    let detail = if said.is_empty() { title.to_lowercase() } else { said };
    let mut problem = Problem::new(status, title, detail).into_response();
    let kept = |name: &HeaderName| ![CONTENT_TYPE, CONTENT_LENGTH].contains(name);
    for (name, value) in head.headers.iter().filter(|(name, _)| kept(name)) {
        problem.headers_mut().append(name, value.clone());
    }
    problem
}

impl Problem {
    /// An error answer without findings.
    pub(super) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            title,
            detail: detail.into(),
            errors: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    /// With what was found in the request's objects, and a pointer to each field that is wrong.
    pub(super) fn with(self, diagnostics: Vec<Diagnostic>) -> Self {
        let errors = diagnostics.iter().filter_map(FieldError::of).collect();
        Self { errors, diagnostics, ..self }
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
        (status, [(CONTENT_TYPE, PROBLEM)], Json(self)).into_response()
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let detail = error.to_string();
        match error {
            WriteError::Invalid(diagnostics) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid object", detail)
                    .with(diagnostics)
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_by_a_pointer() {
        let headers = FieldPath::of("spec.http[0].match[1].headers");
        let table = [
            (FieldPath::root(), "#"),
            (FieldPath::of("spec.http[2].retries"), "#/spec/http/2/retries"),
            (headers.field("end-user"), "#/spec/http/0/match/1/headers/end-user"),
            (headers.field("a/b~c d"), "#/spec/http/0/match/1/headers/a~1b~0c%20d"),
            (headers.field("ü"), "#/spec/http/0/match/1/headers/%C3%BC"),
        ];
        for (path, expected) in table {
            assert_eq!(pointer(&path), expected);
        }
    }
}
