//! Evaluates the expressions of labels over what is known of a request or connection. What has no
//! value, or a value of another type than is asked for, has none as a whole, as in CEL an error
//! does.

use std::{borrow::Cow, cmp::Ordering, net::SocketAddr};

use super::{Entry, labels::Changed};
use crate::runtime::{
    expression::{Attribute, Expression, Headers, Operator},
    facts::HeaderLookup,
    metric_rules::OwnMetrics,
};

impl OwnMetrics {
    /// What is different of the metrics of a request or connection.
    pub(crate) fn changed(&self, entry: &Entry<'_>) -> Changed {
        Changed::new(&self.rules, self.values.iter().map(|value| evaluate(value, entry)))
    }
}

#[derive(Clone, PartialEq, Debug)]
enum Value<'a> {
    Text(Cow<'a, str>),
    Number(i64),
    Truth(bool),
}

/// The value of an expression as a label says it; `None`: it has none.
fn evaluate<'a>(expression: &'a Expression, entry: &Entry<'a>) -> Option<Cow<'a, str>> {
    match value(expression, entry)? {
        Value::Text(text) => Some(text),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Truth(truth) => Some(if truth { "true" } else { "false" }.into()),
    }
}

fn value<'a>(expression: &'a Expression, entry: &Entry<'a>) -> Option<Value<'a>> {
    match expression {
        Expression::Text(text) => Some(Value::Text(Cow::Borrowed(text))),
        Expression::Number(number) => Some(Value::Number(*number)),
        Expression::Truth(truth) => Some(Value::Truth(*truth)),
        Expression::Attribute(attribute) => self::attribute(*attribute, entry),
        Expression::Header(of, name) => header(*of, name, entry).map(Value::Text),
        Expression::HasHeader(of, name) => Some(Value::Truth(header(*of, name, entry).is_some())),
        Expression::Has(attribute) => {
            Some(Value::Truth(self::attribute(*attribute, entry).is_some()))
        }
        Expression::Size(of) => match value(of, entry)? {
            Value::Text(text) => i64::try_from(text.chars().count()).ok().map(Value::Number),
            Value::Number(_) | Value::Truth(_) => None,
        },
        Expression::Not(of) => truth(value(of, entry)).map(|truth| Value::Truth(!truth)),
        Expression::Between(operator, both) => between(*operator, &both.0, &both.1, entry),
        Expression::Choice(all) => match truth(value(&all.0, entry))? {
            true => value(&all.1, entry),
            false => value(&all.2, entry),
        },
    }
}

fn between<'a>(
    operator: Operator,
    left: &'a Expression,
    right: &'a Expression,
    entry: &Entry<'a>,
) -> Option<Value<'a>> {
    let (left, right) = (value(left, entry), value(right, entry));
    if let Operator::Or | Operator::And = operator {
        // One side may decide though the other has no value.
        let decides = operator == Operator::Or;
        return match (truth(left), truth(right)) {
            (Some(one), _) | (_, Some(one)) if one == decides => Some(Value::Truth(decides)),
            (Some(_), Some(_)) => Some(Value::Truth(!decides)),
            _ => None,
        };
    }
    match (left?, right?) {
        (Value::Text(a), Value::Text(b)) => match operator {
            Operator::Plus => Some(Value::Text(Cow::Owned(a.into_owned() + &b))),
            Operator::Contains => Some(Value::Truth(a.contains(&*b))),
            Operator::StartsWith => Some(Value::Truth(a.starts_with(&*b))),
            Operator::EndsWith => Some(Value::Truth(a.ends_with(&*b))),
            other => compare(other, a.cmp(&b)),
        },
        (Value::Number(a), Value::Number(b)) => match operator {
            Operator::Plus => a.checked_add(b).map(Value::Number),
            other => compare(other, a.cmp(&b)),
        },
        (Value::Truth(a), Value::Truth(b)) => match operator {
            Operator::Equal => Some(Value::Truth(a == b)),
            Operator::Unequal => Some(Value::Truth(a != b)),
            _ => None,
        },
        _ => None,
    }
}

fn compare<'a>(operator: Operator, order: Ordering) -> Option<Value<'a>> {
    Some(Value::Truth(match operator {
        Operator::Equal => order.is_eq(),
        Operator::Unequal => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::AtMost => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::AtLeast => order.is_ge(),
        _ => return None,
    }))
}

fn truth(value: Option<Value<'_>>) -> Option<bool> {
    match value? {
        Value::Truth(truth) => Some(truth),
        Value::Text(_) | Value::Number(_) => None,
    }
}

fn header<'a>(of: Headers, name: &str, entry: &Entry<'a>) -> Option<Cow<'a, str>> {
    match of {
        Headers::Request => entry.request_header(name),
        Headers::Response => entry.response_headers?.header(name),
    }
}

