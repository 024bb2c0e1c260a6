//! What a VirtualService's rule does with requests beside sending them on.

use std::sync::Arc;

use super::{
    condition::{check_expression, check_match},
    line::{check_line, is_plain_header_name},
    share::{check_share, remark_deprecated},
    time::check_duration,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{check_range, each},
        istio::{
            shared::{Percent, StringMatch},
            virtual_service::{
                CorsPolicy, FaultAbort, FaultDelay, HttpFault, HttpRedirect, HttpRewrite,
            },
        },
        scalar, suggest,
    },
};

pub(super) fn check_redirect(redirect: &HttpRedirect, at: &mut Decoder) {
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
    if !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty() {
        at.invalid("only one of `uri`, `prefixRewrite` may be given", None);
    }
    let anything = HttpRedirect { redirect_code: redirect.redirect_code, ..Default::default() };
    if *redirect == anything {
        let fix = Some("`uri`, `prefixRewrite`, `authority`, `port` or `scheme`".to_owned());
        at.invalid("leads where the request came from", fix);
    }
    if !matches!(&*redirect.scheme, "" | "http" | "https") {
        let path = at.path().field("scheme");
        let finding = Diagnostic::error(Code::InvalidValue, path, "not a scheme of redirects");
        at.note(finding.expected("`http` or `https`", format!("`{}`", redirect.scheme)));
    }
    if redirect.port == Some(0) {
        check_range("port", 0, 1..=65535, at);
    }
}

pub(super) fn check_rewrite(rewrite: &HttpRewrite, at: &mut Decoder) {
    if !rewrite.uri.is_empty() && rewrite.uri_regex_rewrite.is_some() {
        at.invalid("only one of `uri`, `uriRegexRewrite` may be given", None);
    }
    if *rewrite == HttpRewrite::default() {
        let fix = Some("`uri`, `uriRegexRewrite` or `authority`, or take it out".to_owned());
        at.invalid("empty: nothing is rewritten", fix);
    }
    at.within("uri", |at| check_line(&rewrite.uri, at));
    at.within("authority", |at| check_line(&rewrite.authority, at));
    let Some(regex) = &rewrite.uri_regex_rewrite else { return };
    at.within("uriRegexRewrite", |at| {
        at.within("match", |at| check_expression(&regex.pattern, at));
        at.within("rewrite", |at| {
            if regex.rewrite.is_empty() {
                at.invalid("empty", Some("`/`, if nothing is to be left of the path".to_owned()));
            }
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

pub(super) fn check_fault(fault: &HttpFault, at: &mut Decoder) {
    if fault.delay.is_none() && fault.abort.is_none() {
        at.invalid("empty: one of `delay`, `abort` must be given", None);
    }
    if let Some(delay) = &fault.delay {
        at.within("delay", |at| check_delay(delay, at));
    }
    if let Some(abort) = &fault.abort {
        at.within("abort", |at| check_abort(abort, at));
    }
}

fn check_delay(delay: &FaultDelay, at: &mut Decoder) {
    if delay.fixed_delay.is_none() && delay.exponential_delay.is_none() {
        at.missing("fixedDelay", None);
    }
    if delay.exponential_delay.is_some() {
        at.within("exponentialDelay", |at| {
            at.invalid("not implemented, in Istio neither", Some("`fixedDelay`".to_owned()))
        });
    }
    check_duration("fixedDelay", delay.fixed_delay, at);
    if let Some(percent) = delay.percent {
        check_range("percent", i64::from(percent), 0..=100, at);
        at.within("percent", |at| remark_deprecated("`percentage: {value: …}`", at));
    }
    check_injected_share(delay.percentage.as_ref(), at);
}

fn check_abort(abort: &FaultAbort, at: &mut Decoder) {
    if !abort.http2_error.is_empty() {
        at.within("http2Error", |at| {
            at.invalid("not implemented, in Istio neither", Some("`httpStatus`".to_owned()))
        });
    }
    match (abort.http_status, &*abort.grpc_status, &*abort.http2_error) {
        (None, "", "") => at.missing("httpStatus", None),
        (Some(_), grpc, _) if !grpc.is_empty() => {
            at.invalid("only one of `httpStatus`, `grpcStatus` may be given", None)
        }
        (Some(status), ..) => check_range("httpStatus", i64::from(status), 200..=599, at),
        (None, ..) => check_grpc_status(&abort.grpc_status, at),
    }
    check_injected_share(abort.percentage.as_ref(), at);
}

/// Notes a share that rounds to nothing: proxies count in parts of a million.
fn check_injected_share(share: Option<&Percent>, at: &mut Decoder) {
    const LEAST: f64 = 0.0001;
    check_share("percentage", share, at);
    if let Some(share) = share.filter(|share| share.value > 0.0 && share.value < LEAST) {
        let path = at.path().field("percentage").field("value");
        let finding =
            Diagnostic::error(Code::InvalidValue, path, "too small a share to be counted");
        at.note(finding.expected(format!("0, or at least {LEAST}"), share.value.to_string()));
    }
}

fn check_grpc_status(status: &Arc<str>, at: &mut Decoder) {
    let by_number = status.parse::<usize>().is_ok_and(|n| n < scalar::GRPC_STATUSES.len());
    if !status.is_empty() && !by_number && !scalar::GRPC_STATUSES.contains(&&**status) {
        let path = at.path().field("grpcStatus");
        let message = format!("`{status}` is not a gRPC status");
        let finding = Diagnostic::error(Code::InvalidValue, path, message);
        at.note(suggest::advise(finding, status, scalar::GRPC_STATUSES.iter().copied()));
    }
}

/// Methods that an answer to a preflight may name (Istio).
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

pub(super) fn check_cors(cors: &CorsPolicy, at: &mut Decoder) {
    if !cors.allow_origin.is_empty() {
        at.within("allowOrigin", |at| remark_deprecated("`allowOrigins: [{exact: …}]`", at));
    }
    each("allowOrigins", &cors.allow_origins, at, |origin, at| match origin {
        StringMatch::Present => at.invalid("one of `exact`, `prefix`, `regex` must be given", None),
        StringMatch::Exact(origin) if origin.is_empty() => {
            at.within("exact", |at| at.invalid("empty", None))
        }
        origin => check_match(origin, at),
    });
    each("allowMethods", &cors.allow_methods, at, |method, at| {
        if !METHODS.contains(&&**method) {
            let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not a method");
            let expected = format!("one of {}", METHODS.join(", "));
            let finding = finding.expected(expected, format!("`{method}`"));
            at.note(suggest::advise(finding, method, METHODS.into_iter()));
        }
    });
    for (field, names) in
        [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)]
    {
        each(field, names, at, |name, at| {
            if &**name != "*" && !is_plain_header_name(name) {
                at.invalid(format!("`{name}` is not the name of a header"), None);
            }
        });
    }
    check_duration("maxAge", cors.max_age, at);
    if cors.max_age.is_some_and(|age| age.subsec_nanos() != 0 && age.as_millis() > 0) {
        let message = "browsers are told whole seconds";
        at.within("maxAge", |at| at.invalid(message, Some("a number of seconds".to_owned())));
    }
}
