//! The requests of a stream, read from the body of its HTTP request.
//!
//! A client that subscribes to a thousand names sends as many bytes once, and then nothing for
//! hours. So nothing is kept between requests: one that came in one frame, as nearly all, is
//! decoded where it lies. One that comes in many is kept until its end, within the budget of its
//! visitor, and must come on at a steady rate.

use std::{marker::PhantomData, pin::Pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use ferromesh_proto::retry;
use http_body_util::BodyExt;
use prost::Message;
use tokio::time::{Instant, timeout_at};
use tonic::{Status, body::Body};

use super::arrivals::Visitor;
use crate::accept::budget::{Budget, Reserved};

/// gRPC's prefix: whether the message is compressed, and its length.
const PREFIX: usize = 5;
/// Largest request: a delta client that reconnects tells the version of every resource it has, and
/// a mesh of a hundred thousand names takes ten megabytes.
const LARGEST: usize = 16 << 20;
/// A request up to this size is kept in any case: a frame that was cut.
const SMALL: usize = 16 << 10;
/// Memory for requests whose end has not come, of all streams; and of one visitor.
const BEGUN: (usize, usize) = (128 << 20, 32 << 20);
/// How long a request may take.
const TIMES: Times = Times {
    end: Duration::from_secs(5),
    bytes_per_second: 512.0 * 1024.0,
    room: Duration::from_secs(30),
};
/// When to come back after that.
const AGAIN: Duration = Duration::from_secs(5);

/// What requests may cost whose end has not come.
pub(super) type Begun = Arc<Budget<Visitor>>;

/// The budget of a server.
pub(super) fn budget() -> Begun {
    Budget::new(BEGUN.0, BEGUN.1)
}

/// How long a request may take that is begun.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// Until its end has come.
    end: Duration,
    /// Large ones may take longer, as long as they come at this rate.
    bytes_per_second: f64,
    /// Until there is memory for it, which is not its sender's fault.
    room: Duration,
}

/// Requests of one stream.
pub(super) struct Inbox<M> {
    body: Body,
    budget: Begun,
    visitor: Visitor,
    /// The beginning of a request whose end has not come.
    begun: Vec<u8>,
    room: Room,
    /// When its end must have come.
    deadline: Option<Instant>,
    /// Bytes behind the last request.
    rest: Bytes,
    messages: PhantomData<fn() -> M>,
}

/// Room for a request that is begun.
enum Room {
    /// None is needed, or nobody knows how much.
    Free,
    /// Waiting for it, until then.
    Wanted(Pin<Box<dyn Future<Output = Reserved> + Send>>, Instant),
    /// There is.
    Held(#[allow(dead_code, reason = "kept until it is dropped")] Reserved),
}

impl<M: Message + Default> Inbox<M> {
    /// The requests that this body carries.
    pub(super) fn new(body: Body, budget: Begun, visitor: Visitor) -> Self {
        let (begun, rest, room) = (Vec::new(), Bytes::new(), Room::Free);
        Self { body, budget, visitor, begun, room, deadline: None, rest, messages: PhantomData }
    }

