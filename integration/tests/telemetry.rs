//! What a real Envoy tells of the requests that it carries, and whom it lets pass by users' rate
//! limits, by what the translator makes of users' objects.
#![cfg(feature = "e2e")]

use std::{
    convert::Infallible,
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use ferromesh_integration::{
    offline::{bootstrap, translate_for},
    paths,
    process::{Process, until},
};
use ferromesh_xds_translator::{dialect::parse_file, translate::Translation};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    header::HeaderValue,
    service::service_fn,
};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::Value;
use tokio::net::TcpListener;

/// A workload `cart` of `shop` behind an Envoy that is called by address, with the mesh's own TLS
/// off: who calls here has none. `APPLICATION`, `TOLD` and `LIMITER` are ports.
const MESH: &str = include_str!("telemetry.yaml");

/// Where the Envoy is called; the application has the same port at another address.
const INBOUND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The paths of requests, and the bodies, as a stub got them.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers 404 to `/missing`, and 200 to everything else.
async fn stub() -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let kept = seen.clone();
    let address = serve(move |request: Request<Incoming>| {
        let kept = kept.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.map(|b| b.to_bytes());
            let body = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
            let status = if path == "/missing" { 404 } else { 200 };
            kept.lock().expect("nobody panics with it").push((path, body));
            let mut response = Response::new(Full::new(Bytes::from_static(b"hello")).boxed());
            *response.status_mut() = status.try_into().expect("a status");
            response
        }
    });
    (address.await, seen)
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// Serves HTTP/1.1 and HTTP/2 on a port of its own.
async fn serve<F, R>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let response = answer(request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// A rate limit service that refuses what has the descriptor `PATH: /expensive`
/// (`envoy.service.ratelimit.v3.RateLimitService`).
async fn limiter() -> SocketAddr {
    /// `RateLimitResponse.overall_code` OK and OVER_LIMIT, framed as gRPC does.
    const OK: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];
    const OVER_LIMIT: &[u8] = &[0, 0, 0, 0, 2, 0x08, 2];
    serve(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let expensive = body.windows(10).any(|part| part == b"/expensive");
        let answer = Bytes::from_static(if expensive { OVER_LIMIT } else { OK });
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let frames = [Ok(Frame::data(answer)), Ok(Frame::trailers(trailers))];
        let mut response =
            Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        response
    })
    .await
}

/// An Envoy before the application, with further objects of a user. Fields are dropped in order:
/// files last.
struct Site {
    envoy: Process,
    inbound: SocketAddr,
    told: Seen,
    application: Seen,
    _dir: tempfile::TempDir,
}

impl Site {
    async fn start(objects: &str) -> Self {
        let (application, seen) = stub().await;
        let (collector, told) = stub().await;
        let limiter = limiter().await;
        let inbound = SocketAddr::from((INBOUND, application.port()));
        let text = format!("{MESH}---\n{objects}")
            .replace("APPLICATION", &application.port().to_string())
            .replace("TOLD", &collector.port().to_string())
            .replace("LIMITER", &limiter.port().to_string());
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("envoy.json");
        fs::write(&file, bootstrap(translated(&text)).to_string()).expect("a file");
        let mut command = Command::new(paths::envoy());
        command.arg("-c").arg(&file).args(["--concurrency", "1", "--disable-hot-restart"]);
        command.args(["--log-level", "warning", "--file-flush-interval-msec", "50"]);
        let mut envoy = Process::start("envoy", dir.path(), command);
        envoy.until("serving", || std::net::TcpStream::connect(inbound).is_ok());
        Self { envoy, inbound, told, application: seen, _dir: dir }
    }

    /// The status of an answer.
    async fn call(&self, path: &str) -> u16 {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let request = Request::builder()
            .uri(format!("http://{}{path}", self.inbound))
            .header("x-user", "anna")
            .body(Full::default())
            .expect("a request");
        client.request(request).await.expect("an answer").status().as_u16()
    }
}

