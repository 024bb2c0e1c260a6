//! How far a request body has come: it alone reads from the codec, so that a client's fault has its
//! type before anything upstream sees it, and notes bytes and the end for timeouts, metrics and
//! mirrors.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{sync::Notify, time::Instant};

use super::{
    blame::{DownstreamFault, RequestBodyError},
    fields::field_bytes,
};
use crate::runtime::limits::{HttpLimits, Limit};

/// How far a request body has come; shared by all attempts.
#[derive(Default)]
pub(crate) struct Progress {
    begun: Cell<bool>,
    source: RefCell<Option<Source>>,
    bytes: Cell<u64>,
    ended_at: Cell<Option<Instant>>,
    end: Notify,
    /// Whoever reads what others have read, and waits for more.
    followers: RefCell<Vec<Waker>>,
    fault: Cell<Option<DownstreamFault>>,
    /// Some of it was read by nobody who wanted it.
    is_skipped: Cell<bool>,
    /// The exchange is over: nobody reads on.
    is_over: Cell<bool>,
    /// Whoever sends the body on, and waits for more of it.
    sender: Cell<Option<Waker>>,
    /// How often it has waited since the exchange was over.
    waited_after: Cell<u8>,
    /// The exchange was over before the body was, and its rest is not read.
    is_cut: Cell<bool>,
    /// When some of it was read last, or the reading began.
    last_read: Cell<Option<Instant>>,
    trailers: Cell<Trailers>,
    /// What was read ahead, and is read again.
    unread: RefCell<VecDeque<Frame<Bytes>>>,
}

/// Where a request body comes from.
struct Source {
    incoming: Incoming,
    http2: bool,
    limits: HttpLimits,
}

impl Source {
    /// Which limit this crosses, of trailers of HTTP/2: they are fields as those of a head are. Of
    /// those of HTTP/1 nothing goes on, and the parser has judged them.
    fn crossed(&self, frame: &Frame<Bytes>) -> Option<Limit> {
        let trailers = frame.trailers_ref().filter(|_| self.http2)?;
        self.limits.judge(trailers.len(), field_bytes(trailers)).err()
    }
}

/// What becomes of the trailers of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Trailers {
    /// They are sent on.
    Kept,
    /// They end here (RFC 9110 section 6.5.2 leaves that to us): HTTP/1 has them in a form that few
    /// read, and of which those who do not may be smuggled something; Envoy neither takes nor
    /// writes them.
    #[default]
    Dropped,
}

impl Trailers {
    /// Of a message that comes and goes by these versions.
    pub(crate) fn between(from_http2: bool, to_http2: bool) -> Self {
        if from_http2 && to_http2 { Self::Kept } else { Self::Dropped }
    }
}

impl Progress {
    /// Reads from `incoming` from now on; its trailers are within `limits`, or a fault.
    pub(crate) fn begin(
        &self,
        incoming: Incoming,
        http2: bool,
        trailers: Trailers,
        limits: HttpLimits,
    ) {
        self.trailers.set(trailers);
        self.begun.set(true);
        self.last_read.set(Some(Instant::now()));
        if incoming.is_end_stream() {
            self.finish();
        } else {
            *self.source.borrow_mut() = Some(Source { incoming, http2, limits });
        }
    }

    /// The body goes on to an endpoint from now on, after somebody has looked at it; so it has not
    /// ended before.
    pub(crate) fn go_on(&self, trailers: Trailers) {
        self.trailers.set(trailers);
        if self.has_ended() {
            self.ended_at.set(Some(Instant::now()));
        }
    }

    /// The next frame, for somebody who looks at the body before it is sent on.
    pub(crate) async fn next(&self) -> Option<Result<Frame<Bytes>, DownstreamFault>> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// Gives back what was read ahead: it is read again, first.
    pub(crate) fn unread(&self, frames: impl IntoIterator<Item = Frame<Bytes>>) {
        let mut unread = self.unread.borrow_mut();
        for (index, frame) in frames.into_iter().enumerate() {
            unread.insert(index, frame);
        }
    }

    /// Takes what was read ahead.
    pub(super) fn take_ahead(&self) -> Vec<Frame<Bytes>> {
        std::iter::from_fn(|| self.take_unread()).collect()
    }

    /// Whether nothing is left to read.
    pub(crate) fn is_read(&self) -> bool {
        self.has_ended() && self.unread.borrow().is_empty()
    }

