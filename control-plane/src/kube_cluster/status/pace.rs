//! Writes per second: as many at once as there are tokens, then as they come back. Pure but for the
//! clock it is given.

use std::time::Duration;

use tokio::time::Instant;

/// Writes at once after quiet.
const BURST: u32 = 100;
/// Time that one more write takes to become allowed: fifty in a second.
const EACH: Duration = Duration::from_millis(20);

/// A bucket of tokens, kept as the time at which it is full again.
#[derive(Debug)]
pub(super) struct Pace {
    full_at: Instant,
}

impl Pace {
    /// Full.
    pub(super) fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes a token; when it may be used.
    pub(super) fn turn(&mut self, now: Instant) -> Instant {
        self.full_at = self.full_at.max(now) + EACH;
        let burst = EACH * BURST;
        (self.full_at - now).checked_sub(burst).map_or(now, |wait| now + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for i in 0..=BURST + 50 {
            let expected = EACH * i.saturating_sub(BURST - 1);
            assert_eq!(pace.turn(start) - start, expected, "write {i}");
        }
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.turn(later), later);
    }
}
