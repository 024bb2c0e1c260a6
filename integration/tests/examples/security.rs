//! Who may call.

use http::Method;
use serde_json::json;

use ferromesh_integration::token::Issuer;

use crate::{
    client::{Ask, echoes},
    routing::ask,
    rows::{example, fixed},
    site::{Setup, Site},
};

/// A request past everybody's sidecar but the callee's.
fn plain(site: &Site, pod: &str, path: &str) -> Ask {
    Ask::get(site.address(pod), "plain", path)
}

/// Requests of a caller and the statuses of their answers.
async fn statuses(
    site: &Site,
    (caller, service): (&str, (&str, u16)),
    expected: &[(Method, &str, u16)],
) {
    for (method, path, status) in expected {
        let asked = ask(site, caller, service, path).method(method.clone());
        assert_eq!(asked.status().await, Some(*status), "{caller}: {method} {path}");
    }
}

/// Whose certificate the last request of a pod's application came with.
fn account(site: &Site, pod: &str) -> String {
    let seen = site.application(pod).seen();
    seen.last().expect("a request").header("x-forwarded-client-cert").to_owned()
}

pub(crate) async fn a_mesh_that_is_strict_refuses_plaintext() {
    let s4 = example("s4-05", &[3]);
    for text in [example("s0-04", &[1]), example("s1-03", &[1]), example("s2-03", &[]), s4] {
        let site = Setup::of(text)
            .server("default", "my-service")
            .server("production", "web-service")
            .caller("default", "productpage")
            .start()
            .await;
        for pod in ["my-service-v1-0", "web-service-v1-1"] {
            assert_eq!(plain(&site, pod, "/").status().await, None, "{pod}");
            assert_eq!(site.application(pod).hits(), 0);
        }
        let web = "web-service.production.svc.cluster.local";
        for (host, pods) in [("my-service", "my-service"), (web, "web-service")] {
            let reply = ask(&site, "productpage", (host, 8080), "/").send().await;
            assert_eq!(reply.status, Some(200));
            assert!(reply.pod.starts_with(pods), "{reply:?}");
            let by = "URI=spiffe://cluster.local/ns/default/sa/bookinfo-productpage";
            assert!(account(&site, &reply.pod).contains(by), "{}", account(&site, &reply.pod));
        }
    }
}

pub(crate) async fn readers_are_who_may_read() {
    let site = Setup::of(example("s0-04", &[]))
        .server("default", "reviews")
        .server("default", "httpbin")
        .caller("default", "productpage")
        .caller("default", "my-service")
        .start()
        .await;
    let reviews = ("reviews", 9080);
    let (get, post) = (Method::GET, Method::POST);
    statuses(&site, ("productpage", reviews), &[(get.clone(), "/", 200), (post, "/", 403)]).await;
    statuses(&site, ("my-service", reviews), &[(get.clone(), "/", 403)]).await;
    let httpbin = ("httpbin", 8000);
    statuses(&site, ("my-service", httpbin), &[(get, "/", 200), (Method::POST, "/", 200)]).await;
    assert!(!echoes(site.echo("productpage", "reviews")).await, "bytes are no GET");
    assert!(echoes(site.echo("my-service", "httpbin")).await);
}

pub(crate) async fn the_oldest_of_equal_policies_is_in_force() {
    let my_app = |text: String| {
        Setup::of(text).server("default", "my-app").caller("default", "productpage").start()
    };
    let service = ("my-app", 8080);
    for (documents, expected) in
        [(&[1, 3][..], None), (&[2, 3], Some(200)), (&[1, 2, 3], Some(200))]
    {
        let site = my_app(example("s0-06", documents)).await;
        assert_eq!(plain(&site, "my-app-v1-0", "/").status().await, expected, "{documents:?}");
        assert_eq!(ask(&site, "productpage", service, "/").status().await, Some(200));
        let reply = ask(&site, "productpage", service, "/").send().await;
        assert!(account(&site, &reply.pod).contains("URI=spiffe://"), "with mutual TLS");
    }
    // Who is older wins, whatever it is called.
    let dated = |text: String, when: &str| {
        text.replace(
            "  namespace: default",
            &format!("  namespace: default\n  creationTimestamp: {when}"),
        )
    };
    let text = dated(example("s0-06", &[1]), "2026-01-01T00:00:00Z")
        + &dated(example("s0-06", &[2]), "2026-02-01T00:00:00Z");
    let site = my_app(text).await;
    assert_eq!(plain(&site, "my-app-v1-0", "/").status().await, None);
}

