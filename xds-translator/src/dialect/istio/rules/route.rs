//! Rules of VirtualServices.

use super::{
    action::{check_cors, check_fault, check_redirect, check_rewrite},
    condition::{check_gateways, check_hosts, check_request, check_tcp, check_tls},
    format::check_header_value,
    line::{is_header_name, is_plain_header_name},
    share::{check_share, remark_deprecated},
    time::{check_duration, check_optional_duration},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{Audience, HostForm, check_export_to, check_host, check_range, each, is_label},
        istio::{
            attribute::{is_routed_claim, routed_claim},
            retry_words::{RETRY_CONDITIONS, retry_condition},
            shared::StringMatch,
            virtual_service::{
                Delegate, Destination, HeaderOperations, Headers, HttpDirectResponse, HttpMatch,
                HttpRetry, HttpRoute, RouteDestination, VirtualService,
            },
        },
    },
};

pub(in crate::dialect::istio) fn check(rules: &VirtualService, at: &mut Decoder) {
    if rules.hosts.is_empty() {
        check_part(rules, at);
    }
    check_hosts(rules, at);
    if rules.http.is_empty() && rules.tls.is_empty() && rules.tcp.is_empty() {
        let fix = Some("a rule, or delete the object".to_owned());
        at.invalid("no rules: one of `http`, `tls`, `tcp` must be given", fix);
    }
    check_export_to(&rules.export_to, Audience::Somebody, at);
    check_gateways(&rules.gateways, at);
    each("http", &rules.http, at, |rule, at| {
        check_http(rule, at);
        // Of a part, 0 takes back what the rule says that leads there.
        match rules.hosts.is_empty() {
            true => check_optional_duration("timeout", rule.timeout, at),
            false => check_duration("timeout", rule.timeout, at),
        }
    });
    check_claims(rules, at);
    each("tls", &rules.tls, at, |rule, at| {
        each("match", &rule.matches, at, |m, at| check_tls(rules, m, at));
        check_destinations(&rule.route, at);
    });
    each("tcp", &rules.tcp, at, |rule, at| {
        each("match", &rule.matches, at, check_tcp);
        check_destinations(&rule.route, at);
    });
}

/// Without hosts it is a part: rules to which others delegate. Those say for whom and where.
fn check_part(rules: &VirtualService, at: &mut Decoder) {
    const PART: &str = "without `hosts` it holds only where other VirtualServices delegate to it";
    let fields = [
        ("gateways", !rules.gateways.is_empty()),
        ("tls", !rules.tls.is_empty()),
        ("tcp", !rules.tcp.is_empty()),
    ];
    for (field, _) in fields.into_iter().filter(|(_, given)| *given) {
        let message = format!("{PART}, which is for `http` alone");
        let fix = format!("`hosts`, or no `{field}`");
        at.within(field, |at| at.invalid(message, Some(fix)));
    }
    each("http", &rules.http, at, |rule, at| {
        if rule.delegate.is_some() {
            let message = format!("{PART}, and there is one level of that");
            let fix = "the rules themselves, or `hosts`".to_owned();
            at.within("delegate", |at| at.invalid(message, Some(fix)));
        }
    });
}

fn check_http(rule: &HttpRoute, at: &mut Decoder) {
    let actions = [
        rule.redirect.is_some(),
        rule.direct_response.is_some(),
        rule.delegate.is_some(),
        !rule.route.is_empty(),
    ];
    match actions.iter().filter(|given| **given).count() {
        0 => at.invalid("no action: one of `route`, `redirect`, `directResponse`, `delegate` must be given", None),
        1 => {}
        _ => at.invalid(
            "several actions: only one of `route`, `redirect`, `directResponse`, `delegate` may be given",
            None,
        ),
    }
    if rule.route.is_empty()
        && (rule.mirror.is_some() || !rule.mirrors.is_empty() || rule.rewrite.is_some())
        && rule.delegate.is_none()
    {
        at.invalid("`mirror` and `rewrite` need a `route`", None);
    }
    if rule.mirror.is_some() && !rule.mirrors.is_empty() {
        at.invalid("only one of `mirror`, `mirrors` may be given", None);
    }
    each("match", &rule.matches, at, check_match);
    let weights: Vec<Option<i32>> = rule.route.iter().map(|r| r.weight).collect();
    check_weights(&weights, at);
    each("route", &rule.route, at, |r, at| {
        at.within("destination", |at| check_destination(&r.destination, at));
        check_headers(r.headers.as_ref(), at);
    });
    check_headers(rule.headers.as_ref(), at);
    if let Some(mirror) = &rule.mirror {
        at.within("mirror", |at| check_destination(mirror, at));
    }
    each("mirrors", &rule.mirrors, at, |m, at| {
        at.within("destination", |at| check_destination(&m.destination, at));
        check_share("percentage", m.percentage.as_ref(), at);
    });
    check_share("mirrorPercentage", rule.mirror_percentage.as_ref(), at);
    for (field, percent) in
        [("mirrorPercent", rule.mirror_percent), ("mirror_percent", rule.mirror_percent_legacy)]
    {
        if let Some(percent) = percent {
            check_range(field, i64::from(percent), 0..=100, at);
            at.within(field, |at| remark_deprecated("`mirrorPercentage: {value: …}`", at));
        }
    }
    check_actions(rule, at);
}

