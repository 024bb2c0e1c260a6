//! Substitution formats: text with `%OPERATOR(argument):limit%`.
//!
//! An unknown operator is refused, since a log or header would silently say something else.

use std::sync::Arc;

use super::field::Invalid;
use crate::runtime::format::{Field, Format, FormatOp, GrpcStatusForm};

/// Compiles a format.
pub(super) fn compile(text: &str) -> Result<Format, Invalid> {
    let mut ops = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let end = operator_end(after).ok_or_else(|| {
            Invalid::new(format!("operator %{after} in {text:?} does not end with %"))
        })?;
        push_literal(&mut ops, &mut literal);
        ops.push(operator(&after[..end])?);
        rest = &after[end + 1..];
    }
    literal.push_str(rest);
    push_literal(&mut ops, &mut literal);
    Ok(ops.into())
}

/// Where the operator's closing `%` is: one inside parentheses belongs to the argument
/// (`START_TIME(%Y)`).
fn operator_end(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'%' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn push_literal(ops: &mut Vec<FormatOp>, literal: &mut String) {
    if !literal.is_empty() {
        ops.push(FormatOp::Literal(std::mem::take(literal).into()));
    }
}

fn operator(text: &str) -> Result<FormatOp, Invalid> {
    let (call, limit) = match text.rsplit_once(':') {
        Some((call, digits))
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            (call, digits.parse().ok())
        }
        _ => (text, None),
    };
    let (name, argument) = match call.split_once('(') {
        Some((name, argument)) => (name, argument.strip_suffix(')').unwrap_or(argument)),
        None => (call, ""),
    };
    let field =
        field(name, argument).ok_or_else(|| Invalid::new(format!("unknown operator %{text}%")))?;
    Ok(FormatOp::Field { field, limit })
}

fn field(name: &str, argument: &str) -> Option<Field> {
    Some(match name {
        "REQ" | "REQUEST_HEADER" => with_alternative(argument, Field::RequestHeader),
        "RESP" | "RESPONSE_HEADER" => with_alternative(argument, Field::ResponseHeader),
        "TRAILER" | "RESPONSE_TRAILER" => Field::Trailer(argument.to_ascii_lowercase().into()),
        "START_TIME" => Field::StartTime(argument.into()),
        "PROTOCOL" => Field::Protocol,
        "RESPONSE_CODE" => Field::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Field::ResponseCodeDetails,
        "RESPONSE_FLAGS" | "RESPONSE_FLAGS_LONG" => Field::ResponseFlags,
        "CONNECTION_TERMINATION_DETAILS" => Field::ConnectionTerminationDetails,
        "BYTES_RECEIVED" => Field::BytesReceived,
        "BYTES_SENT" => Field::BytesSent,
        "DURATION" => Field::Duration,
        "REQUEST_DURATION" => Field::RequestDuration,
        "RESPONSE_DURATION" => Field::ResponseDuration,
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => Field::UpstreamHost,
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Field::UpstreamCluster,
        "UPSTREAM_LOCAL_ADDRESS" => Field::UpstreamLocalAddress,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Field::UpstreamTransportFailureReason,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Field::UpstreamRequestAttemptCount,
        "DOWNSTREAM_LOCAL_ADDRESS" => Field::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Field::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_REMOTE_ADDRESS" => Field::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Field::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Field::DownstreamDirectRemoteAddress,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Field::DownstreamDirectRemoteAddressWithoutPort
        }
        "REQUESTED_SERVER_NAME" => Field::RequestedServerName,
        "ROUTE_NAME" => Field::RouteName,
        "FILTER_CHAIN_NAME" => Field::FilterChainName,
        "DOWNSTREAM_PEER_URI_SAN" => Field::DownstreamPeerUriSan,
        "DOWNSTREAM_LOCAL_URI_SAN" => Field::DownstreamLocalUriSan,
        "DOWNSTREAM_PEER_SUBJECT" => Field::DownstreamPeerSubject,
        "DOWNSTREAM_TLS_VERSION" => Field::DownstreamTlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => Field::DownstreamTlsCipher,
        "HOSTNAME" => Field::Hostname,
        "DYNAMIC_METADATA" => {
            let mut parts = argument.split(':').map(Arc::from);
            Field::DynamicMetadata(parts.next()?, parts.collect())
        }
        "GRPC_STATUS" => Field::GrpcStatus(match argument {
            "" | "CAMEL_STRING" => GrpcStatusForm::Camel,
            "SNAKE_STRING" => GrpcStatusForm::Snake,
            "NUMBER" => GrpcStatusForm::Number,
            _ => return None,
        }),
        "GRPC_STATUS_NUMBER" => Field::GrpcStatus(GrpcStatusForm::Number),
        "TRACE_ID" => Field::TraceId,
        "SPAN_ID" => Field::SpanId,
        "DOWNSTREAM_LOCAL_PORT" => Field::DownstreamLocalPort,
        "DOWNSTREAM_REMOTE_PORT" => Field::DownstreamRemotePort,
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Field::DownstreamDirectRemotePort,
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Field::UpstreamHostWithoutPort,
        "UPSTREAM_REMOTE_PORT" => Field::UpstreamPort,
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Field::UpstreamLocalAddressWithoutPort,
        "UPSTREAM_LOCAL_PORT" => Field::UpstreamLocalPort,
        "DOWNSTREAM_PEER_FINGERPRINT_256" => Field::DownstreamPeerFingerprint,
        "DOWNSTREAM_PEER_DNS_SAN" => Field::DownstreamPeerDnsSan,
        "FILTER_STATE" | "CLUSTER_METADATA" | "UPSTREAM_METADATA" | "METADATA" => Field::Absent,
        _ => return None,
    })
}

fn with_alternative(
    argument: &str,
    make: impl FnOnce(Arc<str>, Option<Arc<str>>) -> Field,
) -> Field {
    let name = |text: &str| Arc::from(text.to_ascii_lowercase());
    match argument.split_once('?') {
        Some((first, second)) => make(name(first), Some(name(second))),
        None => make(name(argument), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(field: Field, limit: Option<usize>) -> FormatOp {
        FormatOp::Field { field, limit }
    }

    #[test]
    fn text_and_operators_are_told_apart() {
        let format =
            compile("[%START_TIME(%Y-%m-%d)%] \"%REQ(X-A?:PATH):10%\" 100%% %RESPONSE_CODE%\n")
                .unwrap();
        let expected = [
            FormatOp::Literal("[".into()),
            op(Field::StartTime("%Y-%m-%d".into()), None),
            FormatOp::Literal("] \"".into()),
            op(Field::RequestHeader("x-a".into(), Some(":path".into())), Some(10)),
            FormatOp::Literal("\" 100% ".into()),
            op(Field::ResponseCode, None),
            FormatOp::Literal("\n".into()),
        ];
        assert_eq!(&*format, expected);
        assert!(compile("").unwrap().is_empty());
    }

    #[test]
    fn unknown_and_open_operators_are_refused() {
        assert_eq!(compile("%NOPE(x)%").unwrap_err().reason, "unknown operator %NOPE(x)%");
        assert!(compile("%REQ(a").unwrap_err().reason.contains("does not end with %"));
    }
}
