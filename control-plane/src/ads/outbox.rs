//! The body of a stream's HTTP response: takes responses from the stream's task and gives the
//! transport piece by piece.
//!
//! A piece is memory until it is written to the socket, and the transport takes as much as the
//! client's window allows, which may be all of it. So only some pieces of a stream are out at a
//! time; the next is made when one was written.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::PollSemaphore;
use tonic::Status;

use super::wire::Outgoing;

/// Pieces of one stream that may wait for the socket.
const PIECES: usize = 2;

/// Responses of one stream, and how it ended.
pub(super) struct Outbox {
    responses: mpsc::Receiver<Result<Outgoing, Status>>,
    current: Option<Outgoing>,
    room: PollSemaphore,
    ended: bool,
}

impl Outbox {
    /// The body that carries these responses.
    pub(super) fn new(responses: mpsc::Receiver<Result<Outgoing, Status>>) -> Self {
        let room = PollSemaphore::new(Arc::new(Semaphore::new(PIECES)));
        Self { responses, current: None, room, ended: false }
    }
}

impl Body for Outbox {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let room = ready!(self.room.poll_acquire(context)).expect("nobody closes it");
        loop {
            if let Some(bytes) = self.current.as_mut().and_then(Iterator::next) {
                let piece = Piece { bytes, _room: room };
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))));
            }
            let status = match ready!(self.responses.poll_recv(context)) {
                Some(Ok(response)) => {
                    self.current = Some(response);
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            self.ended = true;
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(
                status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)),
            ));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Bytes that make room for others when they are dropped.
struct Piece {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
