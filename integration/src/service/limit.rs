//! What is asked of a service that counts requests, and answered
//! (`envoy.service.ratelimit.v3.RateLimitService`).

use prost::Message;

/// The call.
pub const COUNT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// `RateLimitRequest` of `envoy.service.ratelimit.v3`.
#[derive(Clone, PartialEq, Message)]
pub struct Asked {
    /// Which limits are meant.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// What is told of the request.
    #[prost(message, repeated, tag = "2")]
    pub descriptors: Vec<Descriptor>,
}

/// What is told of a request for one limit.
#[derive(Clone, PartialEq, Message)]
pub struct Descriptor {
    /// Its parts.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
}

/// A part of it, or a header.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `RateLimitResponse`, as far as it is answered.
#[derive(Clone, PartialEq, Message)]
pub struct Counted {
    /// 1: it passes, 2: it is too much.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// Headers of the response.
    #[prost(message, repeated, tag = "3")]
    pub response: Vec<Entry>,
    /// Headers of the request.
    #[prost(message, repeated, tag = "4")]
    pub request: Vec<Entry>,
    /// What is answered to what is too much.
    #[prost(bytes = "vec", tag = "5")]
    pub body: Vec<u8>,
}
