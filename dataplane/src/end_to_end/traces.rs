//! Traces through real sockets: who is told which span, and what whoever gets a request is told of
//! its trace. What is expected is what Envoy 1.40 tells with the same configuration
//! (`integration/tests/telemetry.rs` asks both).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    fixture::*,
    peer::{Answer, Server, client, send},
};
use crate::runtime::{
    collector::{Collector, HttpCollector},
    route::Operation,
    trace::{RequestIds, Sampling, Tag, TagValue, TraceForm, Tracer, Tracing, Zipkin},
};

/// A collector, and the lists of spans that it has got.
async fn collector(status: u16) -> (Server, mpsc::UnboundedReceiver<Value>) {
    let (told, spans) = mpsc::unbounded_channel();
    let server = Server::start(move |request, _| {
        let told = told.clone();
        async move {
            assert_eq!(request.uri().path(), "/spans");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            told.send(serde_json::from_slice(&body).unwrap()).unwrap();
            Response::builder().status(status).body(Full::default()).unwrap()
        }
    });
    (server.await, spans)
}

fn tracing(random: u32) -> Tracing {
    let user = TagValue::Header("x-user".into(), "nobody".into());
    Tracing {
        sampling: Sampling { asked: 100, random, overall: 100 },
        ids: RequestIds { decide: true, are_marked: true },
        longest_path: 256,
        tags: vec![Tag { name: "user".into(), value: user }],
        tracer: Some(Arc::new(Tracer {
            form: TraceForm::Zipkin(Zipkin { wide_ids: true, w3c: true, shares_spans: false }),
            collector: Collector::Http(HttpCollector {
                cluster: "collector".into(),
                uri: Uri::from_static("http://collector.test/spans"),
                headers: HeaderMap::new(),
                timeout: Duration::from_secs(5),
            }),
        })),
        is_silent: false,
    }
}

async fn proxy(tracing: Tracing, server: &Server, collector: &Server) -> Proxy {
    let mut proxy = Proxy::start(None);
    let mut host = to("a", |_| {});
    let name = HeaderValue::from_static("a:80/*");
    host.routes[0].operation = Some(Operation { name, is_told: true });
    let mut manager = with_routes(vec![host]);
    manager.generate_request_id = true;
    manager.tracing = Some(Arc::new(tracing));
    let clusters = vec![
        proxy.cluster("a", &[server.address]),
        proxy.cluster("collector", &[collector.address]),
    ];
    let listener = proxy.listener(http_chain(manager));
    assert_eq!(proxy.configure(vec![listener], clusters).await, []);
    proxy
}

