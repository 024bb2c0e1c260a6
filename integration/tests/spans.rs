//! Spans and log entries of the same requests, from an Envoy and from our proxy beside it: collectors
//! are told the same by both, and so is the application, over every protocol that our proxy speaks.
#![cfg(feature = "e2e")]

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
};

use bytes::{Buf, Bytes};
use ferromesh_integration::{
    process::until,
    workload::{LIMIT, Workload},
};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use prost::Message;
use serde_json::Value;
use tokio::net::TcpListener;

/// `BLOCK` is a network, `TOLD` the collector's port, `PROVIDER` the tracer's name.
const MESH: &str = r#"
apiVersion: mesh.istio.io/v1alpha1
kind: MeshConfig
metadata: {name: default}
spec:
  extensionProviders:
  - name: http
    opentelemetry:
      service: told.example
      port: 4318
      http: {path: /v1/traces, timeout: 5s, headers: [{name: x-key, value: secret}]}
  - name: grpc
    opentelemetry: {service: told.example, port: 4317}
  - name: zipkin
    zipkin: {service: told.example, port: 9411}
  - name: entries
    envoyOtelAls:
      service: told.example
      port: 4317
      logFormat:
        text: "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %RESPONSE_CODE% %REQ(NOPE)%"
        labels: {protocol: "%PROTOCOL%", user: "%REQ(X-USER)%", nope: "%UPSTREAM_CLUSTER_RAW%/%REQ(NOPE)%"}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: told, namespace: shop}
spec:
  hosts: [told.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports:
  - {number: 4318, name: http, protocol: HTTP, targetPort: TOLD}
  - {number: 4317, name: grpc, protocol: GRPC, targetPort: TOLD}
  - {number: 9411, name: http-zipkin, protocol: HTTP, targetPort: TOLD}
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  http:
  - match: [{uri: {prefix: /fail}}]
    directResponse: {status: 503}
  - match: [{uri: {prefix: /rewritten}}]
    rewrite: {uri: /other, authority: other.test}
    route: [{destination: {host: cart}}]
  - route: [{destination: {host: cart}}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: spans, namespace: istio-system}
spec:
  tracing:
  - providers: [{name: PROVIDER}]
    randomSamplingPercentage: 100
    customTags:
      user: {header: {name: x-user, defaultValue: nobody}}
      shop: {literal: {value: main}}
      shell: {environment: {name: FERROMESH_TEST_NO_SUCH, defaultValue: none}}
      version: {formatter: {value: '%PROTOCOL%!'}}
  accessLogging:
  - providers: [{name: entries}]
    filter: {expression: "request.path != '/quiet'"}
"#;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
/// What no two proxies, or no two moments, have in common. A cluster has a name of its own in Envoy's
/// statistics, which are not ours.
const OWN: [&str; 3] = ["guid:x-request-id", "response_size", "upstream_cluster.name"];

/// A span as a collector is told it.
#[derive(Clone, Debug)]
struct Told {
    trace: String,
    id: String,
    parent: String,
    name: String,
    is_client: bool,
    /// Only OTLP says it.
    failed: bool,
    tags: BTreeMap<String, String>,
}

/// What it says, without what is each proxy's own.
#[derive(PartialEq, Debug)]
struct Said {
    name: String,
    in_caller_s_trace: bool,
    /// What its parent is.
    parent: String,
    failed: bool,
    tags: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportLogs {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeLogs {
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<Record>,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(message, optional, tag = "5")]
    body: Option<Text>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<Attribute>,
    #[prost(bytes = "vec", tag = "9")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    span_id: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Text>,
}

#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

fn texts(attributes: Vec<Attribute>) -> BTreeMap<String, String> {
    let pair = |a: Attribute| (a.key, a.value.unwrap_or_default().text);
    attributes.into_iter().map(pair).collect()
}

/// The spans of a message of OTLP, all of which must be the workload's.
fn of_otlp(body: &[u8]) -> Vec<Told> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let export = Export::decode(body).expect("spans");
    let mut told = Vec::new();
    for spans in export.resource_spans {
        let resource = texts(spans.resource.expect("a resource").attributes);
        assert_eq!(resource["service.name"], "cart.shop");
        assert!(resource.contains_key("telemetry.sdk.name"), "{resource:?}");
        let all = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        told.extend(all.map(|span| Told {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name,
            is_client: span.kind == 3,
            failed: span.status.is_some_and(|status| status.code == 2),
            tags: texts(span.attributes),
        }));
    }
    told
}

/// What entries say, each as one text.
fn of_log(body: &[u8]) -> Vec<String> {
    let export = ExportLogs::decode(body).expect("entries");
    let mut entries = Vec::new();
    for logs in export.resource_logs {
        let resource = texts(logs.resource.unwrap_or_default().attributes);
        for record in logs.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            assert!(record.time_unix_nano > 1_600_000_000_000_000_000, "{record:?}");
            let traced = (record.trace_id.len(), record.span_id.len());
            let said = record.body.map(|body| body.text);
            let attributes = texts(record.attributes);
            entries.push(format!("{said:?} {attributes:?} {resource:?} | {traced:?}"));
        }
    }
    entries
}

