//! Who broke an exchange: faults of the client and faults of the endpoint, told apart as soon as a
//! codec reports one.
//!
//! Only an [`UpstreamFault`] may be counted against an endpoint, be tried again, or be answered by
//! a 5xx; a [`DownstreamFault`] is answered by a 400 or not at all. Flags and statuses are those of
//! Envoy 1.40.

use std::{error::Error, io};

use super::guard::MALFORMED;
use crate::{runtime::limits::Limit, telemetry::Flags};

/// How a client has broken its own request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DownstreamFault {
    /// It has closed, reset or half-closed its connection before its request or the response had
    /// ended.
    #[error("the client has gone")]
    Gone,
    /// It has reset the stream (RFC 9113, section 6.4).
    #[error("the client has reset the stream")]
    Reset,
    /// What it has sent is no HTTP message.
    #[error("the client has broken the protocol")]
    Malformed,
    /// Its trailers cross a limit.
    #[error("trailers of the client cross a limit: {}", .0.name())]
    TooMuch(Limit),
}

impl DownstreamFault {
    /// What an error of the codec says that reads a request's body.
    pub(crate) fn of(error: &hyper::Error) -> Self {
        if let Some(error) = cause::<h2::Error>(error) {
            return Self::of_stream(error);
        }
        match cause::<io::Error>(error).map(io::Error::kind) {
            Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => Self::Malformed,
            _ => Self::Gone,
        }
    }

    /// What an error of the codec says that reads the head of a request.
    pub(crate) fn of_head(error: &hyper::Error) -> Self {
        if error.is_parse() { Self::Malformed } else { Self::Gone }
    }

    fn of_stream(error: &h2::Error) -> Self {
        if is_malformed(error) {
            return Self::Malformed;
        }
        let by_peer = error.is_remote() && error.reason() != Some(h2::Reason::PROTOCOL_ERROR);
        match (error.is_io(), error.is_reset() || error.is_go_away()) {
            (true, _) | (_, false) => Self::Gone,
            (false, true) if !by_peer => Self::Malformed,
            (false, true) if error.is_reset() => Self::Reset,
            (false, true) => Self::Gone,
        }
    }

    /// How logs and metrics show it.
    pub(crate) const fn flag(self) -> Flags {
        match self {
            Self::Gone => Flags::DOWNSTREAM_TERMINATION,
            Self::Reset => Flags::DOWNSTREAM_REMOTE_RESET,
            Self::Malformed | Self::TooMuch(_) => Flags::DOWNSTREAM_PROTOCOL_ERROR,
        }
    }

    /// How logs word it.
    pub(crate) const fn details(self, http2: bool) -> &'static str {
        match (self, http2) {
            (Self::Gone, _) => "downstream_remote_disconnect",
            (Self::TooMuch(_), _) => "http2.too_many_headers",
            (Self::Malformed, false) => "http1.codec_error",
            (Self::Reset | Self::Malformed, _) => "http2.remote_reset",
        }
    }
}

/// Why a request body ends early. None of it is the endpoint's doing.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    /// The client has broken off.
    #[error("request body: {0}")]
    Downstream(#[from] DownstreamFault),
    /// A later attempt has taken the request body over.
    #[error("request body: given up for another attempt")]
    Superseded,
    /// The exchange was over before the body was.
    #[error("request body: answered before its end")]
    Unfinished,
    /// A mirror has taken it too slowly.
    #[error("request body: too far behind")]
    LeftBehind,
}

/// How an endpoint has broken an exchange that had reached it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum UpstreamFault {
    /// It has closed the connection.
    #[error("the connection was terminated")]
    Terminated,
    /// It has reset the stream.
    #[error("the stream was reset")]
    Reset,
    /// It has reset the stream, or left it out of the last ones of its connection, and says so that
    /// it has not looked at the request (RFC 9113, section 8.7).
    #[error("the stream was refused")]
    Refused,
    /// What it has sent is no HTTP message, or cannot be told from two.
    #[error("the protocol was broken")]
    Protocol,
}

impl UpstreamFault {
    /// What an error of the codec says that waits for the head of a response.
    pub(crate) fn of(error: &hyper::Error) -> Self {
        match cause::<h2::Error>(error) {
            Some(error) => Self::of_stream(error),
            None if error.is_parse() => Self::Protocol,
            // The codec has unwrapped the end of a connection of HTTP/2.
            None if cause::<io::Error>(error).is_some_and(|error| error.kind() == MALFORMED) => {
                Self::Protocol
            }
            None => Self::Terminated,
        }
    }

    /// What an error of the codec says that reads the body of a response. A body of HTTP/1 that
    /// does not end as its head has announced is no message any more, whatever ended it.
    pub(crate) fn of_body(error: &hyper::Error) -> Self {
        cause::<h2::Error>(error).map_or(Self::Protocol, Self::of_stream)
    }

    fn of_stream(error: &h2::Error) -> Self {
        let reset = error.is_reset() && error.is_remote();
        match error.reason() {
            _ if is_malformed(error) => Self::Protocol,
            _ if error.is_io() => Self::Terminated,
            Some(h2::Reason::PROTOCOL_ERROR) if reset => Self::Protocol,
            Some(h2::Reason::REFUSED_STREAM) if reset => Self::Refused,
            // Only streams beyond the last one that a GOAWAY names end so (RFC 9113, section 6.8);
            // the others go on to the end of the connection.
            _ if error.is_go_away() && error.is_remote() => Self::Refused,
            _ if reset => Self::Reset,
            // The connection is at its end; who says so by a code of ours has found what it cannot
            // read.
            _ if error.is_library() => Self::Protocol,
            _ => Self::Terminated,
        }
    }

    /// How logs and metrics show it.
    pub(crate) const fn flag(self) -> Flags {
        match self {
            Self::Terminated => Flags::UPSTREAM_TERMINATION,
            Self::Reset | Self::Refused => Flags::UPSTREAM_RESET,
            Self::Protocol => Flags::UPSTREAM_PROTOCOL_ERROR,
        }
    }

    /// How logs word it where a response has begun.
    pub(crate) const fn details_after_headers(self) -> &'static str {
        match self {
            Self::Terminated => "upstream_reset_after_response_started{connection_termination}",
            Self::Reset => "upstream_reset_after_response_started{remote_reset}",
            Self::Refused => "upstream_reset_after_response_started{remote_refused_stream_reset}",
            Self::Protocol => "upstream_reset_after_response_started{protocol_error}",
        }
    }
}

/// The connection was ended for what has come on it.
fn is_malformed(error: &h2::Error) -> bool {
    error.get_io().is_some_and(|error| error.kind() == MALFORMED)
}

/// The first error of this type in the chain of causes.
fn cause<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
