//! One opinion everywhere: `analyze`, `apply`, admission and the REST API refuse the same
//! objects for the same reason.

use std::{fs, process::Command, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, body::Body};
use ferromesh_control_plane::{
    accept::{budget::Budget, requests::Requests, turns::Turns},
    inject::InjectionSettings,
    judge::Judge,
    metrics::Metrics,
    webhook::{Webhooks, router},
};
use ferromesh_xds_translator::{ir::MeshDefaults, yaml};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::plane::Plane;

/// The checkers that refused an object, and all that they said.
#[derive(Default)]
struct Verdict {
    refused: Vec<&'static str>,
    words: String,
}

impl Verdict {
    fn add(&mut self, checker: &'static str, refused: bool, words: &str) {
        self.refused.extend(refused.then_some(checker));
        self.words += &format!("{checker}: {words}\n");
    }
}

const CHECKERS: [&str; 4] = ["analyze", "apply", "admission", "REST"];

/// More than any object of these tests.
const LARGEST: usize = 1 << 20;

/// A control plane, and everything that judges objects for it.
pub(crate) struct Checkers {
    pub(crate) plane: Plane,
    admission: Router,
}

impl Checkers {
    pub(crate) async fn open() -> Self {
        let plane = Plane::start().await;
        let settings = Arc::new(ArcSwap::from_pointee(InjectionSettings::default()));
        let metrics = Metrics::new();
        let requests = Requests {
            port: "webhooks",
            largest: LARGEST,
            body: Duration::from_secs(10),
            bodies: Budget::new(LARGEST, LARGEST),
            small: Budget::new(LARGEST, LARGEST),
            turns: Turns::new(1),
            metrics: metrics.clone(),
        };
        let mesh = plane.control.mesh.clone();
        let judge = Judge::new(mesh.clone(), MeshDefaults::default());
        let webhooks = Webhooks::new(mesh, judge, settings, metrics);
        Self { plane, admission: router(Arc::new(webhooks), Arc::new(requests)) }
    }

    async fn judge(&self, text: &str) -> Verdict {
        let mut verdict = Verdict::default();
        let folder = tempfile::tempdir().expect("a directory");
        let (file, token) = (folder.path().join("object.yaml"), folder.path().join("token"));
        fs::write(&file, text)
            .and_then(|()| fs::write(&token, self.plane.admin_token()))
            .expect("files");
        let address = format!("http://{}", self.plane.control.addresses.http);
        let remote = ["--server", &address, "--admin-token-file", token.to_str().expect("text")];
        for (checker, more) in [("analyze", &[][..]), ("apply", &remote)] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ferromesh"));
            command.arg(checker).arg("-f").arg(&file).args(more);
            let output = tokio::task::spawn_blocking(move || command.output())
                .await
                .expect("no panic")
                .expect("it runs");
            let words = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            verdict.add(checker, !output.status.success(), &words);
        }
        let object = yaml::parse(text).expect("YAML").expect("a document").to_json();
        let (allowed, words) = self.admit(&object).await;
        verdict.add("admission", !allowed, &words);
        // As a List, whose objects may be there: it is stored already if `apply` took it.
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": [object] });
        let (status, words) =
            self.post(&format!("{address}/api/v1/objects?dryRun=true"), &list).await;
        let answer: Value = serde_json::from_str(&words).unwrap_or_default();
        let refused = status != 200 || !answer["items"][0]["status"].is_null();
        verdict.add("REST", refused, &words);
        verdict
    }

    pub(crate) async fn admit(&self, object: &Value) -> (bool, String) {
        let request =
            json!({ "uid": "1", "operation": "CREATE", "namespace": "shop", "object": object });
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
        let request =
            Request::post("/validate").body(Body::from(review.to_string())).expect("a request");
        let answer = self.admission.clone().oneshot(request).await.expect("an answer");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        (answer["response"]["allowed"] == true, answer["response"].to_string())
    }

    async fn post(&self, address: &str, object: &Value) -> (u16, String) {
        self.ask(Method::POST, address, object).await
    }

    /// Status and body of the REST API's answer.
    pub(crate) async fn ask(&self, method: Method, address: &str, object: &Value) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(address)
            .header("content-type", "application/json");
        let request =
            request.header("authorization", format!("Bearer {}", self.plane.admin_token()));
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
        let request = request.body(Full::from(object.to_string())).expect("a request");
        let answer = client.request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

fn object(api: &str, kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: guarded, namespace: shop}}\nspec: {spec}\n"
    )
}

fn istio(kind: &str, spec: &str) -> String {
    object("networking.istio.io/v1", kind, spec)
}

fn route(conditions: &str) -> String {
    istio(
        "VirtualService",
        &format!(
            "{{hosts: [cart], http: [{{match: [{conditions}], route: [{{destination: {{host: cart}}}}]}}]}}"
        ),
    )
}

fn server(more: &str) -> String {
    let tls = format!("{{mode: MUTUAL, credentialName: web-cert, {more}}}");
    let server = format!(
        "{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [a.example.com], tls: {tls}}}"
    );
    istio("Gateway", &format!("{{selector: {{app: gateway}}, servers: [{server}]}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_guards_access_and_is_not_served_is_refused_at_every_door() {
    let checkers = Checkers::open().await;
    let ingress = "{ingress: [{port: {number: 8080, protocol: HTTP, name: http}, tls: {mode: SIMPLE, credentialName: c}}]}";
    let target =
        "{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: web}], rules: [{}]}";
    let refused = [
        (
            route("{headers: {'@request.auth.claims.group': {exact: admin}}}"),
            "claims of tokens are known at gateways alone",
        ),
        (
            route("{withoutHeaders: {'@request.auth.claims[group]': {exact: guest}}}"),
            "claims of tokens are known at gateways alone",
        ),
        (istio("Sidecar", ingress), "spec.ingress[0].tls"),
        (server("caCrl: /etc/revoked.pem"), "spec.servers[0].tls.caCrl"),
        (server("verifyCertificateSpki: [aaaa]"), "spec.servers[0].tls.verifyCertificateSpki"),
        (server("verifyCertificateHash: [aaaa]"), "spec.servers[0].tls.verifyCertificateHash"),
        (
            object(
                "security.istio.io/v1",
                "RequestAuthentication",
                "{jwtRules: [{issuer: 'https://a.test', presence: SOMETIMES}]}",
            ),
            "spec.jwtRules[0].presence",
        ),
        (
            object("extensions.istio.io/v1alpha1", "WasmPlugin", "{url: 'oci://a.test/m:v1'}"),
            "spec.url",
        ),
        (object("security.istio.io/v1", "AuthorizationPolicy", target), "spec.targetRefs"),
    ];
    for (text, reason) in refused {
        let verdict = checkers.judge(&text).await;
        assert_eq!(verdict.refused, CHECKERS, "{text}\n{}", verdict.words);
        assert!(
            verdict.words.matches(reason).count() >= CHECKERS.len(),
            "{text}\n{}",
            verdict.words
        );
    }
    let accepted = [
        istio("Sidecar", "{egress: [{hosts: [./*]}]}"),
        object("security.istio.io/v1", "AuthorizationPolicy", "{action: DENY, rules: [{}]}"),
    ];
    for text in accepted {
        let verdict = checkers.judge(&text).await;
        assert_eq!(verdict.refused, [""; 0], "{text}\n{}", verdict.words);
    }
    checkers.plane.stop().await;
}