    /// The next request; `None` at the end. Nothing is lost when this is dropped before it is
    /// ready.
    ///
    /// # Errors
    /// The connection broke, or what came is no request.
    pub(super) async fn next(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.complete()? {
                return Ok(Some(message));
            }
            self.wait_for_room().await?;
            let frame = match self.deadline {
                Some(deadline) => {
                    timeout_at(deadline, self.body.frame()).await.map_err(|_| too_slow())?
                }
                None => self.body.frame().await,
            };
            let Some(frame) = frame else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.rest = data;
            }
        }
    }

    /// Nothing more is read of a large request before there is room for all of it: it stays with
    /// its sender.
    async fn wait_for_room(&mut self) -> Result<(), Status> {
        if self.begun.is_empty() {
            return Ok(());
        }
        if matches!(self.room, Room::Free)
            && let Some(length) = message_length(&self.begun)?.filter(|length| *length > SMALL)
        {
            let (budget, visitor) = (self.budget.clone(), self.visitor.clone());
            let reserving = async move { budget.reserve(visitor, length).await };
            self.room = Room::Wanted(Box::pin(reserving), Instant::now() + TIMES.room);
        }
        if let Room::Wanted(reserving, until) = &mut self.room {
            let reserved = timeout_at(*until, reserving).await;
            let reserved = reserved
                .map_err(|_| retry::exhausted("too many large requests at a time", AGAIN))?;
            self.room = Room::Held(reserved);
            self.deadline = None;
        }
        if self.deadline.is_none() {
            let length = message_length(&self.begun)?.unwrap_or(0);
            let bytes = f64::from(u32::try_from(length).unwrap_or(u32::MAX));
            let steady = Duration::from_secs_f64(bytes / TIMES.bytes_per_second);
            self.deadline = Some(Instant::now() + TIMES.end + steady);
        }
        Ok(())
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
            self.deadline = None;
            let _room = std::mem::replace(&mut self.room, Room::Free);
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

fn too_slow() -> Status {
    Status::deadline_exceeded("the rest of the request did not come in time")
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
        return Err(Status::out_of_range(format!(
            "a request of {length} bytes: expected at most {LARGEST}"
        )));
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
    use futures_util::{FutureExt, StreamExt, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tonic::Code;

    use super::*;
    use crate::accept::ClientNetwork;

    fn request(names: usize) -> DeltaDiscoveryRequest {
        let names = (0..names).map(|number| format!("name-{number}")).collect();
        DeltaDiscoveryRequest {
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn encoded(requests: &[DeltaDiscoveryRequest]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for request in requests {
            bytes.push(0);
            bytes.extend(u32::try_from(request.encoded_len()).expect("short").to_be_bytes());
            request.encode(&mut bytes).expect("room");
        }
        bytes
    }

    fn inbox(frames: Vec<Vec<u8>>) -> Inbox<DeltaDiscoveryRequest> {
        let frames =
            frames.into_iter().map(|bytes| Ok::<_, Infallible>(Frame::data(Bytes::from(bytes))));
        open(Body::new(StreamBody::new(stream::iter(frames))), budget())
    }

    fn open(body: Body, budget: Begun) -> Inbox<DeltaDiscoveryRequest> {
        Inbox::new(body, budget, Visitor::From(ClientNetwork::UNKNOWN))
    }

    /// How long the end of a request of this length is waited for.
    fn patience(length: u32) -> Duration {
        TIMES.end + Duration::from_secs_f64(f64::from(length) / TIMES.bytes_per_second)
    }

    /// It is now so long after `begin`; timers count whole milliseconds.
    fn ended(begin: Instant, after: Duration) {
        let late = begin.elapsed().checked_sub(after).expect("it was waited for");
        assert!(late < Duration::from_millis(2), "{late:?} too late");
    }

    /// A stream of which the first bytes came, and then nothing more.
    fn begun(length: usize, bytes: usize, budget: &Begun) -> Inbox<DeltaDiscoveryRequest> {
        let mut frame = vec![0];
        frame.extend(u32::try_from(length).expect("short").to_be_bytes());
        frame.resize(PREFIX + bytes, 0);
        let frames = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(frame)))])
            .chain(stream::pending());
        open(Body::new(StreamBody::new(frames)), budget.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn sixty_large_requests_without_an_end_take_no_more_than_the_share_of_their_visitor() {
        let budget = budget();
        let mut inboxes: Vec<_> = (0..60).map(|_| begun(15 << 20, SMALL, &budget)).collect();
        let mut held = 0;
        for inbox in &mut inboxes {
            assert!(inbox.next().now_or_never().is_none());
            held += usize::from(matches!(inbox.room, Room::Held(_)));
        }
        assert_eq!(held, 2, "{} bytes are left", budget.left());
        let other = Visitor::From(ClientNetwork::of([10, 0, 0, 1].into()));
        assert!(
            budget.reserve(other, 15 << 20).now_or_never().is_some(),
            "another visitor finds room"
        );
        let begin = Instant::now();
        let ends = futures_util::future::join_all(inboxes.iter_mut().map(Inbox::next)).await;
        let mut codes: Vec<_> =
            ends.into_iter().map(|end| end.map_err(|status| status.code())).collect();
        codes.sort_by_key(|code| format!("{code:?}"));
        let (slow, refused) = codes.split_at(held);
        assert!(slow.iter().all(|code| *code == Err(Code::DeadlineExceeded)), "{codes:?}");
        assert!(refused.iter().all(|code| *code == Err(Code::ResourceExhausted)), "{codes:?}");
        ended(begin, patience(15 << 20).max(TIMES.room));
        drop(inboxes);
        assert_eq!(budget.left(), BEGUN.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_request_without_an_end_is_not_waited_for_either() {
        for (length, bytes) in [(100, 0), (100, 99), (SMALL, 1)] {
            let begin = Instant::now();
            let end = begun(length, bytes, &budget()).next().await;
            assert_eq!(
                end.map_err(|status| status.code()),
                Err(Code::DeadlineExceeded),
                "{bytes} of {length}"
            );
            ended(begin, patience(u32::try_from(length).expect("short")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_there_is_no_hurry() {
        let whole = encoded(&[request(500)]);
        let frames = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(whole)))])
            .chain(stream::pending());
        let mut inbox = open(Body::new(StreamBody::new(frames)), budget());
        assert!(inbox.next().await.expect("a request").is_some());
        assert!(tokio::time::timeout(Duration::from_secs(24 * 3600), inbox.next()).await.is_err());
    }

    #[tokio::test]
    async fn requests_are_read_however_they_are_cut_and_nothing_is_kept() {
        let requests = [request(0), request(1), request(500), request(0), request(3)];
        let bytes = encoded(&requests);
        for size in [1, 2, 4, 5, 6, 7, 100, 4096, bytes.len()] {
            let mut inbox = inbox(bytes.chunks(size).map(<[u8]>::to_vec).collect());
            for expected in &requests {
                assert_eq!(
                    inbox.next().await.expect("a request").as_ref(),
                    Some(expected),
                    "pieces of {size}"
                );
            }
            assert_eq!(inbox.next().await.expect("the end"), None);
            assert_eq!((inbox.begun.capacity(), inbox.rest.len()), (0, 0));
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let of = async |bytes: &[u8]| {
            inbox(vec![bytes.to_vec()]).next().await.map_err(|status| status.code())
        };
        assert_eq!(of(&[1, 0, 0, 0, 0]).await, Err(Code::Unimplemented));
        assert_eq!(of(&[0, 0xff, 0, 0, 0]).await, Err(Code::OutOfRange));
        assert_eq!(of(&[0, 0x01, 0xf0, 0, 0]).await, Err(Code::OutOfRange), "31 MB");
        assert_eq!(of(&[0, 0, 0, 0, 1, 0xff]).await, Err(Code::Internal));
        assert_eq!(of(&[0, 0, 0]).await, Ok(None), "cut off");
    }
}
