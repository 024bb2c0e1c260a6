//! The REST API against callers without rights, with mistakes, or in a race.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use ferromesh_integration::plane::{Answer, ControlPlane, program, readable};

use crate::plane::host;

const OBJECTS: &str = "/api/v1/objects";
const CART: &str = "/api/v1/objects/serviceentries/default/cart";

#[tokio::test]
async fn writing_needs_the_administrators_token() {
    let plane = ControlPlane::new("127.80.20.1");
    let _process = plane.start();
    let body = host("cart").to_string();
    let json = ("content-type", "application/json");
    for (method, path) in
        [("POST", OBJECTS), ("PUT", CART), ("DELETE", CART), ("POST", "/api/v1/tokens")]
    {
        for authorization in
            [None, Some("Bearer guess"), Some("Basic YWRtaW46YWRtaW4="), Some("Bearer ")]
        {
            let headers: Vec<(&str, &str)> =
                std::iter::once(json).chain(authorization.map(|a| ("authorization", a))).collect();
            let answer = plane.ask(method, path, &headers, Some(&body)).await;
            assert_eq!(answer.status, 401, "{method} {path} {authorization:?}: {}", answer.text);
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            assert_eq!(answer.headers["content-type"], "application/problem+json");
        }
    }
    assert_eq!(plane.ask("GET", CART, &[], None).await.status, 404, "a refused write was kept");
    let rebound = plane.ask("GET", OBJECTS, &[("host", "mesh.attacker.example:8080")], None).await;
    assert_eq!(rebound.status, 421, "{}", rebound.text);
}

