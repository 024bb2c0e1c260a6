//! A service that counts requests for all: what it is told, and what becomes of requests when it
//! fails.

use std::net::SocketAddr;

use ferromesh_integration::service::{
    self, Answer,
    limit::{Asked, COUNT, Counted, Entry},
};
use http::Request;
use hyper::body::Incoming;
use prost::Message;

use crate::beside::Pair;

const MESH: &str = r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: limits, namespace: shop}
spec:
  hosts: [limits.test]
  location: MESH_EXTERNAL
  ports: [{number: 9192, name: p, protocol: GRPC}]
  resolution: STATIC
  endpoints: [{address: BLOCK.6}]
---
apiVersion: policy.ferromesh.io/v1alpha1
kind: RateLimit
metadata: {name: cart, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  global:
    service: limits.test
    port: 9192
    domain: shop
    timeout: 1s
    failureMode: MODE
    descriptors:
    - by: [{source: HEADER, name: x-do}]
    - by: [{source: PATH}, {source: HEADER, name: x-user}]
  answer: {status: 503, headers: {x-why: limited}}
"#;

fn count(request: Request<Incoming>) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> {
    Box::pin(async move {
        if request.uri().path() != COUNT {
            return service::failure("12");
        }
        let asked: Asked = service::message(request).await;
        let entries = asked.descriptors.iter().map(|descriptor| {
            let entries = descriptor.entries.iter();
            entries.map(|e| format!("{}={}", e.key, e.value)).collect::<Vec<_>>().join(",")
        });
        let seen = format!("{} {}", asked.domain, entries.collect::<Vec<_>>().join(" "));
        let mut all = asked.descriptors.iter().flat_map(|descriptor| &descriptor.entries);
        let wish = all.find(|entry| entry.key.ends_with("x-do")).map(|entry| entry.value.clone());
        let field = |key: &str, value: &str| Entry { key: key.to_owned(), value: value.to_owned() };
        let answer = match wish.as_deref().unwrap_or("pass") {
            "pass" => Counted {
                code: 1,
                response: vec![field("x-down", &seen)],
                request: vec![field("x-up", "counted")],
                ..Default::default()
            },
            "limit" => Counted {
                code: 2,
                response: vec![field("x-down", &seen)],
                body: b"too many".to_vec(),
                ..Default::default()
            },
            "limit-bare" => Counted { code: 2, ..Default::default() },
            "fail" => return service::failure("14"),
            "garbage" => return service::grpc(b"\xff\xff\xff"),
            "end" => return None,
            _ => std::future::pending().await,
        };
        service::grpc(&answer.encode_to_vec())
    })
}

fn request(headers: &str) -> String {
    format!("GET /a?b HTTP/1.1\r\nhost: cart\r\n{headers}connection: close\r\n\r\n")
}

#[test]
fn our_proxy_has_a_service_count_as_envoy_does() {
    let pair = Pair::start(21);
    for block in pair.blocks() {
        let address: SocketAddr = format!("{block}.6:9192").parse().expect("an address");
        service::serve(address, count);
    }
    let mut differences = Vec::new();
    for (mode, failed) in [("DENY", 500), ("ALLOW", 200)] {
        pair.write("limits.yaml", &MESH.replace("MODE", mode));
        pair.until_status(&request("x-do: limit\r\n"), 503);
        pair.until_status(&request("x-do: fail\r\n"), failed);
        let mut statuses = Vec::new();
        let wishes = ["pass", "limit", "limit-bare", "fail", "garbage", "end", "hang"];
        for wish in wishes {
            for more in ["", "x-user: a\r\n", "content-type: application/grpc\r\n"] {
                let request = request(&format!("x-do: {wish}\r\n{more}"));
                let [envoy, ours] = pair.answers(&request);
                statuses.push(ferromesh_integration::workload::status(&envoy));
                if envoy != ours {
                    differences.push(format!("{mode}\n{request}Envoy:\n{envoy}\nours:\n{ours}"));
                }
            }
        }
        let [envoy, ours] = pair.answers(&request(""));
        assert_eq!(envoy, ours, "nothing is counted of it");
        assert!([200, 503, failed].iter().all(|status| statuses.contains(status)), "{statuses:?}");
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n\n"));
}
