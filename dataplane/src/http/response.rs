//! A response's body on its way downstream: within its time, and with its end, good or bad, noted
//! in the exchange.

use std::{
    borrow::Cow,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Method;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    carried::{Carried, Holds, ResponseBodyError, Stopped, Upstream},
    exchange::Exchange,
    overtime::TimeLimits,
    step,
};
use crate::{
    codec::{blame::UpstreamFault, http1_stream::LINGER, progress::Trailers, tap::Seen},
    runtime::filter::{Phase, Piece},
    telemetry::Flags,
    upstream::{outlier::Outcome, pool::Lease},
};

/// A response's body on its way downstream.
pub(crate) struct ResponseBody {
    source: Source,
    exchange: Option<Box<Exchange>>,
    /// Filters look at it.
    filtering: Option<Box<Filtering>>,
    /// What it ends with, held back until what came before is written.
    held: Option<HeldBack>,
    /// The client's connection, once the body has failed.
    client: Option<Arc<Seen>>,
}

enum Source {
    Empty,
    /// Nothing, and the head is as it is to be.
    Settled,
    /// Nothing, although the head gives a length: that of what was not modified (RFC 9110, section
    /// 8.6). The codec of HTTP/1 writes it only where a body seems to follow, and asks for none.
    Announced,
    Full(Option<Bytes>),
    Upstream(Rc<Carried>),
}

/// An error that follows what the client has not taken yet.
struct HeldBack {
    error: ResponseBodyError,
    client: Option<Arc<Seen>>,
    /// What the client had taken when its time began, and the time.
    patience: Option<(u64, Pin<Box<Sleep>>)>,
}

impl HeldBack {
    /// Waits until what came before is written, for as long as the client takes any of it.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(client) = self.client.as_ref().filter(|client| client.is_blocked()) else {
            return Poll::Ready(());
        };
        client.wake_when_written(cx);
        let (before, time) =
            self.patience.get_or_insert_with(|| (client.taken(), Box::pin(sleep(LINGER))));
        loop {
            ready!(time.as_mut().poll(cx));
            let taken = client.taken();
            if taken == *before {
                return Poll::Ready(());
            }
            *before = taken;
            time.as_mut().reset(Instant::now() + LINGER);
        }
    }
}

impl ResponseBody {
    /// No body, or one whose `exchange` is in other hands.
    pub(crate) fn empty(exchange: Option<Box<Exchange>>) -> Self {
        Self::of(Source::Empty, exchange)
    }

    fn of(source: Source, exchange: Option<Box<Exchange>>) -> Self {
        Self { source, exchange, filtering: None, held: None, client: None }
    }

    /// No body, behind a head that nothing changes any more.
    pub(crate) fn settled(exchange: Option<Box<Exchange>>) -> Self {
        Self::of(Source::Settled, exchange)
    }

