//! `AdmissionReview` of `admission.k8s.io/v1`: what the API server asks, and how it is answered.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ferromesh_xds_translator::diagnostic::Diagnostic;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::json;

const API_VERSION: &str = "admission.k8s.io/v1";
/// Findings of one object that are shown: whoever writes it decides how many there are.
const MOST: usize = 20;

/// The envelope.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    request: Option<Question>,
}

/// A question about an object. Fields that are not listed do not matter to us.
#[derive(Clone, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Question {
    /// To be repeated in the answer.
    pub(super) uid: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub(super) operation: String,
    /// Namespace of the object; empty if it has none.
    #[serde(default)]
    pub(super) namespace: String,
    /// The object; null when it is deleted.
    #[serde(default, deserialize_with = "json::plain")]
    pub(super) object: Value,
    /// The object before the change.
    #[serde(default, deserialize_with = "json::plain")]
    pub(super) old_object: Value,
}

/// An answer.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Answer {
    /// The object may be as it is after the operations of a JSON patch, which may be none.
    Allowed {
        /// The patch.
        patch: Vec<Value>,
        /// What its author should know.
        warnings: Vec<String>,
    },
    /// It may not be.
    Refused {
        /// Why.
        message: String,
        /// What its author should also know.
        warnings: Vec<String>,
    },
}

impl Question {
    /// Reads a request's body.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let review: Review =
            serde_json::from_slice(body).map_err(|e| format!("no AdmissionReview: {e}"))?;
        if review.api_version != API_VERSION {
            return Err(format!(
                "apiVersion: expected {API_VERSION}, got {:?}",
                review.api_version
            ));
        }
        review.request.ok_or_else(|| "request: missing".to_owned())
    }
}

impl Answer {
    /// Yes, without a word.
    pub(super) fn allowed() -> Self {
        Self::Allowed { patch: Vec::new(), warnings: Vec::new() }
    }

    /// No, for these findings.
    pub(super) fn refused(findings: &[Diagnostic]) -> Self {
        Self::Refused {
            message: shown(findings, ToString::to_string).join("\n"),
            warnings: Vec::new(),
        }
    }

    /// As the API server reads it.
    pub(super) fn review(self, uid: &str) -> Value {
        let mut response = json!({ "uid": uid });
        let warnings = match self {
            Self::Allowed { patch, warnings } => {
                response["allowed"] = json!(true);
                if !patch.is_empty() {
                    response["patchType"] = json!("JSONPatch");
                    response["patch"] = json!(STANDARD.encode(Value::Array(patch).to_string()));
                }
                warnings
            }
            Self::Refused { message, warnings } => {
                response["allowed"] = json!(false);
                response["status"] =
                    json!({ "code": 422, "reason": "Invalid", "message": message });
                warnings
            }
        };
        if !warnings.is_empty() {
            response["warnings"] = json!(warnings);
        }
        json!({ "apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response })
    }

    /// As the answer to a request.
    pub(super) fn respond(self, question: &Question) -> Response {
        Json(self.review(&question.uid)).into_response()
    }
}

/// The answer to a request that is no question.
pub(super) fn unreadable(reason: String) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}

/// Findings as warnings: the object is known to whom they are shown.
pub(super) fn warnings<'a>(findings: impl IntoIterator<Item = &'a Diagnostic>) -> Vec<String> {
    let text = |finding: &Diagnostic| Diagnostic { object: None, ..finding.clone() }.to_string();
    shown(findings, text)
}

/// The first findings as texts, and how many others there are.
pub(super) fn shown<'a>(
    findings: impl IntoIterator<Item = &'a Diagnostic>,
    text: impl Fn(&Diagnostic) -> String,
) -> Vec<String> {
    let mut findings = findings.into_iter();
    let mut texts: Vec<String> = findings.by_ref().take(MOST).map(text).collect();
    match findings.count() {
        0 => {}
        more => texts.push(format!("and {more} more")),
    }
    texts
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::diagnostic::{Code, FieldPath};

    use super::*;

    #[test]
    fn a_question_is_read_and_what_is_none_is_named() {
        let body = br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":
            {"uid":"7","operation":"CREATE","namespace":"shop","object":{"kind":"Pod"},"dryRun":true}}"#;
        let question = Question::read(body).expect("a question");
        assert_eq!((question.uid.as_str(), question.namespace.as_str()), ("7", "shop"));
        assert_eq!(question.old_object, Value::Null);
        for (body, word) in [
            (&b"{"[..], "no AdmissionReview"),
            (br#"{"apiVersion":"admission.k8s.io/v1beta1"}"#, "v1beta1"),
            (br#"{"apiVersion":"admission.k8s.io/v1"}"#, "request: missing"),
        ] {
            assert!(Question::read(body).expect_err("no question").contains(word));
        }
    }

    #[test]
    fn of_many_findings_the_first_are_shown_and_the_others_counted() {
        let finding = Diagnostic::warning(Code::UnknownField, FieldPath::of("a"), "unknown");
        let many = vec![finding; MOST + 3];
        let said = warnings(&many);
        assert_eq!((said.len(), said[MOST].as_str()), (MOST + 1, "and 3 more"));
        let Answer::Refused { message, .. } = Answer::refused(&many) else { panic!("refused") };
        assert!(
            message.lines().count() == MOST + 1 && message.ends_with("and 3 more"),
            "{message}"
        );
        assert_eq!(warnings(&many[..MOST]).len(), MOST);
    }

    #[test]
    fn an_answer_repeats_the_uid_and_carries_its_patch_in_base64() {
        let patch = vec![json!({ "op": "add", "path": "/a", "value": 1 })];
        let review =
            Answer::Allowed { patch: patch.clone(), warnings: vec!["w".to_owned()] }.review("7");
        assert_eq!(review["response"]["uid"], "7");
        assert_eq!(review["response"]["warnings"], json!(["w"]));
        let bytes = STANDARD
            .decode(review["response"]["patch"].as_str().expect("a patch"))
            .expect("base64");
        assert_eq!(serde_json::from_slice::<Vec<Value>>(&bytes).expect("JSON"), patch);
        assert_eq!(
            Answer::allowed().review("8")["response"],
            json!({ "uid": "8", "allowed": true })
        );
        let refused =
            Answer::Refused { message: "no".to_owned(), warnings: Vec::new() }.review("9");
        assert_eq!(
            (&refused["response"]["allowed"], &refused["response"]["status"]["message"]),
            (&json!(false), &json!("no"))
        );
    }
}