pub(crate) async fn without_mutual_tls_plaintext_is_served_and_sent() {
    let site = Setup::of(example("s0-06", &[]))
        .server("default", "legacy-app")
        .caller("default", "productpage")
        .start()
        .await;
    assert_eq!(plain(&site, "legacy-app-v1-0", "/").status().await, Some(200));
    let reply = ask(&site, "productpage", ("legacy-app", 8080), "/").send().await;
    assert_eq!(reply.status, Some(200));
    assert_eq!(account(&site, &reply.pod), "", "nobody's certificate came with it");
    let cluster = "outbound|8080||legacy-app.default.svc.cluster.local";
    assert_eq!(site.count("productpage", cluster, "ssl.handshake"), 0);
    assert!(site.count("productpage", cluster, "upstream_cx_total") > 0);
    let address = site.address("legacy-app-v1-0").to_string();
    let call = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &address, "-alpn", "istio"])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl runs");
    assert!(!call.status.success(), "TLS is not terminated");
}

const API: (&str, u16) = ("api-service", 8080);

pub(crate) async fn a_web_service_may_call_an_api() {
    let site = Setup::of(example("s1-03", &[1, 2]))
        .server("production", "api-service")
        .caller("production", "web-service")
        .caller("production", "frontend")
        .start()
        .await;
    let (get, post) = (Method::GET, Method::POST);
    let expected = [
        (get.clone(), "/api/v1/x", 200),
        (post.clone(), "/api/v1/x", 200),
        (Method::DELETE, "/api/v1/x", 403),
        (get.clone(), "/api/v1", 403),
        (get.clone(), "/api/v2/x", 403),
        (get.clone(), "/health", 200),
        (post.clone(), "/health", 403),
        (get.clone(), "/health/x", 403),
    ];
    statuses(&site, ("web-service", API), &expected).await;
    let expected = [(get.clone(), "/api/v1/x", 403), (get, "/health", 200), (post, "/health", 403)];
    statuses(&site, ("frontend", API), &expected).await;
    assert!(!echoes(site.echo("web-service", "api-service")).await);
}

pub(crate) async fn tokens_are_checked_before_anybody_is_let_in() {
    let issuer = Issuer::new("key");
    let text = example("s1-03", &[1, 2]) + &fixed(example("s1-03", &[3]));
    let site = Setup::of(text)
        .server("production", "api-service")
        .caller("production", "web-service")
        .keys("https://auth.mycompany.com/.well-known/jwks.json", &issuer.jwks())
        .start()
        .await;
    let claims = |by: &str, audience: &str, until: u64| json!({"iss": by, "sub": "alice", "aud": audience, "exp": until});
    let (own, later) = ("https://auth.mycompany.com", 4_102_444_800);
    let good = issuer.sign(&claims(own, "api-service", later));
    let forged = Issuer::new("key").sign(&claims(own, "api-service", later));
    for (token, path, status) in [
        (None, "/api/v1/x", 200),
        (None, "/api/v2/x", 403),
        (Some(good.clone()), "/api/v1/x", 200),
        (Some(good), "/api/v2/x", 403),
        (Some(issuer.sign(&claims(own, "api-service", 1_000_000_000))), "/api/v1/x", 401),
        (Some(forged), "/api/v1/x", 401),
        (Some(issuer.sign(&claims("https://other.test", "api-service", later))), "/api/v1/x", 401),
        (Some(issuer.sign(&claims(own, "other", later))), "/api/v1/x", 403),
    ] {
        let mut asked = ask(&site, "web-service", API, path);
        if let Some(token) = &token {
            asked = asked.header("authorization", &format!("Bearer {token}"));
        }
        assert_eq!(asked.status().await, Some(status), "{path} {token:?}");
    }
}

const BACKEND: (&str, u16) = ("backend", 8080);

