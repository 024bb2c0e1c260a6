//! Formats of log lines and header values: text with commands between percent signs.
//!
//! Each command is held to what Envoy 1.40 takes, since one that it refuses costs the listener, and
//! with it every later rule of the listener.

use serde_json::Value;

use super::line::{check_line, is_header_name};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{decode::Decoder, suggest},
};

/// Notes a command that Envoy refuses, and a percent sign that begins none; one that our own proxy
/// refuses is a warning.
pub(super) fn check_format(format: &str, at: &mut Decoder) {
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        rest = &rest[start + 1..];
        if let Some(behind) = rest.strip_prefix('%') {
            rest = behind;
            continue;
        }
        let Some((command, behind)) = Command::read(rest) else {
            let shown: String = rest.chars().take(20).collect();
            return at.invalid(
                format!(
                    "`%{shown}` is not a command: a percent sign begins one, as in `%PROTOCOL%`"
                ),
                Some("`%%` for the sign itself".to_owned()),
            );
        };
        if let Err(Objection { message, fix }) = command.check() {
            return at.invalid(message, fix);
        }
        remark_unknown_here(&command, at);
        rest = behind;
    }
}

/// Notes a header's value that cannot be sent: a control character, or a malformed command.
pub(super) fn check_header_value(value: &str, at: &mut Decoder) {
    check_line(value, at);
    let odd = |c: char| c.is_ascii_control() && !matches!(c, '\t' | '\0' | '\r' | '\n');
    if value.contains(odd) {
        at.invalid("a control character is not allowed here", None);
    }
    check_format(value, at);
}

fn remark_unknown_here(command: &Command<'_>, at: &mut Decoder) {
    if !words(OURS).any(|name| name == command.name) {
        let message = format!(
            "`%{}%` is a command of Envoy that Ferromesh's own proxy does not know: it refuses what \
             carries it, and goes on with what it had",
            command.name
        );
        at.remark(|path| {
            Diagnostic::warning(Code::NotActedOn, path, message)
                .fix("a command that both know, where such proxies are in use")
        });
    }
}

/// Why a command is refused.
struct Objection {
    message: String,
    fix: Option<String>,
}

impl Objection {
    fn new(message: String) -> Self {
        Self { message, fix: None }
    }
}

/// A command: `NAME%` or `NAME(ARGUMENTS)%`, each also with `:LENGTH` before the percent sign.
struct Command<'a> {
    name: &'a str,
    /// Empty: none.
    arguments: &'a str,
    limited: bool,
}

impl<'a> Command<'a> {
    /// A command with what stands behind it.
    fn read(text: &'a str) -> Option<(Self, &'a str)> {
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let (name, rest) = text.split_at(text.find(|c| !is_name(c))?);
        if name.is_empty() {
            return None;
        }
        let Some(rest) = rest.strip_prefix('(') else {
            let (limited, behind) = closed(rest)?;
            return Some((Self { name, arguments: "", limited }, behind));
        };
        // Arguments may hold parentheses: they end where the command does.
        rest.match_indices(')').find_map(|(i, _)| {
            let (limited, behind) = closed(&rest[i + 1..])?;
            Some((Self { name, arguments: &rest[..i], limited }, behind))
        })
    }

    fn check(&self) -> Result<(), Objection> {
        let Self { name, arguments, limited } = *self;
        let Some(takes) = Takes::of(name) else {
            let known = words(PLAIN).chain(FURTHER.iter().map(|(name, ..)| *name));
            let fix = suggest::nearest(name, known).map(|near| format!("`%{near}%`"));
            return Err(Objection { message: format!("`%{name}%` is not a known command"), fix });
        };
        if limited && !takes.length {
            let message = format!("`%{name}%` takes no length, got `:` and a number");
            return Err(Objection { message, fix: Some("take it out".to_owned()) });
        }
        if arguments.is_empty() {
            return match takes.needed {
                true => Err(Objection::new(format!(
                    "`%{name}%` needs arguments, as in `%REQ(X-REQUEST-ID)%`"
                ))),
                false => Ok(()),
            };
        }
        let Some(check) = takes.arguments else {
            return Err(Objection {
                message: format!("`%{name}%` takes no arguments, got `{arguments}`"),
                fix: Some(format!("`%{name}%`")),
            });
        };
        check(arguments).map_err(|expected| {
            Objection::new(format!("`%{name}%` expects {expected}, got `{arguments}`"))
        })
    }
}