    /// Whether it belongs to an answer of our own whose head routes may change.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.source, Source::Empty | Source::Full(_))
    }

    /// These bytes.
    pub(crate) fn full(bytes: Bytes, exchange: Box<Exchange>) -> Self {
        let source = if bytes.is_empty() { Source::Empty } else { Source::Full(Some(bytes)) };
        Self::of(source, Some(exchange))
    }

    /// An endpoint's body; a limit that is over ends it with an error.
    pub(crate) fn upstream(
        incoming: Incoming,
        lease: Lease,
        holds: Holds,
        limits: TimeLimits,
        exchange: Box<Exchange>,
    ) -> Self {
        let trailers = Trailers::between(lease.is_http2(), exchange.is_http2());
        let bodiless = matches!(exchange.status, 204 | 304) || exchange.method == Method::HEAD;
        let (lease, holds) = (Some(lease), Some(holds));
        let carried = Carried::new(Upstream { incoming, lease, holds, trailers, bodiless });
        if limits.any() {
            carried.watch(limits, &exchange);
        }
        let filtered = exchange.manager.filters.take_part(Phase::ResponseBody);
        let filtering = (filtered && !carried.is_end_stream()).then(Box::default);
        let mut body = Self::of(Source::Upstream(carried), Some(exchange));
        body.filtering = filtering;
        body
    }

    /// Ends the exchange of an answer without body, once nothing changes its head any more: the
    /// codec never asks for such a body. `announced` if the head gives a length all the same.
    pub(crate) fn end_if_empty(&mut self, announced: bool) {
        let is_never_asked = self.is_end_stream() || self.is_bodiless_http1();
        if is_never_asked {
            self.end();
            self.source = if announced { Source::Announced } else { Source::Settled };
            self.filtering = None;
        }
    }

    /// The codec of HTTP/1 knows by itself that there is no body; an endpoint that speaks HTTP/2 may
    /// not have ended it yet.
    fn is_bodiless_http1(&self) -> bool {
        let http1 = self.exchange.as_ref().is_some_and(|exchange| !exchange.is_http2());
        http1 && matches!(&self.source, Source::Upstream(carried) if carried.is_bodiless())
    }

    /// The exchange, while it goes on and is nobody else's.
    pub(crate) fn exchange_mut(&mut self) -> Option<&mut Exchange> {
        self.exchange.as_deref_mut()
    }

    /// Takes the exchange away, for another answer than this one.
    pub(crate) fn take_exchange(&mut self) -> Option<Box<Exchange>> {
        self.exchange.take()
    }

    /// The last byte was read: the connection is free and the exchange complete.
    fn end(&mut self) {
        if let Source::Upstream(carried) = &self.source {
            carried.end();
        }
        if let Some(mut exchange) = self.exchange.take() {
            exchange.finish();
        }
    }

    /// Ends early. What the endpoint has done is counted against it; what the client has done never
    /// is.
    fn fail(&mut self, error: ResponseBodyError) {
        self.source = Source::Empty;
        let Some(mut exchange) = self.exchange.take() else { return };
        self.client = Some(Arc::clone(&exchange.downstream.seen));
        let (flag, details) = match error {
            ResponseBodyError::Upstream(fault) => (fault.flag(), fault.details_after_headers()),
            ResponseBodyError::Idle => (Flags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
            ResponseBodyError::Timeout => (Flags::UPSTREAM_TIMEOUT, "response_timeout"),
            ResponseBodyError::Filtered => (Flags::NONE, "response_body_refused_by_filter"),
            ResponseBodyError::Downstream(fault) => return exchange.note_fault(fault),
        };
        exchange.flag(flag);
        exchange.details = Cow::Borrowed(details);
        exchange.finish();
        if let ResponseBodyError::Upstream(_) = error {
            exchange.judge(Outcome::LocalOrigin);
        }
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        if let Some(exchange) = &mut self.exchange {
            exchange.note_frame(frame);
        }
    }

    /// Whose fault it is that the endpoint's codec has failed: a client's broken request breaks it,
    /// too.
    fn blame(&self, error: &hyper::Error) -> ResponseBodyError {
        match self.exchange.as_ref().and_then(|exchange| exchange.progress.fault()) {
            Some(fault) => fault.into(),
            None => UpstreamFault::of_body(error).into(),
        }
    }
}

