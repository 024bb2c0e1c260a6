//! Parameters of a request's query: whatever is not acted on is refused, since a parameter that is
//! ignored (`dryRun`, a selector) turns a request into another one.

use axum::{
    extract::{FromRequestParts, Query},
    http::request,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::problem::Problem;
use crate::source::rest::Mode;

/// The parameters of a query, of which `T` must know every one.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => {
                Err(Problem::bad_request(format!("{}: {}", parts.uri, rejection.body_text())))
            }
        }
    }
}

/// No parameter at all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParameters {}

/// Parameters of whatever writes.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WriteParameters {
    dry_run: Option<String>,
}

impl WriteParameters {
    /// Whether it is a dry run: `true`, or `All` as Kubernetes has it.
    ///
    /// # Errors
    /// It is neither said that it is one nor that it is none.
    pub(super) fn mode(&self) -> Result<Mode, Problem> {
        match self.dry_run.as_deref() {
            None | Some("false") => Ok(Mode::Commit),
            Some("true" | "All") => Ok(Mode::DryRun),
            Some(other) => Err(Problem::bad_request(format!(
                "dryRun: expected true, All or false, got {other:?}"
            ))),
        }
    }
}