/// What stands behind the end of a command, and whether a length comes before.
fn closed(text: &str) -> Option<(bool, &str)> {
    let Some(length) = text.strip_prefix(':') else {
        return Some((false, text.strip_prefix('%')?));
    };
    let behind = length.trim_start_matches(|c: char| c.is_ascii_digit());
    (behind.len() < length.len()).then_some(())?;
    Some((true, behind.strip_prefix('%')?))
}

/// Says what is expected instead of arguments that cannot be taken.
type Arguments = fn(&str) -> Result<(), &'static str>;

/// What a command takes.
struct Takes {
    /// `None`: no arguments.
    arguments: Option<Arguments>,
    /// Arguments must be there.
    needed: bool,
    /// A length may be given.
    length: bool,
}

impl Takes {
    fn of(name: &str) -> Option<Self> {
        if words(PLAIN).any(|plain| plain == name) {
            return Some(Self { arguments: None, needed: false, length: false });
        }
        let (_, arguments, needed, length) = FURTHER.iter().find(|(known, ..)| *known == name)?;
        Some(Self { arguments: Some(*arguments), needed: *needed, length: *length })
    }
}

fn any(_: &str) -> Result<(), &'static str> {
    Ok(())
}

fn taken(valid: bool, expected: &'static str) -> Result<(), &'static str> {
    if valid { Ok(()) } else { Err(expected) }
}

/// `NAME` or `NAME?ALTERNATIVE`.
fn header(text: &str) -> Result<(), &'static str> {
    let name = |name: &str| is_header_name(name.strip_prefix(':').unwrap_or(name));
    let valid = text.split('?').count() <= 2 && text.split('?').all(name);
    taken(valid, "a header's name, or two with `?` between them")
}

/// A line break, which conversions of Envoy's time formats could write, has no place on a line.
fn time(text: &str) -> Result<(), &'static str> {
    let breaks = |(i, _)| {
        let flags: &str = &text[i + 1..];
        let flags = flags.trim_start_matches(['-', '_', '0', '^', '#']);
        let flags = flags.trim_start_matches(|c: char| c.is_ascii_digit());
        flags.trim_start_matches(['E', 'O']).starts_with('n')
    };
    taken(!text.match_indices('%').any(breaks), "a time format without `%n`")
}

fn state(text: &str) -> Result<(), &'static str> {
    let parts: Vec<&str> = text.splitn(3, ':').collect();
    let valid = match parts[..] {
        [key] | [key, "PLAIN" | "TYPED"] => !key.is_empty(),
        [key, "FIELD", field] => !key.is_empty() && !field.is_empty(),
        _ => false,
    };
    taken(valid, "`KEY`, `KEY:PLAIN`, `KEY:TYPED` or `KEY:FIELD:NAME`")
}

fn metadata(text: &str) -> Result<(), &'static str> {
    let kind = text.split(':').next().unwrap_or_default();
    let known = matches!(
        kind,
        "DYNAMIC"
            | "CLUSTER"
            | "ROUTE"
            | "UPSTREAM_HOST"
            | "LISTENER"
            | "LISTENER_FILTER_CHAIN"
            | "VIRTUAL_HOST"
    );
    taken(
        known,
        "`TYPE:NAMESPACE:KEY` with TYPE one of DYNAMIC, CLUSTER, ROUTE, UPSTREAM_HOST, LISTENER, \
         LISTENER_FILTER_CHAIN, VIRTUAL_HOST",
    )
}

fn duration(text: &str) -> Result<(), &'static str> {
    let parts: Vec<&str> = text.split(':').collect();
    let valid = matches!(parts[..], [_, _] | [_, _, "ms" | "us" | "ns"])
        && parts.iter().all(|part| !part.is_empty());
    taken(valid, "`START:END` or `START:END:PRECISION`, PRECISION being ms, us or ns")
}

fn grpc_status(text: &str) -> Result<(), &'static str> {
    let valid = matches!(text, "CAMEL_STRING" | "SNAKE_STRING" | "NUMBER");
    taken(valid, "CAMEL_STRING, SNAKE_STRING or NUMBER")
}

