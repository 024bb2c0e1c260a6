//! Whose request is signed next: whoever loses most by waiting.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use crate::rotation::Validity;

const POISONED: &str = "no holder of this lock panics";
/// A certificate is near its end with this share of its life left.
const NEAR: u32 = 4;

/// What a caller loses by waiting; those that lose most come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Urgency {
    /// It renews a certificate that ends soon: then it is out of the mesh.
    Ending,
    /// It has none: it starts.
    Starting,
    /// It renews early.
    Early,
}

impl Urgency {
    /// Of a caller with this certificate, if it has one.
    pub(crate) fn of(certificate: Option<Validity>, now: SystemTime) -> Self {
        match certificate {
            None => Self::Starting,
            Some(validity) if validity.remaining(now) <= validity.lifetime() / NEAR => Self::Ending,
            Some(_) => Self::Early,
        }
    }
}

/// Signatures at a time, and who waits for one.
#[derive(Debug)]
pub(crate) struct Queue(Mutex<Line>);

#[derive(Debug)]
struct Line {
    free: usize,
    room: usize,
    numbered: u64,
    waiting: BTreeMap<(Urgency, u64), oneshot::Sender<Turn>>,
}

/// A turn to sign, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Turn(Option<Arc<Queue>>);

/// Too many wait who lose more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Crowded;

impl Queue {
    /// So many signatures at a time, and room for so many that wait.
    pub(crate) fn new(at_a_time: usize, room: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Line {
            free: at_a_time,
            room,
            numbered: 0,
            waiting: BTreeMap::new(),
        })))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// Nobody waits who loses less.
    pub(crate) async fn turn(self: &Arc<Self>, urgency: Urgency) -> Result<Turn, Crowded> {
        let waiting = {
            let mut line = self.line();
            if line.free > 0 {
                line.free -= 1;
                return Ok(Turn(Some(self.clone())));
            }
            line.join(urgency)?
        };
        waiting.await.map_err(|_| Crowded)
    }

    fn pass(self: &Arc<Self>) {
        let mut line = self.line();
        let mut turn = Turn(Some(self.clone()));
        while let Some((_, waiter)) = line.waiting.pop_first() {
            match waiter.send(turn) {
                Ok(()) => return,
                Err(unwanted) => turn = unwanted,
            }
        }
        line.free += 1;
        // Nobody took it: it must not come back once more.
        turn.0 = None;
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().expect(POISONED)
    }
}

impl Line {
    fn join(&mut self, urgency: Urgency) -> Result<oneshot::Receiver<Turn>, Crowded> {
        if self.waiting.len() >= self.room {
            self.waiting.retain(|_, waiter| !waiter.is_closed());
        }
        if self.waiting.len() >= self.room {
            let last =
                self.waiting.last_entry().filter(|last| last.key().0 > urgency).ok_or(Crowded)?;
            // Dropped: whoever waits there is told to come back.
            last.remove();
        }
        let (waiter, waiting) = oneshot::channel();
        self.numbered += 1;
        self.waiting.insert((urgency, self.numbered), waiter);
        Ok(waiting)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.pass();
        }
    }
}

/// Time after which to ask again when too many waited.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{pin::Pin, task::Context};

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Result<Turn, Crowded>> + Send>>;

    fn look(waiting: &mut Waiting) -> Option<Result<Turn, Crowded>> {
        match waiting.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(outcome) => Some(outcome),
            std::task::Poll::Pending => None,
        }
    }

    fn wait(queue: &Arc<Queue>, urgency: Urgency) -> Waiting {
        let queue = queue.clone();
        let mut waiting: Waiting = Box::pin(async move { queue.turn(urgency).await });
        assert!(look(&mut waiting).is_none());
        waiting
    }

    fn held(queue: &Arc<Queue>) -> Turn {
        let queue = queue.clone();
        let mut first: Waiting = Box::pin(async move { queue.turn(Urgency::Early).await });
        look(&mut first).unwrap().unwrap()
    }

    #[test]
    fn who_loses_most_comes_first_and_among_equals_who_came_first() {
        use Urgency::{Early, Ending, Starting};
        let queue = Queue::new(1, 100);
        let first = held(&queue);
        let mut waiting: Vec<_> = [Early, Starting, Early, Ending, Starting, Ending]
            .map(|urgency| Some(wait(&queue, urgency)))
            .into();
        drop(first);
        let mut order = Vec::new();
        while let Some(at) =
            waiting.iter_mut().position(|w| w.as_mut().is_some_and(|w| look(w).is_some()))
        {
            waiting[at] = None;
            order.push(at);
        }
        assert_eq!(order, [3, 5, 1, 4, 0, 2]);
        assert_eq!(queue.line().free, 1);
    }

    #[test]
    fn where_many_wait_who_loses_least_is_sent_away() {
        let queue = Queue::new(1, 2);
        let first = held(&queue);
        let (mut early, mut starting) =
            (wait(&queue, Urgency::Early), wait(&queue, Urgency::Starting));
        let mut ending = wait(&queue, Urgency::Ending);
        assert_eq!(look(&mut early).unwrap().unwrap_err(), Crowded);
        let another = queue.clone();
        let mut late: Waiting = Box::pin(async move { another.turn(Urgency::Starting).await });
        assert_eq!(look(&mut late).unwrap().unwrap_err(), Crowded);
        drop(first);
        let turn = look(&mut ending).unwrap();
        assert!(look(&mut starting).is_none());
        drop(turn);
        assert!(look(&mut starting).unwrap().is_ok());
    }

    #[test]
    fn a_certificate_is_near_its_end_in_its_last_quarter() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let validity = Validity { not_before: at(1_000), not_after: at(2_000) };
        for (now, expected) in
            [(1_000, Urgency::Early), (1_749, Urgency::Early), (1_750, Urgency::Ending)]
        {
            assert_eq!(Urgency::of(Some(validity), at(now)), expected, "{now}");
        }
        assert_eq!(Urgency::of(None, at(0)), Urgency::Starting);
    }
}
