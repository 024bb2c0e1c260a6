//! How fast new streams are taken in: a flood waits its turn behind itself, and then is told to
//! come back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ferromesh_proto::{SpiffeId, retry};
use tokio::time::Instant;
use tonic::Status;

use crate::accept::{
    ClientNetwork,
    turns::{Turn, Turns},
};

const POISONED: &str = "no code panics while it holds this lock";
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
/// Streams of one caller: an identity may have thousands of replicas, and a whole mesh one address;
/// never all.
const MOST_OF_ONE: usize = MOST_STREAMS / 4 * 3;
/// When to come back.
const AGAIN: Duration = Duration::from_secs(2);

/// Who wants to be served, for fairness.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Visitor {
    /// Everybody with this identity.
    Proven(SpiffeId),
    /// Everybody who calls from there.
    From(ClientNetwork),
}

/// Who may begin a stream at a discovery server, and when.
#[derive(Debug)]
pub(super) struct Arrivals {
    bucket: Mutex<Bucket>,
    turns: Arc<Turns<Visitor>>,
    streams: Mutex<Streams>,
}

#[derive(Default, Debug)]
struct Streams {
    all: usize,
    by_visitor: HashMap<Visitor, usize>,
}

/// Held by a stream while it is open.
#[derive(Debug)]
pub(super) struct Place {
    arrivals: Arc<Arrivals>,
    visitor: Visitor,
}

impl Arrivals {
    pub(super) fn new() -> Arc<Self> {
        let bucket = Bucket { tokens: BURST, filled: Instant::now() };
        Arc::new(Self {
            bucket: Mutex::new(bucket),
            turns: Turns::new(TURNS),
            streams: Mutex::default(),
        })
    }

    /// A place for one stream; `RESOURCE_EXHAUSTED` when there is none.
    pub(super) fn place(self: &Arc<Self>, visitor: Visitor) -> Result<Place, Status> {
        let mut streams = self.streams.lock().expect(POISONED);
        let own = streams.by_visitor.get(&visitor).copied().unwrap_or(0);
        if streams.all >= MOST_STREAMS || own >= MOST_OF_ONE {
            return Err(retry::exhausted("this server has no room for another stream", AGAIN));
        }
        streams.all += 1;
        streams.by_visitor.insert(visitor.clone(), own + 1);
        Ok(Place { arrivals: self.clone(), visitor })
    }

    /// A turn to begin; `RESOURCE_EXHAUSTED` when too many wait.
    pub(super) async fn turn(&self, visitor: Visitor) -> Result<Turn<Visitor>, Status> {
        let waiting = async {
            let turn = self.turns.turn(visitor).await;
            // Within a turn, so that those who wait for the bucket are served in turn as well.
            let wait = self.bucket.lock().expect(POISONED).take(Instant::now());
            tokio::time::sleep(wait).await;
            turn
        };
        let turn = tokio::time::timeout(LONGEST_WAIT, waiting).await;
        turn.map_err(|_| retry::exhausted("too many new streams", AGAIN))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.arrivals.streams.lock().expect(POISONED);
        streams.all -= 1;
        if let Some(own) = streams.by_visitor.get_mut(&self.visitor) {
            *own -= 1;
            if *own == 0 {
                streams.by_visitor.remove(&self.visitor);
            }
        }
    }
}

/// A token bucket that lends: who comes when it is empty is told how long to wait. As many may
/// borrow as have a turn.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> Duration {
        self.tokens =
            (self.tokens + now.duration_since(self.filled).as_secs_f64() * RATE).min(BURST);
        self.filled = now;
        let wait = Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / RATE);
        self.tokens -= 1.0;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> Visitor {
        Visitor::From(ClientNetwork::of([10, 0, 0, last].into()))
    }

    #[test]
    fn a_burst_passes_and_a_flood_waits() {
        let begin = Instant::now();
        let mut bucket = Bucket { tokens: BURST, filled: begin };
        let waits: Vec<Duration> = (0..3_000).map(|_| bucket.take(begin)).collect();
        assert!(waits[..2000].iter().all(Duration::is_zero));
        assert!(
            waits[2500] > Duration::from_millis(400) && waits[2500] < Duration::from_millis(600)
        );
        let later = begin + Duration::from_secs(30);
        assert!(bucket.take(later).is_zero(), "the bucket fills again");
    }

    #[tokio::test(start_paused = true)]
    async fn beside_a_flood_of_one_others_begin_at_once() {
        let arrivals = Arrivals::new();
        let mut flood = tokio::task::JoinSet::new();
        for _ in 0..10_000 {
            let arrivals = arrivals.clone();
            flood.spawn(async move { arrivals.turn(from(1)).await.map(drop) });
        }
        // As the queue of the flood has formed.
        while arrivals.turns.waiting() < 5_000 {
            tokio::task::yield_now().await;
        }
        let begin = Instant::now();
        arrivals.turn(from(2)).await.expect("a turn");
        assert!(begin.elapsed() < LONGEST_WAIT / 4, "{:?}", begin.elapsed());
        assert!(arrivals.turns.waiting() > 3_000, "it did not wait for the flood");
    }

    #[test]
    fn one_caller_never_has_every_place() {
        let arrivals = Arrivals::new();
        let all: Vec<_> = std::iter::from_fn(|| arrivals.place(from(1)).ok()).collect();
        assert_eq!(all.len(), MOST_OF_ONE);
        let other = arrivals.place(from(2)).expect("there is room for others");
        drop((all, other));
        let streams = arrivals.streams.lock().expect(POISONED);
        assert_eq!((streams.all, streams.by_visitor.len()), (0, 0));
    }
}
