//! Differences that stay: each is named by the clause of an RFC that leaves it open.

use crate::{
    exchange::{self, Case},
    http1::Request,
    http2::{Piece, kind},
    outcome::Aspect,
};

/// One kind of difference that is no fault.
pub(crate) struct Allowed {
    /// What differs.
    pub(crate) what: &'static str,
    /// Why both are right.
    pub(crate) clause: &'static str,
    /// Whether an aspect of a difference is of this kind.
    pub(crate) explains: fn(&Case, &Aspect) -> bool,
}

/// All of them; twenty at most.
pub(crate) const ALLOWED: &[Allowed] = &[
    Allowed {
        what: "no host, several or an empty one: ours answers 400, Envoy routes by what is there",
        clause: "RFC 9112 section 3.2: a server MUST respond 400",
        explains: |case, aspect| is_refused(aspect, "400") && http1(case).is_some_and(|r| hosts(r).len() != 1),
    },
    Allowed {
        what: "a request line with other than single spaces: ours answers 400, Envoy reads it leniently",
        clause: "RFC 9112 section 3: a recipient SHOULD respond 400 to an invalid request line",
        explains: |case, aspect| {
            let odd =
                |r: &Request| r.gaps.iter().any(|gap| gap != b" ") || r.version.ends_with(b" ") || r.end != b"\r\n";
            is_refused(aspect, "400") && http1(case).is_some_and(odd)
        },
    },
    Allowed {
        what: "a folded field line: ours answers 400, Envoy unfolds it",
        clause: "RFC 9112 section 5.2: a server MUST either reject the message with 400 or replace the fold",
        explains: |case, aspect| {
            is_refused(aspect, "400") && http1(case).is_some_and(|r| r.fields.iter().any(is_folded))
        },
    },
    Allowed {
        what: "percent-escapes in capitals",
        clause: "RFC 3986 section 6.2.2.1: the hexadecimal digits of an escape are case-insensitive",
        explains: |_, aspect| {
            values(aspect).is_some_and(|(envoy, ours)| envoy != ours && capitals(envoy) == capitals(ours))
        },
    },
    Allowed {
        what: "several lines of a list field instead of one",
        clause: "RFC 9110 section 5.3: lines of the same name may be combined",
        explains: |_, aspect| {
            let joined = |value: &str| value.replace(" | ", ",").replace(", ", ",");
            named(aspect, "field x-") && values(aspect).is_some_and(|(envoy, ours)| joined(envoy) == joined(ours))
        },
    },
    Allowed {
        what: "`content-length: 0`, or no length, where there is no content",
        clause: "RFC 9110 section 8.6: a request without either has no content",
        explains: |_, aspect| {
            named(aspect, "field content-length") && matches!(values(aspect), Some(("0", "-") | ("-", "0")))
        },
    },
    Allowed {
        what: "the case of a protocol's name in `upgrade`",
        clause: "RFC 9110 section 7.8: recipients compare protocol names case-insensitively",
        explains: |_, aspect| {
            let same = |(envoy, ours): (&str, &str)| envoy.eq_ignore_ascii_case(ours);
            named(aspect, "field upgrade") && values(aspect).is_some_and(same)
        },
    },
    Allowed {
        what: "fields of a response that its `connection` names: ours removes them",
        clause: "RFC 9110 section 7.6.1: an intermediary MUST remove them",
        explains: |_, aspect| match aspect {
            Aspect::Response { what, ours, .. } => what == "field x-hop" && ours == "-",
            _ => false,
        },
    },
    Allowed {
        what: "a malformed HTTP/2 request is answered 400 before its stream ends",
        clause: "RFC 9113 section 8.1.1: a server MAY send a response before it resets the stream",
        explains: |case, aspect| {
            let refused = ["refused; arrived: nothing", "400; arrived: nothing"];
            matches!((&case.request, aspect), (exchange::Request::Http2(_), Aspect::Result { envoy, ours })
                if refused.contains(&envoy.as_str()) && refused.contains(&ours.as_str()))
        },
    },
    Allowed {
        what: "a connection, or a stream of it, is given up for the same fault",
        clause: "RFC 9113 section 5.4.1: an endpoint MAY treat a stream error as a connection error",
        explains: |case, aspect| {
            let begins = |text: &str| text.starts_with("refused ");
            matches!((&case.request, aspect), (exchange::Request::Http2(_), Aspect::Result { envoy, ours })
                if begins(envoy) && begins(ours))
        },
    },
    Allowed {
        what: "a PRIORITY frame on stream 0: ours ends the connection, Envoy goes on",
        clause: "RFC 9113 section 6.3: the recipient MUST respond with a connection error",
        explains: |case, aspect| {
            let zero = |p: &Piece| matches!(p, Piece::Frame { kind: kind::PRIORITY, stream: 0, .. });
            is_refused(aspect, "refused")
                && matches!(&case.request, exchange::Request::Http2(r) if r.pieces.iter().any(zero))
        },
    },
];

/// Whether ours refused in this way and the application saw nothing of what Envoy took.
fn is_refused(aspect: &Aspect, how: &str) -> bool {
    matches!(aspect, Aspect::Result { ours, .. } if ours.starts_with(how))
}

fn http1(case: &Case) -> Option<&Request> {
    match &case.request {
        exchange::Request::Http1(request) => Some(request.as_ref()),
        exchange::Request::Http2(_) => None,
    }
}

fn hosts(request: &Request) -> Vec<&[u8]> {
    let lines = request.fields.iter().flat_map(|line| line.split(|b| *b == b'\n'));
    let hosts = lines.filter(|line| line.len() > 5 && line[..5].eq_ignore_ascii_case(b"host:"));
    hosts.map(|line| line[5..].trim_ascii()).filter(|host| !host.is_empty()).collect()
}

fn is_folded(line: impl AsRef<[u8]>) -> bool {
    let line = line.as_ref();
    line.starts_with(b" ") || line.windows(3).any(|w| w == b"\r\n ")
}

/// The two values of an aspect that is about a field, a line or a body.
fn values(aspect: &Aspect) -> Option<(&str, &str)> {
    match aspect {
        Aspect::Response { envoy, ours, .. } | Aspect::Request { envoy, ours, .. } => Some((envoy, ours)),
        Aspect::Result { .. } | Aspect::End { .. } => None,
    }
}

fn named(aspect: &Aspect, what: &str) -> bool {
    matches!(aspect, Aspect::Request { what: own, .. } if own.starts_with(what))
}

/// Every percent-escape in capitals.
fn capitals(text: &str) -> String {
    let mut upper = 0;
    let change = |c: char| {
        upper = if c == '%' { 2 } else { i32::max(upper - 1, -1) };
        if upper >= 0 && c != '%' { c.to_ascii_uppercase() } else { c }
    };
    text.chars().map(change).collect()
}

/// The index of the first that explains an aspect.
pub(crate) fn explanation(case: &Case, aspect: &Aspect) -> Option<usize> {
    ALLOWED.iter().position(|allowed| (allowed.explains)(case, aspect))
}