fn of_zipkin(body: &[u8]) -> Vec<Told> {
    let spans: Vec<Value> = serde_json::from_slice(body).expect("a list");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told = spans.iter().map(|span| {
        assert!(span["duration"].is_u64() && span["timestamp"].is_u64(), "{span}");
        let tags = span["tags"].as_object().expect("tags").iter();
        let service = ("service".to_owned(), text(&span["localEndpoint"]["serviceName"]));
        Told {
            trace: text(&span["traceId"]),
            id: text(&span["id"]),
            parent: text(&span["parentId"]),
            name: text(&span["name"]),
            is_client: span["kind"] == "CLIENT",
            failed: false,
            tags: tags.map(|(name, value)| (name.clone(), text(value))).chain([service]).collect(),
        }
    });
    told.collect()
}

/// A server that takes spans in every form, on a thread of its own until the process ends.
struct Collector {
    port: u16,
    told: Arc<Mutex<Vec<(String, Told)>>>,
    entries: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    fn start() -> Self {
        let told = Arc::<Mutex<Vec<(String, Told)>>>::default();
        let (ready, until_ready) = std::sync::mpsc::channel();
        let entries = Arc::<Mutex<Vec<String>>>::default();
        let kept = (Arc::clone(&told), Arc::clone(&entries));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                let port = listener.local_addr().expect("an address").port();
                ready.send(port).expect("somebody waits");
                while let Ok((stream, _)) = listener.accept().await {
                    let (told, entries) = kept.clone();
                    tokio::spawn(async move {
                        let service = service_fn(|request| {
                            take(request, Arc::clone(&told), Arc::clone(&entries))
                        });
                        let server = auto::Builder::new(TokioExecutor::new());
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            });
        });
        Self { port: until_ready.recv().expect("it serves"), told, entries }
    }

    /// What was told by this provider.
    fn told(&self, provider: &str) -> Vec<Told> {
        let told = self.told.lock().expect("nobody panics with it");
        told.iter().filter(|(by, _)| by == provider).map(|(_, span)| span.clone()).collect()
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn take(
    request: Request<Incoming>,
    told: Arc<Mutex<Vec<(String, Told)>>>,
    entries: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let mut body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let header = |name: &str| head.headers.get(name).map_or("", |v| v.to_str().unwrap_or(""));
    let (provider, spans) = match head.uri.path() {
        "/v1/traces" => {
            assert_eq!(header("content-type"), "application/x-protobuf");
            assert_eq!(header("x-key"), "secret");
            ("http", of_otlp(&body))
        }
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
            // A message is preceded by a flag and its length.
            body.advance(5);
            ("grpc", of_otlp(&body))
        }
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => {
            body.advance(5);
            entries.lock().expect("nobody panics with it").extend(of_log(&body));
            ("grpc", Vec::new())
        }
        "/api/v2/spans" => ("zipkin", of_zipkin(&body)),
        other => panic!("nobody posts to {other}"),
    };
    let spans = spans.into_iter().map(|span| (provider.to_owned(), span));
    told.lock().expect("nobody panics with it").extend(spans);
    let response = Response::builder();
    Ok(match provider {
        "grpc" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("a value"));
            let message = Full::new(Bytes::from_static(&[0; 5]));
            let body = message.with_trailers(async { Some(Ok(trailers)) }).boxed();
            let response = response.header("content-type", "application/grpc");
            response.body(body).expect("a response")
        }
        _ => response.status(202).body(Full::default().boxed()).expect("a response"),
    })
}

