//! Rules of VirtualServices.

use std::sync::Arc;

use super::{
    format::check_header_value,
    line::{check_line, is_header_name},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{
            HostForm, check_export_to, check_host, check_network, check_percent, check_range, each,
        },
        istio::{
            attribute::{is_routed_claim, routed_claim},
            retry_words::{RETRY_CONDITIONS, retry_condition},
            shared::{Percent, StringMatch},
            virtual_service::{
                CorsPolicy, Delegate, Destination, HeaderOperations, Headers, HttpDirectResponse,
                HttpFault, HttpMatch, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute,
                RouteDestination, VirtualService,
            },
        },
        scalar,
    },
};

pub(in crate::dialect::istio) fn check(rules: &VirtualService, at: &mut Decoder) {
    if rules.hosts.is_empty() {
        check_part(rules, at);
    }
    each("hosts", &rules.hosts, at, |host, at| check_host(host, HostForm::Wildcard, at));
    if rules.http.is_empty() && rules.tls.is_empty() && rules.tcp.is_empty() {
        at.invalid("no rules: one of `http`, `tls`, `tcp` must be given", None);
    }
    check_export_to(&rules.export_to, at);
    each("gateways", &rules.gateways, at, |name, at| check_gateway_name(name, at));
    each("http", &rules.http, at, check_http);
    check_claims(rules, at);
    each("tls", &rules.tls, at, |rule, at| {
        each("match", &rule.matches, at, |m, at| {
            each("sniHosts", &m.sni_hosts, at, |host, at| check_host(host, HostForm::Wildcard, at));
            each("destinationSubnets", &m.destination_subnets, at, |net, at| {
                check_network(net, at)
            });
        });
        check_destinations(&rule.route, at);
    });
    each("tcp", &rules.tcp, at, |rule, at| {
        each("match", &rule.matches, at, |m, at| {
            each("destinationSubnets", &m.destination_subnets, at, |net, at| {
                check_network(net, at)
            });
        });
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

fn check_gateway_name(name: &str, at: &mut Decoder) {
    if name.is_empty() || name.matches('/').count() > 1 {
        at.invalid(format!("`{name}` is not `mesh`, a gateway's name or `NAMESPACE/NAME`"), None);
    }
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
    if rule.timeout.is_some_and(|t| !t.is_zero() && t.as_millis() == 0) {
        at.within("timeout", |at| at.invalid("shorter than 1ms", None));
    }
}

fn check_delegate(delegate: &Delegate, at: &mut Decoder) {
    if delegate.name.is_empty() {
        at.missing("name", Some("the name of a VirtualService without `hosts`".to_owned()));
    }
}

fn check_rewrite(rewrite: &HttpRewrite, at: &mut Decoder) {
    if !rewrite.uri.is_empty() && rewrite.uri_regex_rewrite.is_some() {
        at.invalid("only one of `uri`, `uriRegexRewrite` may be given", None);
    }
    at.within("uri", |at| check_line(&rewrite.uri, at));
    at.within("authority", |at| check_line(&rewrite.authority, at));
    let Some(regex) = &rewrite.uri_regex_rewrite else { return };
    at.within("uriRegexRewrite", |at| {
        at.within("match", |at| match regex.pattern.is_empty() {
            true => at.invalid("empty", None),
            false => at.check_regex(&regex.pattern),
        });
        at.within("rewrite", |at| {
            check_line(&regex.rewrite, at);
            check_substitution(&regex.rewrite, &regex.pattern, at);
        });
    });
}

/// Notes a backslash that names no group of the expression, nor itself.
fn check_substitution(text: &str, regex: &str, at: &mut Decoder) {
    // One that does not compile is noted already.
    let Ok(compiled) = regex::Regex::new(regex) else { return };
    let groups = compiled.captures_len() - 1;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let valid = c != '\\'
            || rest.next().is_some_and(|next| {
                let group = next.to_digit(10).and_then(|digit| usize::try_from(digit).ok());
                next == '\\' || group.is_some_and(|group| group <= groups)
            });
        if !valid {
            let message = "a backslash that names no group of `match`";
            let expected = match groups {
                0 => "`\\0` for all that matches, or `\\\\`".to_owned(),
                _ => format!("`\\0` to `\\{groups}`, or `\\\\`"),
            };
            let finding = Diagnostic::error(Code::InvalidValue, at.path(), message);
            return at.note(finding.expected(expected, format!("`{text}`")));
        }
    }
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
                let authority =
                    request && field == "set" && name.eq_ignore_ascii_case(":authority");
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
    if name.starts_with(':') {
        let fix = Some("`rewrite` changes path and authority".to_owned());
        at.invalid(format!("`{name}` cannot be changed as a header"), fix);
    } else if !is_header_name(name) {
        at.invalid(format!("`{name}` is not a header name"), None);
    }
}

fn check_match(m: &HttpMatch, at: &mut Decoder) {
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
            for name in names.keys().filter(|n| !may_be_matched(n)) {
                at.within_key(name, |at| {
                    at.invalid(format!("`{name}` is not a header name"), None)
                });
            }
        });
    }
}

