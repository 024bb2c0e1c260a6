//! Expressions of labels (CEL, <https://github.com/google/cel-spec>), as far as this proxy
//! evaluates them. A closed set: what is not here `compile` refuses. Evaluating belongs to
//! `telemetry`, which knows the values.

use std::sync::Arc;

/// A compiled expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expression {
    /// A text.
    Text(Arc<str>),
    /// A whole number.
    Number(i64),
    /// A truth value.
    Truth(bool),
    /// What is known of the request or connection.
    Attribute(Attribute),
    /// A header by name.
    Header(Headers, Arc<str>),
    /// `NAME in HEADERS`.
    HasHeader(Headers, Arc<str>),
    /// `has(ATTRIBUTE)`.
    Has(Attribute),
    /// How long a text is, in characters.
    Size(Box<Expression>),
    /// `!`.
    Not(Box<Expression>),
    /// An operator between two values.
    Between(Operator, Box<(Expression, Expression)>),
    /// `CONDITION ? YES : NO`.
    Choice(Box<(Expression, Expression, Expression)>),
}

/// What stands between two values, or is called on the first with the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// `||`.
    Or,
    /// `&&`.
    And,
    /// `==`.
    Equal,
    /// `!=`.
    Unequal,
    /// `<`.
    Less,
    /// `<=`.
    AtMost,
    /// `>`.
    Greater,
    /// `>=`.
    AtLeast,
    /// `+`: texts are joined, numbers added.
    Plus,
    /// `contains`.
    Contains,
    /// `startsWith`.
    StartsWith,
    /// `endsWith`.
    EndsWith,
}

/// Whose headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Headers {
    /// The request's.
    Request,
    /// The response's.
    Response,
}

/// What is known of a request or connection, by Envoy's names of attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attribute {
    /// `request.path`: with the query.
    Path,
    /// `request.url_path`: without.
    UrlPath,
    /// `request.query`.
    Query,
    /// `request.host`.
    Host,
    /// `request.scheme`.
    Scheme,
    /// `request.method`.
    Method,
    /// `request.protocol`.
    Protocol,
    /// `request.size`.
    RequestSize,
    /// `response.code`.
    Code,
    /// `response.code_details`.
    CodeDetails,
    /// `response.grpc_status`.
    GrpcStatus,
    /// `response.size`.
    ResponseSize,
    /// `connection.mtls`.
    MutualTls,
    /// `connection.requested_server_name`.
    ServerName,
    /// `connection.tls_version`.
    TlsVersion,
    /// `connection.uri_san_peer_certificate`.
    PeerUri,
    /// `connection.subject_peer_certificate`.
    PeerSubject,
    /// `source.address`.
    SourceAddress,
    /// `source.port`.
    SourcePort,
    /// `destination.address`.
    DestinationAddress,
    /// `destination.port`.
    DestinationPort,
    /// `upstream.address`.
    UpstreamAddress,
    /// `upstream.port`.
    UpstreamPort,
    /// `xds.cluster_name`.
    Cluster,
    /// `xds.route_name`.
    Route,
    /// `xds.filter_chain_name`.
    Chain,
}

impl Attribute {
    /// Every attribute by its name.
    pub const ALL: [(&'static str, Self); 26] = [
        ("request.path", Self::Path),
        ("request.url_path", Self::UrlPath),
        ("request.query", Self::Query),
        ("request.host", Self::Host),
        ("request.scheme", Self::Scheme),
        ("request.method", Self::Method),
        ("request.protocol", Self::Protocol),
        ("request.size", Self::RequestSize),
        ("response.code", Self::Code),
        ("response.code_details", Self::CodeDetails),
        ("response.grpc_status", Self::GrpcStatus),
        ("response.size", Self::ResponseSize),
        ("connection.mtls", Self::MutualTls),
        ("connection.requested_server_name", Self::ServerName),
        ("connection.tls_version", Self::TlsVersion),
        ("connection.uri_san_peer_certificate", Self::PeerUri),
        ("connection.subject_peer_certificate", Self::PeerSubject),
        ("source.address", Self::SourceAddress),
        ("source.port", Self::SourcePort),
        ("destination.address", Self::DestinationAddress),
        ("destination.port", Self::DestinationPort),
        ("upstream.address", Self::UpstreamAddress),
        ("upstream.port", Self::UpstreamPort),
        ("xds.cluster_name", Self::Cluster),
        ("xds.route_name", Self::Route),
        ("xds.filter_chain_name", Self::Chain),
    ];
}

impl Expression {
    /// Whether it asks for headers of the request.
    pub fn asks_request_headers(&self) -> bool {
        match self {
            Self::Header(of, _) | Self::HasHeader(of, _) => *of == Headers::Request,
            Self::Size(inner) | Self::Not(inner) => inner.asks_request_headers(),
            Self::Between(_, both) => {
                both.0.asks_request_headers() || both.1.asks_request_headers()
            }
            Self::Choice(all) => {
                let (condition, yes, no) = &**all;
                [condition, yes, no].into_iter().any(Self::asks_request_headers)
            }
            Self::Text(_)
            | Self::Number(_)
            | Self::Truth(_)
            | Self::Attribute(_)
            | Self::Has(_) => false,
        }
    }
}