fn check_actions(rule: &HttpRoute, at: &mut Decoder) {
    if let Some(delegate) = &rule.delegate {
        at.within("delegate", |at| check_delegate(delegate, at));
    }
    if let Some(redirect) = &rule.redirect {
        at.within("redirect", |at| check_redirect(redirect, at));
    }
    if let Some(direct) = &rule.direct_response {
        at.within("directResponse", |at| check_direct(direct, at));
    }
    if let Some(rewrite) = &rule.rewrite {
        at.within("rewrite", |at| check_rewrite(rewrite, at));
    }
    if let Some(retries) = &rule.retries {
        at.within("retries", |at| check_retry(retries, rule, at));
    }
    if let Some(fault) = &rule.fault {
        at.within("fault", |at| check_fault(fault, at));
    }
    if let Some(cors) = &rule.cors_policy {
        at.within("corsPolicy", |at| check_cors(cors, at));
    }
    check_beside(rule, at);
}

fn check_delegate(delegate: &Delegate, at: &mut Decoder) {
    if delegate.name.is_empty() {
        at.missing("name", Some("the name of a VirtualService without `hosts`".to_owned()));
    }
}

/// Notes what does not go together in one rule.
fn check_beside(rule: &HttpRoute, at: &mut Decoder) {
    if rule.route.is_empty() && rule.fault.is_some() && rule.delegate.is_none() {
        let fix = Some("a rule with `route` for it".to_owned());
        at.within("fault", |at| at.invalid("faults are injected where requests are sent on", fix));
    }
    let prefixed = rule.redirect.as_ref().is_some_and(|r| !r.prefix_rewrite.is_empty());
    let other = |m: &HttpMatch| !matches!(m.uri, None | Some(StringMatch::Prefix(_)));
    if prefixed && rule.matches.iter().any(other) {
        at.within("redirect", |at| {
            at.within("prefixRewrite", |at| {
                at.invalid(
                    "every `match` with a `uri` must give its `prefix`, which is replaced",
                    None,
                )
            });
        });
    }
    check_authorities(rule, at);
}

/// Notes a second new authority of a request.
fn check_authorities(rule: &HttpRoute, at: &mut Decoder) {
    let changes = rule.headers.as_ref().and_then(|headers| headers.request.as_ref());
    let Some(changes) = changes else { return };
    let rewritten = rule.rewrite.as_ref().is_some_and(|r| !r.authority.is_empty());
    let mut given = usize::from(rewritten);
    let mut first = if rewritten { "`rewrite.authority`" } else { "another of these headers" };
    for name in changes.set.keys().chain(changes.add.keys()).filter(|name| is_authority(name)) {
        given += 1;
        if given > 1 {
            at.within("headers", |at| {
                at.within("request", |at| {
                    let message = format!("`{name}` is given by {first} already");
                    at.invalid(message, Some("give it once".to_owned()));
                });
            });
        }
        first = if rewritten { first } else { "another of these headers" };
    }
}

/// Whether a header is another name of the authority.
fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

fn check_headers(headers: Option<&Headers>, at: &mut Decoder) {
    let Some(headers) = headers else { return };
    at.within("headers", |at| {
        for (field, changes, request) in
            [("request", &headers.request, true), ("response", &headers.response, false)]
        {
            if let Some(changes) = changes {
                at.within(field, |at| check_changes(changes, request, at));
            }
        }
    });
}

/// Only the authority of a request may be changed among the names that begin with a colon.
fn check_changes(changes: &HeaderOperations, request: bool, at: &mut Decoder) {
    for (field, values) in [("set", &changes.set), ("add", &changes.add)] {
        at.within(field, |at| {
            for (name, value) in values {
                let authority = request && field == "set" && is_authority(name);
                at.within_key(name, |at| {
                    if !authority {
                        check_header_name(name, at);
                    }
                    check_header_value(value, at);
                });
            }
        });
    }
    each("remove", &changes.remove, at, |name, at| check_header_name(name, at));
}

