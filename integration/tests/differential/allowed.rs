//! Differences that stay: each is named by the clause of an RFC that leaves it open.

use crate::{
    exchange::{self, Case},
    http1::{Ending, Request},
    http2::{Piece, kind},
    outcome::Aspect,
    syntax,
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
        what: "no host, several, or what is none: ours answers 400, Envoy routes by what is there",
        clause: "RFC 9112 section 3.2: a server MUST respond 400; RFC 9110 section 4.2.4: user information is an error",
        explains: |case, aspect| {
            let answers_otherwise = is_response(aspect);
            (is_refused(case, aspect) || answers_otherwise)
                && syntax::hosts(case).any(|host| !syntax::is_host(&host))
        },
    },
    Allowed {
        what: "a target that no grammar gives: ours answers 400, Envoy forwards most, escaped or as they are",
        clause: "RFC 9112 section 3: a recipient SHOULD respond 400; RFC 3986 sections 2.1 and 3.3: what a path holds; \
                 RFC 9110 section 7.1: without an authority the scheme is the connection's",
        explains: |case, aspect| {
            let bad = syntax::targets(case).any(|target| !syntax::is_target(&target));
            let answers_otherwise = is_response(aspect);
            let unknown = syntax::has_other_scheme(case);
            let schemes = named(aspect, "request line")
                || (is_result(aspect) && case.readable().contains("x-forwarded-proto"));
            // The scheme of a redirect is the request's.
            let redirects =
                matches!(aspect, Aspect::Response { what, .. } if what == "field location");
            let of_connection = (schemes || redirects) && syntax::has_no_authority(case);
            (is_refused(case, aspect) || answers_otherwise) && (bad || unknown)
                || is_result(aspect) && unknown
                || of_connection
        },
    },
    Allowed {
        what: "a fragment in a target: ours leaves it out, Envoy answers 400",
        clause: "RFC 9110 section 7.1: the target URI excludes the fragment",
        explains: |case, aspect| {
            is_result(aspect) && syntax::targets(case).any(|target| target.contains(&b'#'))
        },
    },
    Allowed {
        what: "an absolute target without a path: ours asks for `/`, Envoy for the query",
        clause: "RFC 9110 section 4.2.3: an empty path is equivalent to /",
        explains: |case, aspect| {
            is_result(aspect) && syntax::targets(case).any(|target| syntax::is_pathless(&target))
        },
    },
    Allowed {
        what: "a request line with other than single spaces or another version, or with something before it: ours \
               ignores empty lines and answers 400 to all else, Envoy reads it leniently, or takes it for no HTTP",
        clause: "RFC 9112 section 2.2: empty lines SHOULD be ignored; section 3: a recipient SHOULD respond 400",
        explains: |case, aspect| {
            let odd = |r: &Request| {
                !r.prefix.is_empty()
                    || r.gaps.iter().any(|gap| gap != b" ")
                    || !syntax::is_version(&r.version)
                    || r.end != b"\r\n"
            };
            let more = |r: &Request| !r.prefix.is_empty();
            // Where what follows is refused too, the status is one and the answers are two.
            let answer = is_result(aspect) || is_end(aspect) || is_response(aspect);
            http1(case).is_some_and(|r| if answer { odd(r) } else { more(r) })
        },
    },
    Allowed {
        what: "a folded field line: ours answers 400 or 502, Envoy unfolds it",
        clause: "RFC 9112 section 5.2: a recipient MUST either reject the message with 400 or 502, or replace the fold",
        explains: |case, aspect| {
            let request = http1(case).is_some_and(|r| r.fields.iter().any(is_folded));
            is_result(aspect) && (request || case.answer.name == "a folded line")
        },
    },
    Allowed {
        what: "a CR by itself, an empty transfer coding, a response of HTTP/2.0: ours answers 400 or 502",
        clause: "RFC 9112 section 2.2: a recipient MUST consider the element with the CR to be invalid; section 6.3: \
                 400 where chunked is not the last coding; RFC 9110 section 6.2: another major version is another syntax",
        explains: |case, aspect| {
            let request = http1(case).is_some_and(|r| {
                let coding = |line: &Vec<u8>| {
                    line.to_ascii_lowercase().starts_with(b"transfer-encoding: \r")
                };
                syntax::has_bare_cr(&r.head()) || r.fields.iter().any(coding)
            });
            is_result(aspect) && (request || ["a bare CR", "HTTP/2.0"].contains(&case.answer.name))
        },
    },
    Allowed {
        what: "which error answers a request with faults",
        clause: "RFC 9110 section 15: a client MUST understand the class; RFC 9112 section 6.3: 400 to other codings",
        explains: |_, aspect| match aspect {
            Aspect::Result { envoy, ours } => {
                [envoy, ours].into_iter().all(|result| refuses_all(result))
            }
            _ => false,
        },
    },
    Allowed {
        what: "percent-escapes in capitals",
        clause: "RFC 3986 section 6.2.2.1: the hexadecimal digits of an escape are case-insensitive",
        explains: |_, aspect| {
            values(aspect)
                .is_some_and(|(envoy, ours)| envoy != ours && capitals(envoy) == capitals(ours))
        },
    },
    Allowed {
        what: "several lines of a field: Envoy joins them, ours passes them on as they are, and no line escapes a policy \
               that speaks of its value",
        clause: "RFC 9110 section 5.3: a recipient MAY combine lines of the same name",
        explains: |case, aspect| {
            let joined = |value: &str| value.replace(" | ", ",").replace(", ", ",");
            let same = values(aspect).is_some_and(|(envoy, ours)| joined(envoy) == joined(ours));
            let judged =
                matches!(aspect, Aspect::Result { ours, .. } if statuses(ours).contains(&"403"));
            (named(aspect, "field ") && same) || (judged && syntax::has_lines_of_one_name(case))
        },
    },
    Allowed {
        what: "`content-length: 0`, or no length, where there is no content",
        clause: "RFC 9110 section 8.6: a request without either has no content",
        explains: |_, aspect| {
            named(aspect, "field content-length")
                && matches!(values(aspect), Some(("0", "-") | ("-", "0")))
        },
    },
    Allowed {
        what: "what a response to HEAD says of a body that does not come",
        clause: "RFC 9112 section 6.1: Transfer-Encoding MAY be sent; RFC 9110 section 9.3.2: fields may be left out",
        explains: |case, aspect| {
            let framing = ["field transfer-encoding", "field trailer", "field content-length"];
            let is_framing =
                matches!(aspect, Aspect::Response { what, .. } if framing.contains(&what.as_str()));
            is_framing && syntax::methods(case).any(|method| method == b"HEAD")
        },
    },
    Allowed {
        what: "options of a connection: ours says `upgrade` alone, and removes the fields of a response that it names; \
               an upgrade that an HTTP/2 server was not asked whether it can ends with ours, with the server behind Envoy",
        clause: "RFC 9110 section 7.6.1: an intermediary MUST remove them; section 7.8: protocol names have no case, and \
                 a server MAY ignore the field, as ours does where it speaks HTTP/2; RFC 8441 section 3: `:protocol` \
                 MUST NOT be sent before the server has said that it knows it",
        explains: |case, aspect| match aspect {
            Aspect::Result { envoy, ours } => {
                let asks = http1(case)
                    .is_some_and(|r| r.ending == Ending::Tunnel || syntax::asks_for_upgrade(r));
                let ends = ["200", "503"].into_iter().any(|status| ours.starts_with(status));
                asks && envoy.starts_with("502") && ends
            }
            Aspect::Response { what, ours, .. } => what == "field x-hop" && ours == "-",
            Aspect::Request { what, envoy, ours } => match what.as_str() {
                "field connection" => {
                    ours == "upgrade" && envoy.to_ascii_lowercase().contains("upgrade")
                }
                "field upgrade" => envoy.eq_ignore_ascii_case(ours),
                _ => false,
            },
            _ => false,
        },
    },
    Allowed {
        what: "an answer before the end of the request: ours reads on and keeps the connection, Envoy closes it",
        clause: "RFC 9112 section 9.3: a server MUST read the whole request or close the connection",
        explains: |case, aspect| match aspect {
            Aspect::Result { envoy, ours } => http1(case).is_some() && answers_more(envoy, ours),
            Aspect::End { envoy, ours } => {
                http1(case).is_some() && envoy == "Closed" && ours == "Served"
            }
            Aspect::Response { what, envoy, ours } => {
                what == "field connection" && envoy == "close" && ours == "-"
            }
            Aspect::Request { .. } => false,
        },
    },
    Allowed {
        what: "interim responses: ours answers 100 itself when it asks for the body, and passes none on",
        clause: "RFC 9110 section 10.1.1: a client MUST NOT wait for 100 indefinitely, and may discard one that it did \
                 not ask for; RFC 8297 section 2: an intermediary MAY drop 103",
        explains: |_, aspect| match aspect {
            Aspect::Result { envoy, ours } => {
                let [envoy, ours] = [envoy, ours].map(|result| without_interim(result));
                envoy == ours || answers_more(&envoy, &ours)
            }
            _ => false,
        },
    },
    Allowed {
        what: "a safe request is sent again when a server closes a connection that it had kept",
        clause: "RFC 9112 section 9.3.1: a client MAY retransmit idempotent requests automatically",
        explains: |case, aspect| match aspect {
            Aspect::Result { envoy, ours } => {
                case.answer.name == "closed"
                    && statuses(envoy) == statuses(ours)
                    && ours.len() > envoy.len()
            }
            _ => false,
        },
    },
    Allowed {
        what: "a server that changes to a protocol unasked: ours answers 502, Envoy passes that on",
        clause: "RFC 9110 section 15.2.2: 101 is for a client's request, by way of the Upgrade field",
        explains: |case, aspect| {
            let switches = ["switch", "101 unasked"].contains(&case.answer.name);
            switches && matches!(aspect, Aspect::Result { ours, .. } if ours.starts_with("502"))
        },
    },
    Allowed {
        what: "a response that is broken: how much of it comes before the connection ends",
        clause: "RFC 9112 section 8: a message that ends prematurely is incomplete, and its connection is closed",
        explains: |case, aspect| match aspect {
            Aspect::Result { envoy, ours } => {
                let broken =
                    ["cut in the body", "cut in a chunk", "no last chunk", "a bad chunk size"];
                let breaks = envoy.contains(" cut;") || broken.contains(&case.answer.name);
                let ends = ["no answer", "refused", "200 cut"];
                breaks && ends.iter().any(|end| ours.starts_with(end))
            }
            _ => false,
        },
    },
    Allowed {
        what: "a malformed HTTP/2 request is answered 400, or its stream or its connection ends",
        clause: "RFC 9113 section 5.4.1: a stream error MAY be a connection error; section 8.1.1: a server MAY respond; \
                 RFC 9110 section 6.5.1: a length or a host in trailers is none",
        explains: |case, aspect| {
            let begins = |text: &str| text.starts_with("refused") || text.starts_with("400");
            match (&case.request, aspect) {
                (exchange::Request::Http2(r), Aspect::Result { envoy, ours }) => {
                    begins(envoy)
                        && (begins(ours)
                            || r.streams().len() > 1
                            || syntax::has_framing_or_routing_in_trailers(r))
                }
                _ => false,
            }
        },
    },
    Allowed {
        what: "a PRIORITY frame on stream 0 or of a stream that depends on itself: ours ends it, Envoy goes on",
        clause: "RFC 9113 section 6.3: a connection error; RFC 7540 section 5.3.1: a stream error",
        explains: |case, aspect| {
            let wrong = |p: &Piece| match p {
                Piece::Frame { kind: kind::PRIORITY, stream, payload, .. } => {
                    *stream == 0 || payload.starts_with(&stream.to_be_bytes())
                }
                _ => false,
            };
            is_refused(case, aspect)
                && matches!(&case.request, exchange::Request::Http2(r) if r.pieces.iter().any(wrong))
        },
    },
];

