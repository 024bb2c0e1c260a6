//! What is asked over gRPC about access, and answered (`envoy.service.auth.v3.Authorization`).

use prost::Message;

/// The call.
pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// `CheckRequest` of `envoy.service.auth.v3`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
pub struct CheckRequest {
    /// What is known of it.
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<Attributes>,
}

/// `AttributeContext`.
#[derive(Clone, PartialEq, Message)]
pub struct Attributes {
    /// Who asks.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Peer>,
    /// The request.
    #[prost(message, optional, tag = "4")]
    pub request: Option<Asked>,
}

/// `AttributeContext.Peer`.
#[derive(Clone, PartialEq, Message)]
pub struct Peer {
    /// Where it is.
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
}

/// `core.v3.Address`.
#[derive(Clone, PartialEq, Message)]
pub struct Address {
    /// As a socket's.
    #[prost(message, optional, tag = "1")]
    pub socket: Option<Socket>,
}

/// `core.v3.SocketAddress`.
#[derive(Clone, PartialEq, Message)]
pub struct Socket {
    /// Its IP address.
    #[prost(string, tag = "2")]
    pub address: String,
}

/// `AttributeContext.Request`.
#[derive(Clone, PartialEq, Message)]
pub struct Asked {
    /// As HTTP.
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

/// `AttributeContext.HttpRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct HttpRequest {
    /// Its method.
    #[prost(string, tag = "2")]
    pub method: String,
    /// Its headers.
    #[prost(map = "string, string", tag = "3")]
    pub headers: std::collections::HashMap<String, String>,
    /// Its path, with the query.
    #[prost(string, tag = "4")]
    pub path: String,
    /// Its authority.
    #[prost(string, tag = "5")]
    pub host: String,
    /// `http` or `https`.
    #[prost(string, tag = "6")]
    pub scheme: String,
    /// `HTTP/1.1` and the like.
    #[prost(string, tag = "10")]
    pub protocol: String,
    /// Its body, as text.
    #[prost(string, tag = "11")]
    pub body: String,
    /// Its body, as bytes.
    #[prost(bytes = "vec", tag = "12")]
    pub raw_body: Vec<u8>,
}

/// `CheckResponse`; its answer is one of two.
#[derive(Clone, PartialEq, Message)]
pub struct CheckResponse {
    /// The status.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// It is refused.
    #[prost(message, optional, tag = "2")]
    pub denied: Option<Denied>,
    /// It passes.
    #[prost(message, optional, tag = "3")]
    pub ok: Option<Allowed>,
}

/// `google.rpc.Status`, or a status of HTTP.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// The code.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// `DeniedHttpResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Denied {
    /// The status.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// Headers that are set.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<Field>,
    /// Its body, as text.
    #[prost(string, tag = "3")]
    pub body: String,
}

/// `OkHttpResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Allowed {
    /// Headers that are set.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<Field>,
    /// Headers that are taken off.
    #[prost(string, repeated, tag = "5")]
    pub removed: Vec<String>,
    /// Headers of the response.
    #[prost(message, repeated, tag = "6")]
    pub response: Vec<Field>,
}

/// `HeaderValueOption`.
#[derive(Clone, PartialEq, Message)]
pub struct Field {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// It stands beside one that is there.
    #[prost(message, optional, tag = "2")]
    pub append: Option<bool>,
}

/// `HeaderValue`.
#[derive(Clone, PartialEq, Message)]
pub struct Header {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A header that is set; `append`: beside one that is there.
pub fn field(key: &str, value: &str, append: Option<bool>) -> Field {
    let header = Some(Header { key: key.to_owned(), value: value.to_owned() });
    Field { header, append }
}
