//! Rules of VirtualServices.

use std::sync::Arc;

use super::{
    check_percent, check_range, each,
    text::{HostForm, check_export_to, check_host, check_network},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        istio::{
            shared::Percent,
            virtual_service::{
                CorsPolicy, Destination, HttpDirectResponse, HttpFault, HttpMatch, HttpRedirect, HttpRetry, HttpRoute,
                RouteDestination, VirtualService,
            },
        },
    },
};

pub(super) fn check(rules: &VirtualService, at: &mut Decoder) {
    if rules.hosts.is_empty() && !rules.http.iter().any(|r| r.delegate.is_some()) {
        at.missing("hosts", Some("name at least one host".to_owned()));
    }
    each("hosts", &rules.hosts, at, |host, at| check_host(host, HostForm::Wildcard, at));
    if rules.http.is_empty() && rules.tls.is_empty() && rules.tcp.is_empty() {
        at.invalid("no rules: one of `http`, `tls`, `tcp` must be given", None);
    }
    check_export_to(&rules.export_to, at);
    each("gateways", &rules.gateways, at, |name, at| check_gateway_name(name, at));
    each("http", &rules.http, at, check_http);
    each("tls", &rules.tls, at, |rule, at| {
        each("match", &rule.matches, at, |m, at| {
            each("sniHosts", &m.sni_hosts, at, |host, at| check_host(host, HostForm::Wildcard, at));
            each("destinationSubnets", &m.destination_subnets, at, |net, at| check_network(net, at));
        });
        check_destinations(&rule.route, at);
    });
    each("tcp", &rules.tcp, at, |rule, at| {
        each("match", &rule.matches, at, |m, at| {
            each("destinationSubnets", &m.destination_subnets, at, |net, at| check_network(net, at));
        });
        check_destinations(&rule.route, at);
    });
}

fn check_gateway_name(name: &str, at: &mut Decoder) {
    if name.is_empty() || name.matches('/').count() > 1 {
        at.invalid(format!("`{name}` is not `mesh`, a gateway's name or `NAMESPACE/NAME`"), None);
    }
}

fn check_http(rule: &HttpRoute, at: &mut Decoder) {
    let actions =
        [rule.redirect.is_some(), rule.direct_response.is_some(), rule.delegate.is_some(), !rule.route.is_empty()];
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
    each("route", &rule.route, at, |r, at| at.within("destination", |at| check_destination(&r.destination, at)));
    if let Some(mirror) = &rule.mirror {
        at.within("mirror", |at| check_destination(mirror, at));
    }
    each("mirrors", &rule.mirrors, at, |m, at| {
        at.within("destination", |at| check_destination(&m.destination, at));
        check_share("percentage", m.percentage.as_ref(), at);
    });
    check_share("mirrorPercentage", rule.mirror_percentage.as_ref(), at);
    check_actions(rule, at);
}

fn check_actions(rule: &HttpRoute, at: &mut Decoder) {
    if let Some(redirect) = &rule.redirect {
        at.within("redirect", |at| check_redirect(redirect, at));
    }
    if let Some(direct) = &rule.direct_response {
        at.within("directResponse", |at| check_direct(direct, at));
    }
    if let Some(rewrite) = rule.rewrite.as_ref().and_then(|r| r.uri_regex_rewrite.as_ref()) {
        at.within("rewrite", |at| {
            at.within("uriRegexRewrite", |at| at.within("match", |at| at.check_regex(&rewrite.pattern)))
        });
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
    if rule.timeout.is_some_and(|t| !t.is_zero() && t.as_millis() == 0) {
        at.within("timeout", |at| at.invalid("shorter than 1ms", None));
    }
}

fn check_match(m: &HttpMatch, at: &mut Decoder) {
    if m.port == Some(0) {
        check_range("port", 0, 1..=65535, at);
    }
    for (field, names) in [("headers", &m.headers), ("withoutHeaders", &m.without_headers)] {
        at.within(field, |at| {
            for name in names.keys().filter(|n| !is_header_name(n)) {
                at.within_key(name, |at| at.invalid(format!("`{name}` is not a header name"), None));
            }
        });
    }
}

fn is_header_name(name: &str) -> bool {
    // `@request.auth.claims…` is Istio's way to match on a token.
    let token = name.strip_prefix(':').unwrap_or(name);
    name.starts_with('@')
        || (!token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b)))
}

fn check_destination(destination: &Destination, at: &mut Decoder) {
    if !destination.host.is_empty() {
        at.within("host", |at| check_host(&destination.host, HostForm::Exact, at));
    }
    if destination.port.as_ref().is_some_and(|p| p.number == 0) {
        at.within("port", |at| check_range("number", 0, 1..=65535, at));
    }
}

fn check_destinations(route: &[RouteDestination], at: &mut Decoder) {
    let weights: Vec<Option<i32>> = route.iter().map(|r| r.weight).collect();
    check_weights(&weights, at);
    each("route", route, at, |r, at| at.within("destination", |at| check_destination(&r.destination, at)));
}

