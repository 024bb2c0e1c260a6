//! What `retryOn` may ask for: Envoy's conditions for HTTP and gRPC, which Istio hands on.

use crate::ir::RetryCondition;

/// Every condition by its word.
pub(super) const RETRY_CONDITIONS: [(&str, RetryCondition); 16] = [
    ("5xx", RetryCondition::ServerError),
    ("gateway-error", RetryCondition::GatewayError),
    ("reset", RetryCondition::Reset),
    ("reset-before-request", RetryCondition::ResetBeforeRequest),
    ("connect-failure", RetryCondition::ConnectFailure),
    ("envoy-ratelimited", RetryCondition::RateLimited),
    ("retriable-4xx", RetryCondition::Conflict),
    ("refused-stream", RetryCondition::RefusedStream),
    ("retriable-status-codes", RetryCondition::ListedStatus),
    ("retriable-headers", RetryCondition::ListedHeader),
    ("http3-post-connect-failure", RetryCondition::Http3Failure),
    ("cancelled", RetryCondition::GrpcCancelled),
    ("deadline-exceeded", RetryCondition::GrpcDeadlineExceeded),
    ("internal", RetryCondition::GrpcInternal),
    ("resource-exhausted", RetryCondition::GrpcResourceExhausted),
    ("unavailable", RetryCondition::GrpcUnavailable),
];

/// The condition of a word; `None`: it is none.
pub(super) fn retry_condition(word: &str) -> Option<RetryCondition> {
    RETRY_CONDITIONS.iter().find(|(known, _)| *known == word).map(|(_, condition)| *condition)
}