#[tokio::test]
async fn mistakes_are_named_and_change_nothing() {
    let plane = ControlPlane::new("127.80.21.1");
    let _process = plane.start();
    let with = |pointer: &str, value: Value| {
        let mut object = host("cart");
        *object.pointer_mut(pointer).expect("a field") = value;
        object
    };
    let table: [(Value, u16, &str); 6] = [
        (with("/spec/ports/0/number", json!("eighty")), 422, "spec.ports[0].number"),
        (with("/spec/resolution", json!("DSN")), 422, "DNS"),
        (with("/spec", json!({ "host": ["a.example.com"], "ports": [] })), 422, "hosts"),
        (with("/kind", json!("ServiceEntri")), 400, "ServiceEntri"),
        (with("/metadata/name", json!("other")), 400, "other"),
        (json!([1, 2]), 400, ""),
    ];
    for (object, status, word) in table {
        let answer = plane.ask_as_admin("PUT", CART, Some(&object)).await;
        assert_eq!(answer.status, status, "{object}: {}", answer.text);
        assert!(answer.text.contains(word), "{object}: {}", answer.text);
        assert_eq!(plane.ask("GET", CART, &[], None).await.status, 404);
    }
    let bearer = format!("Bearer {}", plane.admin_token());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let twice = host("cart").to_string().replacen('{', r#"{"spec":{},"#, 1);
    let answer = plane.ask("PUT", CART, &headers, Some(&twice)).await;
    assert_eq!(answer.status, 422, "{}", answer.text);
    assert!(answer.text.contains("FM0003") && answer.text.contains("spec"), "{}", answer.text);
    let unreadable = plane.ask("PUT", CART, &headers, Some("{\"kind\": ")).await;
    assert_eq!(unreadable.status, 400, "{}", unreadable.text);
    let large = format!("\"{}\"", "x".repeat(5 << 20));
    assert_eq!(plane.ask("PUT", CART, &headers, Some(&large)).await.status, 413);
    let nowhere = plane.ask("GET", "/api/v1/nowhere", &[], None).await;
    assert_eq!(
        (nowhere.status, nowhere.text.contains("/openapi.json")),
        (404, true),
        "{}",
        nowhere.text
    );
    let unknown = plane.ask("GET", "/api/v1/objects/carts/default/cart", &[], None).await;
    assert_eq!(
        (unknown.status, unknown.text.contains("virtualservices")),
        (404, true),
        "{}",
        unknown.text
    );
}

/// Kinds of several groups share a plural: paths and names say which is meant.
#[tokio::test]
async fn an_object_is_found_at_the_path_that_kubernetes_has_for_it() {
    let plane = ControlPlane::new("127.80.26.1");
    let _process = plane.start();
    let group = "/apis/networking.istio.io/v1";
    let path = format!("{group}/namespaces/default/serviceentries/cart");
    let status = async |method: &str, path: &str| plane.ask(method, path, &[], None).await.status;
    let refused = plane.ask("PUT", &path, &[], Some(&host("cart").to_string())).await;
    assert_eq!(refused.status, 401, "{}", refused.text);
    assert_eq!(plane.ask_as_admin("PUT", &path, Some(&host("cart"))).await.status, 201);
    let named = "/api/v1/objects/serviceentries.networking.istio.io/default/cart";
    for found in [&*path, CART, named, "/api/v1/objects/se/default/cart"] {
        assert_eq!(status("GET", found).await, 200, "{found}");
    }
    for list in
        [format!("{group}/serviceentries"), format!("{group}/namespaces/default/serviceentries")]
    {
        let items = plane.ask("GET", &list, &[], None).await.body["items"].clone();
        assert_eq!((items.as_array().map(Vec::len), &items[0]["name"]), (Some(1), &json!("cart")));
    }
    let nowhere = [
        format!("{group}/serviceentries/cart"),
        path.replace("networking.istio.io", "networking.example.com"),
        path.replace("/v1/", "/v7/"),
        "/api/v1/namespaces/default/serviceentries/cart".to_owned(),
    ];
    for missing in nowhere {
        assert_eq!(status("GET", &missing).await, 404, "{missing}");
    }
    // In parts, at either path.
    let second = host("dairy");
    assert_eq!(plane.ask_as_admin("POST", OBJECTS, Some(&second)).await.status, 201);
    for list in [format!("{group}/serviceentries"), format!("{OBJECTS}?kind=serviceentries")] {
        let sign = if list.contains('?') { '&' } else { '?' };
        let first = plane.ask("GET", &format!("{list}{sign}limit=1"), &[], None).await;
        assert_eq!(first.body["items"][0]["name"], "cart", "{}", first.text);
        let mark = first.body["metadata"]["continue"].as_str().unwrap_or_default();
        let path = format!("{list}{sign}limit=1&continue={mark}");
        let last = plane.ask("GET", &path, &[], None).await;
        assert_eq!(last.body["items"][0]["name"], "dairy", "{}", last.text);
        assert_eq!(last.body["metadata"], Value::Null, "{}", last.text);
        let refused = plane.ask("GET", &format!("{list}{sign}continue=!"), &[], None).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
    }
    for list in ["proxies", "workloads", "certificates"] {
        assert_eq!(status("GET", &format!("/api/v1/{list}?limit=1")).await, 200, "{list}");
        assert_eq!(status("GET", &format!("/api/v1/{list}?limit=0")).await, 400, "{list}");
    }
    let deleted = plane.ask_as_admin("DELETE", &path, None).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text);
    assert_eq!(status("GET", CART).await, 404);
}

#[tokio::test]
async fn a_dry_run_validates_and_stores_nothing() {
    let plane = ControlPlane::new("127.80.22.1");
    let _process = plane.start();
    let dry = format!("{CART}?dryRun=true");
    let answer = plane.ask_as_admin("PUT", &dry, Some(&host("cart"))).await;
    assert_eq!(
        (answer.status, &answer.body["object"]["kind"]),
        (200, &json!("ServiceEntry")),
        "{}",
        answer.text
    );
    let mut wrong = host("cart");
    wrong["spec"]["resolution"] = json!("DSN");
    assert_eq!(plane.ask_as_admin("PUT", &dry, Some(&wrong)).await.status, 422);
    assert_eq!(plane.ask("GET", CART, &[], None).await.status, 404);
    assert_eq!(plane.ask("GET", OBJECTS, &[], None).await.body["items"], json!([]));
}