fn attribute<'a>(attribute: Attribute, entry: &Entry<'a>) -> Option<Value<'a>> {
    let text = |text: &'a str| (!text.is_empty()).then_some(Value::Text(Cow::Borrowed(text)));
    let address = |of: SocketAddr| Some(Value::Text(Cow::Owned(of.to_string())));
    let port = |of: SocketAddr| Some(Value::Number(of.port().into()));
    let number = |number: u64| i64::try_from(number).ok().map(Value::Number);
    let http = !entry.protocol.is_empty();
    let target = entry.path.split('#').next().unwrap_or_default();
    let peer = entry.connection.peer.as_deref();
    match attribute {
        Attribute::Path => text(entry.path),
        Attribute::UrlPath => text(target.split('?').next().unwrap_or_default()),
        Attribute::Query => http
            .then(|| target.split_once('?').map_or("", |(_, query)| query).into())
            .map(Value::Text),
        Attribute::Host => text(entry.authority),
        Attribute::Scheme => text(entry.scheme),
        Attribute::Method => text(entry.method),
        Attribute::Protocol => text(entry.protocol),
        Attribute::RequestSize => number(entry.bytes_received),
        Attribute::Code => (entry.status > 0).then_some(Value::Number(entry.status.into())),
        Attribute::CodeDetails => text(entry.details),
        Attribute::GrpcStatus => {
            let trailer = entry.trailers.and_then(|trailers| trailers.header("grpc-status"));
            let head = || entry.response_headers?.header("grpc-status");
            trailer.or_else(head)?.parse().ok().map(Value::Number)
        }
        Attribute::ResponseSize => number(entry.bytes_sent),
        Attribute::MutualTls => Some(Value::Truth(peer.is_some())),
        Attribute::ServerName => text(entry.connection.server_name.as_deref().unwrap_or_default()),
        Attribute::TlsVersion => text(entry.tls.map_or("", |tls| tls.version)),
        Attribute::PeerUri => {
            text(peer.and_then(|peer| peer.uri_sans.first()).map_or("", |uri| uri))
        }
        Attribute::PeerSubject => text(peer.map_or("", |peer| &peer.subject)),
        Attribute::SourceAddress => address(entry.remote),
        Attribute::SourcePort => port(entry.remote),
        Attribute::DestinationAddress => address(entry.connection.destination),
        Attribute::DestinationPort => port(entry.connection.destination),
        Attribute::UpstreamAddress => entry.upstream_host.and_then(address),
        Attribute::UpstreamPort => entry.upstream_host.and_then(port),
        Attribute::Cluster => text(entry.cluster),
        Attribute::Route => text(entry.route),
        Attribute::Chain => text(entry.chain),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::runtime::facts::fixture::loopback;

    /// The value of a label of `GET /a/b?c=d` that was answered 404; `-`: it has none.
    fn check(expression: &Expression, expected: &str) {
        let connection = loopback();
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("anna"));
        let entry = Entry {
            protocol: "HTTP/1.1",
            method: "GET",
            path: "/a/b?c=d",
            authority: "shop",
            status: 404,
            bytes_sent: 7,
            request_headers: Some(&headers),
            ..Entry::of_connection(&connection, SystemTime::UNIX_EPOCH, Duration::ZERO)
        };
        let value = evaluate(expression, &entry).unwrap_or("-".into());
        assert_eq!(value, expected, "{expression:?}");
    }

    fn text(text: &str) -> Expression {
        Expression::Text(text.into())
    }

    fn between(left: Expression, operator: Operator, right: Expression) -> Expression {
        Expression::Between(operator, Box::new((left, right)))
    }

    #[test]
    fn attributes_are_envoys() {
        for (name, expected) in [
            ("request.path", "/a/b?c=d"),
            ("request.url_path", "/a/b"),
            ("request.query", "c=d"),
            ("request.host", "shop"),
            ("request.scheme", "-"),
            ("request.method", "GET"),
            ("request.protocol", "HTTP/1.1"),
            ("request.size", "0"),
            ("response.code", "404"),
            ("response.code_details", "-"),
            ("response.grpc_status", "-"),
            ("response.size", "7"),
            ("connection.mtls", "false"),
            ("connection.requested_server_name", "-"),
            ("source.address", "127.0.0.1:1"),
            ("source.port", "1"),
            ("destination.address", "127.0.0.1:2"),
            ("destination.port", "2"),
            ("upstream.port", "-"),
            ("xds.cluster_name", "-"),
        ] {
            let known = Attribute::ALL.into_iter().find(|(own, _)| *own == name);
            check(&Expression::Attribute(known.expect("an attribute").1), expected);
        }
        let header = |name: &str| Expression::Header(Headers::Request, name.into());
        check(&header("x-user"), "anna");
        check(&header(":method"), "GET");
        check(&header("x-nobody"), "-");
        check(&Expression::Size(Box::new(header("x-user"))), "4");
    }

    #[test]
    fn what_has_no_value_has_none_as_a_whole_unless_the_rest_decides() {
        let code = || Expression::Attribute(Attribute::Code);
        let nothing = || Expression::Attribute(Attribute::Scheme);
        let bad = || between(code(), Operator::AtLeast, Expression::Number(400));
        check(&bad(), "true");
        check(&between(text("a"), Operator::Plus, text("b")), "ab");
        check(&between(text("a"), Operator::Plus, nothing()), "-");
        check(&between(text("a"), Operator::Equal, code()), "-");
        check(&between(text("abc"), Operator::StartsWith, text("ab")), "true");
        check(&between(text("abc"), Operator::Contains, text("x")), "false");
        check(&between(nothing(), Operator::Or, bad()), "true");
        check(&between(nothing(), Operator::And, bad()), "-");
        let not = |inner| Expression::Not(Box::new(inner));
        check(&between(nothing(), Operator::And, not(bad())), "false");
        let choice = |condition| Expression::Choice(Box::new((condition, text("y"), text("n"))));
        check(&choice(Expression::Has(Attribute::Scheme)), "n");
        check(&choice(bad()), "y");
        check(&choice(nothing()), "-");
    }
}