fn check_weights(weights: &[Option<i32>], at: &mut Decoder) {
    for (index, weight) in weights.iter().enumerate() {
        if let Some(weight) = weight.filter(|w| *w < 0) {
            at.within("route", |at| {
                at.within_index(index, |at| check_range("weight", i64::from(weight), 0..=i64::from(i32::MAX), at))
            });
        }
    }
    let sum: i64 = weights.iter().flatten().map(|w| i64::from(*w)).sum();
    if weights.len() > 1 && sum == 0 {
        at.within("route", |at| {
            at.invalid("the weights add up to 0", Some("give each destination a `weight`".to_owned()))
        });
    }
}

fn check_share(field: &'static str, share: Option<&Percent>, at: &mut Decoder) {
    if let Some(share) = share {
        at.within(field, |at| check_percent("value", share.value, at));
    }
}

fn check_redirect(redirect: &HttpRedirect, at: &mut Decoder) {
    if let Some(code) = redirect.redirect_code.filter(|c| !matches!(c, 301 | 302 | 303 | 307 | 308)) {
        let path = at.path().field("redirectCode");
        at.note(
            Diagnostic::error(Code::InvalidValue, path, "not a redirect")
                .expected("one of 301, 302, 303, 307, 308", code.to_string()),
        );
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        at.invalid("only one of `port`, `derivePort` may be given", None);
    }
}

fn check_direct(direct: &HttpDirectResponse, at: &mut Decoder) {
    // A missing status is noted already.
    if direct.status != 0 {
        check_range("status", i64::from(direct.status), 200..=599, at);
    }
    if direct.body.as_ref().is_some_and(|b| b.string.is_some() && b.bytes.is_some()) {
        at.within("body", |at| at.invalid("only one of `string`, `bytes` may be given", None));
    }
}

/// Conditions that Envoy knows, for HTTP and gRPC.
const RETRY_CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

fn check_retry(retries: &HttpRetry, rule: &HttpRoute, at: &mut Decoder) {
    if let Some(attempts) = retries.attempts.filter(|a| *a < 0) {
        check_range("attempts", i64::from(attempts), 0..=i64::from(i32::MAX), at);
    }
    let conditions = || retries.retry_on.split(',').map(str::trim).filter(|c| !c.is_empty());
    at.within("retryOn", |at| {
        for condition in conditions() {
            let status = condition.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
            if !status && !RETRY_CONDITIONS.contains(&condition) {
                let near = crate::dialect::suggest::nearest(condition, RETRY_CONDITIONS.iter().copied());
                at.invalid(
                    format!("`{condition}` is neither a retry condition nor a status code"),
                    near.map(|n| format!("`{n}`")),
                );
            }
        }
        let retries_answers = conditions().any(|c| matches!(c, "5xx" | "gateway-error" | "retriable-4xx"));
        if retries_answers && conditions().any(|c| c == "retriable-4xx") && !limited_to_safe_methods(rule) {
            at.remark(|path| Diagnostic::info(Code::Retries, path, "POST is retried too; `retriable-4xx` is 409 only"));
        }
    });
}

/// Whether every match of the rule asks for a method that may be repeated.
fn limited_to_safe_methods(rule: &HttpRoute) -> bool {
    use crate::dialect::istio::shared::StringMatch;
    let safe = |m: &HttpMatch| matches!(&m.method, Some(StringMatch::Exact(method)) if matches!(&**method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"));
    !rule.matches.is_empty() && rule.matches.iter().all(safe)
}

fn check_fault(fault: &HttpFault, at: &mut Decoder) {
    if let Some(delay) = &fault.delay {
        at.within("delay", |at| {
            if delay.fixed_delay.is_none() && delay.exponential_delay.is_none() {
                at.missing("fixedDelay", None);
            }
            if let Some(percent) = delay.percent {
                check_range("percent", i64::from(percent), 0..=100, at);
            }
            check_share("percentage", delay.percentage.as_ref(), at);
        });
    }
    if let Some(abort) = &fault.abort {
        at.within("abort", |at| {
            match (abort.http_status, &*abort.grpc_status, &*abort.http2_error) {
                (None, "", "") => at.missing("httpStatus", None),
                (Some(_), grpc, _) if !grpc.is_empty() => {
                    at.invalid("only one of `httpStatus`, `grpcStatus` may be given", None)
                }
                (Some(status), ..) => check_range("httpStatus", i64::from(status), 200..=599, at),
                (None, ..) => check_grpc_status(&abort.grpc_status, at),
            }
            check_share("percentage", abort.percentage.as_ref(), at);
        });
    }
}

/// gRPC status names, by number.
pub(crate) const GRPC_STATUSES: &[&str] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn check_grpc_status(status: &Arc<str>, at: &mut Decoder) {
    let by_number = status.parse::<usize>().is_ok_and(|n| n < GRPC_STATUSES.len());
    if !status.is_empty() && !by_number && !GRPC_STATUSES.contains(&&**status) {
        let near = crate::dialect::suggest::nearest(status, GRPC_STATUSES.iter().copied());
        at.within("grpcStatus", |at| {
            at.invalid(format!("`{status}` is not a gRPC status"), near.map(|n| format!("`{n}`")))
        });
    }
}

fn check_cors(cors: &CorsPolicy, at: &mut Decoder) {
    if !cors.allow_origin.is_empty() {
        at.within("allowOrigin", |at| {
            at.remark(|path| {
                Diagnostic::warning(Code::Deprecated, path, "deprecated").fix("`allowOrigins: [{exact: …}]`")
            });
        });
    }
}
