//! Services that are asked about access: what they are shown, what they change, and what becomes of
//! requests when they fail.

use std::{collections::BTreeMap, net::SocketAddr};

use ferromesh_integration::service::{
    self, Answer,
    access::{Allowed, CHECK, CheckRequest, CheckResponse, Denied, Status, field},
};
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;

use crate::beside::Pair;

const MESH: &str = r#"
apiVersion: mesh.istio.io/v1alpha1
kind: MeshConfig
metadata: {name: default}
spec:
  extensionProviders:
  - name: by-http
    envoyExtAuthzHttp:
      service: http.authz.test
      port: 9191
      timeout: 1s
      pathPrefix: /check
      statusOnError: "503"
      includeRequestHeadersInCheck: [x-do, "x-shown*"]
      includeAdditionalHeadersInCheck: {x-added: "yes"}
      includeRequestBodyInCheck: {maxRequestBytes: 16, allowPartialMessage: true}
      headersToUpstreamOnAllow: [x-up, x-seen]
      headersToDownstreamOnAllow: [x-down]
      headersToDownstreamOnDeny: [x-why, x-seen, set-cookie, content-type]
  - name: by-grpc
    envoyExtAuthzGrpc:
      service: grpc.authz.test
      port: 9191
      timeout: 1s
      includeRequestBodyInCheck: {maxRequestBytes: 16}
  - name: by-grpc-open
    envoyExtAuthzGrpc: {service: grpc.authz.test, port: 9191, timeout: 1s, failOpen: true}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: http, namespace: istio-system}
spec:
  hosts: [http.authz.test]
  location: MESH_EXTERNAL
  ports: [{number: 9191, name: p, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: BLOCK.6}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: grpc, namespace: istio-system}
spec:
  hosts: [grpc.authz.test]
  location: MESH_EXTERNAL
  ports: [{number: 9191, name: p, protocol: GRPC}]
  resolution: STATIC
  endpoints: [{address: BLOCK.7}]
"#;

/// A policy that asks about paths.
fn asking(provider: &str, paths: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: asks, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: cart}}}}\n  action: CUSTOM\n  \
         provider: {{name: {provider}}}\n  rules: [{{to: [{{operation: {{paths: [{paths}]}}}}]}}]\n"
    )
}

/// What was shown, in one line: names that no two proxies spell alike are left out.
fn seen(fields: impl Iterator<Item = (String, String)>, body: &str) -> String {
    const OWN: [&str; 9] = [
        "x-request-id",
        "x-forwarded-for",
        "x-envoy-internal",
        "x-envoy-expected-rq-timeout-ms",
        "date",
        "user-agent",
        "transfer-encoding",
        "x-envoy-attempt-count",
        "host",
    ];
    let fields = fields.filter(|(name, _)| !OWN.contains(&name.as_str()));
    let fields: BTreeMap<String, String> = fields.collect();
    let fields: Vec<String> =
        fields.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{} body={body}", fields.join(" "))
}

fn by_http(request: Request<Incoming>) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> {
    Box::pin(async move {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let head = format!("{} {}", parts.method, parts.uri);
        let fields = parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").to_owned()));
        let seen = format!("{head} {}", seen(fields, &String::from_utf8_lossy(&body)));
        let wish = parts.headers.get("x-do").and_then(|wish| wish.to_str().ok());
        match wish.unwrap_or("allow") {
            "allow" => service::http(
                200,
                &[
                    ("x-seen", &seen),
                    ("x-up", "by the service"),
                    ("x-down", "told"),
                    ("x-secret", "not told"),
                    ("x-envoy-auth-headers-to-remove", "x-gone, x-gone-too"),
                ],
                "",
            ),
            "deny" => service::http(
                403,
                &[
                    ("x-seen", &seen),
                    ("x-why", "because"),
                    ("x-secret", "not told"),
                    ("set-cookie", "a=1"),
                    ("set-cookie", "b=2"),
                    ("content-type", "text/html"),
                ],
                "<p>no",
            ),
            "deny-empty" => service::http(401, &[("www-authenticate", "Basic")], ""),
            "redirect" => service::http(302, &[("location", "/login")], ""),
            "fail" => service::http(500, &[], "broken"),
            "end" => None,
            _ => std::future::pending().await,
        }
    })
}