fn path(text: &str) -> Result<(), &'static str> {
    let (query, which) = text.split_once(':').unwrap_or((text, "ORIG"));
    let valid = matches!(query, "WQ" | "NQ") && matches!(which, "ORIG" | "PATH" | "ORIG_OR_PATH");
    taken(valid, "`WQ` or `NQ`, then perhaps `:ORIG`, `:PATH` or `:ORIG_OR_PATH`")
}

fn query(text: &str) -> Result<(), &'static str> {
    taken(matches!(text, "ORIG" | "DECODED"), "ORIG or DECODED")
}

/// Of expressions the attributes alone, since nothing here could tell that others are well formed.
fn attribute(text: &str) -> Result<(), &'static str> {
    const RESERVED: &[&str] = &["in", "true", "false", "null"];
    let (path, key) = match text.strip_suffix("']").and_then(|t| t.split_once("['")) {
        Some((path, key)) => (path, Some(key)),
        None => (text, None),
    };
    let name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            && !RESERVED.contains(&name)
    };
    let key = key.is_none_or(|k| {
        !k.is_empty() && k.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    });
    let valid = key && path.split('.').all(name);
    taken(valid, "an attribute, such as `request.headers['x-a']`, and no other expression")
}

/// `{"operators": [...]}`, each a command's name or `{"command": …, "param": …, "max_length": …}`.
fn alternatives(text: &str) -> Result<(), &'static str> {
    const EXPECTED: &str = "`{\"operators\": [\"NAME\", {\"command\": \"NAME\", \"param\": \"…\", \
                            \"max_length\": N}]}` of commands that are valid by themselves";
    let valid = || {
        let Value::Object(fields) = serde_json::from_str(text).ok()? else { return None };
        let operators = fields.get("operators")?.as_array()?;
        (fields.len() == 1 && !operators.is_empty()).then_some(())?;
        operators.iter().all(|operator| alternative(operator).is_some()).then_some(())
    };
    valid().ok_or(EXPECTED)
}

fn alternative(operator: &Value) -> Option<()> {
    if let Some(name) = operator.as_str() {
        return Command { name, arguments: "", limited: false }.check().ok();
    }
    let fields = operator.as_object()?;
    let text = |key: &str| fields.get(key).map_or(Some(""), Value::as_str);
    let limit = fields.get("max_length");
    let known = ["command", "param", "max_length"];
    let valid = fields.keys().all(|key| known.contains(&key.as_str()))
        && limit.is_none_or(|limit| limit.as_u64().is_some_and(|n| n > 0 && n < 1 << 31));
    valid.then_some(())?;
    let (name, arguments) = (text("command")?, text("param")?);
    Command { name, arguments, limited: limit.is_some() }.check().ok()
}

fn words(list: &str) -> std::str::Split<'_, char> {
    list.split(' ')
}

