//! How fast new streams are taken in: a flood waits its turn, and then is told to come back.

use std::{sync::Mutex, time::Duration};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use tonic::Status;

/// Streams that may begin per second in the long run.
const RATE: f64 = 1000.0;
/// Streams that may begin at once after quiet: a whole mesh that reconnects.
const BURST: f64 = 2000.0;
/// Streams that are being classified at a time.
const TURNS: usize = 64;
/// Longest wait for a turn; Envoy would give up on its own soon after.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Streams open at a time, all proxies together.
const MOST_STREAMS: usize = 50_000;

/// The door of a discovery server.
#[derive(Debug)]
pub(super) struct Arrivals {
    bucket: Mutex<Bucket>,
    turns: Semaphore,
    streams: std::sync::Arc<Semaphore>,
}

/// Held by a stream while it is open.
pub(super) type Place = tokio::sync::OwnedSemaphorePermit;

impl Arrivals {
    pub(super) fn new() -> Self {
        let bucket = Bucket { tokens: BURST, filled: Instant::now() };
        Self {
            bucket: Mutex::new(bucket),
            turns: Semaphore::new(TURNS),
            streams: std::sync::Arc::new(Semaphore::new(MOST_STREAMS)),
        }
    }

    /// A place for one stream; `RESOURCE_EXHAUSTED` when there is none.
    pub(super) fn place(&self) -> Result<Place, Status> {
        self.streams.clone().try_acquire_owned().map_err(|_| busy("this server has no room for another stream"))
    }

    /// A turn to begin; `RESOURCE_EXHAUSTED` when too many wait.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, Status> {
        let wait = self.bucket.lock().expect("no code panics while it holds this lock").take(Instant::now());
        if wait > LONGEST_WAIT {
            return Err(busy("too many new streams"));
        }
        tokio::time::sleep(wait).await;
        let turn = tokio::time::timeout(LONGEST_WAIT, self.turns.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| busy("too many new streams"))
    }
}

fn busy(why: &str) -> Status {
    Status::resource_exhausted(format!("{why}; try again later"))
}

/// A token bucket that lends: who comes when it is empty is told how long to wait.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> Duration {
        self.tokens = (self.tokens + now.duration_since(self.filled).as_secs_f64() * RATE).min(BURST);
        self.filled = now;
        let wait = Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / RATE);
        // Who will be turned away takes nothing.
        if wait <= LONGEST_WAIT {
            self.tokens -= 1.0;
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_a_flood_waits_and_more_is_turned_away() {
        let begin = Instant::now();
        let mut bucket = Bucket { tokens: BURST, filled: begin };
        let waits: Vec<Duration> = (0..10_000).map(|_| bucket.take(begin)).collect();
        assert!(waits[..2000].iter().all(Duration::is_zero));
        assert!(waits[2500] > Duration::from_millis(400) && waits[2500] < Duration::from_millis(600));
        assert!(waits[9_999] > LONGEST_WAIT);
        let later = begin + Duration::from_secs(30);
        assert!(bucket.take(later).is_zero(), "the bucket fills again");
    }
}
