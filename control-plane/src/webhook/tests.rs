//! The webhooks' routes: what is answered before the mesh is known, and to requests that are no
//! questions.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use ferromesh_xds_translator::{compiler::Compiler, ir::MeshDefaults};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{MAX_BODY, Webhooks, router};
use crate::{
    accept::{budget::Budget, requests::Requests, turns::Turns},
    event::{ConfigEvent, EventSender, SourceId},
    inject::InjectionSettings,
    judge::Judge,
    metrics::Metrics,
    pipeline::Mesh,
};

/// Webhooks of a mesh that waits for a source.
fn webhooks() -> (Arc<Webhooks>, EventSender) {
    let (metrics, defaults) = (Metrics::new(), MeshDefaults::default());
    let expected = BTreeSet::from([SourceId::Rest]);
    let (mesh, events, _) =
        Mesh::start(Compiler::new(defaults.clone()), expected, Duration::ZERO, metrics.clone());
    let settings = Arc::new(ArcSwap::from_pointee(InjectionSettings::default()));
    let judge = Judge::new(mesh.clone(), defaults);
    (Arc::new(Webhooks::new(mesh, judge, settings, metrics)), events)
}

fn requests(webhooks: &Webhooks) -> Requests {
    Requests {
        port: "webhooks",
        largest: MAX_BODY,
        body: Duration::from_secs(10),
        bodies: Budget::new(MAX_BODY, MAX_BODY),
        small: Budget::new(MAX_BODY, MAX_BODY),
        turns: Turns::new(1),
        metrics: webhooks.metrics.clone(),
    }
}

async fn post(webhooks: &Arc<Webhooks>, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let request = Request::post(path).body(body.into()).expect("a request");
    let response = router(webhooks.clone(), Arc::new(requests(webhooks)))
        .oneshot(request)
        .await
        .expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn review(object: Value) -> String {
    let request =
        json!({ "uid": "1", "operation": "CREATE", "namespace": "shop", "object": object });
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request })
        .to_string()
}

fn mistaken() -> String {
    review(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "a", "namespace": "shop" }, "spec": { "hosts": ["http://a"] },
    }))
}

fn pod() -> String {
    review(
        json!({ "kind": "Pod", "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "app" }] } }),
    )
}

#[tokio::test(start_paused = true)]
async fn before_the_mesh_is_known_objects_pass_and_pods_do_not() {
    let (webhooks, _events) = webhooks();
    let (status, answer) = post(&webhooks, "/validate", mistaken()).await;
    assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &json!(true)));
    assert_eq!(post(&webhooks, "/inject", pod()).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn once_the_mesh_is_known_pods_are_injected_and_mistakes_refused() {
    let (webhooks, events) = webhooks();
    let synced = ConfigEvent {
        source: SourceId::Rest,
        changes: Vec::new(),
        diagnostics: None,
        synced: true,
    };
    events.send(synced).await.expect("it listens");
    webhooks.mesh.until_synced().await;
    let (status, answer) = post(&webhooks, "/inject", pod()).await;
    assert_eq!((status, &answer["response"]["patchType"]), (StatusCode::OK, &json!("JSONPatch")));
    let (status, answer) = post(&webhooks, "/validate", mistaken()).await;
    assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &json!(false)));
    let text = webhooks.metrics.render();
    assert!(
        text.contains("sidecar_injection_success_total 1") && text.contains("reason=\"FM0103\"} 1"),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_no_question_is_told_so() {
    let (webhooks, _events) = webhooks();
    for path in ["/inject", "/validate"] {
        assert_eq!(post(&webhooks, path, "{}").await.0, StatusCode::BAD_REQUEST);
        assert_eq!(
            post(&webhooks, path, vec![b' '; MAX_BODY + 1]).await.0,
            StatusCode::PAYLOAD_TOO_LARGE
        );
    }
    assert_eq!(post(&webhooks, "/", "{}").await.0, StatusCode::NOT_FOUND);
}
