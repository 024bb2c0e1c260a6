//! Bodies in both directions: streamed frame by frame, with what must be remembered of them.
//!
//! A request body is recorded up to a limit as long as a retry may need it again. Progress (bytes, end) is noted for
//! timeouts, metrics and mirrors.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;

/// Most bytes of a request body that are kept for another attempt (Envoy's default is 64 KiB, too).
pub(crate) const REPLAY_LIMIT: usize = 64 * 1024;

/// Why a body ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The other side broke off.
    #[error("body: {0}")]
    Hyper(#[from] hyper::Error),
    /// A later attempt has taken the request body over.
    #[error("body: given up for another attempt")]
    Superseded,
    /// Nothing has come for longer than is allowed.
    #[error("body: silent for too long")]
    Idle,
    /// The response took longer than the route allows.
    #[error("body: response timeout")]
    Timeout,
}

/// How far a request body has come; shared by all attempts.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: Cell<u64>,
    ended: Cell<bool>,
    end: Notify,
}

impl Progress {
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

    fn note(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// Notes that nothing more will be received.
    pub(crate) fn finish(&self) {
        if !self.ended.replace(true) {
            self.end.notify_waiters();
        }
    }
}

/// A request body on its way upstream.
pub(crate) enum RequestBody {
    /// Nothing.
    Empty,
    /// These bytes.
    Full(Option<Bytes>),
    /// From downstream, once.
    Stream(Incoming, Rc<Progress>),
    /// From downstream, recorded for other attempts.
    Replay(Reader),
}

impl RequestBody {
    /// A body that is sent once.
    pub(crate) fn stream(incoming: Incoming, progress: &Rc<Progress>) -> Self {
        if incoming.is_end_stream() {
            progress.finish();
            return Self::Empty;
        }
        Self::Stream(incoming, Rc::clone(progress))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(incoming, progress) => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => progress.note(frame.data_ref().map_or(0, Bytes::len)),
                    Some(Err(_)) | None => progress.finish(),
                }
                if incoming.is_end_stream() {
                    progress.finish();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Hyper)))
            }
            Self::Replay(reader) => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::Stream(incoming, _) => incoming.is_end_stream(),
            Self::Replay(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(incoming, _) => incoming.size_hint(),
            Self::Replay(reader) => reader.recording.size_hint,
        }
    }
}

/// A request body that several attempts may read from its beginning.
pub(crate) struct Recording {
    source: RefCell<Source>,
    /// Only the newest reader may read.
    newest: Cell<u32>,
    size_hint: SizeHint,
    progress: Rc<Progress>,
}

struct Source {
    incoming: Incoming,
    chunks: Vec<Bytes>,
    recorded: usize,
    trailers: Option<HeaderMap>,
    complete: bool,
    /// More than the limit has come, so that nothing is kept.
    overflowed: bool,
}

impl Recording {
    /// Records `incoming` from now on.
    pub(crate) fn new(incoming: Incoming, progress: &Rc<Progress>) -> Rc<Self> {
        let complete = incoming.is_end_stream();
        if complete {
            progress.finish();
        }
        let size_hint = incoming.size_hint();
        let source = Source { incoming, chunks: Vec::new(), recorded: 0, trailers: None, complete, overflowed: false };
        Rc::new(Self { source: RefCell::new(source), newest: Cell::new(0), size_hint, progress: Rc::clone(progress) })
    }

    /// Whether another attempt can have the whole body.
    pub(crate) fn can_replay(&self) -> bool {
        !self.source.borrow().overflowed
    }

    /// A body that begins with the first byte; earlier readers stop.
    pub(crate) fn reader(self: &Rc<Self>) -> RequestBody {
        let source = self.source.borrow();
        if source.complete && source.chunks.is_empty() && source.trailers.is_none() && !source.overflowed {
            return RequestBody::Empty;
        }
        let number = self.newest.get() + 1;
        self.newest.set(number);
        RequestBody::Replay(Reader { recording: Rc::clone(self), number, next: 0, trailers_sent: false })
    }

    /// The whole body, if it was received and kept.
    pub(crate) fn complete_bytes(&self) -> Option<Bytes> {
        let source = self.source.borrow();
        (source.complete && !source.overflowed).then(|| source.chunks.concat().into())
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
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.number != self.recording.newest.get() {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        let mut source = self.recording.source.borrow_mut();
        if let Some(chunk) = source.chunks.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if source.complete {
            let trailers = source.trailers.clone().filter(|_| !std::mem::replace(&mut self.trailers_sent, true));
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut source.incoming).poll_frame(cx));
        let result = match frame {
            Some(Ok(frame)) => {
                Some(Ok(source.record(frame, &mut self.next, &mut self.trailers_sent, &self.recording.progress)))
            }
            Some(Err(error)) => {
                source.overflowed = true;
                Some(Err(BodyError::Hyper(error)))
            }
            None => {
                source.complete = true;
                None
            }
        };
        if source.complete || source.overflowed && matches!(result, Some(Err(_))) {
            self.recording.progress.finish();
        }
        Poll::Ready(result)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.recording.source.borrow();
        source.complete
            && self.next >= source.chunks.len()
            && (source.trailers.is_none() || self.trailers_sent)
            && self.number == self.recording.newest.get()
    }
}

impl Source {
    fn record(
        &mut self,
        frame: Frame<Bytes>,
        next: &mut usize,
        trailers_sent: &mut bool,
        progress: &Progress,
    ) -> Frame<Bytes> {
        if let Some(chunk) = frame.data_ref() {
            progress.note(chunk.len());
            self.recorded += chunk.len();
            if self.recorded > REPLAY_LIMIT {
                self.overflowed = true;
                self.chunks = Vec::new();
                *next = 0;
            } else {
                self.chunks.push(chunk.clone());
                *next += 1;
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            *trailers_sent = true;
            self.complete = true;
        }
        self.complete |= self.incoming.is_end_stream();
        frame
    }
}
