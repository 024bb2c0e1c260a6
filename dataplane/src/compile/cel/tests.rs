//! What is expected is what Envoy 1.40 logs or not by the same expressions
//! (`integration/tests/log_lines.rs` asks both for some of them).

use std::sync::Arc;

use super::*;
use crate::runtime::{
    cel::Attributes,
    metadata::{Fields, Value as Found},
};

/// A request to `/a/b?c=d` that was answered by 404 after 1.5 s.
struct Request {
    found: Fields,
}

impl Attributes for Request {
    fn attribute(&self, root: Root, name: &str) -> Option<Value> {
        let text = |text: &str| Some(Value::Text(text.into()));
        match (root, name) {
            (Root::Request, "path") => text("/a/b?c=d"),
            (Root::Request, "method") => text("GET"),
            (Root::Request, "duration") => Some(Value::Duration(1_500_000_000)),
            // 2026-03-04T05:06:07.089Z, a Wednesday.
            (Root::Request, "time") => Some(Value::Time(1_772_600_767_089_000_000)),
            (Root::Response, "code") => Some(Value::Int(404)),
            (Root::Connection, "mtls") => Some(Value::Bool(true)),
            _ => None,
        }
    }

    fn field(&self, part: Part, name: &str) -> Option<Arc<str>> {
        (part == Part::Request && name == "x-user").then(|| "anna".into())
    }

    fn found(&self, namespace: &str) -> Option<&Fields> {
        (namespace == "n").then_some(&self.found)
    }
}

fn check(text: &str, expected: bool) {
    let list = Found::List(vec![Found::Text("a".into()), Found::Number(2.0)]);
    let found = [("role".into(), Found::Text("admin".into())), ("list".into(), list)];
    let expression = compile(text).unwrap_or_else(|error| panic!("{text}: {}", error.reason));
    assert_eq!(expression.holds(&Request { found: found.into() }), expected, "{text}");
}

#[test]
fn expressions_hold() {
    for text in [
        "true",
        "response.code >= 400",
        "response.code >= 400 && response.code < 500u",
        "response.code == 404.0",
        "response.code != 200",
        "!(response.code == 200)",
        "request.path.startsWith('/a') && request.path.endsWith(\"d\")",
        "request.path.contains(r'b?') || false",
        "request.path.matches('^/[a-z]/b')",
        "matches(request.path, 'b.c')",
        "request.method in ['GET', 'HEAD']",
        "'role' in metadata.filter_metadata['n']",
        "metadata.filter_metadata['n'].role == 'admin'",
        "metadata.filter_metadata.n.list[0] == 'a' && metadata.filter_metadata.n.list[1] == 2",
        "request.headers['x-user'] == 'anna'",
        "request.headers['X-User'] == 'anna'",
        "'x-user' in request.headers && !('x-other' in request.headers)",
        "has(request.headers.foo) || connection.mtls",
        "has(response.code) && !has(request.host)",
        "request.duration > duration('1s') && request.duration <= duration('1.5s')",
        "request.duration.getMilliseconds() == 500",
        "request.time > timestamp('2026-03-04T05:06:07Z')",
        "request.time.getFullYear() == 2026 && request.time.getMonth() == 2",
        "request.time.getDayOfWeek() == 3 && request.time.getHours() == 5",
        "request.time - duration('7s') < timestamp('2026-03-04T05:06:00.1Z')",
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 7 % 4 - 1 == 2 && -7 / 2 == -3",
        "0x10 == 16 && 1e3 == 1000.0",
        "size('\u{e4}b') == 2 && size([1, 2]) == 2 && size({'a': 1}) == 1",
        "{'a': 1, 'b': 2}['b'] == 2",
        "int('12') + int(1.9) == 13 && double('1.5') == 1.5 && uint(3) == 3u && bool('true')",
        "response.code > 499 ? false : true",
        r"'a' + 'b' == 'ab' && '\x41\u00e4\101' == 'AäA'",
        "'''a\"b''' == \"a\\\"b\"",
        "null == null && !(request.path == null)",
        // What has no value is not needed.
        "request.host == 'x' || response.code == 404",
        "response.code == 404 || request.host == 'x'",
        "!(false && request.host == 'x') && !(request.host == 'x' && false)",
    ] {
        check(text, true);
    }
}

