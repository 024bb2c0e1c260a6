//! The HTTP connection manager: how requests are read, named, filtered and answered on one filter
//! chain.

use std::{sync::Arc, time::Duration};

use super::{
    access_log::AccessLog, filter::Filters, limits::HttpLimits, metric_rules::OwnMetrics,
    route::RouteConfig, trace::Tracing,
};

/// A hash of a message. It says nothing of what the manager does, and the debug form, which does
/// (`integration/tests/fields` goes by it), is the same for all.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageHash(u64);

impl MessageHash {
    /// Of a message's bytes.
    pub fn of(message: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(message))
    }
}

impl std::fmt::Debug for MessageHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MessageHash")
    }
}

/// HTTP on a filter chain.
#[derive(Debug)]
pub struct HttpConnectionManager {
    /// A hash of its message: managers that were compiled from equal ones have the same.
    pub version: MessageHash,
    /// Prefix of statistics.
    pub stat_prefix: Arc<str>,
    /// What HTTP is spoken.
    pub codec: Codec,
    /// Where the route configuration comes from.
    pub routes: RouteSource,
    /// In order; the router is the last.
    pub filters: Filters,
    /// Resolves `.`, `..` and percent-encoded unreserved characters in the path before it is
    /// matched.
    pub normalize_path: bool,
    /// Replaces `//` by `/` in the path.
    pub merge_slashes: bool,
    /// What `%2F` and `%5C` in a path mean.
    pub escaped_slashes: EscapedSlashes,
    /// Takes the client's address from the connection (an edge proxy) and cleans `x-forwarded-for`.
    pub use_remote_address: bool,
    /// Hops of `x-forwarded-for` to trust, counted from the right.
    pub xff_trusted_hops: u32,
    /// Does not add the source address to `x-forwarded-for`.
    pub skip_xff_append: bool,
    /// What happens to `x-forwarded-client-cert`.
    pub client_cert: ForwardClientCert,
    /// `server` header of responses.
    pub server_name: Arc<str>,
    /// What happens to a `server` header from upstream.
    pub server_header: ServerHeader,
    /// Protocols to which a connection may be upgraded, in lower case, such as `websocket`.
    pub upgrades: Vec<Arc<str>>,
    /// Over HTTP/2, too (RFC 8441).
    pub upgrades_http2: bool,
    /// Answers 504 when a stream is silent for so long; `None` never.
    pub stream_idle_timeout: Option<Duration>,
    /// Time to receive a whole request; `None` unlimited.
    pub request_timeout: Option<Duration>,
    /// Closes a connection without requests after so long; `None` never.
    pub idle_timeout: Option<Duration>,
    /// When a connection is to end, whatever it carries; `None` never.
    pub longest: Option<LongestConnection>,
    /// Time between announcing the end of a connection and closing it.
    pub drain_timeout: Duration,
    /// How much a client may ask.
    pub limits: HttpLimits,
    /// Accepts HTTP/1.0.
    pub accept_http_10: bool,
    /// Creates `x-request-id` if it is missing.
    pub generate_request_id: bool,
    /// Keeps an `x-request-id` that came from outside, even at the edge.
    pub preserve_external_request_id: bool,
    /// Writes the `via` header if not empty.
    pub via: Arc<str>,
    /// What is told of requests in traces; without it proxies do not tell each other the names of
    /// routes' operations either ([`super::route::Route::operation`]).
    pub tracing: Option<Arc<Tracing>>,
    /// Logs each request.
    pub access_logs: Vec<AccessLog>,
    /// What is different of its metrics.
    pub metrics: Option<Arc<OwnMetrics>>,
}

impl HttpConnectionManager {
    /// Whether the headers of a request are asked for when it is over.
    pub fn keeps_request_headers(&self) -> bool {
        let metrics = self.metrics.as_ref().is_some_and(|own| own.asks_request_headers());
        !self.access_logs.is_empty() || metrics
    }

    /// Whether the headers and trailers of a response are asked for when it is over.
    pub fn keeps_response_headers(&self) -> bool {
        !self.access_logs.is_empty() || self.metrics.is_some()
    }
}

/// How long a client's connection may last (Envoy's `max_connection_duration`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongestConnection {
    /// From its beginning; then its client is told to go.
    pub duration: Duration,
    /// HTTP/1.x is told with the next answer alone, and not closed after the drain time, so that no
    /// request crosses the end (`http1_safe_max_connection_duration`).
    pub http1_by_answer: bool,
}

/// What HTTP is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// Found out by ALPN or the HTTP/2 preface.
    Auto,
    /// HTTP/1.x.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Where the route configuration comes from.
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// Written into the listener.
    Inline(Arc<RouteConfig>),
    /// The newest one with this name: [`super::RuntimeConfig::route_config`], so that a connection
    /// that stays open sees route updates.
    Rds(Arc<str>),
}

/// What `%2F` and `%5C` in a path mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EscapedSlashes {
    /// Kept as they are.
    Keep,
    /// Answers 400.
    Reject,
    /// Redirects to the unescaped path.
    UnescapeAndRedirect,
    /// Unescaped and matched so.
    UnescapeAndForward,
}

/// What happens to a `server` header from upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerHeader {
    /// Replaced.
    Overwrite,
    /// Kept if there is one.
    AppendIfAbsent,
    /// Passed on as it is; nothing is added.
    PassThrough,
}

/// What happens to `x-forwarded-client-cert`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForwardClientCert {
    /// What happens to the received header.
    pub mode: ForwardClientCertMode,
    /// What is written about the peer; `By` (our URI SANs) and `Hash` always are.
    pub details: ClientCertDetails,
}

impl ForwardClientCert {
    /// Whether the peer's certificates themselves are written.
    pub fn tells_certificates(&self) -> bool {
        let writes = matches!(
            self.mode,
            ForwardClientCertMode::AppendForward | ForwardClientCertMode::SanitizeSet
        );
        writes && (self.details.cert || self.details.chain)
    }
}

/// What happens to a received `x-forwarded-client-cert`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardClientCertMode {
    /// Removed.
    Sanitize,
    /// Passed on if the connection is mutual TLS, else removed.
    ForwardOnly,
    /// The peer is appended if the connection is mutual TLS.
    AppendForward,
    /// Replaced by the peer, or removed if there is none.
    SanitizeSet,
    /// Passed on.
    AlwaysForwardOnly,
}

/// Parts of the peer's certificate to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientCertDetails {
    /// `Subject="…"`.
    pub subject: bool,
    /// `URI=…`.
    pub uri: bool,
    /// `DNS=…`.
    pub dns: bool,
    /// `Cert="…"`: the leaf, URL-encoded PEM.
    pub cert: bool,
    /// `Chain="…"`.
    pub chain: bool,
}