/// 201 is for what was not there before; whatever is wrong is a problem, with the field that it is
/// about.
#[tokio::test]
async fn an_answer_says_what_was_done_and_an_error_is_always_a_problem() {
    let plane = ControlPlane::new("127.80.35.1");
    let _process = plane.start();
    let dry = format!("{OBJECTS}?dryRun=true");
    let cart = host("cart");
    for (method, path, status) in [
        ("POST", &*dry, 200),
        ("POST", OBJECTS, 201),
        ("POST", OBJECTS, 409),
        ("POST", &dry, 409),
        ("PUT", CART, 200),
        ("DELETE", CART, 200),
        ("PUT", CART, 201),
    ] {
        let answer = plane.ask_as_admin(method, path, Some(&cart).filter(|_| method != "DELETE"));
        let answer = answer.await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        is_told(&answer);
    }
    let mut wrong = host("cart");
    wrong["spec"]["resolution"] = json!("DSN");
    let refused = plane.ask_as_admin("PUT", CART, Some(&wrong)).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    is_told(&refused);
    assert_eq!(refused.body["errors"][0]["pointer"], "#/spec/resolution", "{}", refused.text);
    for (method, path, status) in [
        ("GET", "/api/v1/objects/serviceentries/default/nobody", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/objects/nonsense/default/a", 404),
        ("GET", "/api/v1/objects/serviceentries/default/%ff", 400),
        ("GET", "/api/v1/objects?colour=red", 400),
        ("PATCH", CART, 405),
        ("DELETE", "/api/v1/proxies", 405),
        ("PUT", CART, 415),
        ("POST", "/healthz/live", 405),
    ] {
        let bearer = format!("Bearer {}", plane.admin_token());
        let answer = plane.ask(method, path, &[("authorization", &bearer)], None).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        is_told(&answer);
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{method} {path}");
    }
    // What a change would be refused for has pointers too.
    let change = json!({ "items": [wrong] });
    let refused = plane.ask_as_admin("POST", "/api/v1/plan", Some(&change)).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    is_told(&refused);
    assert_eq!(refused.body["errors"][0]["pointer"], "#/spec/resolution", "{}", refused.text);
}

/// Whatever is no success is a problem with its own status, and words.
fn is_told(answer: &Answer) {
    if answer.status < 400 {
        return;
    }
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{}", answer.text);
    assert_eq!(answer.body["status"], answer.status, "{}", answer.text);
    let words = ["title", "detail"].map(|word| answer.body[word].as_str().unwrap_or_default());
    assert!(words.iter().all(|word| !word.is_empty()), "{}", answer.text);
}

/// Users do what their role allows, by their names, until their line is gone.
#[tokio::test]
async fn users_write_by_their_names_as_far_as_their_role_goes() {
    let plane = ControlPlane::new("127.80.36.1");
    let users = plane.path("users");
    let token = |name: &str, role: &str| {
        let mut command = program();
        command.args(["user", "add", name, "--role", role, "--file"]).arg(&users);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        format!("Bearer {}", String::from_utf8_lossy(&output.stdout).trim())
    };
    let (ann, bob) = (token("ann", "editor"), token("bob", "viewer"));
    let plane = plane.with("--api-users", &users);
    let process = plane.start();
    let body = host("cart").to_string();
    let put = async |bearer: &str| {
        let headers = [("authorization", bearer), ("content-type", "application/json")];
        plane.ask("PUT", CART, &headers, Some(&body)).await
    };
    let refused = put(&bob).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert!(refused.text.contains("bob is viewer: expected editor"), "{}", refused.text);
    // By no path, method or parameter.
    let resource = "/apis/networking.istio.io/v1/namespaces/default/serviceentries/cart";
    let dry = format!("{OBJECTS}?dryRun=true");
    for (bearer, method, path) in [
        (&bob, "POST", OBJECTS),
        (&bob, "POST", &*dry),
        (&bob, "PUT", resource),
        (&bob, "DELETE", CART),
        (&bob, "DELETE", resource),
        (&bob, "PATCH", CART),
        (&bob, "OPTIONS", CART),
        (&bob, "POST", "/debug/syncz"),
        (&bob, "POST", "/api/v1/tokens"),
        (&bob, "PUT", "/api/v1/log"),
        (&ann, "POST", "/api/v1/tokens"),
        (&ann, "PUT", "/api/v1/log"),
    ] {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let answer = plane.ask(method, path, &headers, Some(&body)).await;
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text);
        is_told(&answer);
    }
    let headers = [("authorization", bob.as_str()), ("content-type", "application/json")];
    let change = json!({ "items": [host("cart")] }).to_string();
    let asked = plane.ask("POST", "/api/v1/plan", &headers, Some(&change)).await;
    assert_eq!(asked.status, 200, "{}", asked.text);
    assert_eq!(plane.ask("GET", CART, &[], None).await.status, 404, "something was stored");
    assert_eq!(put(&ann).await.status, 201);
    let journal = std::fs::read_to_string(plane.path("data/store/journal")).expect("the journal");
    assert!(journal.contains("\"who\":\"ann\""), "{journal}");
    let log = process.output();
    assert!(log.contains("bob") && log.contains("the role does not allow it"), "{log}");
    let text = std::fs::read_to_string(&users).expect("the users");
    let without: String = text.lines().filter(|line| line.starts_with("bob")).collect();
    std::fs::write(&users, without).expect("a file");
    assert_eq!(put(&ann).await.status, 401, "her line is gone");
}

