//! The REST API against callers without rights, with mistakes, or in a race.

use serde_json::{Value, json};

use crate::plane::{Plane, host};

const OBJECTS: &str = "/api/v1/objects";
const CART: &str = "/api/v1/objects/serviceentries/default/cart";

#[tokio::test]
async fn writing_needs_the_administrators_token() {
    let plane = Plane::new("127.80.20.1");
    let _process = plane.start();
    let body = host("cart").to_string();
    let json = ("content-type", "application/json");
    for (method, path) in [("POST", OBJECTS), ("PUT", CART), ("DELETE", CART), ("POST", "/api/v1/tokens")] {
        for authorization in [None, Some("Bearer guess"), Some("Basic YWRtaW46YWRtaW4="), Some("Bearer ")] {
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
    let plane = Plane::new("127.80.21.1");
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
        let answer = plane.command_rest("PUT", CART, Some(&object)).await;
        assert_eq!(answer.status, status, "{object}: {}", answer.text);
        assert!(answer.text.contains(word), "{object}: {}", answer.text);
        assert_eq!(plane.ask("GET", CART, &[], None).await.status, 404);
    }
    let bearer = format!("Bearer {}", plane.admin_token());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let unreadable = plane.ask("PUT", CART, &headers, Some("{\"kind\": ")).await;
    assert_eq!(unreadable.status, 400, "{}", unreadable.text);
    let large = format!("\"{}\"", "x".repeat(5 << 20));
    assert_eq!(plane.ask("PUT", CART, &headers, Some(&large)).await.status, 413);
    let nowhere = plane.ask("GET", "/api/v1/nowhere", &[], None).await;
    assert_eq!((nowhere.status, nowhere.text.contains("/openapi.json")), (404, true), "{}", nowhere.text);
    let unknown = plane.ask("GET", "/api/v1/objects/carts/default/cart", &[], None).await;
    assert_eq!((unknown.status, unknown.text.contains("virtualservices")), (404, true), "{}", unknown.text);
}

#[tokio::test]
async fn a_dry_run_validates_and_stores_nothing() {
    let plane = Plane::new("127.80.22.1");
    let _process = plane.start();
    let dry = format!("{CART}?dryRun=true");
    let answer = plane.command_rest("PUT", &dry, Some(&host("cart"))).await;
    assert_eq!((answer.status, &answer.body["object"]["kind"]), (200, &json!("ServiceEntry")), "{}", answer.text);
    let mut wrong = host("cart");
    wrong["spec"]["resolution"] = json!("DSN");
    assert_eq!(plane.command_rest("PUT", &dry, Some(&wrong)).await.status, 422);
    assert_eq!(plane.ask("GET", CART, &[], None).await.status, 404);
    assert_eq!(plane.ask("GET", OBJECTS, &[], None).await.body["items"], json!([]));
}

#[tokio::test]
async fn the_slower_of_two_writers_is_told() {
    let plane = Plane::new("127.80.23.1");
    let _process = plane.start();
    let bearer = format!("Bearer {}", plane.admin_token());
    let body = host("cart").to_string();
    let put = async |name: &str, value: &str| {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), (name, value)];
        plane.ask("PUT", CART, &headers, Some(&body)).await
    };
    let first = put("if-none-match", "*").await;
    assert_eq!(first.status, 200, "{}", first.text);
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
    let again = plane.command_rest("POST", OBJECTS, Some(&host("cart"))).await;
    assert_eq!(again.status, 412, "{}", again.text);
    let headers = [("authorization", bearer.as_str()), ("if-match", tag.as_str())];
    assert_eq!(plane.ask("DELETE", CART, &headers, None).await.status, 412);
    assert_eq!(plane.command_rest("DELETE", CART, None).await.status, 200);
    assert_eq!(plane.command_rest("DELETE", CART, None).await.status, 404);
}

#[tokio::test]
async fn every_described_operation_answers() {
    let plane = Plane::new("127.80.24.1");
    let _process = plane.start();
    let document = plane.ask("GET", "/openapi.json", &[], None).await;
    assert_eq!((document.status, &document.body["openapi"]), (200, &json!("3.1.0")), "{}", document.text);
    for (path, operations) in document.body["paths"].as_object().expect("paths") {
        if operations.get("get").is_none() || path.contains('{') {
            continue;
        }
        let answer = plane.ask("GET", path, &[], None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
}