/// Claims of tokens are known where tokens are checked before a route is chosen: at gateways.
/// Elsewhere such a condition would never hold, and in `withoutHeaders` it always would.
fn check_claims(rules: &VirtualService, at: &mut Decoder) {
    let everywhere = |m: &HttpMatch| match (&m.gateways[..], &rules.gateways[..]) {
        // Part of other rules, which say where.
        ([], []) => !rules.hosts.is_empty(),
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

fn may_be_matched(name: &str) -> bool {
    is_routed_claim(name) || is_header_name(name.strip_prefix(':').unwrap_or(name))
}

/// A wildcard is the name of a service that has it, and stands for no other.
fn check_destination(destination: &Destination, at: &mut Decoder) {
    if !destination.host.is_empty() {
        at.within("host", |at| check_host(&destination.host, HostForm::Wildcard, at));
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

fn check_share(field: &'static str, share: Option<&Percent>, at: &mut Decoder) {
    if let Some(share) = share {
        at.within(field, |at| check_percent("value", share.value, at));
    }
}

fn check_redirect(redirect: &HttpRedirect, at: &mut Decoder) {
    if let Some(code) = redirect.redirect_code.filter(|c| !matches!(c, 301 | 302 | 303 | 307 | 308))
    {
        let path = at.path().field("redirectCode");
        at.note(
            Diagnostic::error(Code::InvalidValue, path, "not a redirect")
                .expected("one of 301, 302, 303, 307, 308", code.to_string()),
        );
    }
    for (field, text) in [
        ("uri", &redirect.uri),
        ("prefixRewrite", &redirect.prefix_rewrite),
        ("authority", &redirect.authority),
    ] {
        at.within(field, |at| check_line(text, at));
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

fn check_grpc_status(status: &Arc<str>, at: &mut Decoder) {
    let by_number = status.parse::<usize>().is_ok_and(|n| n < scalar::GRPC_STATUSES.len());
    if !status.is_empty() && !by_number && !scalar::GRPC_STATUSES.contains(&&**status) {
        let near = crate::dialect::suggest::nearest(status, scalar::GRPC_STATUSES.iter().copied());
        at.within("grpcStatus", |at| {
            at.invalid(format!("`{status}` is not a gRPC status"), near.map(|n| format!("`{n}`")))
        });
    }
}

fn check_cors(cors: &CorsPolicy, at: &mut Decoder) {
    if !cors.allow_origin.is_empty() {
        at.within("allowOrigin", |at| {
            at.remark(|path| {
                Diagnostic::warning(Code::Deprecated, path, "deprecated")
                    .fix("`allowOrigins: [{exact: …}]`")
            });
        });
    }
}
