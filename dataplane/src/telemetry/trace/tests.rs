//! What spans say, and how it is written. What is expected was seen at Envoy 1.40.

use std::time::Duration;

use http::Uri;
use prost::Message;
use serde_json::{Value, json};

use super::{otlp::Request, *};
use crate::{
    runtime::{
        ConnectionFacts,
        collector::{Collector, HttpCollector},
        flags::Flags,
        format::{Field, FormatOp},
        metadata::{Metadata, Value as Found},
        trace::{RequestIds, Resource, Sampling, TraceId, Zipkin},
    },
    telemetry::otlp::{self, Attribute},
};

const TRACE: TraceId = TraceId { high: Some(0x0102), low: 0x0304 };

pub(super) fn tracer() -> Arc<Tracer> {
    of_form(TraceForm::Zipkin(Zipkin { wide_ids: true, w3c: false, shares_spans: false }))
}

fn of_form(form: TraceForm) -> Arc<Tracer> {
    let uri = Uri::from_static("http://c.test/spans");
    let (cluster, headers) = ("c".into(), HeaderMap::new());
    let timeout = Duration::from_secs(1);
    let collector = Collector::Http(HttpCollector { cluster, uri, headers, timeout });
    Arc::new(Tracer { form, collector })
}

fn context(parent: Option<u64>) -> SpanContext {
    let headers = HeaderMap::new();
    let begun = tracer().begin(&headers, CallSide::Client, true, || 7);
    let mut context = begun.expect("a new trace");
    (context.trace, context.span, context.parent) = (TRACE, 0xab, parent);
    context
}

pub(super) fn finished(name: &str) -> Finished {
    let start = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
    Finished {
        context: context(Some(0xcd)),
        side: CallSide::Client,
        name: name.to_owned(),
        state: "a=b".to_owned(),
        start,
        end: start + Duration::from_micros(1500),
        tags: Tags(vec![("component".into(), "proxy".to_owned())]),
        failed: true,
    }
}

fn origin() -> Origin {
    let pairs = [("HOME", "/root"), ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod=p, zone = z,broken")];
    let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Origin {
        id: "sidecar~10.0.0.1~a.b~b.svc".into(),
        cluster: "a.b".into(),
        zone: "z1".into(),
        address: Some([10, 0, 0, 1].into()),
        environment: Environment(environment.into()),
    }
}

fn tracing(tags: Vec<(&str, TagValue)>) -> Tracing {
    let tag = |(name, value): (&str, TagValue)| Tag { name: name.into(), value };
    Tracing {
        sampling: Sampling { asked: 100, random: 10_000, overall: 100 },
        ids: RequestIds { decide: true, are_marked: true },
        longest_path: 6,
        tags: tags.into_iter().map(tag).collect(),
        tracer: None,
        is_silent: false,
    }
}

fn span(headers: &[(&'static str, &'static str)]) -> Span {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
    };
    Span {
        context: context(None),
        side: CallSide::Server,
        name: "ingress".to_owned(),
        state: String::new(),
        headers: headers.iter().map(pair).collect(),
        authority: "cart.test".to_owned(),
        path: "/a?b=c&d".to_owned(),
    }
}

fn connection() -> ConnectionFacts {
    ConnectionFacts::plaintext(([10, 0, 0, 5], 4000).into(), ([10, 0, 0, 9], 80).into())
}

fn entry<'a>(connection: &'a ConnectionFacts) -> Entry<'a> {
    Entry {
        protocol: "HTTP/1.1",
        method: "GET",
        path: "/a?b=c&d",
        authority: "cart.test",
        scheme: "http",
        status: 200,
        bytes_received: 3,
        bytes_sent: 5,
        cluster: "outbound|80||cart.test",
        ..Entry::of_connection(connection, SystemTime::UNIX_EPOCH, Duration::from_secs(1))
    }
}

/// The tags of a span, in their order.
fn tags(span: Span, tags: Vec<(&str, TagValue)>, entry: &Entry<'_>) -> Vec<(String, String)> {
    let finished = span.finish(&tracing(tags), entry, &origin());
    finished.tags.0.into_iter().map(|(name, value)| (name.into_owned(), value)).collect()
}

fn value<'a>(tags: &'a [(String, String)], name: &str) -> Option<&'a str> {
    tags.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

