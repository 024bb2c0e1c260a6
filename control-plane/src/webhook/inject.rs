//! `/inject`: a pod that is to be made gets its proxy.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use ferromesh_xds_translator::{
    dialect::Kind,
    ir::{Labels, ObjectId},
};
use tokio::time::{Instant, timeout};

use super::{
    review::{Answer, Question, unreadable, warnings},
    webhooks::Webhooks,
};
use crate::{
    inject::{InjectionSettings, Outcome, Surroundings, inject, patch},
    metrics::admission::Injection,
};

/// How long a pod waits for the mesh to be known, right after a start; less than API servers wait
/// for us.
const PATIENCE: Duration = Duration::from_secs(8);

/// `POST /inject`
pub(super) async fn answer(State(webhooks): State<Arc<Webhooks>>, body: Bytes) -> Response {
    let begun = Instant::now();
    let count = |how| webhooks.metrics.admission.injected(how, begun.elapsed());
    let question = match Question::read(&body) {
        Ok(question) => question,
        Err(reason) => {
            count(Injection::Failure);
            return unreadable(reason);
        }
    };
    // A namespace that is not known yet might want another kind of proxy.
    if timeout(PATIENCE, webhooks.mesh.until_synced()).await.is_err() {
        count(Injection::Failure);
        return (StatusCode::SERVICE_UNAVAILABLE, "reading configuration\n").into_response();
    }
    let labels = namespace_labels(&webhooks, &question.namespace).await;
    let Ok(mesh) = webhooks.mesh.snapshot().await else {
        count(Injection::Failure);
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    };
    let around = Surroundings {
        namespace: &question.namespace,
        namespace_labels: labels.as_ref(),
        workload: None,
        mesh: Some(&mesh),
    };
    let (answer, how) = judge(&question, &around, &webhooks.settings.load());
    count(how);
    answer.respond(&question)
}

async fn namespace_labels(webhooks: &Webhooks, namespace: &str) -> Option<Labels> {
    let id = ObjectId { kind: Kind::NAMESPACE, namespace: "".into(), name: namespace.into() };
    Some(webhooks.mesh.object(id).await.ok()??.meta.labels.clone())
}

/// What becomes of the pod.
fn judge(
    question: &Question,
    around: &Surroundings<'_>,
    settings: &InjectionSettings,
) -> (Answer, Injection) {
    let pod = &question.object;
    if question.operation != "CREATE"
        || pod.get("kind").and_then(|kind| kind.as_str()) != Some("Pod")
    {
        return (Answer::allowed(), Injection::Skip);
    }
    match inject(pod, around, settings) {
        Ok(Outcome::Injected { pod: injected, warnings: said }) => (
            Answer::Allowed { patch: patch::between(pod, &injected), warnings: warnings(&said) },
            Injection::Success,
        ),
        Ok(Outcome::LeftAlone(reason)) => {
            tracing::debug!(namespace = question.namespace, %reason, "a pod is left alone");
            (Answer::allowed(), Injection::Skip)
        }
        Err(findings) => (Answer::refused(&findings), Injection::Failure),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(operation: &str, object: Value) -> (Answer, Injection) {
        let question = Question {
            uid: "1".to_owned(),
            operation: operation.to_owned(),
            namespace: "shop".to_owned(),
            object,
            old_object: Value::Null,
        };
        let around = Surroundings { namespace: &question.namespace, ..Surroundings::default() };
        judge(&question, &around, &InjectionSettings::default())
    }

    #[test]
    fn a_pod_is_patched_and_everything_else_passes_untouched() {
        let pod = json!({ "kind": "Pod", "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "app" }] } });
        let (answer, how) = judged("CREATE", pod.clone());
        let Answer::Allowed { patch, .. } = answer else { panic!("{answer:?}") };
        let paths: Vec<&str> =
            patch.iter().filter_map(|operation| operation["path"].as_str()).collect();
        assert_eq!(
            paths,
            ["/metadata/annotations", "/metadata/labels", "/spec/initContainers", "/spec/volumes"]
        );
        assert_eq!(how, Injection::Success);
        for (operation, object) in
            [("UPDATE", pod), ("CREATE", json!({ "kind": "Service" })), ("DELETE", Value::Null)]
        {
            assert_eq!(judged(operation, object), (Answer::allowed(), Injection::Skip));
        }
    }

    #[test]
    fn a_pod_that_asks_for_what_cannot_be_is_refused_with_the_reason() {
        let annotations = json!({ "ferromesh.io/proxy": "nginx" });
        let pod = json!({ "kind": "Pod", "metadata": { "generateName": "a-", "annotations": annotations }, "spec": { "containers": [{}] } });
        let (Answer::Refused { message, .. }, Injection::Failure) = judged("CREATE", pod) else {
            panic!("refused")
        };
        assert!(
            message.contains("Pod shop/a: metadata.annotations[\"ferromesh.io/proxy\"]"),
            "{message}"
        );
    }
}
