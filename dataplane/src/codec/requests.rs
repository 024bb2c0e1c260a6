//! The requests of one downstream connection: how many are under way, and how many came to nothing.

use std::{cell::Cell, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};

use super::guard::Watched;
use crate::runtime::limits::HttpLimits;

/// Why a client's connection is to be closed at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Burden {
    /// Too many of its requests came to nothing.
    PrematureResets,
    /// The time of an answer is over, and the client takes nothing more of it.
    TakesNothing,
}

/// Counts requests from their head to the last byte of their answer.
pub(crate) struct Requests {
    /// What the connection's stream tells.
    pub(crate) watched: Arc<Watched>,
    active: Cell<u32>,
    begun: Cell<u64>,
    ended: Cell<u64>,
    premature: Cell<u64>,
    /// When the last request ended, or the connection began.
    last_used: Cell<Instant>,
    /// Bytes that had come when a request began or ended last: what comes later is another one's.
    mark: Cell<u64>,
    burden: Cell<Option<Burden>>,
    became_burden: Notify,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            watched: Arc::default(),
            active: Cell::new(0),
            begun: Cell::new(0),
            ended: Cell::new(0),
            premature: Cell::new(0),
            last_used: Cell::new(Instant::now()),
            mark: Cell::new(0),
            burden: Cell::default(),
            became_burden: Notify::new(),
        }
    }
}

impl Requests {
    /// A request's head was received.
    pub(crate) fn begin(&self) {
        self.active.set(self.active.get() + 1);
        self.begun.set(self.begun.get() + 1);
        self.mark.set(self.watched.bytes());
    }

    /// A request is over; `unanswered` after this time, if it had no answer.
    pub(crate) fn end(&self, unanswered: Option<Duration>, limits: &HttpLimits) {
        self.active.set(self.active.get() - 1);
        self.ended.set(self.ended.get() + 1);
        self.last_used.set(Instant::now());
        self.mark.set(self.watched.bytes());
        if unanswered.is_some_and(|after| after < HttpLimits::PREMATURE) {
            self.premature.set(self.premature.get() + 1);
            if self.is_flood(limits) {
                self.close_for(Burden::PrematureResets);
            }
        }
    }

    /// More than half of all end so, or would even if every further one up to the limit were a good
    /// one.
    fn is_flood(&self, limits: &HttpLimits) -> bool {
        self.premature.get() * 2 >= self.ended.get().max(limits.premature_resets.into())
    }

    /// An answer's time is over, and the client takes nothing more of it.
    pub(crate) fn give_up(&self) {
        self.close_for(Burden::TakesNothing);
    }

    fn close_for(&self, why: Burden) {
        self.burden.set(self.burden.get().or(Some(why)));
        self.became_burden.notify_one();
    }

    /// Returns when the connection is to be closed, and says why; the first reason counts.
    pub(crate) async fn burden(&self) -> Burden {
        loop {
            if let Some(why) = self.burden.get() {
                return why;
            }
            self.became_burden.notified().await;
        }
    }

    /// How many have begun so far.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Since when nothing is under way; `None` while something is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        (self.active.get() == 0).then(|| self.last_used.get())
    }

    /// Bytes of a next request have come, but not its whole head.
    pub(crate) fn is_head_open(&self, http1: bool) -> bool {
        match http1 {
            true => self.active.get() == 0 && self.watched.bytes() > self.mark.get(),
            false => self.watched.is_in_head(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_flood_after(kinds: impl IntoIterator<Item = Option<Duration>>) -> Option<usize> {
        let (requests, limits) = (Requests::default(), HttpLimits::default());
        kinds.into_iter().position(|unanswered| {
            requests.begin();
            requests.end(unanswered, &limits);
            requests.is_flood(&limits)
        })
    }

    #[tokio::test]
    async fn streams_that_come_to_nothing_end_the_connection_as_in_envoy() {
        let (good, bad, late) = (None, Some(Duration::ZERO), Some(HttpLimits::PREMATURE));
        assert_eq!(is_flood_after(std::iter::repeat_n(bad, 1000)), Some(249));
        assert_eq!(is_flood_after(std::iter::repeat_n(late, 1000)), None);
        let third = (0..3000).map(|i| if i % 3 == 0 { bad } else { good });
        assert_eq!(is_flood_after(third), None);
        let half = (0..3000).map(|i| if i % 2 == 0 { bad } else { good });
        assert_eq!(is_flood_after(half), Some(498));
    }
}