fn check_header_name(name: &str, at: &mut Decoder) {
    if name.starts_with(':') || is_authority(name) {
        let fix = Some("`rewrite` changes path and authority".to_owned());
        at.invalid(format!("`{name}` cannot be changed as a header"), fix);
    } else if !is_header_name(name) {
        at.invalid(format!("`{name}` is not a header name"), None);
    }
}

fn check_match(m: &HttpMatch, at: &mut Decoder) {
    check_request(m, at);
    at.within("queryParams", |at| {
        if m.query_params.contains_key("") {
            at.invalid("a parameter needs a name", None);
        }
    });
    if m.ignore_uri_case && matches!(m.uri, Some(StringMatch::Regex(_))) {
        let message = "a regex is compared as it is";
        at.within("ignoreUriCase", |at| {
            at.remark(|path| {
                Diagnostic::warning(Code::NoEffect, path, message)
                    .fix("begin the regex with `(?i)`")
            })
        });
    }
    if m.port == Some(0) {
        check_range("port", 0, 1..=65535, at);
    }
    for (field, names) in [("headers", &m.headers), ("withoutHeaders", &m.without_headers)] {
        at.within(field, |at| {
            let plain = |n: &str| is_routed_claim(n) || is_plain_header_name(n);
            for name in names.keys().filter(|n| !plain(n)) {
                at.within_key(name, |at| {
                    at.invalid(
                        format!("`{name}` is not the name of a header"),
                        pseudo_header(name).map(|field| format!("the condition `{field}`")),
                    )
                });
            }
        });
    }
}

/// Claims of tokens are known where tokens are checked before a route is chosen: at gateways.
/// Elsewhere such a condition would never hold, and in `withoutHeaders` it always would.
fn check_claims(rules: &VirtualService, at: &mut Decoder) {
    // Without gateways: in the mesh. A part of other rules does not say where they are, and what is
    // refused there is refused here.
    let everywhere = |m: &HttpMatch| match (&m.gateways[..], &rules.gateways[..]) {
        ([], []) => true,
        ([], gateways) | (gateways, _) => gateways.iter().any(|name| &**name == "mesh"),
    };
    let in_match = |m: &HttpMatch, at: &mut Decoder| {
        let mesh = everywhere(m);
        for (field, names) in [("headers", &m.headers), ("withoutHeaders", &m.without_headers)] {
            let claims = names.keys().filter(|name| is_routed_claim(name));
            at.within(field, |at| {
                for name in claims {
                    at.within_key(name, |at| check_claim(name, mesh, at));
                }
            });
        }
    };
    each("http", &rules.http, at, |rule, at| each("match", &rule.matches, at, in_match));
}

fn check_claim(name: &str, mesh: bool, at: &mut Decoder) {
    if routed_claim(name).is_none() {
        let fix = Some("`@request.auth.claims[NAME]`".to_owned());
        at.invalid(format!("`{name}` does not name a claim"), fix);
    } else if mesh {
        let fix = Some("`gateways` with a gateway, and without `mesh`".to_owned());
        at.invalid("claims of tokens are known at gateways alone, not in the mesh", fix);
    }
}

/// The field that has a condition on a pseudo header (RFC 9113 section 8.3.1).
fn pseudo_header(name: &str) -> Option<&'static str> {
    match name {
        ":path" => Some("uri"),
        ":method" => Some("method"),
        ":authority" => Some("authority"),
        ":scheme" => Some("scheme"),
        _ => None,
    }
}

/// A wildcard is the name of a service that has it, and stands for no other.
pub(super) fn check_destination(destination: &Destination, at: &mut Decoder) {
    match &*destination.host {
        // Noted already.
        "" => {}
        "*" => at.within("host", |at| at.invalid("`*` is no destination", None)),
        host => at.within("host", |at| check_host(host, HostForm::Wildcard, at)),
    }
    if !destination.subset.is_empty() && !is_label(&destination.subset) {
        let message = format!("`{}` is not the name of a subset", destination.subset);
        at.within("subset", |at| at.invalid(message, None));
    }
    if destination.port.as_ref().is_some_and(|p| p.number == 0) {
        at.within("port", |at| check_range("number", 0, 1..=65535, at));
    }
}