/// A workload behind a proxy, and who is told its spans.
struct Site {
    workload: Workload,
    collector: Collector,
    block: String,
}

impl Site {
    fn start(kind: &str, block: &str) -> Self {
        let workload = Workload::start(kind, block);
        Self { workload, collector: Collector::start(), block: block.to_owned() }
    }

    fn configure(&self, provider: &str) {
        let port = self.collector.port.to_string();
        let mesh = MESH.replace("TOLD", &port).replace("PROVIDER", provider);
        self.workload.plane.write("spans.yaml", mesh.replace("BLOCK", &self.block));
    }

    /// The body of an answer to a request that goes out through the proxy, and comes in by it: what
    /// the application got, if it was asked.
    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Option<String> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let mut request = Request::get(format!("http://{}.4{path}", self.block));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header("host", "cart.shop").body(Full::default()).expect("a request");
        let answer = client.request(request).await.ok()?;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some(String::from_utf8_lossy(&body).into_owned())
    }

    /// What a text says with what is this proxy's own replaced.
    fn plain(&self, text: &str) -> String {
        let address: SocketAddr = self.workload.address.parse().expect("an address");
        text.replace(&self.block, "BLOCK").replace(&address.port().to_string(), "PORT")
    }

    /// What entries say that have this in them, each once.
    fn entries(&self, part: &str) -> BTreeSet<String> {
        let entries = self.collector.entries.lock().expect("nobody panics with it");
        entries.iter().filter(|entry| entry.contains(part)).map(|entry| self.plain(entry)).collect()
    }

    /// What spans say, by their paths and sides.
    fn said(&self, told: &[Told]) -> BTreeMap<(String, bool), Said> {
        let parent = |span: &Told| match told.iter().find(|other| other.id == span.parent) {
            Some(other) => {
                format!("{} {}", if other.is_client { "client" } else { "server" }, path(other))
            }
            None => span.parent.clone(),
        };
        let said = told.iter().map(|span| {
            let kept = span.tags.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
            let said = Said {
                name: self.plain(&span.name),
                in_caller_s_trace: span.trace == TRACE,
                parent: parent(span),
                failed: span.failed,
                tags: kept.map(|(name, value)| (name.clone(), self.plain(value))).collect(),
            };
            ((path(span), span.is_client), said)
        });
        said.collect()
    }
}

/// The path of its request.
fn path(span: &Told) -> String {
    let url = &span.tags["http.url"];
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.find('/').map_or("", |at| &rest[at..]).to_owned()
}

