//! Answers that the proxy gives itself, worded as Envoy words them.

use std::{borrow::Cow, fmt::Write};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};

use super::{
    exchange::{Exchange, HTTP_2},
    headers::X_ENVOY_OVERLOADED,
    request::change_response,
    response::ResponseBody,
};
use crate::{
    codec::{
        blame::{DownstreamFault, UpstreamFault},
        framing::Misframed,
    },
    runtime::{
        filter::{Answer, Payload},
        http::ServerHeader,
    },
    telemetry::Flags,
};

/// A response on its way downstream.
pub(crate) type Reply = Response<ResponseBody>;

/// An answer of our own: status, body and what logs say about it.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) status: u16,
    pub(crate) body: Cow<'static, str>,
    pub(crate) flag: Flags,
    pub(crate) details: &'static str,
}

impl Local {
    /// A constant answer.
    pub(crate) const fn new(
        status: u16,
        body: &'static str,
        flag: Flags,
        details: &'static str,
    ) -> Self {
        Self { status, body: Cow::Borrowed(body), flag, details }
    }

    pub(crate) const BAD_REQUEST: Self =
        Self::new(400, "", Flags::DOWNSTREAM_PROTOCOL_ERROR, "http1.codec_error");
    /// The codec has found what is no HTTP in a request that was being forwarded.
    pub(crate) const BROKEN_REQUEST: Self =
        Self::new(400, "Bad Request", Flags::DOWNSTREAM_PROTOCOL_ERROR, "http1.codec_error");
    /// Two lengths of one body (RFC 9112, section 6.3: "ought to be handled as an error").
    pub(crate) const TWO_LENGTHS: Self = Self::new(
        400,
        "Bad Request",
        Flags::DOWNSTREAM_PROTOCOL_ERROR,
        "http1.content_length_and_chunked_not_allowed",
    );
    /// A transfer coding that is not understood (RFC 9112, section 6.1).
    pub(crate) const UNKNOWN_CODING: Self = Self::new(
        501,
        "Not Implemented",
        Flags::DOWNSTREAM_PROTOCOL_ERROR,
        "http1.invalid_transfer_encoding",
    );
    /// `https` over a connection without TLS.
    pub(crate) const FORBIDDEN_SCHEME: Self = Self::new(
        403,
        "Forbidden",
        Flags::DOWNSTREAM_PROTOCOL_ERROR,
        "http1.https_url_on_plaintext_connection",
    );
    pub(crate) const UPGRADE_REQUIRED: Self =
        Self::new(426, "", Flags::DOWNSTREAM_PROTOCOL_ERROR, "low_version");
    pub(crate) const PATH_REFUSED: Self =
        Self::new(400, "", Flags::DOWNSTREAM_PROTOCOL_ERROR, "path_normalization_failed");
    pub(crate) const NO_ROUTE: Self = Self::new(404, "", Flags::NO_ROUTE, "route_not_found");
    pub(crate) const NO_ENDPOINT: Self =
        Self::new(503, "no healthy upstream", Flags::NO_HEALTHY_UPSTREAM, "no_healthy_upstream");
    pub(crate) const UPSTREAM_TERMINATED: Self = Self::new(
        503,
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        Flags::UPSTREAM_TERMINATION,
        "upstream_reset_before_response_started{connection_termination}",
    );
    pub(crate) const UPSTREAM_RESET: Self = Self::new(
        503,
        "upstream connect error or disconnect/reset before headers. reset reason: remote reset",
        Flags::UPSTREAM_RESET,
        "upstream_reset_before_response_started{remote_reset}",
    );
    pub(crate) const UPSTREAM_REFUSED: Self = Self::new(
        503,
        "upstream connect error or disconnect/reset before headers. reset reason: remote refused stream reset",
        Flags::UPSTREAM_RESET,
        "upstream_reset_before_response_started{remote_refused_stream_reset}",
    );
    pub(crate) const UPSTREAM_PROTOCOL: Self = Self::new(
        502,
        "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
        Flags::UPSTREAM_PROTOCOL_ERROR,
        "upstream_reset_before_response_started{protocol_error}",
    );
    pub(crate) const TIMEOUT: Self =
        Self::new(504, "upstream request timeout", Flags::UPSTREAM_TIMEOUT, "response_timeout");
    pub(crate) const IDLE_TIMEOUT: Self =
        Self::new(504, "stream timeout", Flags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout");
    /// The same while the request had not come whole.
    pub(crate) const IDLE_UPLOAD: Self =
        Self::new(408, "stream timeout", Flags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout");
    pub(crate) const REQUEST_TIMEOUT: Self =
        Self::new(408, "request timeout", Flags::NONE, "request_overall_timeout");
    pub(crate) const UPGRADE_REFUSED: Self = Self::new(403, "", Flags::NO_ROUTE, "upgrade_failed");
    pub(crate) const CHAIN_CHANGED: Self =
        Self::new(503, "", Flags::UNAUTHORIZED, "filter_chain_changed");

    /// The answer where an endpoint has broken off before its own began.
    pub(crate) const fn of_fault(fault: UpstreamFault) -> Self {
        match fault {
            UpstreamFault::Terminated => Self::UPSTREAM_TERMINATED,
            UpstreamFault::Reset => Self::UPSTREAM_RESET,
            UpstreamFault::Refused => Self::UPSTREAM_REFUSED,
            UpstreamFault::Protocol => Self::UPSTREAM_PROTOCOL,
        }
    }

    /// Finishes the exchange with this answer to a request that was not read as one, so that nobody
    /// knows whether it is gRPC.
    pub(crate) fn send_unread(self, mut exchange: Box<Exchange>) -> Reply {
        exchange.flag(self.flag);
        exchange.details = Cow::Borrowed(self.details);
        plain(exchange, self.status, Bytes::from(self.body.into_owned()))
    }

    /// Finishes the exchange with this answer.
    pub(crate) fn send(self, mut exchange: Box<Exchange>) -> Reply {
        exchange.flag(self.flag);
        exchange.details = Cow::Borrowed(self.details);
        let overloaded = self.flag == Flags::UPSTREAM_OVERFLOW;
        let mut reply = direct(exchange, self.status, Bytes::from(self.body.into_owned()));
        if overloaded {
            reply.headers_mut().insert(X_ENVOY_OVERLOADED, HeaderValue::from_static("true"));
        }
        reply
    }
}

/// Ends an exchange that the client has broken: a message that is no HTTP/1 is answered by 400,
/// what cannot be answered any more is not.
pub(crate) fn part(mut exchange: Box<Exchange>, fault: DownstreamFault) -> Reply {
    if fault == DownstreamFault::Malformed && exchange.protocol != HTTP_2 {
        return closing(Local::BROKEN_REQUEST.send(exchange));
    }
    exchange.note_fault(fault);
    let mut nothing = respond(0, HeaderMap::new(), ResponseBody::empty(Some(exchange)));
    nothing.extensions_mut().insert(NoReply(fault));
    nothing
}

/// Ends an exchange whose request may end in two places: no request is read after this one.
pub(crate) fn misframed(exchange: Box<Exchange>, misframed: Misframed) -> Reply {
    match misframed {
        Misframed::Length if exchange.is_http2() => part(exchange, DownstreamFault::Malformed),
        Misframed::Length => closing(Local::BROKEN_REQUEST.send_unread(exchange)),
        Misframed::Both => closing(Local::TWO_LENGTHS.send_unread(exchange)),
        Misframed::Coding => closing(Local::UNKNOWN_CODING.send_unread(exchange)),
    }
}

/// Marks a reply that is not sent: the connection is closed, or the stream reset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoReply(pub(crate) DownstreamFault);

/// Whether it is the last answer on its connection.
pub(crate) fn is_closing(reply: &Reply) -> bool {
    reply.headers().get(header::CONNECTION).is_some_and(|option| option == "close")
}

/// The last answer on its connection: where the next request begins is not known.
pub(crate) fn closing(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// Ends the exchange of an answer without body, now that nothing changes its head any more.
pub(crate) fn settle(reply: &mut Reply, version: Version) {
    let not_modified = version < Version::HTTP_2 && reply.status() == StatusCode::NOT_MODIFIED;
    let length = || reply.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok();
    let announced = not_modified && length().is_some();
    reply.body_mut().end_if_empty(announced);
}

/// An answer that a filter gives.
pub(crate) fn of_filter(mut exchange: Box<Exchange>, answer: Answer) -> Reply {
    exchange.flag(answer.flag);
    if !answer.details.is_empty() {
        exchange.details = answer.details;
    }
    let mut headers = HeaderMap::new();
    if let Some(changes) = &answer.changes {
        change_response(&exchange, changes, &mut headers);
    }
    let mut own = answer.headers;
    headers.keys().for_each(|changed| drop(own.remove(changed)));
    headers.extend(own);
    match answer.payload {
        Payload::Settled => settled(exchange, headers),
        Payload::Grpc { status, text } => grpc_with(exchange, headers, status, &text),
        Payload::Text { status, text, grpc } if exchange.is_grpc => {
            grpc_with(exchange, headers, grpc.unwrap_or(grpc_code(status)), &text)
        }
        Payload::Text { status, text, .. } => {
            plain_with(exchange, headers, status, Bytes::from(text.into_owned()))
        }
        Payload::Body { status, body, grpc } if exchange.is_grpc => {
            let message = String::from_utf8_lossy(&body);
            grpc_with(exchange, headers, grpc.unwrap_or(grpc_code(status)), &message)
        }
        Payload::Body { status, body, .. } => plain_with(exchange, headers, status, body),
    }
}

/// An answer without a body, of which no route changes anything.
fn settled(mut exchange: Box<Exchange>, mut headers: HeaderMap) -> Reply {
    common(&mut headers, &exchange);
    exchange.note_response(200, &headers);
    respond(200, headers, ResponseBody::settled(Some(exchange)))
}

/// An answer with this text, as gRPC wants it where gRPC is spoken.
pub(crate) fn direct(exchange: Box<Exchange>, status: u16, body: Bytes) -> Reply {
    match exchange.is_grpc {
        true => grpc(exchange, status, &String::from_utf8_lossy(&body)),
        false => plain(exchange, status, body),
    }
}

/// An answer with a text body.
pub(crate) fn plain(exchange: Box<Exchange>, status: u16, body: Bytes) -> Reply {
    plain_with(exchange, HeaderMap::new(), status, body)
}

fn plain_with(
    mut exchange: Box<Exchange>,
    mut headers: HeaderMap,
    status: u16,
    body: Bytes,
) -> Reply {
    // Such a response ends with its head, whatever a route or a filter says (RFC 9110, sections
    // 15.3.5, 15.3.6 and 15.4.5).
    let body = if matches!(status, 204 | 205 | 304) { Bytes::new() } else { body };
    if body.is_empty() {
        headers.remove(header::CONTENT_TYPE);
    } else {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    common(&mut headers, &exchange);
    exchange.note_response(status, &headers);
    // The codec of HTTP/2 would send what is given.
    let body = if exchange.method == Method::HEAD { Bytes::new() } else { body };
    respond(status, headers, ResponseBody::full(body, exchange))
}

/// An answer without body.
pub(crate) fn bodiless(mut exchange: Box<Exchange>, status: u16, mut headers: HeaderMap) -> Reply {
    common(&mut headers, &exchange);
    exchange.note_response(status, &headers);
    respond(status, headers, ResponseBody::empty(Some(exchange)))
}

/// gRPC wants 200 and the failure in `grpc-status` (gRPC over HTTP/2, "Trailers-Only").
pub(crate) fn grpc(exchange: Box<Exchange>, status: u16, message: &str) -> Reply {
    grpc_with(exchange, HeaderMap::new(), grpc_code(status), message)
}

/// The same with a gRPC status and these headers.
fn grpc_with(exchange: Box<Exchange>, mut headers: HeaderMap, code: u32, message: &str) -> Reply {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code));
    let is_told = !message.is_empty() && exchange.method != Method::HEAD;
    if is_told && let Ok(message) = HeaderValue::from_str(&percent_encoded(message)) {
        headers.insert("grpc-message", message);
    }
    bodiless(exchange, 200, headers)
}

/// A message as gRPC writes it (gRPC over HTTP/2, "Status-Message").
fn percent_encoded(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// gRPC's mapping of HTTP statuses.
fn grpc_code(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// Headers of every response.
pub(crate) fn common(headers: &mut HeaderMap, exchange: &Exchange) {
    let manager = &exchange.manager;
    let ours = HeaderValue::from_str(&manager.server_name).ok().filter(|name| !name.is_empty());
    match (manager.server_header, ours) {
        (ServerHeader::Overwrite, Some(ours)) => {
            headers.insert(header::SERVER, ours);
        }
        (ServerHeader::AppendIfAbsent, Some(ours)) => {
            headers.entry(header::SERVER).or_insert(ours);
        }
        _ => {}
    }
    if !manager.via.is_empty()
        && let Ok(via) = HeaderValue::from_str(&manager.via)
    {
        headers.append(header::VIA, via);
    }
}

pub(crate) fn respond(status: u16, headers: HeaderMap, body: ResponseBody) -> Reply {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}
