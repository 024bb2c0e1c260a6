//! Substitution formats (`%REQ(:path)% %RESPONSE_CODE%`) as compiled operators, shared by access
//! logs and header operations. Rendering belongs to `telemetry` and `http`, which know the values.
//!
//! Spec: Envoy "Access logging: format strings".

use std::sync::Arc;

/// A compiled format: its operators are rendered in order and joined.
pub type Format = Arc<[FormatOp]>;

/// One piece of a format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FormatOp {
    /// Text as it stands.
    Literal(Arc<str>),
    /// An operator; what has no value renders as `-` in a log and as nothing in a header.
    Field {
        /// What to render.
        field: Field,
        /// Longest rendering in bytes, if limited.
        limit: Option<usize>,
    },
}

/// What an operator renders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Field {
    /// Request header by lower-case name, else the second one.
    RequestHeader(Arc<str>, Option<Arc<str>>),
    /// Response header by lower-case name, else the second one.
    ResponseHeader(Arc<str>, Option<Arc<str>>),
    /// Response trailer by lower-case name.
    Trailer(Arc<str>),
    /// Start of the request; the argument is a strftime format, empty for ISO 8601 with
    /// milliseconds.
    StartTime(Arc<str>),
    /// `HTTP/1.1`, `HTTP/2` or nothing for TCP.
    Protocol,
    /// Response status; 0 when there was none.
    ResponseCode,
    /// Why the proxy sent that status, such as `via_upstream`.
    ResponseCodeDetails,
    /// Envoy's response flags such as `UH`, `NR`, `UF`.
    ResponseFlags,
    /// Why an L4 connection ended.
    ConnectionTerminationDetails,
    /// Bytes received from downstream.
    BytesReceived,
    /// Bytes sent downstream.
    BytesSent,
    /// Milliseconds from the first byte of the request to the last of the response.
    Duration,
    /// Milliseconds until the request was read.
    RequestDuration,
    /// Milliseconds until the first byte of the response.
    ResponseDuration,
    /// Address and port of the chosen endpoint.
    UpstreamHost,
    /// Name of the chosen cluster.
    UpstreamCluster,
    /// Our address of the upstream connection.
    UpstreamLocalAddress,
    /// Why the upstream connection could not be used.
    UpstreamTransportFailureReason,
    /// Attempts made, the first included.
    UpstreamRequestAttemptCount,
    /// The destination that downstream asked for.
    DownstreamLocalAddress,
    /// The same without port.
    DownstreamLocalAddressWithoutPort,
    /// The client's address, trusted `x-forwarded-for` considered.
    DownstreamRemoteAddress,
    /// The same without port.
    DownstreamRemoteAddressWithoutPort,
    /// The connection's source address.
    DownstreamDirectRemoteAddress,
    /// The same without port.
    DownstreamDirectRemoteAddressWithoutPort,
    /// Server name of the ClientHello.
    RequestedServerName,
    /// Name of the route.
    RouteName,
    /// Name of the filter chain.
    FilterChainName,
    /// URI SANs of the peer's certificate.
    DownstreamPeerUriSan,
    /// URI SANs of our own certificate.
    DownstreamLocalUriSan,
    /// Subject of the peer's certificate.
    DownstreamPeerSubject,
    /// TLS version of the downstream connection.
    DownstreamTlsVersion,
    /// TLS cipher of the downstream connection.
    DownstreamTlsCipher,
    /// This machine's host name.
    Hostname,
    /// Dynamic metadata: a namespace, and the keys that lead to a value; none for all of it.
    DynamicMetadata(Arc<str>, Arc<[Arc<str>]>),
    /// `grpc-status` of the response's trailers, else of its head.
    GrpcStatus(GrpcStatusForm),
    /// The trace of the span, if it is told.
    TraceId,
    /// The span, if it is told.
    SpanId,
    /// Port of the destination that downstream asked for.
    DownstreamLocalPort,
    /// Port of the client's address.
    DownstreamRemotePort,
    /// Port of the connection's source address.
    DownstreamDirectRemotePort,
    /// Address of the chosen endpoint without port.
    UpstreamHostWithoutPort,
    /// Port of the chosen endpoint.
    UpstreamPort,
    /// Our address of the upstream connection without port.
    UpstreamLocalAddressWithoutPort,
    /// Port of our address of the upstream connection.
    UpstreamLocalPort,
    /// SHA-256 of the peer's certificate.
    DownstreamPeerFingerprint,
    /// DNS SANs of the peer's certificate.
    DownstreamPeerDnsSan,
    /// Something this proxy never has a value for (`FILTER_STATE`).
    Absent,
}

/// How a status of gRPC is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrpcStatusForm {
    /// `NotFound`.
    Camel,
    /// `NOT_FOUND`.
    Snake,
    /// `5`.
    Number,
}

/// Names of gRPC's statuses by number (gRPC "Status codes").
const GRPC_STATUSES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

impl GrpcStatusForm {
    /// A status; one without a name is its number.
    pub fn shown(self, status: i64) -> String {
        let named = usize::try_from(status).ok().and_then(|at| GRPC_STATUSES.get(at));
        match (self, named) {
            (Self::Camel, Some((camel, _))) => (*camel).to_owned(),
            (Self::Snake, Some((_, snake))) => (*snake).to_owned(),
            _ => status.to_string(),
        }
    }
}

/// Changes to a message's header fields; removals come first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeaderOps {
    /// Lower-case names to remove.
    pub remove: Vec<Arc<str>>,
    /// Fields to write, in order.
    pub write: Vec<HeaderWrite>,
}

impl HeaderOps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.write.is_empty()
    }
}

/// One field to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeaderWrite {
    /// Lower-case name, or a pseudo header such as `:authority`.
    pub name: Arc<str>,
    /// The value.
    pub value: Format,
    /// What happens to a field that exists.
    pub action: WriteAction,
    /// Writes the field even if the value renders empty.
    pub keep_empty: bool,
}

/// What writing a header does when the field exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteAction {
    /// Adds a line.
    Append,
    /// Replaces every line.
    Overwrite,
    /// Leaves it as it is.
    AddIfAbsent,
    /// Replaces it, and writes nothing if there is none.
    OverwriteIfExists,
}

/// Header changes of a route, virtual host, weighted cluster or route configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeaderMutations {
    /// Applied to the request before it goes upstream.
    pub request: HeaderOps,
    /// Applied to the response before it goes downstream.
    pub response: HeaderOps,
}
