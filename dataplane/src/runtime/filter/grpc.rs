//! Calls of services by gRPC over HTTP/2, of one message each way: framing and status. What the
//! messages say is nobody's business here.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};

use super::{Call, CallAnswer};

/// A service.
#[derive(Clone, Debug)]
pub struct GrpcService {
    /// The cluster that it is.
    pub cluster: Arc<str>,
    /// What it is called in requests.
    pub authority: Arc<str>,
    /// What every request bears.
    pub metadata: HeaderMap,
    /// For a whole call.
    pub timeout: Duration,
}

/// Why a call has brought no message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoMessage {
    /// It is not gRPC that answers.
    #[error("HTTP status {0}")]
    Http(u16),
    /// It has failed, as it says itself.
    #[error("gRPC status {0}")]
    Status(String),
    /// There is not one whole message.
    #[error("not one message")]
    Framing,
}

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
const LENGTH: usize = 4;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

impl GrpcService {
    /// The call of a method (`/PACKAGE.SERVICE/METHOD`) with this message; none where nothing can
    /// be called so.
    pub fn call(&self, method: &'static str, message: &[u8]) -> Option<Call> {
        let uri = Uri::builder().scheme("http").authority(&*self.authority);
        let uri = uri.path_and_query(method).build().ok()?;
        let mut body = BytesMut::with_capacity(PREFIX + message.len());
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).ok()?);
        body.put_slice(message);
        let mut request = Request::post(uri).body(body.freeze()).ok()?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        // At most eight digits.
        let millis = self.timeout.as_millis().min(99_999_999);
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_str(&format!("{millis}m")).ok()?);
        headers.extend(self.metadata.clone());
        Some(Call { cluster: Arc::clone(&self.cluster), request, timeout: self.timeout })
    }
}

/// The message of an answer.
///
/// # Errors
/// There is none, or the call has failed.
pub fn message(answer: &CallAnswer) -> Result<Bytes, NoMessage> {
    if answer.status != http::StatusCode::OK {
        return Err(NoMessage::Http(answer.status.as_u16()));
    }
    // Without a message the status stands in the head (gRPC over HTTP/2, "Trailers-Only").
    let status = answer.trailers.get(&GRPC_STATUS).or_else(|| answer.headers.get(&GRPC_STATUS));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        other => {
            let other = other.map(String::from_utf8_lossy).unwrap_or_default();
            return Err(NoMessage::Status(other.into_owned()));
        }
    }
    let body = &answer.body;
    let (Some(0), Some(length)) = (body.first(), body.get(1..PREFIX)) else {
        return Err(NoMessage::Framing);
    };
    let length: [u8; LENGTH] = length.try_into().map_err(|_| NoMessage::Framing)?;
    let message = body.slice(PREFIX..);
    match u32::from_be_bytes(length) as usize == message.len() {
        true => Ok(message),
        false => Err(NoMessage::Framing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, trailer: &'static str, body: &'static [u8]) -> CallAnswer {
        let mut trailers = HeaderMap::new();
        if !trailer.is_empty() {
            trailers.insert(GRPC_STATUS, HeaderValue::from_static(trailer));
        }
        let status = http::StatusCode::from_u16(status).unwrap();
        CallAnswer { status, headers: HeaderMap::new(), body: body.into(), trailers }
    }

    #[test]
    fn a_message_is_framed_and_has_a_timeout() {
        let service = GrpcService {
            cluster: "c".into(),
            authority: "a.test".into(),
            metadata: HeaderMap::new(),
            timeout: Duration::from_millis(250),
        };
        let call = service.call("/p.S/M", b"abc").unwrap();
        assert_eq!(call.request.uri(), "http://a.test/p.S/M");
        assert_eq!(&call.request.body()[..], b"\0\0\0\0\x03abc");
        assert_eq!(call.request.headers()["grpc-timeout"], "250m");
        let nowhere = GrpcService { authority: "a b".into(), ..service };
        assert!(nowhere.call("/p.S/M", b"").is_none());
    }

    #[test]
    fn whatever_is_not_one_message_of_a_call_that_went_well_is_none() {
        assert_eq!(message(&answer(200, "0", b"\0\0\0\0\x01a")), Ok(Bytes::from("a")));
        for (answer, expected) in [
            (answer(503, "0", b"\0\0\0\0\x01a"), NoMessage::Http(503)),
            (answer(200, "14", b""), NoMessage::Status("14".to_owned())),
            (answer(200, "", b"\0\0\0\0\x01a"), NoMessage::Status(String::new())),
            (answer(200, "0", b""), NoMessage::Framing),
            (answer(200, "0", b"\x01\0\0\0\x01a"), NoMessage::Framing),
            (answer(200, "0", b"\0\0\0\0\x02a"), NoMessage::Framing),
            (answer(200, "0", b"\0\0\0\0\x00a"), NoMessage::Framing),
        ] {
            assert_eq!(message(&answer), Err(expected));
        }
    }
}
