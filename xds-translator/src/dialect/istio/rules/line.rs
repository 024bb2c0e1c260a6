//! Texts that travel in requests, responses and logs. What Envoy refuses in one of them costs every rule beside it,
//! since it takes or refuses a whole resource.

use crate::dialect::{decode::Decoder, suggest};

/// Notes a text that would end the line it is written on.
pub(super) fn check_line(text: &str, at: &mut Decoder) {
    if text.contains(['\0', '\r', '\n']) {
        at.invalid("a line break or NUL is not allowed here", None);
    }
}

/// Whether `name` may name a header.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b))
}

/// Notes a header's value that cannot be sent: a line break, or a malformed command.
pub(super) fn check_header_value(value: &str, at: &mut Decoder) {
    check_line(value, at);
    check_format(value, at);
}

/// Notes a command between percent signs that Envoy does not know, and a percent sign that begins none.
pub(super) fn check_format(format: &str, at: &mut Decoder) {
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        rest = &rest[start + 1..];
        if let Some(behind) = rest.strip_prefix('%') {
            rest = behind;
            continue;
        }
        let Some(command) = Command::read(rest) else {
            let shown: String = rest.chars().take(20).collect();
            return at.invalid(
                format!("`%{shown}` is not a command: a percent sign begins one, as in `%PROTOCOL%`"),
                Some("`%%` for the sign itself".to_owned()),
            );
        };
        let needs_arguments = WITH_ARGUMENTS.split(' ').any(|name| name == command.name);
        if needs_arguments && command.arguments.is_none_or(str::is_empty) {
            return at.invalid(format!("`%{}%` needs arguments, as in `%REQ(X-REQUEST-ID)%`", command.name), None);
        }
        let known = PLAIN.split(' ').chain(WITH_ARGUMENTS.split(' '));
        if !known.clone().any(|name| name == command.name) {
            let fix = suggest::nearest(command.name, known).map(|near| format!("`%{near}%`"));
            return at.invalid(format!("`%{}%` is not a known command", command.name), fix);
        }
        rest = command.behind;
    }
}

/// A command: `NAME%` or `NAME(ARGUMENTS)%`, each also with `:LENGTH` before the percent sign.
struct Command<'a> {
    name: &'a str,
    arguments: Option<&'a str>,
    behind: &'a str,
}

impl<'a> Command<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let (name, rest) = text.split_at(text.find(|c| !is_name(c))?);
        if name.is_empty() {
            return None;
        }
        let Some(rest) = rest.strip_prefix('(') else {
            return Some(Self { name, arguments: None, behind: closed(rest)? });
        };
        // Arguments may hold parentheses: they end where the command does.
        let end = |(i, _)| Some(Self { name, arguments: Some(&rest[..i]), behind: closed(&rest[i + 1..])? });
        rest.match_indices(')').find_map(end)
    }
}

/// What stands behind the end of a command.
fn closed(text: &str) -> Option<&str> {
    let end = text.strip_prefix(':').map_or(text, |length| length.trim_start_matches(|c: char| c.is_ascii_digit()));
    end.strip_prefix('%')
}

