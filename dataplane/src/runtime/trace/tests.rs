//! What is expected was seen at Envoy 1.40 with the same headers.

use std::time::Duration;

use http::Uri;

use super::*;
use crate::runtime::collector::HttpCollector;

const PLAIN: &str = "0000270e-0000-4000-8000-000000000000";

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), value.parse().unwrap())
    };
    fields.iter().map(pair).collect()
}

fn tracing(asked: u32, random: u32, overall: u32) -> Tracing {
    Tracing {
        sampling: Sampling { asked, random, overall },
        ids: RequestIds { decide: true, are_marked: true },
        longest_path: 256,
        tags: vec![],
        tracer: None,
        is_silent: false,
    }
}

/// Whether a request with this id is traced, and its id then.
fn decided(tracing: &Tracing, id: &str, more: &[(&'static str, &str)]) -> (bool, String) {
    let mut headers = map(&[("x-request-id", id)]);
    headers.extend(map(more));
    let traced = tracing.decide(&mut headers, || 49);
    (traced, headers["x-request-id"].to_str().unwrap().to_owned())
}

#[test]
fn ids_decide_and_tell_the_proxies_behind() {
    let marked = |digit: char| format!("0000270e-0000-{digit}000-8000-000000000000");
    let asks = [("x-client-trace-id", "me")];
    // The number of the id is 9998.
    for (name, sampling, id, more, expected) in [
        ("all are", (100, 10_000, 100), marked('4'), &[][..], (true, '9')),
        ("just in the share", (100, 9_999, 100), marked('4'), &[], (true, '9')),
        ("just not in it", (100, 9_998, 100), marked('4'), &[], (false, '4')),
        ("none is", (100, 0, 100), marked('4'), &[], (false, '4')),
        ("one before has decided", (100, 0, 100), marked('9'), &[], (true, '9')),
        ("one was forced to", (100, 0, 100), marked('a'), &[], (true, 'a')),
        ("too many were chosen", (100, 10_000, 98), marked('9'), &[], (false, '4')),
        ("just not too many", (100, 10_000, 99), marked('4'), &[], (true, '9')),
        ("it asks for it", (50, 0, 100), marked('4'), &asks, (true, 'b')),
        ("it asks in vain", (49, 0, 100), marked('4'), &asks, (false, '4')),
    ] {
        let (asked, random, overall) = sampling;
        let decided = decided(&tracing(asked, random, overall), &id, more);
        assert_eq!(decided, (expected.0, marked(expected.1)), "{name}");
    }
}

#[test]
fn what_has_no_such_id_is_not_traced() {
    let all = tracing(100, 10_000, 100);
    assert!(!all.decide(&mut HeaderMap::new(), || 0));
    for id in ["", "aaaa", "zzzzzzzz-0000-4000-8000-000000000000"] {
        assert_eq!(decided(&all, id, &[]), (false, id.to_owned()));
    }
    // Where it begins with a number that is enough, but there is no place for a mark.
    assert_eq!(decided(&all, "00000000", &[]), (true, "00000000".to_owned()));
}

#[test]
fn ids_need_not_be_marked_nor_decide() {
    let mut own = tracing(100, 10_000, 100);
    own.ids.are_marked = false;
    assert_eq!(decided(&own, PLAIN, &[]), (true, PLAIN.to_owned()));
    own.ids.decide = false;
    own.sampling = Sampling { asked: 0, random: 0, overall: 0 };
    assert!(own.decide(&mut HeaderMap::new(), || 0));
    let mut headers = map(&[("x-request-id", "0000270e-0000-9000-8000-000000000000")]);
    unmark(&mut headers);
    assert_eq!(headers["x-request-id"], PLAIN);
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn otlp() -> Tracer {
    let resource = Resource { attributes: vec![], from_environment: false, names_program: true };
    tracer(TraceForm::OpenTelemetry(resource))
}

fn zipkin(shares_spans: bool) -> Tracer {
    tracer(TraceForm::Zipkin(Zipkin { wide_ids: true, w3c: true, shares_spans }))
}

fn tracer(form: TraceForm) -> Tracer {
    let (uri, timeout) = (Uri::from_static("http://c.test/t"), Duration::from_secs(1));
    let (cluster, headers) = ("c".into(), HeaderMap::new());
    let collector = Collector::Http(HttpCollector { cluster, uri, headers, timeout });
    Tracer { form, collector }
}

/// What goes on, with ids 1, 2, 3 for what is new; empty: nothing of ours.
fn told(tracer: &Tracer, traced: bool, fields: &[(&'static str, &str)]) -> Vec<String> {
    let mut headers = map(fields);
    let mut last = 0;
    let next = || {
        last += 1;
        last
    };
    let Some(context) = tracer.begin(&headers, CallSide::Server, traced, next) else {
        return vec![];
    };
    tracer.tell(&context, &mut headers);
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

#[test]
fn w3c_contexts_go_on() {
    let parent = |flags: &str| format!("00-{TRACE}-{SPAN}-{flags}");
    let new = |flag: u8| {
        vec![format!("traceparent: 00-00000000000000010000000000000002-0000000000000003-0{flag}")]
    };
    assert_eq!(told(&otlp(), true, &[]), new(1));
    assert_eq!(told(&otlp(), false, &[]), new(0));
    // Caller and mesh must both want it.
    for (traced, flags, expected) in
        [(true, "01", 1), (true, "00", 0), (false, "01", 0), (true, "03", 1)]
    {
        let told = told(&otlp(), traced, &[("traceparent", &parent(flags))]);
        let own = format!("traceparent: 00-{TRACE}-0000000000000001-0{expected}");
        assert_eq!(told, [own], "{traced} {flags}");
    }
    let zero = "0".repeat(32);
    for broken in [
        "junk".to_owned(),
        format!("00-{zero}-{SPAN}-01"),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{TRACE}-{SPAN}_01"),
        format!("00-{TRACE}-{SPAN}-0x"),
        format!("00-{TRACE}-{SPAN}-01-"),
    ] {
        assert!(told(&otlp(), true, &[("traceparent", &broken)]).is_empty(), "{broken}");
    }
}

#[test]
fn b3_contexts_go_on() {
    let several = |span: &str, parent: Option<&str>, flag: u8, trace: &str| {
        let mut lines = vec![
            format!("traceparent: 00-{trace}-{span}-0{flag}"),
            format!("x-b3-sampled: {flag}"),
            format!("x-b3-spanid: {span}"),
            format!("x-b3-traceid: {trace}"),
        ];
        lines.extend(parent.map(|parent| format!("x-b3-parentspanid: {parent}")));
        lines.sort();
        lines
    };
    let first = "00000000000000010000000000000002";
    let (one, two) = ("0000000000000001", "0000000000000002");
    let zipkin = zipkin(false);
    assert_eq!(told(&zipkin, true, &[]), several(two, None, 1, first));
    assert_eq!(told(&zipkin, true, &[("x-b3-sampled", "0")]), several(two, None, 0, first));
    let caller = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
    assert_eq!(told(&zipkin, true, &caller), several(one, Some(SPAN), 1, TRACE));
    let wants = [caller[0], caller[1], ("x-b3-sampled", "1"), ("x-b3-parentspanid", two)];
    assert_eq!(told(&zipkin, false, &wants), several(one, Some(SPAN), 1, TRACE));
    let w3c = format!("00-{TRACE}-{SPAN}-01");
    assert_eq!(told(&zipkin, false, &[("traceparent", &w3c)]), several(one, Some(SPAN), 1, TRACE));
    assert!(told(&zipkin, true, &[("x-b3-traceid", "zzz"), ("x-b3-spanid", SPAN)]).is_empty());
}

#[test]
fn b3_in_one_header_stays_in_one() {
    let trace = [("b3", format!("{TRACE}-{SPAN}-1-{SPAN}")), ("b3", format!("{TRACE}-{SPAN}-d"))];
    for (name, value) in trace {
        let expected = [
            format!("b3: {TRACE}-0000000000000001-1-{SPAN}"),
            format!("traceparent: 00-{TRACE}-0000000000000001-01"),
        ];
        assert_eq!(told(&zipkin(false), false, &[(name, &value)]), expected);
    }
    let lines = told(&zipkin(false), true, &[("b3", "0")]);
    assert!(lines.contains(&"x-b3-sampled: 0".to_owned()), "{lines:?}");
    for broken in ["x-1", &format!("{TRACE}-{SPAN}-7"), &format!("{TRACE}-{SPAN}-1-{SPAN}-1")] {
        assert!(told(&zipkin(false), true, &[("b3", broken)]).is_empty(), "{broken}");
    }
}

#[test]
fn a_span_is_shared_by_the_callee_alone() {
    let headers = map(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)]);
    let begin = |side| zipkin(true).begin(&headers, side, true, || 1).unwrap();
    let server = begin(CallSide::Server);
    assert_eq!((format!("{:016x}", server.span), server.shared), (SPAN.to_owned(), true));
    let client = begin(CallSide::Client);
    assert_eq!((client.span, client.shared), (1, false));
}