/// Statuses that say that a request was not understood.
const REFUSALS: [&str; 8] = ["400", "403", "404", "426", "431", "501", "505", "refused"];

/// The statuses of a result.
fn statuses(result: &str) -> Vec<&str> {
    let statuses = result.split(';').next().unwrap_or_default();
    if statuses == "no answer" { Vec::new() } else { statuses.split(' ').collect() }
}

/// What a result says of requests at the application.
fn arrivals(result: &str) -> &str {
    result.split_once("; arrived: ").map_or("", |(_, arrivals)| arrivals)
}

/// Whether ours refused a request, or closed the connection on it. To gRPC that is said by a 200.
fn is_refused(case: &Case, aspect: &Aspect) -> bool {
    match aspect {
        Aspect::Result { ours, .. } => {
            let (statuses, refusals) = (statuses(ours), ["400", "426", "431", "501", "refused"]);
            let of_grpc =
                arrivals(ours) == "nothing" && case.readable().contains("application/grpc");
            statuses.is_empty()
                || of_grpc
                || statuses.iter().any(|status| refusals.contains(status))
        }
        _ => false,
    }
}

/// Whether nothing of a request came further than the proxy, which said so.
fn refuses_all(result: &str) -> bool {
    let statuses = statuses(result);
    ["nothing", "cut"].contains(&arrivals(result)) && statuses.iter().all(|s| REFUSALS.contains(s))
}

