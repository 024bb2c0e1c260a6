//! Rules of Ferromesh's own kinds.

use std::{collections::BTreeSet, time::Duration};

use super::rate_limit::{Alike, Answer, Global, Local, Part, PartSource, RateLimit};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{each, is_known_status},
    },
};

/// Proxies count in no shorter times.
const SHORTEST: Duration = Duration::from_millis(50);
/// An Envoy adds no more headers.
const MOST_HEADERS: usize = 10;

pub(super) fn check(limit: &RateLimit, at: &mut Decoder) {
    if limit.selector.is_some() && !limit.gateway.is_empty() {
        at.invalid("`selector` and `gateway` exclude each other", None);
    }
    if limit.port == Some(0) {
        at.within("port", |at| at.invalid("not the number of a port", None));
    }
    match (&limit.local, &limit.global) {
        (Some(local), None) => at.within("local", |at| check_local(local, at)),
        (None, Some(global)) => at.within("global", |at| check_global(global, at)),
        _ => at.invalid("exactly one of `local` and `global`", None),
    }
    if let Some(answer) = &limit.answer {
        at.within("answer", |at| check_answer(answer, at));
    }
}

fn check_local(local: &Local, at: &mut Decoder) {
    check_rate((local.requests, local.interval), at);
    let mut known = BTreeSet::new();
    each("alike", &local.alike, at, |alike, at| {
        check_rate((alike.requests, alike.interval), at);
        check_parts(&alike.by, Who::Proxy, at);
        if !known.insert(common(alike)) {
            let message = "another entry has the same parts and values";
            at.within("by", |at| at.invalid(message, None));
        }
    });
}

/// What requests of an entry have in common.
fn common(alike: &Alike) -> Vec<(PartSource, String, Option<String>)> {
    let part = |part: &Part| {
        let value = part.value.as_ref().map(|value| value.to_string());
        (part.source, part.name.to_ascii_lowercase(), value)
    };
    alike.by.iter().map(part).collect()
}

fn check_rate((requests, interval): (u32, Duration), at: &mut Decoder) {
    // A missing number is noted already.
    if requests == 0 {
        at.within("requests", |at| {
            let finding = Diagnostic::error(Code::InvalidValue, at.path(), "lets nobody pass");
            at.note(finding.expected("at least 1", "0"));
        });
    }
    if interval < SHORTEST {
        at.within("interval", |at| {
            let finding = Diagnostic::error(Code::InvalidValue, at.path(), "too short");
            at.note(finding.expected("at least `50ms`", format!("{interval:?}")));
        });
    }
}

fn check_global(global: &Global, at: &mut Decoder) {
    if global.port == 0 {
        at.within("port", |at| at.invalid("not the number of a port", None));
    }
    if global.timeout == Some(Duration::ZERO) {
        at.within("timeout", |at| at.invalid("nobody answers in no time", None));
    }
    each("descriptors", &global.descriptors, at, |descriptor, at| {
        check_parts(&descriptor.by, Who::Service, at);
    });
}

/// Who counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Proxy,
    Service,
}

fn check_parts(parts: &[Part], who: Who, at: &mut Decoder) {
    each("by", parts, at, |part, at| check_part(part, who, at));
}

fn check_part(part: &Part, who: Who, at: &mut Decoder) {
    let named =
        matches!(part.source, PartSource::Header | PartSource::Constant | PartSource::Claim);
    match (named, part.name.is_empty()) {
        (true, true) => at.missing("name", None),
        (false, false) => at.within("name", |at| {
            at.invalid(format!("{} has no name", part.source.as_str()), None);
        }),
        _ => {}
    }
    let is_header = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if part.source == PartSource::Header && !part.name.chars().all(is_header) {
        at.within("name", |at| at.invalid("not the name of a header", None));
    }
    if part.source == PartSource::Claim && part.name.split('.').any(str::is_empty) {
        at.within("name", |at| at.invalid("not the name of a claim", None));
    }
    if part.value.as_ref().is_some_and(|value| value.is_empty()) {
        at.within("value", |at| at.invalid("an empty value is none", None));
    }
    match (part.source, who, &part.value) {
        (PartSource::Constant, Who::Proxy, _) => {
            let message = "all requests have a constant: `requests` of the limit counts them";
            at.within("source", |at| at.invalid(message, None));
        }
        (PartSource::Constant, Who::Service, None) => at.missing("value", None),
        (PartSource::Constant, ..) => {}
        (_, Who::Service, Some(_)) => {
            let message = "the service says how many of a value are taken";
            at.within("value", |at| at.invalid(message, Some("remove it".to_owned())));
        }
        (_, Who::Proxy, None) => at.remark(|path| {
            let message = "Ferromesh's own proxy refuses a limit of every value by itself and \
                           closes what it guards; Envoys count the values that came last";
            Diagnostic::warning(Code::NotActedOn, path, message).fix("a `value`")
        }),
        _ => {}
    }
}

