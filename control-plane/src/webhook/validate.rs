//! `/validate`: an object of the mesh is judged as `ferromesh analyze` would, among all others that
//! are in force.
//!
//! Errors refuse it; everything that speaks against it without being an error is a warning, for the
//! objects that it needs may come a moment later. Nothing is refused that is no question of
//! meaning: before the mesh is known, in the cluster's own namespaces, when an object goes, or when
//! its content stays. Who cannot be answered in time is let through.

use std::{sync::Arc, time::Duration};

use axum::{Extension, body::Bytes, extract::State, response::Response};
use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, Severity},
    dialect::{Kind, parse_value, split_api_version},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    review::{Answer, Question, shown, unreadable, warnings},
    webhooks::Webhooks,
};
use crate::{
    accept::{ClientNetwork, Visit},
    inject::is_system,
};

/// How long a judgement may take, waiting for its turn included.
const PATIENCE: Duration = Duration::from_secs(4);

/// `POST /validate`
pub(super) async fn answer(
    State(webhooks): State<Arc<Webhooks>>,
    visit: Option<Extension<Visit>>,
    body: Bytes,
) -> Response {
    let question = match Question::read(&body) {
        Ok(question) => question,
        Err(reason) => {
            webhooks.metrics.admission.http_error(400);
            return unreadable(reason);
        }
    };
    if passes_unseen(&question) || !webhooks.mesh.is_synced() {
        return Answer::allowed().respond(&question);
    }
    let kind = kind(&question.object);
    let network = visit.map_or(ClientNetwork::UNKNOWN, |visit| visit.network());
    let Ok(Some(findings)) =
        timeout(PATIENCE, judge(&webhooks, network, question.object.clone())).await
    else {
        tracing::warn!(
            namespace = question.namespace,
            "an object was not judged in time and is let through"
        );
        let warnings = vec!["not validated: the control plane is busy".to_owned()];
        return Answer::Allowed { patch: Vec::new(), warnings }.respond(&question);
    };
    match findings.iter().find(|finding| refuses(finding)) {
        Some(first) => webhooks.metrics.admission.failed(kind, first.code.as_str()),
        None => webhooks.metrics.admission.passed(kind),
    }
    verdict(&findings).respond(&question)
}

/// Whether the question is none of meaning.
fn passes_unseen(question: &Question) -> bool {
    let changed = |field: &str| question.object.get(field) != question.old_object.get(field);
    let goes =
        question.object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    match question.operation.as_str() {
        "CREATE" => is_system(&question.namespace),
        // Whoever only takes a finalizer off, or puts a label on, is not to blame for the rest.
        "UPDATE" => is_system(&question.namespace) || goes || !changed("spec"),
        _ => true,
    }
}

fn kind(object: &Value) -> Option<Kind> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    Kind::find(split_api_version(text("apiVersion")).0, text("kind"))
}

/// Every finding about an object, alone and among the others; `None`: the server is stopping, or
/// cannot tell.
async fn judge(
    webhooks: &Webhooks,
    network: ClientNetwork,
    value: Value,
) -> Option<Vec<Diagnostic>> {
    let (object, findings) = match parse_value(value) {
        Ok(read) => read,
        Err(findings) => return Some(findings),
    };
    let _turn = webhooks.judgements.turn(network).await;
    let among = webhooks.judge.among_others(vec![object]).await.ok()??;
    Some(findings.into_iter().chain(among).collect())
}

/// Whether a finding stands in the way. What we do not know may be well known to another program.
fn refuses(finding: &Diagnostic) -> bool {
    finding.severity == Severity::Error
        && !matches!(finding.code, Code::UnsupportedKind | Code::UnknownKind)
}

/// Whether a finding is worth a warning: remarks are not, but for what we do not act on.
fn warns(finding: &Diagnostic) -> bool {
    finding.severity < Severity::Info
        || matches!(finding.code, Code::NotActedOn | Code::UnsupportedKind)
}

fn verdict(findings: &[Diagnostic]) -> Answer {
    let (refusing, others): (Vec<&Diagnostic>, Vec<&Diagnostic>) =
        findings.iter().partition(|f| refuses(f));
    let warnings = warnings(others.into_iter().filter(|finding| warns(finding)));
    if refusing.is_empty() {
        return Answer::Allowed { patch: Vec::new(), warnings };
    }
    let message = shown(refusing, ToString::to_string).join("\n");
    Answer::Refused { message, warnings }
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::ir::MeshDefaults;
    use serde_json::json;

    use super::*;
    use crate::{judge, pipeline::Inventory};

    fn question(operation: &str, namespace: &str, object: Value, old_object: Value) -> Question {
        Question {
            uid: "1".to_owned(),
            operation: operation.to_owned(),
            namespace: namespace.to_owned(),
            object,
            old_object,
        }
    }

    fn route(spec: Value) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": { "name": "reviews", "namespace": "shop" }, "spec": spec,
        })
    }

    /// The verdict on an object that is alone.
    fn judged(object: Value) -> Answer {
        let findings = match parse_value(object) {
            Ok((object, findings)) => findings
                .into_iter()
                .chain(judge::judge(&[object], &Inventory::default(), &MeshDefaults::default()))
                .collect(),
            Err(findings) => findings,
        };
        verdict(&findings)
    }

    #[test]
    fn what_is_no_question_of_meaning_passes_unseen() {
        let (a, b) = (route(json!({ "hosts": ["a"] })), route(json!({ "hosts": ["b"] })));
        let mut going = b.clone();
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let mut labelled = a.clone();
        labelled["metadata"]["labels"] = json!({ "x": "y" });
        for (question, unseen) in [
            (question("CREATE", "shop", a.clone(), Value::Null), false),
            (question("CREATE", "kube-system", a.clone(), Value::Null), true),
            (question("UPDATE", "shop", b, a.clone()), false),
            (question("UPDATE", "shop", labelled, a.clone()), true),
            (question("UPDATE", "shop", going, a.clone()), true),
            (question("DELETE", "shop", Value::Null, a), true),
        ] {
            assert_eq!(passes_unseen(&question), unseen, "{question:?}");
        }
    }

    #[test]
    fn an_error_refuses_with_code_field_and_suggestion() {
        let Answer::Refused { message, .. } =
            judged(route(json!({ "hosts": ["reviews"], "htttp": [] })))
        else {
            panic!("refused")
        };
        for word in
            ["error[FM0101]", "VirtualService shop/reviews", "spec.htttp", "rename it to `http`"]
        {
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn what_may_come_later_is_a_warning() {
        let spec = json!({ "hosts": ["reviews"], "http": [{ "route": [{ "destination": { "host": "nowhere" } }] }] });
        let Answer::Allowed { warnings, .. } = judged(route(spec)) else { panic!("allowed") };
        assert!(
            warnings.iter().any(|w| w.contains("FM0201") && w.contains("nowhere")),
            "{warnings:?}"
        );
    }

    #[test]
    fn kinds_that_we_do_not_serve_pass_with_a_word() {
        let object = |kind: &str| {
            json!({
                "apiVersion": "networking.istio.io/v1beta1", "kind": kind,
                "metadata": { "name": "a", "namespace": "shop" }, "spec": {},
            })
        };
        for kind in ["Novelty", "Curiosity"] {
            assert!(matches!(judged(object(kind)), Answer::Allowed { .. }), "{kind}");
        }
    }
}