/// What an application is told of a trace: names of fields, and whether it is told.
fn context(request: &str) -> BTreeSet<String> {
    let fields = request.lines().filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim()));
    let told = fields.filter_map(|(name, value)| match name.as_str() {
        "traceparent" => Some(format!("{name} {}", &value[value.len().saturating_sub(2)..])),
        "x-b3-sampled" => Some(format!("{name} {value}")),
        "x-request-id" => Some(format!("{name} {}", value.get(14..15).unwrap_or("?"))),
        name if name.starts_with("x-b3-") || name == "b3" => Some(name.to_owned()),
        "x-envoy-decorator-operation" => Some(format!("{name} {value}")),
        _ => None,
    });
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_proxies_tell_the_same() {
    let sites = thread::scope(|scope| {
        let envoy = scope.spawn(|| Site::start("envoy", "127.91.1"));
        let ours = Site::start("run", "127.91.2");
        [envoy.join().expect("Envoy's side starts"), ours]
    });
    let w3c = |flags: &str| format!("00-{TRACE}-{SPAN}-{flags}");
    let (sampled, unsampled) = (w3c("01"), w3c("00"));
    let requests: [(&str, Vec<(&str, &str)>); 9] = [
        ("/plain?a=b", vec![]),
        ("/user", vec![("x-user", "anna"), ("user-agent", "test")]),
        ("/sampled", vec![("traceparent", &sampled)]),
        ("/unsampled", vec![("traceparent", &unsampled)]),
        ("/broken", vec![("traceparent", "junk")]),
        ("/several", vec![("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")]),
        ("/not-told", vec![("x-b3-sampled", "0")]),
        ("/fail", vec![]),
        ("/rewritten", vec![("x-client-trace-id", "me")]),
    ];
    for provider in ["http", "grpc", "zipkin"] {
        sites.iter().for_each(|site| site.configure(provider));
        let mut contexts: [Vec<BTreeSet<String>>; 2] = Default::default();
        let mut said = Vec::new();
        for (site, contexts) in sites.iter().zip(&mut contexts) {
            let last = format!("/{provider}-begins");
            let has = |path_of: &str, both: bool| {
                let told = site.collector.told(provider);
                let sides: BTreeSet<bool> =
                    told.iter().filter(|s| path(s) == path_of).map(|s| s.is_client).collect();
                sides.len() > usize::from(both)
            };
            // Until the proxy runs what was written.
            let telling = async {
                while !has(&last, true) {
                    site.ask(&last, &[]).await;
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(LIMIT, telling).await.expect("spans as it is configured");
            let before = site.collector.told(provider).len();
            for (path, headers) in &requests {
                let got = site.ask(path, headers).await.expect("an answer");
                contexts.push(context(&got));
            }
            let end = format!("/{provider}-ends");
            site.ask(&end, &[]).await.expect("an answer");
            until(LIMIT, "the last spans", || has(&end, true));
            let told: Vec<Told> = site.collector.told(provider).split_off(before);
            let told: Vec<Told> = told.into_iter().filter(|span| path(span) != last).collect();
            said.push(site.said(&told));
        }
        let [envoy, ours] = contexts;
        for ((path, _), (envoy, ours)) in requests.iter().zip(envoy.iter().zip(&ours)) {
            assert_eq!(ours, envoy, "{provider}: what the application is told of {path}");
        }
        let (ours, envoy) = (said.pop().expect("ours"), said.pop().expect("Envoy's"));
        let keys = |said: &BTreeMap<(String, bool), Said>| said.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&ours), keys(&envoy), "{provider}");
        for (key, envoy) in &envoy {
            assert_eq!(&ours[key], envoy, "{provider}: {key:?}");
        }
        // Both sides of what is traced, but for what is answered on the way.
        let client = &envoy[&("/plain?a=b".to_owned(), true)];
        let server = &envoy[&("/plain?a=b".to_owned(), false)];
        assert_eq!((&*client.parent, &*server.parent), ("", "client /plain?a=b"), "{provider}");
        assert_eq!(envoy.get(&("/fail".to_owned(), false)), None, "{provider}");
    }
    for site in &sites {
        site.ask("/quiet", &[]).await.expect("an answer");
        site.ask("/loud", &[("x-user", "anna")]).await.expect("an answer");
        until(LIMIT, "the last entries", || site.entries("/loud").len() == 2);
    }
    let [envoy, ours] = sites.each_ref().map(|site| site.entries(""));
    let told = |entries: &BTreeSet<String>| -> BTreeSet<String> {
        entries.iter().filter_map(|entry| Some(entry.rsplit_once(" | ")?.0.to_owned())).collect()
    };
    assert_eq!(told(&ours), told(&envoy));
    // Of what is not sampled, Envoy names the trace too, and of what goes to Zipkin no span: where
    // nothing is kept under these names, ours has none of them.
    let whole = |entry: &String| entry.ends_with("(16, 8)");
    assert!(ours.iter().all(|entry| whole(entry) || entry.ends_with("(0, 0)")), "{ours:#?}");
    for entries in [&envoy, &ours] {
        assert!(entries.iter().any(|entry| entry.contains("/http-begins") && whole(entry)));
    }
    assert!(ours.iter().any(|entry| entry.contains("GET /plain?a=b 200 -")), "{ours:#?}");
    assert!(!ours.iter().any(|entry| entry.contains("/quiet")), "{ours:#?}");
}