fn check_destinations(route: &[RouteDestination], at: &mut Decoder) {
    let weights: Vec<Option<i32>> = route.iter().map(|r| r.weight).collect();
    check_weights(&weights, at);
    each("route", route, at, |r, at| {
        at.within("destination", |at| check_destination(&r.destination, at))
    });
}

fn check_weights(weights: &[Option<i32>], at: &mut Decoder) {
    for (index, weight) in weights.iter().enumerate() {
        if let Some(weight) = weight.filter(|w| *w < 0) {
            at.within("route", |at| {
                at.within_index(index, |at| {
                    check_range("weight", i64::from(weight), 0..=i64::from(i32::MAX), at)
                })
            });
        }
    }
    let sum: i64 = weights.iter().flatten().map(|w| i64::from(*w)).sum();
    if sum > i64::from(u32::MAX) {
        at.within("route", |at| {
            at.invalid(format!("the weights add up to {sum}, more than {}", u32::MAX), None)
        });
    }
    if weights.len() > 1 && sum == 0 {
        at.within("route", |at| {
            at.invalid(
                "the weights add up to 0",
                Some("give each destination a `weight`".to_owned()),
            )
        });
    }
}

fn check_direct(direct: &HttpDirectResponse, at: &mut Decoder) {
    // A missing status is noted already.
    if direct.status != 0 {
        check_range("status", i64::from(direct.status), 200..=599, at);
    }
    /// What a proxy keeps in memory for an answer.
    const LARGEST: usize = 1 << 20;
    let Some(body) = &direct.body else { return };
    if body.string.is_some() && body.bytes.is_some() {
        at.within("body", |at| at.invalid("only one of `string`, `bytes` may be given", None));
    }
    let length =
        body.string.as_ref().map_or(0, |s| s.len()).max(body.bytes.as_ref().map_or(0, |b| b.len()));
    if length > LARGEST {
        at.within("body", |at| {
            at.invalid(format!("{length} bytes; at most {LARGEST} can be answered"), None)
        });
    }
}

/// Notes attempts and conditions that nobody knows, wherever retries are written.
pub(super) fn check_retries(retries: &HttpRetry, at: &mut Decoder) {
    if let Some(attempts) = retries.attempts.filter(|a| *a < 0) {
        check_range("attempts", i64::from(attempts), 0..=i64::from(i32::MAX), at);
    }
    let refined = retries.per_try_timeout.is_some()
        || !retries.retry_on.is_empty()
        || retries.retry_remote_localities.is_some();
    if refined && retries.attempts.unwrap_or_default() == 0 {
        let path = at.path().field("attempts");
        let message = "without attempts nothing is retried, and the rest does nothing";
        let got = retries.attempts.map_or("none".to_owned(), |attempts| attempts.to_string());
        let finding = Diagnostic::error(Code::InvalidValue, path, message);
        at.note(finding.expected("at least 1 beside other fields", got).fix("`attempts: 2`"));
    }
    check_duration("perTryTimeout", retries.per_try_timeout, at);
    check_duration("backoff", retries.backoff, at);
    at.within("retryOn", |at| {
        for condition in conditions(retries) {
            let status = condition.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
            if !status && retry_condition(condition).is_none() {
                let near = crate::dialect::suggest::nearest(
                    condition,
                    RETRY_CONDITIONS.iter().map(|(w, _)| *w),
                );
                at.invalid(
                    format!("`{condition}` is neither a retry condition nor a status code"),
                    near.map(|n| format!("`{n}`")),
                );
            }
        }
    });
}

fn conditions(retries: &HttpRetry) -> impl Iterator<Item = &str> {
    retries.retry_on.split(',').map(str::trim).filter(|c| !c.is_empty())
}

fn check_retry(retries: &HttpRetry, rule: &HttpRoute, at: &mut Decoder) {
    check_retries(retries, at);
    if conditions(retries).any(|c| c == "retriable-4xx") && !limited_to_safe_methods(rule) {
        let message = "POST is retried too; `retriable-4xx` is 409 only";
        at.within("retryOn", |at| at.remark(|path| Diagnostic::info(Code::Retries, path, message)));
    }
}

/// Whether every match of the rule asks for a method that may be repeated.
fn limited_to_safe_methods(rule: &HttpRoute) -> bool {
    use crate::dialect::istio::shared::StringMatch;
    let safe = |m: &HttpMatch| matches!(&m.method, Some(StringMatch::Exact(method)) if matches!(&**method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"));
    !rule.matches.is_empty() && rule.matches.iter().all(safe)
}