#[tokio::test]
async fn the_slower_of_two_writers_is_told() {
    let plane = ControlPlane::new("127.80.23.1");
    let _process = plane.start();
    let bearer = format!("Bearer {}", plane.admin_token());
    let body = host("cart").to_string();
    let put = async |name: &str, value: &str| {
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            (name, value),
        ];
        plane.ask("PUT", CART, &headers, Some(&body)).await
    };
    let first = put("if-none-match", "*").await;
    assert_eq!(first.status, 201, "{}", first.text);
    let tag = first.headers["etag"].to_str().expect("text").to_owned();
    assert_eq!(put("if-none-match", "*").await.status, 412);
    let second = put("if-match", &tag).await;
    assert_eq!(second.status, 200, "{}", second.text);
    let late = put("if-match", &tag).await;
    assert_eq!(late.status, 412, "{}", late.text);
    assert!(late.text.contains("read it again"), "{}", late.text);
    assert_eq!(put("if-match", "yesterday").await.status, 400);
    let stored = plane.ask("GET", CART, &[], None).await;
    assert_eq!(stored.headers["etag"], second.headers["etag"]);
    let again = plane.ask_as_admin("POST", OBJECTS, Some(&host("cart"))).await;
    assert_eq!(again.status, 409, "{}", again.text);
    let headers = [("authorization", bearer.as_str()), ("if-match", tag.as_str())];
    assert_eq!(plane.ask("DELETE", CART, &headers, None).await.status, 412);
    assert_eq!(plane.ask_as_admin("DELETE", CART, None).await.status, 200);
    assert_eq!(plane.ask_as_admin("DELETE", CART, None).await.status, 404);
}

/// A condition that is not understood must not be taken for none.
#[tokio::test]
async fn conditions_hold_or_the_request_is_refused() {
    let plane = ControlPlane::new("127.80.27.1");
    let _process = plane.start();
    let bearer = format!("Bearer {}", plane.admin_token());
    let body = host("cart").to_string();
    let ask = async |method: &str, name: &str, value: &str| {
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            (name, value),
        ];
        let body = (method == "PUT").then_some(&*body);
        plane.ask(method, CART, &headers, body).await.status
    };
    assert_eq!(ask("PUT", "if-match", "*").await, 412);
    assert_eq!(plane.ask("GET", CART, &[], None).await.status, 404);
    let first = plane.ask_as_admin("PUT", CART, Some(&host("cart"))).await;
    let tag = first.headers["etag"].to_str().expect("text").to_owned();
    for (method, name, value, status) in [
        ("PUT", "if-none-match", &*tag, 412),
        ("DELETE", "if-none-match", &tag, 412),
        ("DELETE", "if-none-match", "*", 412),
        ("PUT", "if-match", "\"1\", \"2\"", 400),
        ("GET", "if-none-match", &tag, 304),
        ("GET", "if-none-match", "\"77\"", 200),
        ("GET", "if-match", "\"77\"", 412),
        ("PUT", "if-match", "*", 200),
        ("PUT", "if-none-match", "\"77\"", 200),
        ("DELETE", "if-match", "*", 200),
    ] {
        assert_eq!(ask(method, name, value).await, status, "{method} {name}: {value}");
    }
}

