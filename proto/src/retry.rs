//! When to come back: a hint in a gRPC refusal, as `google.rpc.RetryInfo`
//! (google/rpc/error_details.proto) in the status's details, and as the `grpc-retry-pushback-ms` of
//! gRPC's retries (gRFC A6).

use std::time::Duration;

use prost::Message;
use tonic::{Code, Status, metadata::MetadataMap};

/// Type of the detail.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
/// Trailer that clients with retries obey.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// `RESOURCE_EXHAUSTED`, with the time after which the caller should come back.
pub fn exhausted(message: impl Into<String>, after: Duration) -> Status {
    let message = message.into();
    let info = RetryInfo { retry_delay: prost_types::Duration::try_from(after).ok() };
    let detail = prost_types::Any { type_url: RETRY_INFO.to_owned(), value: info.encode_to_vec() };
    let status = RpcStatus {
        code: Code::ResourceExhausted as i32,
        message: message.clone(),
        details: vec![detail],
    };
    let mut metadata = MetadataMap::new();
    metadata.insert(PUSHBACK, u64::try_from(after.as_millis()).unwrap_or(u64::MAX).into());
    let details = status.encode_to_vec().into();
    Status::with_details_and_metadata(Code::ResourceExhausted, message, details, metadata)
}

/// The time after which the server wants the caller back, if it says so.
pub fn hint(status: &Status) -> Option<Duration> {
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let info = details.iter().find(|detail| detail.type_url == RETRY_INFO)?;
    RetryInfo::decode(&*info.value).ok()?.retry_delay?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_survives_the_wire() {
        let after = Duration::from_millis(1_500);
        let response = exhausted("too many", after).into_http::<()>();
        assert_eq!(response.headers()[PUSHBACK], "1500");
        let read = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!((read.code(), hint(&read)), (Code::ResourceExhausted, Some(after)));
        assert_eq!(hint(&Status::resource_exhausted("no hint")), None);
    }
}
