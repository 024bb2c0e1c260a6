//! The body of an endpoint's answer, as it comes, and its time: that runs also while nobody asks for
//! more, since the codec does not while the client takes nothing.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    exchange::Exchange,
    overtime::{Moments, Over, TimeLimits},
};
use crate::{
    codec::{
        blame::{DownstreamFault, UpstreamFault},
        http1_stream::LINGER,
        progress::{Progress, Trailers},
    },
    upstream::{
        cluster_state::{ActiveOf, Held, UsageOf},
        pool::Lease,
    },
    worker::{
        deadlines::{Alarm, Overdue},
        downstream::Downstream,
    },
};

/// A body that comes from an endpoint, and ends with its time.
pub(super) struct Carried {
    state: RefCell<State>,
    /// There are limits of time.
    watch: RefCell<Option<Watch>>,
    /// When something has come last; as long as somebody watches.
    last_read: Cell<Instant>,
    /// Whoever waits for more; as long as somebody watches.
    reader: Cell<Option<Waker>>,
}

enum State {
    Open(Upstream),
    /// Its time is over; the endpoint is let go.
    Stopped(ResponseBodyError),
}

/// Watches over the time of a body; ends with it.
struct Watch {
    limits: TimeLimits,
    request: Rc<Progress>,
    client: Rc<Downstream>,
    http1: bool,
    /// What the client had taken when the time was over, or at the last look since.
    taken: Cell<Option<u64>>,
    _alarm: Alarm,
}

pub(super) struct Upstream {
    pub(super) incoming: Incoming,
    pub(super) lease: Option<Lease>,
    pub(super) holds: Option<Holds>,
    pub(super) trailers: Trailers,
    /// The status says that there is none, or the method (RFC 9110, section 6.4.1).
    pub(super) bodiless: bool,
}

/// Holds the limits that a request counts against, until its response has ended.
pub(crate) struct Holds {
    pub(crate) _active: Held<ActiveOf>,
    pub(crate) _request: Held<UsageOf>,
    pub(crate) _retry: Option<Held<UsageOf>>,
}

/// What ends a body when its time is over, asked or not.
impl Overdue for Carried {
    fn overdue(&self, now: Instant) -> Option<Instant> {
        if self.stopped().is_some() {
            return self.look_at_client(now);
        }
        let looked = match &*self.watch.borrow() {
            None => return None,
            Some(watch) => watch.limits.look(now, &watch.request, self.moments()),
        };
        match looked {
            Ok(next) => next,
            Err(over) => {
                self.stop(match over {
                    Over::Idle => ResponseBodyError::Idle,
                    Over::Response | Over::Request => ResponseBodyError::Timeout,
                });
                self.look_at_client(now)
            }
        }
    }
}

impl Carried {
    pub(super) fn new(upstream: Upstream) -> Rc<Self> {
        Rc::new(Self {
            state: RefCell::new(State::Open(upstream)),
            watch: RefCell::default(),
            last_read: Cell::new(Instant::now()),
            reader: Cell::default(),
        })
    }

    /// Watches over its time from now on.
    pub(super) fn watch(self: &Rc<Self>, limits: TimeLimits, exchange: &Exchange) {
        // The request's own time is over with the head of its answer.
        let limits = TimeLimits { request: None, ..limits };
        let request = &exchange.progress;
        let Ok(Some(first)) = limits.look(self.last_read.get(), request, self.moments()) else {
            return;
        };
        let this: Weak<Self> = Rc::downgrade(self);
        *self.watch.borrow_mut() = Some(Watch {
            limits,
            request: Rc::clone(request),
            client: Rc::clone(&exchange.downstream),
            http1: !exchange.is_http2(),
            taken: Cell::new(None),
            _alarm: exchange.downstream.worker.deadlines.tell(this, first),
        });
    }

    fn moments(&self) -> Moments {
        Moments { begun: self.last_read.get(), answered: self.last_read.get() }
    }

    /// A client that takes nothing of what the codec has would hold it for ever.
    fn look_at_client(&self, now: Instant) -> Option<Instant> {
        let watch = self.watch.borrow();
        let watch = watch.as_ref().filter(|watch| watch.http1)?;
        let taken = Some(watch.client.seen.taken());
        if watch.taken.replace(taken) == taken {
            watch.client.requests.give_up();
            return None;
        }
        Some(now + LINGER)
    }

    fn stop(&self, error: ResponseBodyError) {
        drop(self.state.replace(State::Stopped(error)));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Why it was stopped, if it was.
    pub(super) fn stopped(&self) -> Option<ResponseBodyError> {
        match *self.state.borrow() {
            State::Open(_) => None,
            State::Stopped(error) => Some(error),
        }
    }

    pub(super) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Stopped>>> {
        let frame = match &mut *self.state.borrow_mut() {
            State::Open(upstream) => upstream.read(cx),
            State::Stopped(error) => return Poll::Ready(Some(Err(Stopped::Known(*error)))),
        };
        if self.watch.borrow().is_some() {
            match &frame {
                // What ends here has no more time to lose.
                Poll::Ready(_) if self.is_end_stream() => {}
                Poll::Ready(_) => self.last_read.set(Instant::now()),
                Poll::Pending => self.reader.set(Some(cx.waker().clone())),
            }
        }
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        matches!(&*self.state.borrow(), State::Open(upstream) if upstream.incoming.is_end_stream())
    }

    pub(super) fn is_bodiless(&self) -> bool {
        matches!(&*self.state.borrow(), State::Open(upstream) if upstream.bodiless)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match &*self.state.borrow() {
            State::Open(upstream) => upstream.incoming.size_hint(),
            State::Stopped(_) => SizeHint::default(),
        }
    }

    /// The last byte was read: the connection is free.
    pub(super) fn end(&self) {
        self.watch.take();
        if let State::Open(upstream) = &mut *self.state.borrow_mut() {
            upstream.holds = None;
            if let Some(lease) = upstream.lease.take() {
                lease.release();
            }
        }
    }
}

impl Upstream {
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Stopped>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        let http2 = self.lease.as_ref().is_some_and(Lease::is_http2);
        let allows = |trailers| self.lease.as_ref().is_none_or(|lease| lease.allows(trailers));
        Poll::Ready(match frame {
            Some(Ok(frame)) if !frame.trailers_ref().is_none_or(allows) => {
                Some(Err(Stopped::Known(UpstreamFault::Reset.into())))
            }
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

/// What has stopped a body.
pub(super) enum Stopped {
    Codec(hyper::Error),
    Known(ResponseBodyError),
}

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