/// The value of a label; `-`: it has none.
fn check_label(text: &str, expected: &str) {
    let expression = label(text).unwrap_or_else(|error| panic!("{text}: {}", error.reason));
    let value = expression.text(&Request { found: Fields::default() });
    assert_eq!(value.as_deref().unwrap_or("-"), expected, "{text}");
}

#[test]
fn labels_say_what_expressions_give() {
    for (text, expected) in [
        ("request.path", "/a/b?c=d"),
        ("string(response.code)", "404"),
        (" string( response.code >= 500 ? 'bad' : 'good' ) ", "good"),
        ("response.code >= 400 || request.host == 'x'", "true"),
        ("request.method + ' ' + request.headers['X-User']", "GET anna"),
        ("'x-user' in request.headers ? request.headers['x-user'] : 'nobody'", "anna"),
        ("has(request.host) ? request.host : 'unknown'", "unknown"),
        ("request.headers.accept", "-"),
        ("request.method + response.code", "-"),
        ("!connection.mtls", "false"),
        ("size(request.headers['x-user']) + 1", "5"),
        ("1.5 * 2.0", "3"),
        ("request.time.getFullYear()", "2026"),
        ("metadata.filter_metadata['n']", "-"),
    ] {
        check_label(text, expected);
    }
}

#[test]
fn what_can_give_a_label_nothing_is_refused() {
    for text in [
        "request.headers",
        "request",
        "request.time",
        "request.duration",
        "metadata.filter_metadata",
        "['a']",
        "{'a': 1}",
        "null",
        "duration('1s')",
        "string(request.headers)",
    ] {
        let error = label(text).expect_err(text).reason;
        assert!(error.contains("gives no single value"), "{text}: {error}");
    }
    let error = label("'a' + string(response.code)").expect_err("it is inside").reason;
    assert!(error.contains("string() is not supported"), "{error}");
}

#[test]
fn who_asks_for_fields_of_the_request_is_known() {
    for (text, expected) in [
        ("request.url_path", false),
        ("response.headers['a'] == 'b'", false),
        ("has(request.host) ? request.host : 'x'", false),
        ("request.headers['a']", true),
        ("'a' in request.headers || false", true),
        ("size(request.headers.a) > 1", true),
        ("request.useragent.startsWith('a')", true),
        ("has(request.referer)", true),
        ("request.id.matches('a')", true),
        ("request['pa' + 'th']", true),
        ("{'a': request.headers.b}['a']", true),
    ] {
        assert_eq!(label(text).expect(text).asks_request_fields(), expected, "{text}");
    }
}

#[test]
fn what_is_no_truth_or_cannot_be_computed_does_not_hold() {
    for text in [
        "false",
        "response.code",
        "request.path",
        "request.host == 'x'",
        "!(request.host == 'x')",
        "request.host == 'x' && true",
        "request.host == 'x' || false",
        "request.headers['x-other'] != 'anna'",
        "metadata.filter_metadata['other'].a == 'b'",
        "response.code == '404'",
        "response.code / 0 == 1",
        "9223372036854775807 + 1 > 0",
        "timestamp('never') > request.time",
        "duration('1 s') < request.duration",
        "request.path < 1",
        "[1] < [2]",
    ] {
        check(text, false);
    }
}

#[test]
fn what_is_no_expression_or_not_known_is_refused_by_name() {
    for (text, expected) in [
        ("", "a value is missing"),
        ("1 +", "a value is missing"),
        ("request.path == '/a", "a text has no end"),
        ("(1", ") is missing"),
        ("1 2", "follows what is complete"),
        ("nothing == 1", "nothing is not known"),
        ("request.nothing", "nothing of Request is not known"),
        ("[1].map(x, x)", "x is not known"),
        ("size(1, 2)", "size() takes 1 values, not 2"),
        ("string(1) == '1'", "string() is not supported"),
        ("request.path.matches('(')", "regex parse error"),
        ("request.path.matches(request.host)", "that is written out"),
        ("99999999999999999999", "is no number"),
        (r"'\q'", "a backslash stands before what it cannot"),
        ("1 # 2", "'#' means nothing"),
    ] {
        let error = compile(text).expect_err(text).reason;
        assert!(error.contains(expected), "{text}: {error}");
    }
    let deep = format!("{}1{}", "(".repeat(40), ")".repeat(40));
    assert!(compile(&deep).expect_err("it is deep").reason.contains("more than 32 levels"));
    assert!(compile(&format!("{}true", "!".repeat(40))).is_err());
}