/// What the workload's proxy is sent.
fn translated(text: &str) -> Translation {
    let parsed = parse_file("telemetry.yaml", text.as_bytes());
    assert!(parsed.rejected.is_empty(), "{:#?}", parsed.diagnostics);
    let metadata = [
        ("INTERCEPTION_MODE", "NONE"),
        ("FERROMESH_INBOUND_ADDRESS", "127.0.0.2"),
        ("FERROMESH_APP_ADDRESS", "127.0.0.1"),
    ];
    let node = "sidecar~127.0.0.2~cart-0.shop~shop.svc.cluster.local";
    let translation = translate_for(node, &metadata, parsed);
    assert_eq!(translation.dangling, []);
    translation
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_and_log_lines_go_where_telemetry_says() {
    let site = Site::start(
        "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  tracing: [{providers: [{name: zipkin}], randomSamplingPercentage: 100}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: cart, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  tracing:
  - match: {mode: SERVER}
    customTags: {user: {header: {name: x-user}}, shop: {literal: {value: main}}}
  accessLogging:
  - match: {mode: SERVER}
    providers: [{name: lines}]
    filter: {expression: response.code >= 400}
",
    )
    .await;
    for (path, status) in [("/good", 200), ("/missing", 404), ("/good", 200)] {
        assert_eq!(site.call(path).await, status);
    }
    let spans = || site.told.lock().expect("nobody panics with it").clone();
    let told = || spans().iter().map(|(_, body)| body.matches("traceId").count()).sum::<usize>();
    until(Duration::from_secs(30), "three spans", || told() >= 3);
    let posts = spans();
    assert!(posts.iter().all(|(path, _)| path == "/api/v2/spans"), "{posts:?}");
    let all: Vec<Value> = posts
        .iter()
        .flat_map(|(_, body)| serde_json::from_str::<Vec<Value>>(body).expect("spans in JSON"))
        .collect();
    for span in &all {
        let tags = &span["tags"];
        for (tag, value) in [
            ("user", "anna"),
            ("shop", "main"),
            ("istio.canonical_service", "cart"),
            ("istio.canonical_revision", "v1"),
            ("istio.namespace", "shop"),
        ] {
            assert_eq!(tags[tag], value, "{tag} of {span}");
        }
    }
    let statuses: Vec<&str> =
        all.iter().filter_map(|span| span["tags"]["http.status_code"].as_str()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == "404").count(), 1, "{statuses:?}");
    let lines = || -> Vec<String> {
        let output = site.envoy.output();
        output.lines().filter(|l| l.starts_with("LINE ")).map(str::to_owned).collect()
    };
    until(Duration::from_secs(30), "a line", || !lines().is_empty());
    assert_eq!(lines(), ["LINE /missing 404"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_for_a_share_of_the_requests() {
    const REQUESTS: usize = 4_000;
    let site = Site::start(
        "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  tracing: [{providers: [{name: zipkin}], randomSamplingPercentage: 10}]
",
    )
    .await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let uri: http::Uri = format!("http://{}/", site.inbound).parse().expect("a URI");
    for _ in 0..REQUESTS {
        let answer = client.get(uri.clone()).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let _ = answer.into_body().collect().await;
    }
    let told = || {
        let posts = site.told.lock().expect("nobody panics with it");
        posts.iter().map(|(_, body)| body.matches("traceId").count()).sum::<usize>()
    };
    let mut before = 0;
    until(Duration::from_secs(60), "the last span", || {
        std::thread::sleep(Duration::from_secs(6));
        std::mem::replace(&mut before, told()) == told() && before > 0
    });
    let percent = 100.0 * told() as f64 / REQUESTS as f64;
    assert!((7.0..=13.0).contains(&percent), "{percent} percent");
}

/// Istio's documentation, "Enabling Rate Limits using Envoy": local limits.
#[tokio::test(flavor = "multi_thread")]
async fn a_local_rate_limit_as_users_write_it_refuses_what_is_too_much() {
    let site = Site::start(
        "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: local, namespace: istio-system}
spec:
  workloadSelector: {labels: {app: cart}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_INBOUND
      listener:
        filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          '@type': type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          value:
            stat_prefix: http_local_rate_limiter
            token_bucket: {max_tokens: 4, tokens_per_fill: 4, fill_interval: 600s}
            filter_enabled:
              runtime_key: local_rate_limit_enabled
              default_value: {numerator: 100, denominator: HUNDRED}
            filter_enforced:
              runtime_key: local_rate_limit_enforced
              default_value: {numerator: 100, denominator: HUNDRED}
            response_headers_to_add:
            - append_action: OVERWRITE_IF_EXISTS_OR_ADD
              header: {key: x-local-rate-limit, value: 'true'}
",
    )
    .await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(site.call("/").await);
    }
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429]);
    assert_eq!(site.application.lock().expect("nobody panics with it").len(), 4);
}

/// The same page: limits that a service keeps for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_global_rate_limit_as_users_write_it_asks_the_service() {
    let site = Site::start(
        "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: filter-ratelimit, namespace: istio-system}
spec:
  workloadSelector: {labels: {app: cart}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_INBOUND
      listener:
        filterChain:
          filter:
            name: envoy.filters.network.http_connection_manager
            subFilter: {name: envoy.filters.http.router}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.ratelimit
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
          domain: ratelimit
          failure_mode_deny: true
          timeout: 10s
          rate_limit_service:
            grpc_service:
              envoy_grpc:
                cluster_name: outbound|8081||ratelimit.example
                authority: ratelimit.example
            transport_api_version: V3
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: filter-ratelimit-svc, namespace: istio-system}
spec:
  workloadSelector: {labels: {app: cart}}
  configPatches:
  - applyTo: VIRTUAL_HOST
    match:
      context: SIDECAR_INBOUND
      routeConfiguration: {vhost: {name: ''}}
    patch:
      operation: MERGE
      value:
        rate_limits:
        - actions:
          - request_headers: {header_name: ':path', descriptor_key: PATH}
",
    )
    .await;
    let mut statuses = Vec::new();
    for path in ["/cheap", "/expensive", "/cheap", "/expensive"] {
        statuses.push(site.call(path).await);
    }
    assert_eq!(statuses, [200, 429, 200, 429]);
    assert_eq!(site.application.lock().expect("nobody panics with it").len(), 2);
}

