//! Request bodies: streamed frame by frame, with what must be remembered of them.
//!
//! [`Progress`] alone reads from the codec, so that a client's fault has its type before anything upstream sees it. A
//! body is recorded up to a limit as long as a retry may need it again. Progress (bytes, end) is noted for timeouts,
//! metrics and mirrors.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;

use super::blame::DownstreamFault;

/// Most bytes of a request body that are kept for another attempt (Envoy's default is 64 KiB, too).
pub(crate) const REPLAY_LIMIT: usize = 64 * 1024;

/// Why a request body ends early. None of it is the endpoint's doing.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    /// The client has broken off.
    #[error("request body: {0}")]
    Downstream(#[from] DownstreamFault),
    /// A later attempt has taken the request body over.
    #[error("request body: given up for another attempt")]
    Superseded,
}

/// How far a request body has come; shared by all attempts.
#[derive(Default)]
pub(crate) struct Progress {
    source: RefCell<Option<Source>>,
    bytes: Cell<u64>,
    ended: Cell<bool>,
    end: Notify,
    fault: Cell<Option<DownstreamFault>>,
}

/// Where a request body comes from.
struct Source {
    incoming: Incoming,
    http2: bool,
}

impl Progress {
    /// Reads from `incoming` from now on.
    pub(crate) fn begin(&self, incoming: Incoming, http2: bool) {
        if incoming.is_end_stream() {
            self.finish();
        } else {
            *self.source.borrow_mut() = Some(Source { incoming, http2 });
        }
    }

    /// Bytes received so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether the whole body was received.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Waits for the end of the body.
    pub(crate) async fn ended(&self) {
        while !self.ended.get() {
            self.end.notified().await;
        }
    }

    /// How the client has broken the body, if it has.
    pub(crate) fn fault(&self) -> Option<DownstreamFault> {
        self.fault.get()
    }

    /// Waits for the client to break the body; for ever if it does not.
    pub(crate) async fn faulted(&self) -> DownstreamFault {
        self.ended().await;
        match self.fault.get() {
            Some(fault) => fault,
            None => std::future::pending().await,
        }
    }

    /// Reads without waiting what nobody will read any more, to learn whether the client has broken the body.
    pub(crate) fn settle(&self) -> Option<DownstreamFault> {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(_))) = self.poll_frame(&mut cx) {}
        self.fault.get()
    }

    /// Notes that nothing more will be received.
    pub(crate) fn finish(&self) {
        if !self.ended.replace(true) {
            self.end.notify_waiters();
        }
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownstreamFault>>> {
        let mut source = self.source.borrow_mut();
        let Some(Source { incoming, http2 }) = &mut *source else {
            return Poll::Ready(self.fault.get().map(Err));
        };
        let read = match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => Some(Err(DownstreamFault::of(&error))),
            // The codec tells a stream that was reset without an error from one that ended by this alone.
            None if *http2 && !incoming.is_end_stream() => Some(Err(DownstreamFault::Reset)),
            None => None,
        };
        let is_last = incoming.is_end_stream() || matches!(&read, Some(Ok(frame)) if frame.is_trailers());
        match &read {
            Some(Ok(frame)) => self.bytes.set(self.bytes() + frame.data_ref().map_or(0, Bytes::len) as u64),
            Some(Err(fault)) => self.fault.set(Some(*fault)),
            None => {}
        }
        if is_last || !matches!(read, Some(Ok(_))) {
            *source = None;
            self.finish();
        }
        Poll::Ready(read)
    }

    fn is_end_stream(&self) -> bool {
        self.source.borrow().is_none() && self.fault.get().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.borrow().as_ref().map_or_else(|| SizeHint::with_exact(0), |source| source.incoming.size_hint())
    }
}

