//! Turns at work that costs: some at a time, one after the other by who waits, so that a flood of
//! one is not a wait for all.
//!
//! Each caller has a queue of its own, and the queues are served in turn. Within a queue the oldest
//! and the newest go alternately: the oldest gets its turn, and whoever comes behind a flood from
//! its own address is not last.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::oneshot;

const POISONED: &str = "no code panics while it holds this lock";

/// Turns of callers that are told apart by `K`.
#[derive(Debug)]
pub struct Turns<K: Eq + Hash + Clone>(Mutex<Line<K>>);

#[derive(Debug)]
struct Line<K: Eq + Hash + Clone> {
    free: usize,
    queues: HashMap<K, Queue<K>>,
    /// Whose queue comes next; every queue that is not empty, once.
    order: VecDeque<K>,
}

/// Who waits for one caller.
#[derive(Debug)]
struct Queue<K: Eq + Hash + Clone> {
    waiters: VecDeque<oneshot::Sender<Turn<K>>>,
    /// Whether the newest comes next.
    newest: bool,
}

/// A turn, for as long as it is kept.
#[derive(Debug)]
pub struct Turn<K: Eq + Hash + Clone>(Option<Arc<Turns<K>>>);

impl<K: Eq + Hash + Clone> Turns<K> {
    /// So many at a time.
    pub fn new(at_a_time: usize) -> Arc<Self> {
        let line = Line { free: at_a_time, queues: HashMap::new(), order: VecDeque::new() };
        Arc::new(Self(Mutex::new(line)))
    }

    /// Waits for a turn. Whoever stops waiting leaves the queue.
    ///
    /// # Panics
    /// Never: a queue is emptied only by turns.
    pub async fn turn(self: &Arc<Self>, caller: K) -> Turn<K> {
        let waiting = {
            let mut line = self.line();
            if line.free > 0 {
                line.free -= 1;
                return Turn(Some(self.clone()));
            }
            line.join(caller)
        };
        waiting.await.expect("a turn is passed on to whoever waits")
    }

    /// Callers that wait.
    pub fn waiting(&self) -> usize {
        let live =
            |queue: &Queue<K>| queue.waiters.iter().filter(|waiter| !waiter.is_closed()).count();
        self.line().queues.values().map(live).sum()
    }

    /// Gives a turn that came back to the next who waits.
    fn pass(self: &Arc<Self>) {
        let mut line = self.line();
        let mut turn = Turn(Some(self.clone()));
        while let Some(waiter) = line.next() {
            match waiter.send(turn) {
                Ok(()) => return,
                Err(unwanted) => turn = unwanted,
            }
        }
        line.free += 1;
        // Nobody took it: it must not come back once more.
        turn.0 = None;
    }

    fn line(&self) -> MutexGuard<'_, Line<K>> {
        self.0.lock().expect(POISONED)
    }
}

impl<K: Eq + Hash + Clone> Line<K> {
    fn join(&mut self, caller: K) -> oneshot::Receiver<Turn<K>> {
        let (waiter, waiting) = oneshot::channel();
        let empty = || Queue { waiters: VecDeque::new(), newest: false };
        let waiters = &mut self.queues.entry(caller.clone()).or_insert_with(empty).waiters;
        if waiters.is_empty() {
            self.order.push_back(caller);
        }
        // Who stopped waiting must not pile up behind a turn that takes long.
        if waiters.len() == waiters.capacity() {
            waiters.retain(|waiter| !waiter.is_closed());
        }
        waiters.push_back(waiter);
        waiting
    }

    fn next(&mut self) -> Option<oneshot::Sender<Turn<K>>> {
        let caller = self.order.pop_front()?;
        let Queue { waiters, newest } = self.queues.get_mut(&caller)?;
        let waiter = if *newest { waiters.pop_back() } else { waiters.pop_front() };
        *newest = !*newest;
        if waiters.is_empty() {
            self.queues.remove(&caller);
        } else {
            self.order.push_back(caller);
        }
        waiter
    }
}

impl<K: Eq + Hash + Clone> Drop for Turn<K> {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::BoxFuture};

    use super::*;

    type Waiting = BoxFuture<'static, Turn<&'static str>>;

    /// Joins the queue of a caller at once.
    fn wait(turns: &Arc<Turns<&'static str>>, caller: &'static str) -> Waiting {
        let turns = turns.clone();
        let mut waiting = async move { turns.turn(caller).await }.boxed();
        assert!((&mut waiting).now_or_never().is_none(), "no turn is free");
        waiting
    }

    fn turn_of(waiting: &mut [Option<Waiting>]) -> Option<usize> {
        let at = waiting
            .iter_mut()
            .position(|w| w.as_mut().is_some_and(|w| w.now_or_never().is_some()))?;
        waiting[at] = None;
        Some(at)
    }

    #[tokio::test]
    async fn queues_are_served_in_turn_and_each_from_both_ends() {
        let turns = Turns::new(1);
        let mut held = Some(turns.turn("flood").await);
        let flood: Vec<Waiting> = (0..100).map(|_| wait(&turns, "flood")).collect();
        let good = vec![wait(&turns, "good"), wait(&turns, "better")];
        let mut waiting: Vec<Option<Waiting>> = flood.into_iter().chain(good).map(Some).collect();
        assert_eq!(turns.waiting(), 102);
        held.take();
        // A turn that is found is dropped at once, so that the next is passed on.
        let order: Vec<usize> = std::iter::from_fn(|| turn_of(&mut waiting)).collect();
        assert_eq!(order.len(), 102, "everybody gets a turn");
        assert_eq!(order[..6], [0, 100, 101, 99, 1, 98], "{order:?}");
        assert_eq!((turns.waiting(), turns.line().free), (0, 1));
    }

    #[tokio::test]
    async fn a_turn_goes_on_when_whoever_waited_is_gone() {
        let turns = Turns::new(1);
        let held = turns.turn("a").await;
        let (gone, mut next) = (wait(&turns, "a"), wait(&turns, "b"));
        drop(gone);
        drop(held);
        let given = (&mut next).now_or_never();
        assert!(given.is_some());
        let unread = wait(&turns, "c");
        drop(given);
        // Given, and dropped before it was looked at.
        drop(unread);
        assert_eq!(turns.line().free, 1);
    }
}
