//! A response's body on its way downstream: within its time, and with its end, good or bad, noted in the exchange.

use std::{
    borrow::Cow,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{
    blame::{DownstreamFault, UpstreamFault},
    exchange::Exchange,
};
use crate::{
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
}

enum Source {
    Empty,
    Full(Option<Bytes>),
    Upstream(Box<Upstream>),
}

/// A body that comes from an endpoint.
struct Upstream {
    incoming: Incoming,
    lease: Option<Lease>,
    holds: Option<Holds>,
    limits: BodyLimits,
}

/// Time limits of a response's body.
pub(crate) struct BodyLimits {
    /// Ends it whatever has come.
    pub(crate) deadline: Option<Pin<Box<Sleep>>>,
    /// Ends it when nothing has come for so long.
    pub(crate) idle: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl ResponseBody {
    /// No body; the exchange ends at once, or with `exchange` in other hands.
    pub(crate) fn empty(exchange: Option<Box<Exchange>>) -> Self {
        Self { source: Source::Empty, exchange }.ended_if_empty()
    }

    /// These bytes.
    pub(crate) fn full(bytes: Bytes, exchange: Box<Exchange>) -> Self {
        let source = if bytes.is_empty() { Source::Empty } else { Source::Full(Some(bytes)) };
        Self { source, exchange: Some(exchange) }.ended_if_empty()
    }

    /// An endpoint's body; a limit that is over ends it with an error.
    pub(crate) fn upstream(
        incoming: Incoming,
        lease: Lease,
        holds: Holds,
        limits: BodyLimits,
        exchange: Box<Exchange>,
    ) -> Self {
        let upstream = Upstream { incoming, lease: Some(lease), holds: Some(holds), limits };
        Self { source: Source::Upstream(Box::new(upstream)), exchange: Some(exchange) }.ended_if_empty()
    }

    fn ended_if_empty(mut self) -> Self {
        if self.is_end_stream() {
            self.end();
        }
        self
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

    /// Ends early. What the endpoint has done is counted against it; what the client has done never is.
    fn fail(&mut self, error: ResponseBodyError) {
        self.source = Source::Empty;
        let Some(mut exchange) = self.exchange.take() else { return };
        let (flag, details) = match error {
            ResponseBodyError::Upstream(fault) => (fault.flag(), fault.details_after_headers()),
            ResponseBodyError::Idle => (Flags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
            ResponseBodyError::Timeout => (Flags::UPSTREAM_TIMEOUT, "response_timeout"),
            ResponseBodyError::Downstream(fault) => return exchange.note_fault(fault),
        };
        exchange.flag(flag);
        exchange.details = Cow::Borrowed(details);
        exchange.finish();
        if let ResponseBodyError::Upstream(_) = error {
            exchange.judge(Outcome::LocalOrigin);
        }
    }

    /// Whose fault it is that the endpoint's codec has failed: a client's broken request breaks it, too.
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
            Some(frame) => Some(frame.map_err(Stopped::Codec)),
            // The codec tells a stream that was reset without an error from one that ended by this alone.
            None if http2 && !self.incoming.is_end_stream() => Some(Err(Stopped::Known(UpstreamFault::Reset.into()))),
            None => None,
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Empty => None,
            Source::Full(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Upstream(upstream) => ready!(upstream.poll_frame(cx)),
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(exchange) = &mut this.exchange {
                    exchange.note_frame(&frame);
                }
                if frame.is_trailers() || this.is_end_stream() {
                    this.end();
                }
                Some(Ok(frame))
            }
            Some(Err(stopped)) => {
                let error = match stopped {
                    Stopped::Codec(error) => this.blame(&error),
                    Stopped::Known(error) => error,
                };
                this.fail(error);
                Some(Err(error))
            }
            None => {
                this.end();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Full(bytes) => bytes.is_none(),
            Source::Upstream(upstream) => upstream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Source::Upstream(upstream) => upstream.incoming.size_hint(),
        }
    }
}