/// A request body on its way upstream.
pub(crate) enum RequestBody {
    /// Nothing.
    Empty,
    /// These bytes.
    Full(Option<Bytes>),
    /// From downstream, once.
    Stream(Rc<Progress>),
    /// From downstream, recorded for other attempts.
    Replay(Reader),
}

impl RequestBody {
    /// A body that is sent once.
    pub(crate) fn stream(progress: &Rc<Progress>) -> Self {
        if progress.is_end_stream() { Self::Empty } else { Self::Stream(Rc::clone(progress)) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(progress) => progress.poll_frame(cx).map_err(RequestBodyError::from),
            Self::Replay(reader) => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::Stream(progress) => progress.is_end_stream(),
            Self::Replay(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(progress) => progress.size_hint(),
            Self::Replay(reader) => reader.recording.size_hint,
        }
    }
}

/// A request body that several attempts may read from its beginning.
pub(crate) struct Recording {
    kept: RefCell<Kept>,
    /// Only the newest reader may read.
    newest: Cell<u32>,
    size_hint: SizeHint,
    progress: Rc<Progress>,
}

/// What has come of a recorded body.
#[derive(Default)]
struct Kept {
    chunks: Vec<Bytes>,
    recorded: usize,
    trailers: Option<HeaderMap>,
    /// More than the limit has come, so that nothing is kept.
    overflowed: bool,
}

impl Recording {
    /// Records what comes from now on.
    pub(crate) fn new(progress: &Rc<Progress>) -> Rc<Self> {
        let size_hint = progress.size_hint();
        Rc::new(Self { kept: RefCell::default(), newest: Cell::new(0), size_hint, progress: Rc::clone(progress) })
    }

    /// Whether another attempt can have the whole body.
    pub(crate) fn can_replay(&self) -> bool {
        !self.kept.borrow().overflowed && self.progress.fault().is_none()
    }

    /// A body that begins with the first byte; earlier readers stop.
    pub(crate) fn reader(self: &Rc<Self>) -> RequestBody {
        let kept = self.kept.borrow();
        if self.is_complete() && kept.chunks.is_empty() && kept.trailers.is_none() && !kept.overflowed {
            return RequestBody::Empty;
        }
        let number = self.newest.get() + 1;
        self.newest.set(number);
        RequestBody::Replay(Reader { recording: Rc::clone(self), number, next: 0, trailers_sent: false })
    }

    /// The whole body, if it was received and kept.
    pub(crate) fn complete_bytes(&self) -> Option<Bytes> {
        let kept = self.kept.borrow();
        (self.is_complete() && !kept.overflowed).then(|| kept.chunks.concat().into())
    }

    fn is_complete(&self) -> bool {
        self.progress.is_end_stream()
    }
}

/// One attempt's view of a recorded body.
pub(crate) struct Reader {
    recording: Rc<Recording>,
    number: u32,
    next: usize,
    trailers_sent: bool,
}

impl Reader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if self.number != self.recording.newest.get() {
            return Poll::Ready(Some(Err(RequestBodyError::Superseded)));
        }
        let mut kept = self.recording.kept.borrow_mut();
        if let Some(chunk) = kept.chunks.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if self.recording.is_complete() {
            let trailers = kept.trailers.clone().filter(|_| !std::mem::replace(&mut self.trailers_sent, true));
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(self.recording.progress.poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            kept.record(frame);
            self.next = kept.chunks.len();
            self.trailers_sent |= frame.is_trailers();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(RequestBodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.recording.kept.borrow();
        self.recording.is_complete()
            && self.next >= kept.chunks.len()
            && (kept.trailers.is_none() || self.trailers_sent)
            && self.number == self.recording.newest.get()
    }
}

impl Kept {
    fn record(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        let Some(chunk) = frame.data_ref() else { return };
        self.recorded += chunk.len();
        if self.recorded > REPLAY_LIMIT {
            self.overflowed = true;
            self.chunks = Vec::new();
        } else {
            self.chunks.push(chunk.clone());
        }
    }
}