/// Commands of Envoy 1.40 that need no arguments, each tried.
const PLAIN: &str = "\
    ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_RETRANSMITTED BYTES_SENT CONNECTION_ID CONNECTION_TERMINATION_DETAILS \
    CUSTOM_FLAGS DOWNSTREAM_CX_RTT DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED \
    DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_DIRECT_LOCAL_ADDRESS \
    DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT \
    DOWNSTREAM_DIRECT_LOCAL_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT \
    DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_HANDSHAKE_DURATION DOWNSTREAM_HEADER_BYTES_RECEIVED \
    DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID \
    DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_CLOSE_REASON DOWNSTREAM_LOCAL_DNS_SAN \
    DOWNSTREAM_LOCAL_EMAIL_SAN DOWNSTREAM_LOCAL_IP_SAN DOWNSTREAM_LOCAL_OTHERNAME_SAN DOWNSTREAM_LOCAL_PORT \
    DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_CERT_V_END \
    DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1 DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256 \
    DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_EMAIL_SAN DOWNSTREAM_PEER_FINGERPRINT_1 \
    DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_IP_SAN DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_ISSUER_SERIAL \
    DOWNSTREAM_PEER_OTHERNAME_SAN DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_URI_SAN \
    DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT DOWNSTREAM_TLS_CIPHER \
    DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_TLS_VERSION DOWNSTREAM_TRANSPORT_FAILURE_REASON \
    DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_WIRE_BYTES_SENT DURATION EMIT_TIME EMIT_TIME_LOCAL FILTER_CHAIN_NAME \
    GRPC_STATUS GRPC_STATUS_NUMBER HOSTNAME LISTENER_NAME LOCAL_REPLY_BODY PACKETS_RETRANSMITTED PATH PROTOCOL \
    QUERY_PARAMS REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_HEADERS_BYTES REQUEST_TX_DURATION RESPONSE_CODE \
    RESPONSE_CODE_DETAILS RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_HEADERS_BYTES \
    RESPONSE_TRAILERS_BYTES RESPONSE_TX_DURATION ROUNDTRIP_DURATION ROUTE_NAME SPAN_ID START_TIME START_TIME_LOCAL \
    STREAM_ID TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT TRACE_ID UNIQUE_ID UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW \
    UPSTREAM_CONNECTION_ID UPSTREAM_CONNECTION_IDS_ATTEMPTED UPSTREAM_CONNECTION_POOL_READY_DURATION \
    UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT UPSTREAM_DETECTED_CLOSE_TYPE \
    UPSTREAM_HEADER_BYTES_RECEIVED UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HOST UPSTREAM_HOSTS_ATTEMPTED \
    UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT UPSTREAM_HOST_NAME UPSTREAM_HOST_NAMES_ATTEMPTED \
    UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT UPSTREAM_HOST_NAME_WITHOUT_PORT UPSTREAM_LOCAL_ADDRESS \
    UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_CLOSE_REASON UPSTREAM_LOCAL_DNS_SAN UPSTREAM_LOCAL_IP_SAN \
    UPSTREAM_LOCAL_PORT UPSTREAM_LOCAL_URI_SAN UPSTREAM_PEER_CERT UPSTREAM_PEER_CERT_V_END \
    UPSTREAM_PEER_CERT_V_START UPSTREAM_PEER_DNS_SAN UPSTREAM_PEER_IP_SAN UPSTREAM_PEER_ISSUER UPSTREAM_PEER_SUBJECT \
    UPSTREAM_PEER_URI_SAN UPSTREAM_PROTOCOL UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID \
    UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_SERVER_NAME \
    UPSTREAM_TLS_CIPHER UPSTREAM_TLS_SESSION_ID UPSTREAM_TLS_VERSION UPSTREAM_TRANSPORT_FAILURE_REASON \
    UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_WIRE_BYTES_SENT VIRTUAL_CLUSTER_NAME";

/// Commands of Envoy 1.40 that need arguments, each tried.
const WITH_ARGUMENTS: &str = "\
    CEL CLUSTER_METADATA COALESCE COMMON_DURATION DYNAMIC_METADATA ENVIRONMENT FILTER_STATE METADATA QUERY_PARAM REQ \
    REQUEST_HEADER RESP RESPONSE_HEADER RESPONSE_TRAILER TRAILER UPSTREAM_FILTER_STATE UPSTREAM_METADATA";

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: impl FnOnce(&mut Decoder)) -> Option<String> {
        let mut at = Decoder::default();
        check(&mut at);
        at.finish().into_iter().next().map(|d| d.fix.unwrap_or(d.message))
    }

    #[test]
    fn commands_have_a_form_and_a_name() {
        let table = [
            ("plain", None),
            ("100%% of %PROTOCOL%", None),
            ("%REQ(X-A?:PATH):10%-%RESP(:status)%", None),
            ("%CEL(request.headers['a'] == 'b' ? size('c') : 0)%", None),
            ("%START_TIME(%Y-%m-%dT%H:%M:%S%z)%", None),
            ("100%", Some("`%%` for the sign itself")),
            ("%REQ(X-A%", Some("`%%` for the sign itself")),
            ("%protocol%", Some("`%%` for the sign itself")),
            ("%PROTOCOL:x%", Some("`%%` for the sign itself")),
            ("%PROTOCOLL%", Some("`%PROTOCOL%`")),
            ("%REQ%", Some("`%REQ%` needs arguments, as in `%REQ(X-REQUEST-ID)%`")),
        ];
        for (format, expected) in table {
            assert_eq!(finding(|at| check_format(format, at)).as_deref(), expected, "{format}");
        }
    }

    #[test]
    fn header_values_stay_on_their_line() {
        assert!(finding(|at| check_header_value("a\nb", at)).is_some());
        assert_eq!(finding(|at| check_header_value("a\tb", at)), None);
    }

    #[test]
    fn header_names_are_tokens() {
        for (name, valid) in [("x-a", true), ("", false), ("a b", false), (":path", false), ("a\u{e9}", false)] {
            assert_eq!(is_header_name(name), valid, "{name}");
        }
    }
}
