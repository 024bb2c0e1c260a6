//! What a phase shows to a filter, and what the filter wants then.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};

use super::{ConnectionState, Notes};
use crate::runtime::{
    facts::{ConnectionFacts, RequestFacts},
    flags::Flags,
    format::HeaderOps,
    rate_limit::RouteLimits,
};

/// A phase of a request's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The request's head was read and its route found.
    RequestHeaders,
    /// A piece of the request's body has come.
    RequestBody,
    /// The response's head is there.
    ResponseHeaders,
    /// A piece of the response's body has come.
    ResponseBody,
    /// The exchange is over.
    Log,
}

impl Phase {
    /// Its bit in a set of phases.
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What a filter wants after it was shown something.
#[derive(Debug)]
pub enum Step {
    /// The next filter.
    Continue,
    /// The next filter after this time, or this answer then.
    Wait(Duration, Option<Box<Answer>>),
    /// The next filter, after these changes of the request's headers.
    Change(Arc<HeaderOps>),
    /// A call, whose answer it is told.
    Call(Box<Call>),
    /// More of the request's body before the request goes on; nothing else in other phases than
    /// [`Phase::RequestBody`].
    More,
    /// An end of the request: no later filter sees it.
    Answer(Box<Answer>),
}

/// A request of a filter's own to a cluster.
#[derive(Debug)]
pub struct Call {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// What is sent; the URI's authority is the host.
    pub request: Request<Bytes>,
    /// For all of it.
    pub timeout: Duration,
}

/// What came of a call.
pub type Called = Result<CallAnswer, CallFailure>;

/// The answer to a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Bytes,
    /// What came after the body, such as `grpc-status`.
    pub trailers: HeaderMap,
}

/// Why a call has brought no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallFailure {
    /// There is no such cluster.
    #[error("the cluster is not known")]
    NoCluster,
    /// It has no endpoint that could be asked, or the limits of its load are reached.
    #[error("no endpoint takes the call")]
    NoEndpoint,
    /// The endpoint has not answered, or not to its end.
    #[error("the endpoint has not answered")]
    Broken,
    /// It took too long.
    #[error("the call took too long")]
    Timeout,
}

/// An answer that a filter gives.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What is answered.
    pub payload: Payload,
    /// What logs and metrics show.
    pub flag: Flags,
    /// Why, in logs; empty says nothing.
    pub details: Cow<'static, str>,
    /// Changes of its headers.
    pub changes: Option<Arc<HeaderOps>>,
    /// Headers that it gets then, where the changes made none of that name.
    pub headers: HeaderMap,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// A text; a client that speaks gRPC gets 200 and `grpc`, or the status that stands for this
    /// one.
    Text {
        /// HTTP status.
        status: u16,
        /// Body, or message.
        text: Cow<'static, str>,
        /// gRPC status.
        grpc: Option<u32>,
    },
    /// A gRPC status, whatever the client speaks.
    Grpc {
        /// The status.
        status: u32,
        /// The message.
        text: Cow<'static, str>,
    },
    /// These bytes, of the type that the headers say; a client that speaks gRPC gets them as the
    /// message beside the status that stands for this one.
    Body {
        /// HTTP status.
        status: u16,
        /// The bytes.
        body: Bytes,
        /// gRPC status, if not the one that stands for the other.
        grpc: Option<u32>,
    },
    /// 200 without a body, of which no route changes anything.
    Settled,
}

/// What filters leave for the router.
#[derive(Clone, Copy, Default, Debug)]
pub struct ForRouter {
    /// The ALPN offered upstream is the chosen cluster's.
    pub mesh_alpn: bool,
    /// No `x-envoy-*` headers are added.
    pub suppress_envoy_headers: bool,
    /// The route is to be chosen again, by what the filter has changed; for later filters too.
    pub other_route: bool,
    /// The filter has changed the path, and logs show the new one.
    pub other_path: bool,
}

/// A request as a filter sees and changes it.
pub struct FilterRequest<'a> {
    /// The connection that carries it.
    pub connection: &'a ConnectionFacts,
    /// Who we are to the client, by URI names of our certificate.
    pub own_names: &'a [Arc<str>],
    /// Such as `HTTP/2`.
    pub protocol: &'static str,
    /// The client's address, trusted hops considered.
    pub remote_ip: IpAddr,
    /// Method.
    pub method: &'a Method,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `:authority` or `Host`.
    pub authority: &'a str,
    /// Path with query, as it was matched; changed by [`Self::change_path`].
    pub path: &'a mut String,
    /// The header fields, as they are going to be sent.
    pub headers: &'a mut HeaderMap,
    /// What filters have noted.
    pub notes: &'a mut Notes,
    /// Flags of the response, for logs and metrics.
    pub flags: &'a mut Flags,
    /// What they leave for the router.
    pub router: &'a mut ForRouter,
    /// What its route says of rate limits; nothing where it has none that forwards.
    pub limits: Option<RouteLimits<'a>>,
    /// What filters keep for the connection.
    pub connection_state: &'a ConnectionState,
    /// Random numbers.
    pub random: fn() -> u64,
    /// The clock, asked only by who needs it.
    pub now: fn() -> Instant,
    /// The time of day, asked only by who needs it.
    pub date: fn() -> SystemTime,
    /// This filter's place in the chain, under which it keeps its state.
    pub place: usize,
}

impl FilterRequest<'_> {
    /// Sends another path, which logs show too.
    pub fn change_path(&mut self, path: String) {
        *self.path = path;
        self.router.other_path = true;
    }

    /// Notes one more flag.
    pub fn flag(&mut self, flag: Flags) {
        *self.flags = self.flags.with(flag);
    }

    /// What matchers are told.
    pub fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            connection: self.connection,
            method: self.method.as_str(),
            scheme: self.scheme,
            authority: self.authority,
            path: self.path,
            remote_ip: self.remote_ip,
            headers: &*self.headers,
            metadata: self.notes.metadata(),
        }
    }
}

/// A response as a filter sees and changes it.
pub struct FilterResponse<'a> {
    /// Its status.
    pub status: u16,
    /// The header fields, as they are going to be sent.
    pub headers: &'a mut HeaderMap,
    /// What filters have noted.
    pub notes: &'a mut Notes,
    /// The clock.
    pub now: fn() -> Instant,
    /// This filter's place in the chain, under which it kept its state.
    pub place: usize,
}

/// A part of a body: of a request's all that has come so far, of a response's what has come since
/// the last one. A filter may replace the bytes; those of a response it may keep back for a later
/// piece, by leaving none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Piece {
    /// The bytes; may be empty.
    pub bytes: Bytes,
    /// Nothing comes after it.
    pub is_last: bool,
}