/// Commands of Envoy 1.40 that take neither arguments nor a length, each tried.
const PLAIN: &str = "\
    ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_RETRANSMITTED BYTES_SENT CONNECTION_ID \
    CONNECTION_TERMINATION_DETAILS CUSTOM_FLAGS DOWNSTREAM_CX_RTT \
    DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT \
    DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_DIRECT_LOCAL_ADDRESS \
    DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_DIRECT_LOCAL_PORT \
    DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_HANDSHAKE_DURATION \
    DOWNSTREAM_HEADER_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_LOCAL_ADDRESS \
    DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_LOCAL_CLOSE_REASON DOWNSTREAM_LOCAL_DNS_SAN \
    DOWNSTREAM_LOCAL_EMAIL_SAN DOWNSTREAM_LOCAL_IP_SAN DOWNSTREAM_LOCAL_OTHERNAME_SAN \
    DOWNSTREAM_LOCAL_PORT DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_CERT \
    DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1 DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256 \
    DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_EMAIL_SAN \
    DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_IP_SAN \
    DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_ISSUER_SERIAL DOWNSTREAM_PEER_OTHERNAME_SAN \
    DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_URI_SAN \
    DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_PORT DOWNSTREAM_TLS_CIPHER \
    DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_TLS_VERSION DOWNSTREAM_TRANSPORT_FAILURE_REASON \
    DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_WIRE_BYTES_SENT DURATION FILTER_CHAIN_NAME \
    GRPC_STATUS_NUMBER HOSTNAME LISTENER_NAME LOCAL_REPLY_BODY PACKETS_RETRANSMITTED PROTOCOL \
    REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_HEADERS_BYTES REQUEST_TX_DURATION \
    RESPONSE_CODE RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_HEADERS_BYTES \
    RESPONSE_TRAILERS_BYTES RESPONSE_TX_DURATION ROUNDTRIP_DURATION ROUTE_NAME SPAN_ID STREAM_ID \
    TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT TRACE_ID UNIQUE_ID UPSTREAM_CLUSTER \
    UPSTREAM_CLUSTER_RAW UPSTREAM_CONNECTION_ID UPSTREAM_CONNECTION_IDS_ATTEMPTED \
    UPSTREAM_CONNECTION_POOL_READY_DURATION UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED \
    UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT UPSTREAM_DETECTED_CLOSE_TYPE \
    UPSTREAM_HEADER_BYTES_RECEIVED UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HOST \
    UPSTREAM_HOSTS_ATTEMPTED UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT UPSTREAM_HOST_NAME \
    UPSTREAM_HOST_NAMES_ATTEMPTED UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT \
    UPSTREAM_HOST_NAME_WITHOUT_PORT UPSTREAM_LOCAL_ADDRESS UPSTREAM_LOCAL_CLOSE_REASON \
    UPSTREAM_LOCAL_DNS_SAN UPSTREAM_LOCAL_IP_SAN UPSTREAM_LOCAL_PORT UPSTREAM_LOCAL_URI_SAN \
    UPSTREAM_PEER_CERT UPSTREAM_PEER_DNS_SAN UPSTREAM_PEER_IP_SAN UPSTREAM_PEER_ISSUER \
    UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_URI_SAN UPSTREAM_PROTOCOL UPSTREAM_REMOTE_ADDRESS \
    UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT \
    UPSTREAM_SERVER_NAME UPSTREAM_TLS_CIPHER UPSTREAM_TLS_SESSION_ID UPSTREAM_TLS_VERSION \
    UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_WIRE_BYTES_SENT \
    VIRTUAL_CLUSTER_NAME";

/// The others, each tried: arguments, whether they must be there, whether a length may be given.
const FURTHER: &[(&str, Arguments, bool, bool)] = &[
    ("CEL", attribute, true, true),
    ("CLUSTER_METADATA", any, true, false),
    ("COALESCE", alternatives, true, true),
    ("COMMON_DURATION", duration, true, false),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", any, false, false),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", any, false, false),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", any, false, false),
    ("DOWNSTREAM_PEER_CERT_V_END", time, false, false),
    ("DOWNSTREAM_PEER_CERT_V_START", time, false, false),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", any, false, false),
    ("DYNAMIC_METADATA", any, true, true),
    ("EMIT_TIME", time, false, false),
    ("EMIT_TIME_LOCAL", time, false, false),
    ("ENVIRONMENT", any, true, true),
    ("FILTER_STATE", state, true, true),
    ("GRPC_STATUS", grpc_status, false, false),
    ("METADATA", metadata, true, true),
    ("PATH", path, false, true),
    ("QUERY_PARAM", any, true, true),
    ("QUERY_PARAMS", query, false, true),
    ("REQ", header, true, true),
    ("REQUEST_HEADER", header, true, true),
    ("RESP", header, true, true),
    ("RESPONSE_CODE_DETAILS", any, false, false),
    ("RESPONSE_HEADER", header, true, true),
    ("RESPONSE_TRAILER", header, true, true),
    ("START_TIME", time, false, false),
    ("START_TIME_LOCAL", time, false, false),
    ("TRAILER", header, true, true),
    ("UPSTREAM_FILTER_STATE", state, true, true),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", any, false, false),
    ("UPSTREAM_METADATA", any, true, false),
    ("UPSTREAM_PEER_CERT_V_END", time, false, false),
    ("UPSTREAM_PEER_CERT_V_START", time, false, false),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", any, false, false),
];