/// An object of our own with this specification, for the workload.
fn limit(spec: &str) -> String {
    format!(
        "apiVersion: policy.ferromesh.io/v1alpha1\nkind: RateLimit\n\
         metadata: {{name: cart, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: cart}}}}\n  {spec}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_alike_have_a_limit_of_their_own() {
    let by = "[{source: HEADER, name: X-User, value: anna}, {source: PATH, value: /costly}]";
    let site = Site::start(&limit(&format!(
        "local: {{requests: 4, interval: 600s, alike: [{{by: {by}, requests: 1, interval: 60s}}]}}"
    )))
    .await;
    let mut statuses = Vec::new();
    for path in ["/costly", "/costly", "/", "/", "/", "/"] {
        statuses.push(site.call(path).await);
    }
    assert_eq!(statuses, [200, 429, 200, 200, 200, 429], "one of the costly, four in all");
    assert_eq!(site.application.lock().expect("nobody panics with it").len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_counts_and_who_gets_no_answer_is_refused_unless_said_otherwise() {
    let asked = |more: &str| {
        format!(
            "global: {{port: 8081, domain: mesh, descriptors: [{{by: [{{source: PATH}}]}}], {more}}}"
        )
    };
    let site = Site::start(&limit(&format!(
        "{}\n  answer: {{status: 503, headers: {{x-why: limited}}}}",
        asked("service: ratelimit.example, timeout: 10s")
    )))
    .await;
    let mut statuses = Vec::new();
    for path in ["/cheap", "/expensive", "/cheap"] {
        statuses.push(site.call(path).await);
    }
    assert_eq!(statuses, [200, 503, 200]);
    drop(site);
    // Nobody listens there.
    let silent = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {name: silent, namespace: shop}\n\
         spec:\n  hosts: [silent.example]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
         ports: [{number: 8081, name: grpc, protocol: GRPC, targetPort: 9}]\n  \
         endpoints: [{address: 127.0.0.1}]\n---\n";
    for (mode, expected) in [("DENY", 500), ("ALLOW", 200)] {
        let spec = asked(&format!("service: silent.example, failureMode: {mode}"));
        let site = Site::start(&format!("{silent}{}", limit(&spec))).await;
        assert_eq!(site.call("/").await, expected, "{mode}");
    }
}