fn by_grpc(request: Request<Incoming>) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> {
    Box::pin(async move {
        if request.uri().path() != CHECK {
            return service::failure("12");
        }
        let check: CheckRequest = service::message(request).await;
        let http = check.attributes.and_then(|all| all.request?.http).expect("a request");
        let wish = http.headers.get("x-do").cloned().unwrap_or_default();
        let told = [&http.method, &http.path, &http.host, &http.scheme, &http.protocol];
        let told = told.map(String::as_str).join(" ");
        let seen = format!("{told} {}", seen(http.headers.into_iter(), &http.body));
        let status = |code| Some(Status { code });
        let answer = match wish.as_str() {
            "" | "allow" => CheckResponse {
                status: status(0),
                ok: Some(Allowed {
                    headers: vec![
                        field("x-seen", &seen, None),
                        field("x-up", "by the service", Some(false)),
                        field("x-more", "more", Some(true)),
                        field("x-none", "more", Some(true)),
                    ],
                    removed: vec!["x-gone".to_owned()],
                    response: vec![field("x-down", "told", None)],
                }),
                ..Default::default()
            },
            "bare" => CheckResponse::default(),
            "deny" => CheckResponse {
                status: status(7),
                denied: Some(Denied {
                    status: status(409),
                    headers: vec![
                        field("x-seen", &seen, None),
                        field("set-cookie", "a=1", None),
                        field("set-cookie", "b=2", Some(false)),
                        field("set-cookie", "c=3", Some(true)),
                    ],
                    body: "no".to_owned(),
                }),
                ..Default::default()
            },
            "deny-bare" => CheckResponse { status: status(16), ..Default::default() },
            "fail" => return service::failure("14"),
            "garbage" => return service::grpc(b"\xff\xff\xff"),
            "end" => return None,
            _ => std::future::pending().await,
        };
        service::grpc(&answer.encode_to_vec())
    })
}

fn request(path: &str, wish: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: cart\r\nx-do: {wish}\r\nx-shown-a: 1\r\nx-hidden: 2\r\n\
         x-up: mine\r\nx-more: mine\r\nx-gone: a\r\nx-gone-too: b\r\n{more}\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn differences(pair: &Pair, wishes: &[&str]) -> (Vec<u16>, Vec<String>) {
    let (mut statuses, mut found) = (Vec::new(), Vec::new());
    for wish in wishes {
        for (path, more, body) in [
            ("/a?b=c", "", ""),
            ("/a", "authorization: Basic x\r\n", "short"),
            ("/a", "content-type: application/grpc\r\n", ""),
            ("/a", "", "longer than it may be shown"),
            ("/open", "", ""),
        ] {
            let request = request(path, wish, more, body);
            let [envoy, ours] = pair.answers(&request);
            statuses.push(ferromesh_integration::workload::status(&envoy));
            if envoy != ours {
                found.push(format!("{request}\nEnvoy:\n{envoy}\nours:\n{ours}"));
            }
        }
    }
    (statuses, found)
}

#[test]
fn our_proxy_asks_about_access_as_envoy_does() {
    let pair = Pair::start(11);
    for block in pair.blocks() {
        let at = |last: u8| -> SocketAddr {
            format!("{block}.{last}:9191").parse().expect("an address")
        };
        service::serve(at(6), by_http);
        service::serve(at(7), by_grpc);
    }
    let denied = request("/a", "deny", "", "");
    pair.write("providers.yaml", MESH);
    let mut all = Vec::new();
    for (provider, wishes, expected) in [
        (
            "by-http",
            &["allow", "deny", "deny-empty", "redirect", "fail", "end", "hang"][..],
            &[200, 403, 401, 302, 503][..],
        ),
        (
            "by-grpc",
            &["allow", "bare", "deny", "deny-bare", "fail", "garbage", "end", "hang"],
            &[200, 409, 403, 413],
        ),
        ("by-grpc-open", &["allow", "deny", "fail", "garbage", "hang"], &[200, 409]),
    ] {
        pair.write("asks.yaml", &asking(provider, "/a"));
        pair.until_status(&denied, if provider == "by-http" { 403 } else { 409 });
        let (statuses, found) = differences(&pair, wishes);
        for status in expected {
            assert!(statuses.contains(status), "{provider}: {status} in {statuses:?}");
        }
        all.extend(found.into_iter().map(|text| format!("{provider}: {text}")));
    }
    assert!(all.is_empty(), "{} differ\n{}", all.len(), all.join("\n\n"));
}
