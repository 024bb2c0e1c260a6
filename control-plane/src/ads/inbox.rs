//! The requests of a stream, read from the body of its HTTP request.
//!
//! A client that subscribes to a thousand names sends as many bytes once, and then nothing for hours. So nothing is kept
//! between requests: one that came in one frame, as nearly all, is decoded where it lies.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use prost::Message;
use tonic::{Status, body::Body};

/// gRPC's prefix: whether the message is compressed, and its length.
const PREFIX: usize = 5;
/// Largest request: a delta client that reconnects tells the version of every resource it has.
const LARGEST: usize = 32 << 20;

/// Requests of one stream.
pub(super) struct Inbox<M> {
    body: Body,
    /// The beginning of a request whose end has not come.
    begun: Vec<u8>,
    /// Bytes behind the last request.
    rest: Bytes,
    messages: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Inbox<M> {
    /// The requests that this body carries.
    pub(super) fn new(body: Body) -> Self {
        Self { body, begun: Vec::new(), rest: Bytes::new(), messages: PhantomData }
    }

    /// The next request; `None` at the end. Nothing is lost when this is dropped before it is ready.
    ///
    /// # Errors
    /// The connection broke, or what came is no request.
    pub(super) async fn next(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.complete()? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.rest = data;
            }
        }
    }

    /// Takes a whole request off what came; keeps the beginning of one.
    fn complete(&mut self) -> Result<Option<M>, Status> {
        if !self.begun.is_empty() {
            self.fill(PREFIX);
            let Some(length) = message_length(&self.begun)? else { return Ok(None) };
            self.fill(PREFIX + length);
            if self.begun.len() < PREFIX + length {
                return Ok(None);
            }
            let begun = std::mem::take(&mut self.begun);
            return decode(&begun[PREFIX..]).map(Some);
        }
        match message_length(&self.rest)? {
            Some(length) if self.rest.len() >= PREFIX + length => {
                let message = decode(&self.rest[PREFIX..PREFIX + length]);
                self.rest.advance(PREFIX + length);
                if self.rest.is_empty() {
                    // An empty view would keep the frame that it points into.
                    self.rest = Bytes::new();
                }
                message.map(Some)
            }
            _ => {
                self.begun.extend_from_slice(&std::mem::take(&mut self.rest));
                Ok(None)
            }
        }
    }

    /// Moves bytes from the rest until the begun request has this length.
    fn fill(&mut self, length: usize) {
        let missing = length.saturating_sub(self.begun.len()).min(self.rest.len());
        self.begun.extend_from_slice(&self.rest.split_to(missing));
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
    }
}

/// Length of the message that begins here; `None`: that has not come yet.
fn message_length(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some(prefix) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(Status::unimplemented("compressed requests are not understood"));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > LARGEST {
        return Err(Status::out_of_range(format!("a request of {length} bytes: expected at most {LARGEST}")));
    }
    Ok(Some(length))
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Status> {
    M::decode(bytes).map_err(|error| Status::internal(format!("not a discovery request: {error}")))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use ferromesh_proto::discovery::DeltaDiscoveryRequest;
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tonic::Code;

    use super::*;

    fn request(names: usize) -> DeltaDiscoveryRequest {
        let names = (0..names).map(|number| format!("name-{number}")).collect();
        DeltaDiscoveryRequest { resource_names_subscribe: names, ..DeltaDiscoveryRequest::default() }
    }

    fn spelled(requests: &[DeltaDiscoveryRequest]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for request in requests {
            bytes.push(0);
            bytes.extend(u32::try_from(request.encoded_len()).expect("short").to_be_bytes());
            request.encode(&mut bytes).expect("room");
        }
        bytes
    }

    fn inbox(frames: Vec<Vec<u8>>) -> Inbox<DeltaDiscoveryRequest> {
        let frames = frames.into_iter().map(|bytes| Ok::<_, Infallible>(Frame::data(Bytes::from(bytes))));
        Inbox::new(Body::new(StreamBody::new(stream::iter(frames))))
    }

    #[tokio::test]
    async fn requests_are_read_however_they_are_cut_and_nothing_is_kept() {
        let requests = [request(0), request(1), request(500), request(0), request(3)];
        let bytes = spelled(&requests);
        for size in [1, 2, 4, 5, 6, 7, 100, 4096, bytes.len()] {
            let mut inbox = inbox(bytes.chunks(size).map(<[u8]>::to_vec).collect());
            for expected in &requests {
                assert_eq!(inbox.next().await.expect("a request").as_ref(), Some(expected), "pieces of {size}");
            }
            assert_eq!(inbox.next().await.expect("the end"), None);
            assert_eq!((inbox.begun.capacity(), inbox.rest.len()), (0, 0));
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let of = async |bytes: &[u8]| inbox(vec![bytes.to_vec()]).next().await.map_err(|status| status.code());
        assert_eq!(of(&[1, 0, 0, 0, 0]).await, Err(Code::Unimplemented));
        assert_eq!(of(&[0, 0xff, 0, 0, 0]).await, Err(Code::OutOfRange));
        assert_eq!(of(&[0, 0, 0, 0, 1, 0xff]).await, Err(Code::Internal));
        assert_eq!(of(&[0, 0, 0]).await, Ok(None), "cut off");
    }
}
