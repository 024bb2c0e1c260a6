//! How fast rounds of the pipeline follow each other. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Rounds that follow each other at once after quiet.
const BURST: f64 = 20.0;
/// Rounds per second in a storm.
const RATE: f64 = 10.0;
/// Longest pause between two rounds.
const LONGEST_GAP: Duration = Duration::from_secs(1);
/// CPU time to send a small change to one proxy.
const SEND: Duration = Duration::from_micros(25);

/// How fast rounds follow each other: at once while they are few, at a steady rate in a storm, and
/// never so fast that the machine does nothing else.
#[derive(Debug)]
pub(super) struct Pace {
    credit: f64,
    /// When the last round ended, and how long to let others work after it.
    last: Option<(Instant, Duration)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { credit: BURST, last: None }
    }
}

impl Pace {
    /// When the next round may begin.
    pub(super) fn next(&self) -> Instant {
        let Some((end, rest)) = self.last else { return Instant::now() };
        let saved = Duration::from_secs_f64((1.0 - self.credit).max(0.0) / RATE);
        end + rest.max(saved).min(LONGEST_GAP)
    }

    /// A round ran; sending its outcome to `streams` proxies takes time too.
    pub(super) fn ran(&mut self, begin: Instant, end: Instant, streams: u32) {
        let idle =
            self.last.map_or(Duration::ZERO, |(end, _)| begin.saturating_duration_since(end));
        self.credit = (self.credit + idle.as_secs_f64() * RATE).min(BURST) - 1.0;
        self.last = Some((end, end.duration_since(begin) + SEND * streams));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses between rounds that take `work` each and follow each other as fast as allowed.
    fn pauses(pace: &mut Pace, rounds: usize, work: Duration, streams: u32) -> Vec<u128> {
        let mut now = pace.last.map_or_else(Instant::now, |(end, _)| end);
        let pause = |_| {
            let begin = if pace.last.is_some() { pace.next().max(now) } else { now };
            let paused = begin.duration_since(now);
            now = begin + work;
            pace.ran(begin, now, streams);
            paused.as_millis()
        };
        (0..rounds).map(pause).collect()
    }

    #[test]
    fn few_rounds_go_at_once_and_a_storm_is_batched() {
        let mut pace = Pace::default();
        let burst = pauses(&mut pace, 20, Duration::ZERO, 0);
        assert!(burst.iter().all(|p| *p == 0), "{burst:?}");
        let storm = pauses(&mut pace, 10, Duration::ZERO, 0);
        assert!(storm[1..].iter().all(|p| (99..=101).contains(p)), "{storm:?}");
    }

    #[test]
    fn costly_rounds_leave_time_for_others_but_no_more_than_a_second() {
        let work = Duration::from_millis(80);
        assert_eq!(pauses(&mut Pace::default(), 2, work, 0)[1], 80);
        assert_eq!(pauses(&mut Pace::default(), 2, Duration::ZERO, 1000)[1], 25);
        assert_eq!(pauses(&mut Pace::default(), 2, 100 * work, 0)[1], 1000);
    }
}