#[tokio::test]
async fn an_object_that_names_an_old_revision_is_refused_at_every_path() {
    let plane = ControlPlane::new("127.80.28.1");
    let _process = plane.start();
    let kube = "/apis/networking.istio.io/v1/namespaces/default/serviceentries/cart";
    let mut old = host("cart");
    old["metadata"]["resourceVersion"] = json!("1");
    let revision =
        plane.ask_as_admin("PUT", CART, Some(&host("cart"))).await.body["revision"].clone();
    assert_eq!(plane.ask_as_admin("PUT", kube, Some(&old)).await.status, 200, "{revision}");
    for path in [kube, CART, &format!("{CART}?dryRun=All")] {
        let refused = plane.ask_as_admin("PUT", path, Some(&old)).await;
        assert_eq!(refused.status, 409, "{}", refused.text);
        assert!(refused.text.contains("metadata.resourceVersion"), "{}", refused.text);
    }
    old["metadata"]["resourceVersion"] = json!("old");
    assert_eq!(plane.ask_as_admin("PUT", CART, Some(&old)).await.status, 400);
}

/// What is asked of a deletion is done, or the deletion is refused: it cannot be taken back.
#[tokio::test]
async fn deletions_do_what_is_asked_or_are_refused() {
    let plane = ControlPlane::new("127.80.29.1");
    let process = plane.start();
    let stored = plane.ask_as_admin("PUT", CART, Some(&host("cart"))).await;
    assert_eq!(stored.status, 201, "{}", stored.text);
    let kube = "/apis/networking.istio.io/v1/namespaces/default/serviceentries/cart";
    for path in [CART, kube] {
        for (query, options, status) in [
            ("?dryRun=true", Value::Null, 200),
            ("?dryRun=All", Value::Null, 200),
            ("", json!({ "kind": "DeleteOptions", "dryRun": ["All"] }), 200),
            ("?dryRun=maybe", Value::Null, 400),
            ("?force=true", Value::Null, 400),
            ("", json!({ "preconditions": { "resourceVersion": "77" } }), 409),
            ("", json!({ "preconditions": { "uid": "77" } }), 400),
            ("", json!({ "propagationPolicy": "Orphan" }), 400),
            ("", json!({ "anything": 1 }), 400),
        ] {
            let options = (!options.is_null()).then_some(&options);
            let answer = plane.ask_as_admin("DELETE", &format!("{path}{query}"), options).await;
            assert_eq!(answer.status, status, "{path}{query} {options:?}: {}", answer.text);
            assert_eq!(plane.ask("GET", CART, &[], None).await.status, 200, "{query} {options:?}");
        }
    }
    for (method, path) in [("GET", CART), ("GET", kube), ("GET", "/api/v1/workloads")] {
        let refused = plane.ask(method, &format!("{path}?watch=true"), &[], None).await;
        assert_eq!(refused.status, 400, "{path}: {}", refused.text);
    }
    let revision = stored.body["revision"].to_string();
    let options = json!({
        "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background",
        "preconditions": { "resourceVersion": revision },
    });
    let deleted = plane.ask_as_admin("DELETE", kube, Some(&options)).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text);
    assert_eq!(plane.ask("GET", CART, &[], None).await.status, 404);
    // Who has deleted it is told as who has written it; what was tried or refused is not.
    let said = process.output();
    for what in ["object written by the API", "object deleted by the API"] {
        let of = said.lines().filter(|line| line.contains("audit") && line.contains(what));
        let [line] = of.collect::<Vec<_>>()[..] else { panic!("{what}: {said}") };
        assert!(line.contains("default/cart") && line.contains("administrator"), "{line}");
    }
}

