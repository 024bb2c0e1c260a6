//! Request bodies on their way upstream, streamed frame by frame: from the client ([`Progress`]), or
//! from what is remembered of it ([`Recording`]) for another attempt or a mirror.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    blame::RequestBodyError,
    progress::Progress,
    recording::{Follower, Reader, Recording},
};

/// A request body on its way upstream.
pub(crate) enum RequestBody {
    /// Nothing.
    Empty,
    /// These bytes.
    Full(Option<Bytes>),
    /// What comes from downstream, for a mirror.
    Mirrored(Follower),
    /// From downstream, once.
    Stream(Rc<Progress>),
    /// From downstream, recorded for other attempts.
    Replay(Reader),
}

impl RequestBody {
    /// These bytes.
    pub(crate) fn full(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(Some(bytes)) }
    }

    /// A body that is sent once.
    pub(crate) fn stream(progress: &Rc<Progress>) -> Self {
        if progress.is_end_stream() { Self::Empty } else { Self::Stream(Rc::clone(progress)) }
    }

    /// A recorded body from its first byte; earlier readers stop.
    pub(crate) fn replay(recording: &Rc<Recording>) -> Self {
        recording.reader().map_or(Self::Empty, Self::Replay)
    }

    /// What is read of a body, for a mirror.
    pub(crate) fn mirrored(follower: Follower) -> Self {
        if follower.is_end_stream() { Self::Empty } else { Self::Mirrored(follower) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Mirrored(follower) => follower.poll_frame(cx),
            Self::Stream(progress) => progress.poll_upload(cx),
            Self::Replay(reader) => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::Mirrored(follower) => follower.is_end_stream(),
            Self::Stream(progress) => progress.is_end_stream(),
            Self::Replay(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Mirrored(follower) => follower.size_hint(),
            Self::Stream(progress) => progress.size_hint(),
            Self::Replay(reader) => reader.size_hint(),
        }
    }
}