async fn ask(proxy: &Proxy, headers: &[(&'static str, &str)]) -> Answer {
    let mut request = Request::get(proxy.url("/x?y"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(&client(), request.body(Full::<Bytes>::default()).unwrap()).await
}

/// A header that a server has got, as it says.
fn got<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let line = |line: &'a str| line.strip_prefix(name)?.strip_prefix(": ");
    answer.body.lines().find_map(line)
}

#[tokio::test]
async fn the_span_that_is_told_is_the_one_that_the_server_knows() {
    let server = Server::echoing().await;
    let (collector, mut told) = collector(202).await;
    let proxy = proxy(tracing(10_000), &server, &collector).await;
    let answer = ask(&proxy, &[("x-user", "anna")]).await;
    let spans = told.recv().await.unwrap();
    let [span] = &spans.as_array().unwrap()[..] else { panic!("one span, got {spans}") };
    for (header, field) in [("x-b3-traceid", "traceId"), ("x-b3-spanid", "id")] {
        assert_eq!(got(&answer, header), span[field].as_str(), "{}", answer.body);
    }
    assert_eq!(got(&answer, "x-b3-sampled"), Some("1"));
    assert_eq!(got(&answer, "x-envoy-decorator-operation"), Some("a:80/*"));
    let id = got(&answer, "x-request-id").unwrap();
    assert_eq!(&id[14..15], "9", "{id}");
    assert_eq!((&span["name"], &span["kind"]), (&"a:80/*".into(), &"CLIENT".into()));
    assert_eq!(span.get("parentId"), None);
    let url = format!("http://{}/x?y", proxy.address);
    let tags = &span["tags"];
    for (tag, value) in [
        ("user", "anna"),
        ("http.url", &url),
        ("http.status_code", "200"),
        ("upstream_cluster", "a"),
        ("guid:x-request-id", id),
    ] {
        assert_eq!(tags[tag], value, "{tag}");
    }
}

#[tokio::test]
async fn a_request_belongs_to_its_caller_s_trace() {
    let server = Server::echoing().await;
    let (collector, mut told) = collector(202).await;
    let proxy = proxy(tracing(0), &server, &collector).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let caller =
        [("x-b3-traceid", trace), ("x-b3-spanid", "b7ad6b7169203331"), ("x-b3-sampled", "1")];
    let answer = ask(&proxy, &caller).await;
    let span = told.recv().await.unwrap()[0].take();
    assert_eq!(got(&answer, "x-b3-parentspanid"), Some("b7ad6b7169203331"));
    assert_eq!((&span["traceId"], &span["parentId"]), (&trace.into(), &"b7ad6b7169203331".into()));
    assert_eq!(got(&answer, "x-b3-spanid"), span["id"].as_str());
}

#[tokio::test]
async fn who_is_not_traced_is_told_so_and_nobody_else_is() {
    let server = Server::echoing().await;
    let (collector, mut told) = collector(202).await;
    let proxy = proxy(tracing(0), &server, &collector).await;
    let answer = ask(&proxy, &[("x-user", "quiet")]).await;
    assert_eq!(got(&answer, "x-b3-sampled"), Some("0"));
    assert_eq!(&got(&answer, "x-request-id").unwrap()[14..15], "4");
    // A span of the one would come with, or before, that of the other.
    ask(&proxy, &[("x-client-trace-id", "me"), ("x-user", "loud")]).await;
    let spans = told.recv().await.unwrap();
    assert_eq!((spans.as_array().unwrap().len(), &spans[0]["tags"]["user"]), (1, &"loud".into()));
}

#[tokio::test]
async fn what_the_server_calls_it_names_the_span_and_goes_no_further() {
    let server = Server::start(|_, _| async {
        let answer = Response::builder().header("x-envoy-decorator-operation", "server's");
        answer.body(Full::default()).unwrap()
    });
    let (server, (collector, mut told)) = (server.await, collector(202).await);
    let silent = Tracing { is_silent: true, ..tracing(10_000) };
    let proxy = proxy(silent, &server, &collector).await;
    let answer = ask(&proxy, &[]).await;
    assert_eq!(answer.header("x-envoy-decorator-operation"), "");
    assert_eq!(told.recv().await.unwrap()[0]["name"], "server's");
}

#[tokio::test]
async fn a_proxy_that_is_silent_passes_the_caller_s_words_on() {
    let server = Server::echoing().await;
    let (collector, mut told) = collector(202).await;
    let proxy = proxy(Tracing { is_silent: true, ..tracing(10_000) }, &server, &collector).await;
    let answer = ask(&proxy, &[("traceparent", "mine")]).await;
    assert_eq!(got(&answer, "traceparent"), Some("mine"));
    assert_eq!(got(&answer, "x-b3-traceid"), None);
    assert!(told.recv().await.unwrap()[0]["id"].is_string());
}

#[tokio::test]
async fn spans_that_a_collector_does_not_take_are_counted() {
    let server = Server::echoing().await;
    let (collector, mut told) = collector(503).await;
    let proxy = proxy(tracing(10_000), &server, &collector).await;
    assert_eq!(ask(&proxy, &[]).await.status, 200);
    told.recv().await.unwrap();
    let counted = "ferromesh_spans_total{outcome=\"failed\"} 1\n";
    let counting = async {
        while !proxy.shared.metrics.render().contains(counted) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counting).await.unwrap();
}