    /// Bytes received so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether the whole body was received.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended_at.get().is_some()
    }

    /// Whether all bytes of the body were received, if not its trailers.
    pub(crate) fn is_whole(&self) -> bool {
        let nothing_left = |source: &Source| source.incoming.size_hint().exact() == Some(0);
        self.has_ended() || self.source.borrow().as_ref().is_some_and(nothing_left)
    }

    /// When the whole body was received; nothing while it is not.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.ended_at.get()
    }

    /// Waits for the end of the body; answers when that was.
    pub(crate) async fn ended(&self) -> Instant {
        loop {
            if let Some(at) = self.ended_at.get() {
                return at;
            }
            self.end.notified().await;
        }
    }

    /// How long ago the whole body was received; nothing while it is not.
    pub(crate) fn since_end(&self) -> Duration {
        self.ended_at.get().map_or(Duration::ZERO, |at| at.elapsed())
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

    /// Reads without waiting what nobody will read any more, to learn whether the client has broken
    /// the body.
    pub(crate) fn settle(&self) -> Option<DownstreamFault> {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(_))) = self.poll_frame(&mut cx) {
            self.is_skipped.set(true);
        }
        self.fault.get()
    }

    /// Whether a part of the body is still to come from the codec, be it that nobody has begun.
    pub(crate) fn has_rest(&self) -> bool {
        !self.begun.get() || self.source.borrow().is_some() || self.is_cut.get()
    }

    /// When some of the body was read last; when its reading began, if nothing was.
    pub(crate) fn last_read(&self) -> Option<Instant> {
        self.last_read.get()
    }

    /// Reads what the codec has of a body that was begun, and that nobody else will read.
    pub(crate) async fn take_rest(&self) {
        // The codec gives what it has to whoever has asked for it before.
        for _ in 0..2 {
            self.settle();
            if !self.begun.get() || !self.has_rest() {
                return;
            }
            tokio::task::yield_now().await;
        }
        self.settle();
    }

    /// Notes that nothing more will be received.
    pub(crate) fn finish(&self) {
        if !self.has_ended() {
            self.ended_at.set(Some(Instant::now()));
            self.end.notify_waiters();
            self.wake_followers();
        }
    }

    /// Nobody reads on, whatever is still to come: what the codec has is sent on, and not waited for.
    pub(crate) fn close(&self) {
        self.is_over.set(true);
        self.finish();
        self.wake_followers();
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }

    /// The exchange is over, whether the body was or not.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// All of it was received, and read by whoever wants it.
    pub(super) fn is_passed_on(&self) -> bool {
        self.is_end_stream() && !self.is_skipped.get()
    }

    /// The next frame for an endpoint, which gets no more than has come once the exchange is over: it
    /// has answered without the rest, and nothing counts or limits an upload that goes on.
    pub(super) fn poll_upload(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if self.is_cut.get() {
            return Poll::Ready(Some(Err(RequestBodyError::Unfinished)));
        }
        if let Poll::Ready(frame) = self.poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(RequestBodyError::from)));
        }
        if !self.is_over.get() {
            let sender = self.sender.take().filter(|sender| sender.will_wake(cx.waker()));
            self.sender.set(Some(sender.unwrap_or_else(|| cx.waker().clone())));
            return Poll::Pending;
        }
        // The codec gives what it has to whoever has asked for it before.
        if self.waited_after.replace(self.waited_after.get() + 1) < 2 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_cut.set(true);
        *self.source.borrow_mut() = None;
        Poll::Ready(Some(Err(RequestBodyError::Unfinished)))
    }

    /// Wakes the caller when more was read, or nothing more will be.
    pub(super) fn wake_when_read(&self, cx: &Context<'_>) {
        let mut followers = self.followers.borrow_mut();
        if !followers.iter().any(|follower| follower.will_wake(cx.waker())) {
            followers.push(cx.waker().clone());
        }
    }

    pub(super) fn wake_followers(&self) {
        self.followers.take().into_iter().for_each(Waker::wake);
    }

    pub(super) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownstreamFault>>> {
        if let Some(frame) = self.take_unread() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let mut source = self.source.borrow_mut();
        let Some(open) = &mut *source else {
            return Poll::Ready(self.fault.get().map(Err));
        };
        let dropped = self.trailers.get() == Trailers::Dropped;
        let polled = ready!(Pin::new(&mut open.incoming).poll_frame(cx));
        self.last_read.set(Some(Instant::now()));
        let crossed = match &polled {
            Some(Ok(frame)) => open.crossed(frame),
            _ => None,
        };
        let Source { incoming, http2, .. } = open;
        let read = match (polled, crossed) {
            (_, Some(limit)) => Some(Err(DownstreamFault::TooMuch(limit))),
            (Some(Ok(frame)), _) if frame.is_trailers() && dropped => None,
            (Some(Ok(frame)), _) => Some(Ok(frame)),
            (Some(Err(error)), _) => Some(Err(DownstreamFault::of(&error))),
            // The codec tells a stream that was reset without an error from one that ended by this
            // alone.
            (None, _) if *http2 && !incoming.is_end_stream() => Some(Err(DownstreamFault::Reset)),
            (None, _) => None,
        };
        let is_last =
            incoming.is_end_stream() || matches!(&read, Some(Ok(frame)) if frame.is_trailers());
        match &read {
            Some(Ok(frame)) => {
                self.bytes.set(self.bytes() + frame.data_ref().map_or(0, Bytes::len) as u64)
            }
            Some(Err(fault)) => self.fault.set(Some(*fault)),
            None => {}
        }
        if is_last || !matches!(read, Some(Ok(_))) {
            *source = None;
            self.finish();
        }
        Poll::Ready(read)
    }

    fn take_unread(&self) -> Option<Frame<Bytes>> {
        let dropped = self.trailers.get() == Trailers::Dropped;
        let frame = self.unread.borrow_mut().pop_front()?;
        Some(frame).filter(|frame| !(dropped && frame.is_trailers()))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let nothing_unread = self.unread.borrow().is_empty();
        let is_broken = self.fault.get().is_some() || self.is_cut.get();
        nothing_unread && self.source.borrow().is_none() && !is_broken
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let source = self.source.borrow();
        let mut hint = source
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |source| source.incoming.size_hint());
        let unread = self.unread.borrow();
        if !unread.is_empty() {
            let frames = unread.iter().filter_map(|frame| frame.data_ref());
            let ahead: usize = frames.map(Bytes::len).sum();
            match hint.exact() {
                Some(exact) => hint.set_exact(exact + ahead as u64),
                None => hint.set_lower(hint.lower() + ahead as u64),
            }
        }
        hint
    }
}