#[test]
fn spans_say_what_envoy_s_say() {
    let headers = [
        ("x-request-id", "id"),
        ("x-forwarded-proto", "https"),
        ("user-agent", "curl"),
        ("x-client-trace-id", "me"),
    ];
    let connection = connection();
    let said = tags(span(&headers), vec![], &entry(&connection));
    let expected = [
        ("node_id", "sidecar~10.0.0.1~a.b~b.svc"),
        ("zone", "z1"),
        ("guid:x-request-id", "id"),
        ("http.url", "https://cart.test/a?b=c"),
        ("http.method", "GET"),
        ("downstream_cluster", "-"),
        ("user_agent", "curl"),
        ("http.protocol", "HTTP/1.1"),
        ("peer.address", "10.0.0.5"),
        ("guid:x-client-trace-id", "me"),
        ("request_size", "3"),
        ("response_size", "5"),
        ("component", "proxy"),
        ("upstream_cluster", "outbound|80||cart.test"),
        ("upstream_cluster.name", "outbound|80||cart.test"),
        ("http.status_code", "200"),
        ("response_flags", "-"),
    ];
    assert_eq!(said, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn the_path_is_told_as_the_client_has_asked_for_it() {
    let connection = connection();
    let headers = [("x-envoy-original-path", "/before/all/of/it")];
    let said = tags(span(&headers), vec![], &entry(&connection));
    assert_eq!(value(&said, "http.url"), Some("http://cart.test/befor"));
}

#[test]
fn tags_of_users_say_what_is_there_and_replace_ours() {
    let format = |ops: Vec<FormatOp>| TagValue::Format(ops.into());
    let header = |name: &str| Field::RequestHeader(name.into(), None);
    let field = |field| FormatOp::Field { field, limit: None };
    let asked = vec![
        ("literal", TagValue::Literal("x".into())),
        ("home", TagValue::Environment("HOME".into(), "-".into())),
        ("nowhere", TagValue::Environment("NOPE".into(), "-".into())),
        ("nothing", TagValue::Environment("NOPE".into(), "".into())),
        ("user", TagValue::Header("x-user".into(), "nobody".into())),
        ("other", TagValue::Header("x-other".into(), "nobody".into())),
        ("path", TagValue::Header(":path".into(), "".into())),
        ("found", TagValue::Metadata("n".into(), vec!["a".into(), "b".into()], "".into())),
        ("missing", TagValue::Metadata("n".into(), vec!["x".into()], "".into())),
        ("format", format(vec![field(header("x-user")), FormatOp::Literal("!".into())])),
        ("empty", format(vec![field(header("x-other"))])),
        ("component", TagValue::Literal("mine".into())),
    ];
    let connection = connection();
    let mut metadata = Metadata::default();
    let inner = [("b".into(), Found::Text("c".into()))].into();
    metadata.set("n", "a", Found::Struct(inner));
    let entry = Entry { metadata: Some(&metadata), ..entry(&connection) };
    let said = tags(span(&[("x-user", "anna")]), asked, &entry);
    for (name, expected) in [
        ("literal", Some("x")),
        ("home", Some("/root")),
        ("nowhere", Some("-")),
        ("nothing", None),
        ("user", Some("anna")),
        ("other", Some("nobody")),
        ("path", Some("/a?b=c&d")),
        ("found", Some("c")),
        ("missing", None),
        ("format", Some("anna!")),
        ("empty", None),
        ("component", Some("mine")),
    ] {
        assert_eq!(value(&said, name), expected, "{name}");
    }
    assert_eq!(said.iter().filter(|(name, _)| name == "component").count(), 1);
}

#[test]
fn what_goes_wrong_is_said() {
    let connection = connection();
    let trailers =
        |status: &str| -> HeaderMap { [("grpc-status", status)].map(pair).into_iter().collect() };
    fn pair((name, value): (&'static str, &str)) -> (http::HeaderName, http::HeaderValue) {
        (http::HeaderName::from_static(name), value.parse().unwrap())
    }
    for (status, grpc, is_error, failed) in [
        (200, None, false, [false, false]),
        (404, None, false, [true, false]),
        (503, None, true, [true, true]),
        (0, None, true, [false, false]),
        (200, Some("0"), false, [false, false]),
        (200, Some("5"), false, [false, false]),
        (200, Some("14"), true, [false, false]),
    ] {
        let trailers = grpc.map(trailers);
        let flags = Flags::NONE;
        let entry = Entry { status, flags, trailers: trailers.as_ref(), ..entry(&connection) };
        let said = tags(span(&[]), vec![], &entry);
        assert_eq!(value(&said, "error"), is_error.then_some("true"), "{status} {grpc:?}");
        assert_eq!(value(&said, "grpc.status_code"), grpc, "{status}");
        for (side, failed) in [CallSide::Client, CallSide::Server].into_iter().zip(failed) {
            let span = Span { side, ..span(&[]) };
            let finished = span.finish(&tracing(vec![]), &entry, &origin());
            assert_eq!(finished.failed, failed, "{side:?} {status}");
        }
    }
}

#[test]
fn calls_over_grpc_say_so() {
    let connection = connection();
    let entry = entry(&connection);
    let said = tags(span(&[("content-type", "application/grpc+proto")]), vec![], &entry);
    assert_eq!(value(&said, "grpc.path"), Some("/a?b=c&d"));
    assert_eq!(value(&said, "grpc.authority"), Some("cart.test"));
    assert_eq!(value(&said, "grpc.content_type"), Some("application/grpc+proto"));
    let said = tags(span(&[("content-type", "application/grpc-web")]), vec![], &entry);
    assert_eq!(value(&said, "grpc.path"), None);
}

#[test]
fn opentelemetry_s_form_has_all_of_a_span() {
    let resource = Resource {
        attributes: vec![("service.name".into(), "cart.shop".into())],
        from_environment: true,
        names_program: true,
    };
    let tracer = of_form(TraceForm::OpenTelemetry(resource));
    let call = told(&tracer, &[finished("op")], &origin()).unwrap();
    assert_eq!(call.request.headers()["content-type"], "application/x-protobuf");
    let request = Request::decode(&call.request.body()[..]).unwrap();
    let [spans] = &request.resource_spans[..] else { panic!("one resource") };
    let text = |attributes: &[Attribute]| -> Vec<(String, String)> {
        let value = |a: &Attribute| match a.value.clone().unwrap().value {
            Some(otlp::Value::Text(text)) => text,
            other => panic!("expected a text, got {other:?}"),
        };
        attributes.iter().map(|a| (a.key.clone(), value(a))).collect()
    };
    let resource = text(&spans.resource.as_ref().unwrap().attributes);
    let expected = [("service.name", "cart.shop"), ("k8s.pod", "p"), ("zone", "z")];
    assert_eq!(resource, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let [scope] = &spans.scope_spans[..] else { panic!("one scope") };
    assert_eq!(scope.scope.as_ref().unwrap().name, "ferromesh-dataplane");
    let [span] = &scope.spans[..] else { panic!("one span") };
    assert_eq!(span.trace_id, [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4]);
    assert_eq!(span.span_id, [0, 0, 0, 0, 0, 0, 0, 0xab]);
    assert_eq!(span.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 0xcd]);
    assert_eq!((&*span.name, &*span.trace_state, span.kind), ("op", "a=b", 3));
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    assert_eq!((start, end - start), (1_700_000_000_000_001_000, 1_500_000));
    assert_eq!((span.status.as_ref().unwrap().code, span.flags), (2, 0x301));
    assert_eq!(text(&span.attributes), [("component".to_owned(), "proxy".to_owned())]);
}

#[test]
fn zipkin_s_form_has_all_of_a_span() {
    let call = told(&tracer(), &[finished("op")], &origin()).unwrap();
    assert_eq!(call.request.headers()["content-type"], "application/json");
    let spans: Value = serde_json::from_slice(call.request.body()).unwrap();
    let expected = json!([{
        "traceId": "00000000000001020000000000000304",
        "id": "00000000000000ab",
        "parentId": "00000000000000cd",
        "name": "op",
        "kind": "CLIENT",
        "timestamp": 1_700_000_000_000_001_u64,
        "duration": 1500,
        "localEndpoint": {"serviceName": "a.b", "ipv4": "10.0.0.1"},
        "tags": {"component": "proxy"},
    }]);
    assert_eq!(spans, expected);
}

#[test]
fn no_value_of_the_environment_is_in_a_debug_form() {
    let shown = format!("{:?}", origin());
    assert!(shown.contains("HOME") && !shown.contains("/root"), "{shown}");
}
