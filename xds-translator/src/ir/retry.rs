//! How long a request may take, and whether it is tried again.

use std::time::Duration;

use serde::Serialize;

/// Limits of time of a request; `None`: no limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Timeouts {
    /// From the whole request to the whole response, all tries included. Zero: no limit, whatever
    /// the rule says that continues in this one's table.
    pub request: Option<Duration>,
    /// Of one try. Where nothing is tried again, of the request.
    pub per_try: Option<Duration>,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
}

/// How often and when a request is tried again.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Retry {
    /// Nothing said: the mesh's default applies (2 retries on connection faults).
    MeshDefault,
    /// Never.
    Off,
    /// As written.
    Policy(RetryPolicy),
}

/// A retry policy. How many retries a backend takes at a time is the backend's own
/// ([`RetryBudget`]), since all routes to it share that.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RetryPolicy {
    /// Number of retries; at least 1.
    pub attempts: u32,
    /// What is tried again, in the order written; `None` = the mesh's default list.
    pub conditions: Option<Vec<RetryCondition>>,
    /// Statuses that are tried again; sorted, unique.
    pub statuses: Vec<u16>,
    /// May go to another locality.
    pub remote_localities: bool,
    /// Prefer an endpoint not tried before; `None` = default (yes).
    pub ignore_previous_hosts: Option<bool>,
    /// Base of the exponential back-off.
    pub backoff: Option<Duration>,
}

/// What is tried again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum RetryCondition {
    /// A status of 500 to 599, or no answer.
    ServerError,
    /// 502, 503 or 504.
    GatewayError,
    /// No answer: disconnected, reset or too late.
    Reset,
    /// As [`Self::Reset`], before the request was sent.
    ResetBeforeRequest,
    /// No connection.
    ConnectFailure,
    /// Rate-limited by the backend's proxy.
    RateLimited,
    /// 409.
    Conflict,
    /// The stream was refused before it was read.
    RefusedStream,
    /// One of [`RetryPolicy::statuses`].
    ListedStatus,
    /// One of listed headers. No rule can list them.
    ListedHeader,
    /// HTTP/3 failed after the connection was there.
    Http3Failure,
    /// gRPC `CANCELLED`.
    GrpcCancelled,
    /// gRPC `DEADLINE_EXCEEDED`.
    GrpcDeadlineExceeded,
    /// gRPC `INTERNAL`.
    GrpcInternal,
    /// gRPC `RESOURCE_EXHAUSTED`.
    GrpcResourceExhausted,
    /// gRPC `UNAVAILABLE`.
    GrpcUnavailable,
}

/// Retries that a backend takes at a time, as a share of the requests that it has. Beyond that,
/// failures are final.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RetryBudget {
    /// Share of the requests, in percent.
    pub percent: u32,
    /// Retries that may be under way whatever the share comes to.
    pub minimum: u32,
    /// Over how long requests count; `None`: those that are under way.
    pub window: Option<Duration>,
}