/// Whatever is acknowledged is read again by the next start.
#[tokio::test]
async fn what_could_not_be_read_again_is_refused() {
    let plane = ControlPlane::new("127.80.31.1");
    let process = plane.start();
    let bearer = format!("Bearer {}", plane.admin_token());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let with_status = |status: &str| {
        host("cart").to_string().replacen('{', &format!("{{\"status\":{status},"), 1)
    };
    for levels in [100, 110, 124, 126, 127, 500, 50_000] {
        let status = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let answer = plane.ask("PUT", CART, &headers, Some(&with_status(&status))).await;
        assert_eq!(answer.status, 422, "{levels}: {}", answer.text);
        assert!(answer.text.contains("FM0004"), "{levels}: {}", answer.text);
    }
    let reserved = r#"{"$serde_json::private::RawValue":"["}"#;
    let answer = plane.ask("PUT", CART, &headers, Some(&with_status(reserved))).await;
    assert_eq!(answer.status, 422, "{}", answer.text);
    for (unreadable, status) in [("1e400", 400), (r#""\ud800""#, 400)] {
        let answer = plane.ask("PUT", CART, &headers, Some(&with_status(unreadable))).await;
        assert_eq!(answer.status, status, "{unreadable}: {}", answer.text);
    }
    let deepest = format!("{}1{}", "{\"a\":".repeat(99), "}".repeat(99));
    let odd = r#"{"f":0.30000000000000004441,"g":2.2250738585072011e-308,"z":"\u0000"}"#;
    for (status, done) in [(&*deepest, 201), (odd, 200)] {
        let answer = plane.ask("PUT", CART, &headers, Some(&with_status(status))).await;
        assert_eq!(answer.status, done, "{}", answer.text);
    }
    let before = plane.ask("GET", CART, &[], None).await.body;
    drop(process);
    let _again = plane.start();
    assert_eq!(plane.ask("GET", CART, &[], None).await.body, before);
}

/// Clients that hang up at any moment: what is stored is in force.
#[tokio::test]
async fn a_client_that_leaves_leaves_no_half_of_a_write() {
    let plane = ControlPlane::new("127.80.32.1");
    let _process = plane.start();
    let token = plane.admin_token();
    // Some of them leave before, some after it is stored, be the machine as slow as it may.
    for i in 0..80_u64 {
        let (name, body) = (format!("h{i}"), host(&format!("h{i}")).to_string());
        let request = format!(
            "PUT /api/v1/objects/serviceentries/default/{name} HTTP/1.1\r\nhost: {}\r\n\
             authorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            plane.address(8080),
            body.len()
        );
        let mut stream = TcpStream::connect(plane.address(8080)).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        tokio::time::sleep(Duration::from_micros(i * i * 20)).await;
    }
    let begin = Instant::now();
    loop {
        let mut stored = BTreeSet::new();
        for name in (0..80).map(|i| format!("h{i}")) {
            let path = format!("/api/v1/objects/serviceentries/default/{name}");
            let found = plane.ask("GET", &path, &[], None).await;
            stored.extend((found.status == 200).then_some(name));
        }
        let list = plane.ask("GET", OBJECTS, &[], None).await.body;
        let items = list["items"].as_array().expect("a list").iter();
        let in_force: BTreeSet<String> =
            items.filter_map(|item| item["name"].as_str().map(str::to_owned)).collect();
        if stored == in_force {
            assert!(!stored.is_empty(), "every client was too fast");
            return;
        }
        let late = begin.elapsed() > Duration::from_secs(60);
        assert!(!late, "stored, not in force: {:?}", stored.difference(&in_force));
    }
}

#[tokio::test]
async fn every_described_operation_answers() {
    let plane = ControlPlane::new("127.80.24.1");
    let _process = plane.start();
    let document = plane.ask("GET", "/openapi.json", &[], None).await;
    assert_eq!(
        (document.status, &document.body["openapi"]),
        (200, &json!("3.1.0")),
        "{}",
        document.text
    );
    let paths = readable(&document.body);
    assert!(paths.len() > 10 && paths.iter().all(|path| !path.contains('{')), "{paths:?}");
    for path in paths {
        let answer = plane.ask("GET", &path, &[], None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
}
