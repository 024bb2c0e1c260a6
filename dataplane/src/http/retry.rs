//! Which outcomes of an attempt are tried again, and how long to wait. Pure. Spec: Envoy router,
//! `retry_on`.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::headers::GRPC_STATUS;
use crate::{
    codec::blame::UpstreamFault,
    runtime::{
        action::{RetryOn, RetryPolicy},
        filter::rate_limit::LIMITED,
    },
};

/// How an attempt ended without a response that is passed on, by the endpoint's doing or ours; what
/// a client has broken is never tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// The connection could not be made.
    Connect,
    /// The endpoint broke the exchange before a response.
    Broken {
        /// How.
        fault: UpstreamFault,
        /// Nothing of the request had been sent.
        unsent: bool,
    },
    /// This attempt took too long.
    PerTryTimeout,
    /// A circuit breaker is open: another attempt would only make it worse.
    Overflow,
    /// No endpoint may take it.
    NoEndpoint,
    /// We lack what a connection needs, such as a certificate.
    Unequipped,
}

impl Failure {
    /// Whether it says something of the endpoint.
    pub(crate) fn is_of_endpoint(self) -> bool {
        match self {
            Self::Connect | Self::Broken { .. } | Self::PerTryTimeout => true,
            Self::Overflow | Self::NoEndpoint | Self::Unequipped => false,
        }
    }
}

/// Whether a failure is tried again.
pub(crate) fn retries_failure(on: RetryOn, failure: Failure) -> bool {
    let any_reset = RetryOn::SERVER_ERROR.with(RetryOn::GATEWAY_ERROR).with(RetryOn::RESET);
    match failure {
        Failure::Overflow | Failure::NoEndpoint => false,
        Failure::PerTryTimeout => on.intersects(any_reset),
        Failure::Connect | Failure::Unequipped => on.intersects(
            any_reset.with(RetryOn::CONNECT_FAILURE).with(RetryOn::RESET_BEFORE_REQUEST),
        ),
        Failure::Broken { fault, unsent } => {
            on.intersects(any_reset)
                || (unsent && on.intersects(RetryOn::RESET_BEFORE_REQUEST))
                || (fault == UpstreamFault::Refused && on.intersects(RetryOn::REFUSED_STREAM))
        }
    }
}

/// Whether a response is dropped and the request tried again.
pub(crate) fn retries_response(
    policy: &RetryPolicy,
    status: StatusCode,
    headers: &HeaderMap,
) -> bool {
    let (on, code) = (policy.on, status.as_u16());
    if headers.contains_key(LIMITED) {
        return on.intersects(RetryOn::ENVOY_RATE_LIMITED);
    }
    (status.is_server_error() && on.intersects(RetryOn::SERVER_ERROR))
        || (matches!(code, 502..=504) && on.intersects(RetryOn::GATEWAY_ERROR))
        || (code == 409 && on.intersects(RetryOn::RETRIABLE_4XX))
        || (on.intersects(RetryOn::RETRIABLE_STATUS_CODES) && policy.statuses.contains(&code))
        || retries_grpc(on, headers)
}

/// A gRPC status in the headers: the response has no body, so nothing was passed on yet.
fn retries_grpc(on: RetryOn, headers: &HeaderMap) -> bool {
    let condition = match headers.get(GRPC_STATUS).map(http::HeaderValue::as_bytes) {
        Some(b"1") => RetryOn::GRPC_CANCELLED,
        Some(b"4") => RetryOn::GRPC_DEADLINE_EXCEEDED,
        Some(b"8") => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        Some(b"13") => RetryOn::GRPC_INTERNAL,
        Some(b"14") => RetryOn::GRPC_UNAVAILABLE,
        _ => return false,
    };
    on.intersects(condition)
}

/// The wait before the n-th retry (1 for the first): a random part of a time that doubles up to a
/// limit.
pub(crate) fn back_off(policy: &RetryPolicy, retry: u32, random: u64) -> Duration {
    let doubled = policy
        .back_off_base
        .saturating_mul(1u32.checked_shl(retry.saturating_sub(1).min(31)).unwrap_or(u32::MAX));
    let longest = doubled.min(policy.back_off_max.max(policy.back_off_base));
    let longest_us = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(random % longest_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: &str) -> RetryPolicy {
        RetryPolicy {
            on: RetryOn::parse(on).unwrap(),
            retries: 2,
            per_try_timeout: None,
            statuses: vec![503, 418],
            back_off_base: Duration::from_millis(25),
            back_off_max: Duration::from_millis(250),
            reselect_attempts: 5,
        }
    }

    #[test]
    fn failures_are_tried_again_as_envoy_does() {
        let reset = |unsent, refused: bool| Failure::Broken {
            fault: if refused { UpstreamFault::Refused } else { UpstreamFault::Terminated },
            unsent,
        };
        let default = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
        for (on, failure, expected) in [
            (default, Failure::Connect, true),
            (default, Failure::PerTryTimeout, false),
            (default, reset(false, false), false),
            (default, reset(false, true), true),
            ("reset-before-request", reset(true, false), true),
            ("reset-before-request", reset(false, false), false),
            ("reset-before-request", Failure::Connect, true),
            ("reset", reset(false, false), true),
            ("5xx", reset(false, false), true),
            ("5xx", Failure::Connect, true),
            ("5xx", Failure::PerTryTimeout, true),
            ("gateway-error", Failure::PerTryTimeout, true),
            ("5xx,reset", Failure::Overflow, false),
            ("retriable-4xx", Failure::Connect, false),
        ] {
            assert_eq!(retries_failure(policy(on).on, failure), expected, "{on} {failure:?}");
        }
    }

    #[test]
    fn responses_are_tried_again_as_envoy_does() {
        for (on, status, headers, expected) in [
            ("5xx", 500, &[][..], true),
            ("5xx", 404, &[], false),
            ("gateway-error", 500, &[], false),
            ("gateway-error", 503, &[], true),
            ("retriable-4xx", 409, &[], true),
            ("retriable-4xx", 404, &[], false),
            ("retriable-status-codes", 418, &[], true),
            ("retriable-status-codes", 500, &[], false),
            ("connect-failure", 503, &[], false),
            ("unavailable", 200, &[("grpc-status", "14")], true),
            ("cancelled", 200, &[("grpc-status", "14")], false),
            ("5xx", 503, &[("x-envoy-ratelimited", "true")], false),
            ("envoy-ratelimited", 503, &[("x-envoy-ratelimited", "true")], true),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                retries_response(&policy(on), status, &map),
                expected,
                "{on} {status} {headers:?}"
            );
        }
    }

    #[test]
    fn waits_double_up_to_the_limit() {
        for (retry, limit_ms) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (40, 250)] {
            let longest = back_off(&policy("5xx"), retry, limit_ms * 1000 - 1);
            assert_eq!(longest, Duration::from_micros(limit_ms * 1000 - 1), "retry {retry}");
            assert_eq!(back_off(&policy("5xx"), retry, limit_ms * 1000), Duration::ZERO);
        }
    }
}