/// Commands that our own proxy knows.
const OURS: &str = "\
    BYTES_RECEIVED BYTES_SENT CLUSTER_METADATA CONNECTION_TERMINATION_DETAILS \
    DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT \
    DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT \
    DOWNSTREAM_LOCAL_PORT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_DNS_SAN \
    DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_URI_SAN \
    DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT \
    DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_VERSION DURATION DYNAMIC_METADATA FILTER_CHAIN_NAME \
    FILTER_STATE GRPC_STATUS GRPC_STATUS_NUMBER HOSTNAME METADATA PROTOCOL REQ \
    REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_HEADER RESP RESPONSE_CODE \
    RESPONSE_CODE_DETAILS RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_HEADER \
    RESPONSE_TRAILER ROUTE_NAME SPAN_ID START_TIME TRACE_ID TRAILER UPSTREAM_CLUSTER \
    UPSTREAM_CLUSTER_RAW UPSTREAM_HOST UPSTREAM_LOCAL_ADDRESS UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT \
    UPSTREAM_LOCAL_PORT UPSTREAM_METADATA UPSTREAM_REMOTE_ADDRESS \
    UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT \
    UPSTREAM_TRANSPORT_FAILURE_REASON";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Severity;

    fn finding(format: &str) -> Option<Diagnostic> {
        let mut at = Decoder::default();
        check_format(format, &mut at);
        at.finish().into_iter().next()
    }

    #[test]
    fn commands_have_a_form_and_a_name() {
        let table = [
            ("100%", "`%%` for the sign itself"),
            ("%REQ(X-A%", "`%%` for the sign itself"),
            ("%protocol%", "`%%` for the sign itself"),
            ("%PROTOCOL:x%", "`%%` for the sign itself"),
            ("%PROTOCOL:%", "`%%` for the sign itself"),
            ("%PROTOCOLL%", "`%PROTOCOL%`"),
            ("%REQ%", "`%REQ%` needs arguments, as in `%REQ(X-REQUEST-ID)%`"),
            ("%DURATION:5%", "take it out"),
            ("%PROTOCOL(x)%", "`%PROTOCOL%`"),
        ];
        for (format, expected) in table {
            let found = finding(format).map(|d| d.fix.unwrap_or(d.message));
            assert_eq!(found.as_deref(), Some(expected), "{format}");
        }
    }

    #[test]
    fn header_values_stay_on_their_line() {
        let found = |value: &str| {
            let mut at = Decoder::default();
            check_header_value(value, &mut at);
            at.finish().len()
        };
        assert_eq!((found("a\nb"), found("a\tb")), (1, 0));
    }

    /// As a real Envoy took and refused them.
    #[test]
    fn arguments_are_those_that_envoy_takes() {
        let taken = [
            "plain 100%% of %PROTOCOL%",
            "%REQ(X-A?:PATH):10%-%RESP(:status)%",
            "%START_TIME(%Y-%m-%dT%H:%M:%S%z)%",
            "%FILTER_STATE(a:FIELD:b)%",
            "%METADATA(ROUTE:a)%",
            "%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%",
            "%DYNAMIC_METADATA(a:b):5%",
        ];
        for format in taken {
            assert_eq!(finding(format), None, "{format}");
        }
        let refused = [
            "%REQ(a?b?c)%",
            "%REQ(a b)%",
            "%FILTER_STATE(a:b:c)%",
            "%METADATA(FOO:a)%",
            "%COMMON_DURATION(A:B:C)%",
            "%COMMON_DURATION(A:B:ms):5%",
            "%GRPC_STATUS(FOO)%",
            "%UPSTREAM_TRANSPORT_FAILURE_REASON:10%",
            "%START_TIME(%En)%",
            "%PATH(x)%",
            "%QUERY_PARAMS(RAW)%",
            "%CEL(1+)%",
            "%CEL(request.in)%",
            "%COALESCE(x)%",
            r#"%COALESCE({"operators":[]})%"#,
            r#"%COALESCE({"operators":["REQ"]})%"#,
            r#"%COALESCE({"operators":[{"command":"DURATION","max_length":3}]})%"#,
            "%UPSTREAM_METADATA(a):5%",
        ];
        for format in refused {
            let found = finding(format).map(|d| d.severity);
            assert_eq!(found, Some(Severity::Error), "{format}");
        }
    }

    #[test]
    fn what_our_proxy_does_not_know_is_a_warning() {
        let table = [
            "%CEL(request.headers['x-a'])%",
            "%STREAM_ID%",
            "%ENVIRONMENT(X)%",
            "%QUERY_PARAM(x)%",
            "%PATH(NQ:ORIG):5%",
            r#"%COALESCE({"operators":["PROTOCOL",{"command":"REQ","param":"a","max_length":3}]})%"#,
        ];
        for format in table {
            let found = finding(format).expect("a warning");
            assert_eq!(found.severity, Severity::Warning, "{found}");
        }
    }
}