/// Whether the second result goes on where the first ends: with further answers, and with the rest
/// of what had begun to arrive.
fn answers_more(envoy: &str, ours: &str) -> bool {
    let (few, many) = (statuses(envoy), statuses(ours));
    let (cut, whole) = (arrivals(envoy), arrivals(ours));
    let arrived = ["nothing", "cut"].contains(&cut) || whole.starts_with(cut);
    !few.is_empty() && many.len() > few.len() && many.starts_with(&few) && arrived
}

fn without_interim(result: &str) -> String {
    let kept: Vec<&str> =
        statuses(result).into_iter().filter(|s| !["100", "103"].contains(s)).collect();
    format!("{}; arrived: {}", kept.join(" "), arrivals(result))
}

fn is_result(aspect: &Aspect) -> bool {
    matches!(aspect, Aspect::Result { .. })
}

fn is_response(aspect: &Aspect) -> bool {
    matches!(aspect, Aspect::Response { .. })
}

fn is_end(aspect: &Aspect) -> bool {
    matches!(aspect, Aspect::End { .. })
}

fn http1(case: &Case) -> Option<&Request> {
    match &case.request {
        exchange::Request::Http1(request) => Some(request.as_ref()),
        exchange::Request::Http2(_) => None,
    }
}

fn is_folded(line: impl AsRef<[u8]>) -> bool {
    let line = line.as_ref();
    line.starts_with(b" ") || line.windows(3).any(|w| w == b"\r\n ")
}

/// The two values of an aspect that is about a field, a line or a body.
fn values(aspect: &Aspect) -> Option<(&str, &str)> {
    match aspect {
        Aspect::Response { envoy, ours, .. } | Aspect::Request { envoy, ours, .. } => {
            Some((envoy, ours))
        }
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