fn check_answer(answer: &Answer, at: &mut Decoder) {
    let of_error = |status: u16| (400..600).contains(&status) && is_known_status(status);
    if let Some(status) = answer.status.filter(|status| !of_error(*status)) {
        at.within("status", |at| {
            let message = "not the status of an error that proxies answer with";
            let finding = Diagnostic::error(Code::InvalidValue, at.path(), message);
            at.note(finding.expected("one of 400 to 599 that has a name", status.to_string()));
        });
    }
    at.within("headers", |at| {
        if answer.headers.len() > MOST_HEADERS {
            at.invalid(format!("more than {MOST_HEADERS} headers"), None);
        }
        for (name, value) in &answer.headers {
            at.within_key(name, |at| {
                let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                if name.is_empty() || !name.chars().all(is_name) {
                    at.invalid("not the name of a header", None);
                }
                if value.chars().any(|c| c.is_control() || c == '%') {
                    let message =
                        "a value without control characters and `%`, which proxies replace";
                    at.invalid(message, None);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use crate::{
        diagnostic::Severity,
        dialect::{Parsed, parse_file},
    };

    fn parse(spec: &str) -> Parsed {
        let text = format!(
            "apiVersion: policy.ferromesh.io/v1alpha1\nkind: RateLimit\n\
             metadata: {{name: a, namespace: shop}}\nspec: {{{spec}}}\n"
        );
        parse_file("a.yaml", text.as_bytes())
    }

    #[test]
    fn what_limits_nothing_sensible_is_refused_where_it_stands() {
        let local = |more: &str| format!("local: {{requests: 5, interval: 1s{more}}}");
        let alike =
            |by: &str| local(&format!(", alike: [{{by: {by}, requests: 1, interval: 1s}}]"));
        let global = |more: &str| {
            let usual = "service: limiter, port: 8081, domain: d";
            format!("global: {{{usual}, {more}}}")
        };
        let told = |by: &str| global(&format!("descriptors: [{{by: {by}}}]"));
        let header = "[{source: HEADER, name: x-user}]";
        let free = "[{source: HEADER, name: x-plan, value: free}]";
        let answered = |answer: &str| format!("{}, answer: {answer}", local(""));
        let table = [
            ("spec", String::new(), local("")),
            ("spec", format!("{}, {}", local(""), told(header)), told(header)),
            (
                "spec",
                format!("selector: {{matchLabels: {{a: b}}}}, gateway: g, {}", local("")),
                format!("gateway: g, port: 80, {}", local("")),
            ),
            ("spec.port", format!("port: 0, {}", local("")), format!("port: 1, {}", local(""))),
            ("spec.local.requests", "local: {requests: 0, interval: 1s}".into(), local("")),
            ("spec.local.interval", "local: {requests: 1, interval: 1ms}".into(), local("")),
            ("spec.local.alike[0].by", alike("[]"), alike(free)),
            ("spec.local.alike[0].by[0].name", alike("[{source: HEADER}]"), alike(free)),
            ("spec.local.alike[0].by[0].name", alike("[{source: PATH, name: a}]"), alike(header)),
            (
                "spec.local.alike[0].by[0].name",
                alike("[{source: HEADER, name: 'a b'}]"),
                alike("[{source: REMOTE_ADDRESS}]"),
            ),
            (
                "spec.local.alike[0].by[0].name",
                alike("[{source: CLAIM, name: a..b, value: c}]"),
                alike("[{source: CLAIM, name: a.b, value: c}]"),
            ),
            (
                "spec.local.alike[0].by[0].source",
                alike("[{source: CONSTANT, name: a, value: b}]"),
                alike(free),
            ),
            (
                "spec.local.alike[1].by",
                local(&format!(
                    ", alike: [{{by: {free}, requests: 1, interval: 1s}}, \
                     {{by: [{{source: HEADER, name: X-Plan, value: free}}], requests: 2, interval: 1s}}]"
                )),
                local(&format!(
                    ", alike: [{{by: {free}, requests: 1, interval: 1s}}, \
                     {{by: {header}, requests: 2, interval: 1s}}]"
                )),
            ),
            ("spec.global.descriptors", global("descriptors: []"), told(header)),
            (
                "spec.global.descriptors[0].by[0].value",
                told("[{source: CONSTANT, name: a}]"),
                told("[{source: CONSTANT, name: a, value: b}]"),
            ),
            ("spec.global.descriptors[0].by[0].value", told(free), told(header)),
            (
                "spec.global.timeout",
                global(&format!("timeout: 0s, descriptors: [{{by: {header}}}]")),
                global(&format!("timeout: 1s, descriptors: [{{by: {header}}}]")),
            ),
            ("spec.answer.status", answered("{status: 200}"), answered("{status: 503}")),
            (
                "spec.answer.headers[\"a b\"]",
                answered("{headers: {'a b': c}}"),
                answered("{headers: {a-b: c}}"),
            ),
            (
                "spec.answer.headers.a",
                answered("{headers: {a: '%REQ(b)%'}}"),
                answered("{headers: {a: b}}"),
            ),
        ];
        for (field, refused, taken) in table {
            let parsed = parse(&refused);
            let errors = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error);
            let fields: Vec<String> = errors.map(|d| d.field.to_string()).collect();
            assert_eq!(fields, [field], "{refused}");
            assert!(parsed.objects.is_empty(), "{refused}");
            let parsed = parse(&taken);
            assert_eq!(parsed.objects.len(), 1, "{taken}: {:#?}", parsed.diagnostics);
        }
    }
}
