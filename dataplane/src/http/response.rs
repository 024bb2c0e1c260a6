//! A response's body on its way downstream: within its time, and with its end, good or bad, noted
//! in the exchange.

use std::{
    borrow::Cow,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{exchange::Exchange, step};
use crate::{
    codec::{
        blame::{DownstreamFault, UpstreamFault},
        progress::Trailers,
    },
    runtime::filter::{Phase, Piece},
    telemetry::Flags,
    upstream::{
        cluster_state::{ActiveOf, Held, UsageOf},
        outlier::Outcome,
        pool::Lease,
    },
};

/// Why a response body ends early by the endpoint's doing, or ours.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum ResponseBodyError {
    /// The endpoint has broken off.
    #[error("response body: {0}")]
    Upstream(#[from] UpstreamFault),
    /// The client has broken the request that is still under way, and with it the exchange.
    #[error("response body: {0}")]
    Downstream(#[from] DownstreamFault),
    /// Nothing has come for longer than is allowed.
    #[error("response body: silent for too long")]
    Idle,
    /// The response took longer than the route allows.
    #[error("response body: response timeout")]
    Timeout,
    /// A filter does not let it through.
    #[error("response body: refused by a filter")]
    Filtered,
}

/// Holds the limits that a request counts against, until its response has ended.
pub(crate) struct Holds {
    pub(crate) _active: Held<ActiveOf>,
    pub(crate) _request: Held<UsageOf>,
    pub(crate) _retry: Option<Held<UsageOf>>,
}

/// A response's body on its way downstream.
pub(crate) struct ResponseBody {
    source: Source,
    exchange: Option<Box<Exchange>>,
    /// Filters look at it.
    filtering: Option<Box<Filtering>>,
    /// What it ends with, held back until the codec had its chance to write what came before.
    held: Option<ResponseBodyError>,
}

enum Source {
    Empty,
    /// Nothing, and the head is as it is to be.
    Settled,
    Full(Option<Bytes>),
    Upstream(Box<Upstream>),
}

/// A body that comes from an endpoint.
struct Upstream {
    incoming: Incoming,
    lease: Option<Lease>,
    holds: Option<Holds>,
    limits: BodyLimits,
    trailers: Trailers,
    /// The status says that there is none (RFC 9110, section 6.4.1).
    bodiless: bool,
}

/// Time limits of a response's body.
pub(crate) struct BodyLimits {
    /// Ends it whatever has come.
    pub(crate) deadline: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Ends it when nothing has come for so long.
    pub(crate) idle: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl ResponseBody {
    /// No body, or one whose `exchange` is in other hands.
    pub(crate) fn empty(exchange: Option<Box<Exchange>>) -> Self {
        Self::of(Source::Empty, exchange)
    }

    fn of(source: Source, exchange: Option<Box<Exchange>>) -> Self {
        Self { source, exchange, filtering: None, held: None }
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
        limits: BodyLimits,
        exchange: Box<Exchange>,
    ) -> Self {
        let trailers = Trailers::between(lease.is_http2(), exchange.is_http2());
        let bodiless = matches!(exchange.status, 204 | 304);
        let upstream = Upstream {
            incoming,
            lease: Some(lease),
            holds: Some(holds),
            limits,
            trailers,
            bodiless,
        };
        let filtered = exchange.manager.filters.take_part(Phase::ResponseBody);
        let filtering = (filtered && !upstream.incoming.is_end_stream()).then(Box::default);
        let source = Source::Upstream(Box::new(upstream));
        Self { source, exchange: Some(exchange), filtering, held: None }
    }

    /// Ends the exchange of an answer without body, once nothing changes its head any more: the
    /// codec never asks for such a body.
    pub(crate) fn end_if_empty(&mut self) {
        if self.is_end_stream() {
            self.end();
        }
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
        if let Source::Upstream(upstream) = &mut self.source {
            upstream.holds = None;
            if let Some(lease) = upstream.lease.take() {
                lease.release();
            }
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

/// What has stopped a body.
enum Stopped {
    Codec(hyper::Error),
    Known(ResponseBodyError),
}

impl Upstream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Stopped>>> {
        // First, so that an endpoint that never pauses cannot outrun it.
        if let Some(deadline) = &mut self.limits.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(Stopped::Known(ResponseBodyError::Timeout))));
        }
        let frame = self.read(cx);
        if let Some((limit, timer)) = &mut self.limits.idle {
            if frame.is_ready() {
                timer.as_mut().reset(Instant::now() + *limit);
            } else if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Err(Stopped::Known(ResponseBodyError::Idle))));
            }
        }
        frame
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Stopped>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        let http2 = self.lease.as_ref().is_some_and(Lease::is_http2);
        Poll::Ready(match frame {
            Some(Ok(frame)) if frame.is_trailers() && self.trailers == Trailers::Dropped => None,
            Some(Ok(frame)) if self.bodiless && frame.data_ref().is_some_and(|d| !d.is_empty()) => {
                Some(Err(Stopped::Known(UpstreamFault::Protocol.into())))
            }
            Some(frame) => Some(frame.map_err(Stopped::Codec)),
            // The codec tells a stream that was reset without an error from one that ended by this
            // alone.
            None if http2 && !self.incoming.is_end_stream() => {
                Some(Err(Stopped::Known(UpstreamFault::Reset.into())))
            }
            None => None,
        })
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
        if let Some(error) = this.held.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(this.poll_next(cx)) {
            // The codec forgets what it has not written when it hears of an error, be it the head.
            Some(Err(error)) => {
                this.held = Some(error);
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
            None => self.is_source_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.filtering, &self.source) {
            (Some(_), _) => SizeHint::default(),
            (None, Source::Empty | Source::Settled) => SizeHint::with_exact(0),
            (None, Source::Full(bytes)) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            (None, Source::Upstream(upstream)) => upstream.incoming.size_hint(),
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
            Source::Empty | Source::Settled => None,
            Source::Full(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Upstream(upstream) => ready!(upstream.poll_frame(cx)),
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
            Source::Empty | Source::Settled => true,
            Source::Full(bytes) => bytes.is_none(),
            Source::Upstream(upstream) => upstream.incoming.is_end_stream(),
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
