//! The body of a deletion: Kubernetes' `DeleteOptions`, as far as they mean anything here. What is
//! not understood is refused, since a deletion cannot be taken back.

use serde::Deserialize;

use super::problem::Problem;
use crate::source::rest::Mode;

/// What is asked of a deletion beside its request.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct DeletionOptions {
    /// Whether it really happens.
    pub(super) mode: Mode,
    /// The revision that must be there; empty: any.
    pub(super) version: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Written {
    kind: Option<String>,
    api_version: Option<String>,
    dry_run: Option<Vec<String>>,
    preconditions: Option<Preconditions>,
    /// Without effect: objects here end at once.
    grace_period_seconds: Option<u64>,
    propagation_policy: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Preconditions {
    resource_version: Option<String>,
    uid: Option<String>,
}

/// Reads a body, which may be empty.
///
/// # Errors
/// It says what is not understood, or cannot be done.
pub(super) fn read(body: &[u8]) -> Result<DeletionOptions, Problem> {
    let Written { kind, api_version, dry_run, preconditions, propagation_policy, .. } =
        written(body)?;
    let expected = |field: &str, expected: &str, got: &str| {
        Err(refused(&format!("{field}: expected {expected}"), &format!("got {got:?}")))
    };
    match (kind.as_deref(), api_version.as_deref()) {
        (None | Some("DeleteOptions"), None | Some("v1" | "meta.k8s.io/v1")) => {}
        (None | Some("DeleteOptions"), Some(other)) => return expected("apiVersion", "v1", other),
        (Some(other), _) => return expected("kind", "DeleteOptions", other),
    }
    let dry_run = dry_run.unwrap_or_default();
    if let Some(other) = dry_run.iter().find(|part| *part != "All") {
        return expected("dryRun", "All", other);
    }
    if let Some(other) = propagation_policy.filter(|policy| policy != "Background") {
        return expected("propagationPolicy", "Background, or nothing", &other);
    }
    let Preconditions { resource_version, uid } = preconditions.unwrap_or_default();
    if let Some(uid) = uid {
        let instead = "nothing: objects are told apart by their revisions (resourceVersion)";
        return expected("preconditions.uid", instead, &uid);
    }
    let mode = if dry_run.is_empty() { Mode::Commit } else { Mode::DryRun };
    Ok(DeletionOptions { mode, version: resource_version.unwrap_or_default() })
}

fn written(body: &[u8]) -> Result<Written, Problem> {
    let wanted = "expected DeleteOptions as JSON, or nothing";
    match body.trim_ascii() {
        [] => Ok(Written::default()),
        // A list would be taken for the fields in their order.
        [b'{', ..] => {
            serde_json::from_slice(body).map_err(|error| refused(wanted, &error.to_string()))
        }
        _ => Err(refused(wanted, "got something else")),
    }
}

fn refused(expected: &str, got: &str) -> Problem {
    Problem::bad_request(format!("the body of the deletion: {expected}, {got}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_acted_on_or_refused() {
        let options = |mode, version: &str| Some(DeletionOptions { mode, version: version.into() });
        let table = [
            ("", options(Mode::Commit, "")),
            (" \n", options(Mode::Commit, "")),
            ("{}", options(Mode::Commit, "")),
            (
                r#"{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background","gracePeriodSeconds":0}"#,
                options(Mode::Commit, ""),
            ),
            (r#"{"dryRun":["All"]}"#, options(Mode::DryRun, "")),
            (r#"{"dryRun":null,"preconditions":null}"#, options(Mode::Commit, "")),
            (r#"{"preconditions":{"resourceVersion":"9"}}"#, options(Mode::Commit, "9")),
            (r#"{"dryRun":["Some"]}"#, None),
            (r#"{"dryRun":true}"#, None),
            (r#"{"preconditions":{"uid":"1"}}"#, None),
            (r#"{"preconditions":{"name":"1"}}"#, None),
            (r#"{"propagationPolicy":"Orphan"}"#, None),
            (r#"{"orphanDependents":true}"#, None),
            (r#"{"kind":"ServiceEntry"}"#, None),
            (r#"{"apiVersion":"v7"}"#, None),
            ("[]", None),
            ("dryRun: [All]", None),
            (r#"{"dryRun":["All"]} {}"#, None),
        ];
        for (body, expected) in table {
            assert_eq!(read(body.as_bytes()).ok(), expected, "{body}");
        }
    }
}