pub(crate) async fn a_frontend_may_call_a_backend() {
    let site = Setup::of(example("s2-04", &[]))
        .server("production", "backend")
        .caller("production", "frontend")
        .caller("production", "web-service")
        .start()
        .await;
    let get = Method::GET;
    let expected = [
        (get.clone(), "/api/x", 200),
        (Method::POST, "/api/x", 200),
        (Method::DELETE, "/api/x", 403),
        (get.clone(), "/api", 403),
        (get.clone(), "/admin", 403),
    ];
    statuses(&site, ("frontend", BACKEND), &expected).await;
    statuses(&site, ("web-service", BACKEND), &[(get, "/api/x", 403)]).await;
    assert_eq!(plain(&site, "backend-v1-0", "/api/x").status().await, Some(403));
    assert!(!echoes(site.echo("frontend", "backend")).await);
}

pub(crate) async fn a_namespace_may_be_strict() {
    let site = Setup::of(example("s2-10", &[1]))
        .server("production", "backend")
        .server("default", "my-service")
        .caller("production", "frontend")
        .start()
        .await;
    assert_eq!(plain(&site, "backend-v1-0", "/").status().await, None);
    assert_eq!(plain(&site, "my-service-v1-0", "/").status().await, Some(200));
    assert_eq!(ask(&site, "frontend", BACKEND, "/").status().await, Some(200));
}

pub(crate) async fn nobody_may_call_where_all_is_denied() {
    let start = |text: String| {
        Setup::of(text)
            .server("production", "backend")
            .server("production", "web-service")
            .server("default", "my-service")
            .caller("production", "frontend")
            .start()
    };
    let web = ("web-service", 8080);
    let elsewhere = ("my-service.default.svc.cluster.local", 8080);
    let site = start(example("s2-10", &[])).await;
    for service in [BACKEND, web] {
        statuses(&site, ("frontend", service), &[(Method::GET, "/api/x", 403)]).await;
    }
    statuses(&site, ("frontend", elsewhere), &[(Method::GET, "/", 200)]).await;
    assert!(echoes(site.echo("frontend", "my-service")).await);
    assert!(!echoes(site.echo("frontend", "web-service")).await);
    drop(site);
    let site = start(example("s2-10", &[]) + &example("s2-04", &[])).await;
    let expected = [(Method::GET, "/api/x", 200), (Method::GET, "/", 403)];
    statuses(&site, ("frontend", BACKEND), &expected).await;
    statuses(&site, ("frontend", web), &[(Method::GET, "/api/x", 403)]).await;
}

pub(crate) async fn a_workload_beats_its_namespace() {
    let site = Setup::of(example("s4-05", &[]))
        .server("production", "legacy-service")
        .server("production", "web-service")
        .caller("production", "frontend")
        .start()
        .await;
    assert_eq!(plain(&site, "web-service-v1-0", "/").status().await, None);
    assert_eq!(plain(&site, "legacy-service-v1-0", "/").status().await, Some(200));
    for service in [("web-service", 8080), ("legacy-service", 8080)] {
        let reply = ask(&site, "frontend", service, "/").send().await;
        assert_eq!(reply.status, Some(200));
        assert!(account(&site, &reply.pod).contains("sa/frontend"), "{service:?}");
    }
}

pub(crate) async fn two_accounts_may_call_and_everybody_asks_for_health() {
    let site = Setup::of(example("s4-06", &[]))
        .server("production", "myapp")
        .caller("production", "frontend")
        .caller("production", "api-gateway")
        .caller("production", "web-service")
        .start()
        .await;
    let myapp = ("myapp", 8080);
    let (get, post) = (Method::GET, Method::POST);
    for caller in ["frontend", "api-gateway"] {
        let expected = [
            (get.clone(), "/api/x", 200),
            (post.clone(), "/api/x", 200),
            (Method::PUT, "/api/x", 403),
            (get.clone(), "/", 403),
        ];
        statuses(&site, (caller, myapp), &expected).await;
    }
    let expected = [
        (get.clone(), "/api/x", 403),
        (get.clone(), "/health", 200),
        (get.clone(), "/ready", 200),
        (Method::HEAD, "/health", 403),
        (get.clone(), "/health/x", 403),
    ];
    statuses(&site, ("web-service", myapp), &expected).await;
    assert_eq!(plain(&site, "myapp-v1-0", "/health").status().await, Some(200), "from anyone");
    assert!(!echoes(site.echo("frontend", "myapp")).await);
}