/// What was stopped is told as such, also where nobody has asked for more since.
impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Source::Upstream(carried) = &self.source
            && let Some(error) = carried.stopped()
        {
            self.fail(error);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let this = self.get_mut();
        if let Some(held) = &mut this.held {
            ready!(held.poll_written(cx));
            let error = held.error;
            this.held = None;
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(this.poll_next(cx)) {
            // The codec forgets what it has not written when it hears of an error, be it the head.
            Some(Err(error)) => {
                this.held = Some(HeldBack { error, client: this.client.take(), patience: None });
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.filtering {
            _ if self.held.is_some() => false,
            Some(filtering) => filtering.is_done(),
            None => self.is_source_ended() && !matches!(self.source, Source::Announced),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.filtering, &self.source) {
            (Some(_), _) | (None, Source::Announced) => SizeHint::default(),
            (None, Source::Empty | Source::Settled) => SizeHint::with_exact(0),
            (None, Source::Full(bytes)) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            (None, Source::Upstream(carried)) => carried.size_hint(),
        }
    }
}

impl ResponseBody {
    /// The next frame, as filters let it through.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        if let Some(mut filtering) = self.filtering.take() {
            let polled = filtering.poll(self, cx);
            self.filtering = Some(filtering);
            return polled;
        }
        let frame = ready!(self.read(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.note(frame);
                if frame.is_trailers() || self.is_source_ended() {
                    self.end();
                }
            }
            Some(Err(_)) => {}
            None => self.end(),
        }
        Poll::Ready(frame)
    }

    /// The next frame as it comes; what stops the body has ended the exchange.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let frame = match &mut self.source {
            Source::Empty | Source::Settled | Source::Announced => None,
            Source::Full(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Upstream(carried) => ready!(carried.poll_frame(cx)),
        };
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|stopped| {
                let error = match stopped {
                    Stopped::Codec(error) => self.blame(&error),
                    Stopped::Known(error) => error,
                };
                self.fail(error);
                error
            })
        }))
    }

    fn is_source_ended(&self) -> bool {
        match &self.source {
            Source::Empty | Source::Settled | Source::Announced => true,
            Source::Full(bytes) => bytes.is_none(),
            Source::Upstream(carried) => carried.is_end_stream(),
        }
    }
}

/// A body that filters look at, piece by piece.
#[derive(Default)]
struct Filtering {
    /// They look at one; meanwhile the exchange is theirs.
    busy: Option<Busy>,
    /// Come behind the last piece.
    trailers: Option<Frame<Bytes>>,
    is_last_shown: bool,
}

type Busy = Pin<Box<dyn Future<Output = (Box<Exchange>, Option<Piece>)>>>;

impl Filtering {
    fn is_done(&self) -> bool {
        self.is_last_shown && self.busy.is_none() && self.trailers.is_none()
    }

    fn poll(
        &mut self,
        body: &mut ResponseBody,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        loop {
            if let Some(busy) = &mut self.busy {
                let (exchange, piece) = ready!(busy.as_mut().poll(cx));
                self.busy = None;
                body.exchange = Some(exchange);
                match piece {
                    None => return Poll::Ready(Some(Err(self.refuse(body)))),
                    Some(piece) if !piece.bytes.is_empty() => {
                        return Poll::Ready(Some(Ok(self.pass(body, piece.bytes))));
                    }
                    // A filter keeps it back.
                    Some(_) => {}
                }
            }
            if self.is_last_shown {
                let trailers = self.trailers.take();
                trailers.iter().for_each(|frame| body.note(frame));
                body.end();
                return Poll::Ready(trailers.map(Ok));
            }
            let piece = match ready!(body.read(cx)) {
                Some(Ok(frame)) => self.piece(body, frame),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => Piece { is_last: true, ..Piece::default() },
            };
            self.is_last_shown = piece.is_last;
            let Some(exchange) = body.exchange.take() else { return Poll::Ready(None) };
            self.busy = Some(Box::pin(step::response_body(exchange, piece)));
        }
    }

    fn piece(&mut self, body: &ResponseBody, frame: Frame<Bytes>) -> Piece {
        match frame.into_data() {
            Ok(bytes) => Piece { bytes, is_last: body.is_source_ended() },
            Err(trailers) => {
                self.trailers = Some(trailers);
                Piece { is_last: true, ..Piece::default() }
            }
        }
    }

    fn pass(&self, body: &mut ResponseBody, bytes: Bytes) -> Frame<Bytes> {
        let frame = Frame::data(bytes);
        body.note(&frame);
        if self.is_done() {
            body.end();
        }
        frame
    }

    fn refuse(&mut self, body: &mut ResponseBody) -> ResponseBodyError {
        (self.is_last_shown, self.trailers) = (true, None);
        body.fail(ResponseBodyError::Filtered);
        ResponseBodyError::Filtered
    }
}
