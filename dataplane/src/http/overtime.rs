//! The time limits of one request: what ends it while nothing, or not enough, happens.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    codec::progress::Progress,
    worker::deadlines::{Deadlines, later},
};

/// Time limits of one request. An upgraded connection has none: it may last for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimits {
    /// For the whole response, from the end of the request.
    pub(super) response: Option<Duration>,
    /// For silence of both sides.
    pub(super) idle: Option<Duration>,
    /// For receiving the request, until its answer begins.
    pub(super) request: Option<Duration>,
}

/// A limit of time that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Over {
    Response,
    Idle,
    Request,
}

/// When the exchange began, and when the endpoint has moved last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    pub(super) begun: Instant,
    pub(super) answered: Instant,
}

impl TimeLimits {
    pub(super) fn any(&self) -> bool {
        self.response.or(self.idle).or(self.request).is_some()
    }

    /// Which limit is over now; else when the next one may be, and never before.
    ///
    /// While the request is still being received, no time runs for the response.
    pub(super) fn look(
        &self,
        now: Instant,
        progress: &Progress,
        moments: Moments,
    ) -> Result<Option<Instant>, Over> {
        let moved = progress.last_read().map_or(moments.answered, |at| at.max(moments.answered));
        let ended = progress.ended_at();
        let ends = [
            (self.response.map(|limit| later(ended.unwrap_or(now), limit)), Over::Response),
            (self.idle.map(|limit| later(moved, limit)), Over::Idle),
            (
                self.request.filter(|_| ended.is_none()).map(|limit| later(moments.begun, limit)),
                Over::Request,
            ),
        ];
        let over = ends.iter().find(|(end, _)| end.is_some_and(|end| end <= now));
        match over {
            Some((_, over)) => Err(*over),
            None => Ok(ends.iter().filter_map(|(end, _)| *end).min()),
        }
    }

    /// Returns when one of the limits is over before the answer begins.
    pub(super) async fn overtime(self, deadlines: &Deadlines, progress: &Progress) -> Over {
        let begun = Instant::now();
        let mut now = begun;
        loop {
            match self.look(now, progress, Moments { begun, answered: begun }) {
                Err(over) => return over,
                Ok(Some(next)) => deadlines.until(next).await,
                Ok(None) => std::future::pending().await,
            }
            now = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_time_runs_for_the_answer_before_the_request_has_ended() {
        let second = Duration::from_secs(1);
        let (begun, progress) = (Instant::now(), Progress::default());
        let all = TimeLimits { response: Some(5 * second), idle: None, request: Some(3 * second) };
        let at = |seconds: u32| Moments { begun, answered: begun + second * seconds };
        let look = |limits: TimeLimits, seconds: u32, moved: u32| {
            limits
                .look(begun + second * seconds, &progress, at(moved))
                .map(|next| next.map(|next| (next - begun).as_secs()))
        };
        assert_eq!(look(all, 1, 0), Ok(Some(3)), "the request's time is first");
        assert_eq!(look(all, 3, 0), Err(Over::Request));
        let response = TimeLimits { request: None, ..all };
        assert_eq!(look(response, 100, 0), Ok(Some(105)), "it has not ended");
        let idle = TimeLimits { response: None, idle: Some(2 * second), request: None };
        assert_eq!(look(idle, 1, 0), Ok(Some(2)));
        assert_eq!(look(idle, 2, 1), Ok(Some(3)), "the endpoint has moved");
        assert_eq!(look(idle, 3, 1), Err(Over::Idle));
        progress.finish();
        assert_eq!(look(response, 4, 0), Ok(Some(5)));
        assert_eq!(look(response, 5, 0), Err(Over::Response));
        assert_eq!(look(all, 4, 0), Ok(Some(5)), "the request has ended in time");
        let none = TimeLimits { response: None, idle: None, request: None };
        assert_eq!((look(none, 9, 0), none.any()), (Ok(None), false));
    }
}
