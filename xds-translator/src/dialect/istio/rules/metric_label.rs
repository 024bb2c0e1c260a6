//! Expressions whose values are labels of metrics: what Envoys read out of a format, and what our own
//! proxy evaluates of it (`dataplane/src/compile/expression.rs`).

use super::{
    cel::{Token, check_expression, is_expression, tokens},
    line::remark_refused_by_ours,
};
use crate::dialect::decode::Decoder;

/// What our own proxy knows of a request or connection.
const ATTRIBUTES: [&str; 29] = [
    "request.path",
    "request.url_path",
    "request.query",
    "request.host",
    "request.scheme",
    "request.method",
    "request.protocol",
    "request.size",
    "request.useragent",
    "request.referer",
    "request.id",
    "response.code",
    "response.code_details",
    "response.grpc_status",
    "response.size",
    "connection.mtls",
    "connection.requested_server_name",
    "connection.tls_version",
    "connection.uri_san_peer_certificate",
    "connection.subject_peer_certificate",
    "source.address",
    "source.port",
    "destination.address",
    "destination.port",
    "upstream.address",
    "upstream.port",
    "xds.cluster_name",
    "xds.route_name",
    "xds.filter_chain_name",
];
const HEADERS: [&str; 2] = ["request.headers", "response.headers"];
const METHODS: [&str; 4] = ["contains", "startsWith", "endsWith", "size"];
const SIGNS: [&str; 13] = ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "!", "?", ":", "("];

/// Notes an expression that does not parse, or that cannot be told to every proxy.
pub(super) fn check(text: &str, at: &mut Decoder) {
    let expression = label_expression(text);
    // Envoy ends a command of a format there.
    if expression.contains(")%") {
        return at.invalid("`)%` ends the expression where Envoys read it", None);
    }
    check_expression(expression, at);
    if tokens(expression).is_ok_and(|tokens| !is_evaluated_by_ours(&tokens)) {
        remark_refused_by_ours("listeners whose metrics have such a label", at);
    }
}

/// An expression without the `string(…)` around it, if there is one: a label is a text whatever its
/// expression gives, and Envoys have no such function.
pub(in crate::dialect::istio) fn label_expression(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix("string(").and_then(|rest| rest.strip_suffix(')'));
    inner.filter(|inner| is_expression(inner)).unwrap_or(text)
}

fn is_evaluated_by_ours(tokens: &[Token]) -> bool {
    let mut rest = tokens;
    while !rest.is_empty() {
        match part(rest) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    true
}

/// What stands behind the next value or sign; `None`: our proxy does not take it.
fn part(tokens: &[Token]) -> Option<&[Token]> {
    match tokens {
        [Token::Text(_), Token::Name(word), rest @ ..] if word == "in" => {
            let (path, behind) = path(rest);
            HEADERS.contains(&path.as_str()).then_some(behind)
        }
        [Token::Text(_), rest @ ..] => Some(rest),
        [Token::Number(number), rest @ ..] => {
            number.bytes().all(|byte| byte.is_ascii_digit()).then_some(rest)
        }
        [Token::Name(word), rest @ ..] if matches!(word.as_str(), "true" | "false") => Some(rest),
        [Token::Name(word), Token::Sign("("), rest @ ..] => match word.as_str() {
            "has" => {
                let (path, behind) = path(rest);
                let [Token::Sign(")"), behind @ ..] = behind else { return None };
                is_known(&path).then_some(behind)
            }
            "size" | "string" => Some(rest),
            _ => None,
        },
        [Token::Name(_), ..] => named(tokens),
        [Token::Sign("."), Token::Name(method), Token::Sign("("), rest @ ..] => {
            METHODS.contains(&method.as_str()).then_some(rest)
        }
        [Token::Sign(sign), rest @ ..] => (SIGNS.contains(sign) || *sign == ")").then_some(rest),
        [] => None,
    }
}

/// What stands behind an attribute or a header.
fn named(tokens: &[Token]) -> Option<&[Token]> {
    let (path, behind) = path(tokens);
    match behind {
        [Token::Sign("["), Token::Text(_), Token::Sign("]"), rest @ ..] => {
            HEADERS.contains(&path.as_str()).then_some(rest)
        }
        [Token::Sign("("), rest @ ..] => {
            let (value, method) = path.rsplit_once('.')?;
            (METHODS.contains(&method) && is_known(value)).then_some(rest)
        }
        rest => is_known(&path).then_some(rest),
    }
}

fn is_known(path: &str) -> bool {
    let header = path.rsplit_once('.').is_some_and(|(headers, _)| HEADERS.contains(&headers));
    header || ATTRIBUTES.contains(&path)
}

/// Names with points between them, and what stands behind.
fn path(tokens: &[Token]) -> (String, &[Token]) {
    let [Token::Name(first), rest @ ..] = tokens else { return (String::new(), tokens) };
    let (mut path, mut rest) = (first.clone(), rest);
    while let [Token::Sign("."), Token::Name(next), behind @ ..] = rest {
        path.push('.');
        path.push_str(next);
        rest = behind;
    }
    (path, rest)
}
