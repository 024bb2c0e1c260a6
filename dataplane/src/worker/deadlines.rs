//! Times by which something should have happened, and nearly always has.
//!
//! A request has several of them, and a timer of the runtime for each would be put in and taken out
//! again with every request. A worker has one timer for all of them. It looks at what is left when
//! the earliest time is over that anybody has named, so that requests which are answered in time
//! only take a place and leave it.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use slab::Slab;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Looks are so far apart for each entry, so that they take a few percent of a worker's time at
/// most, however many entries there are and however soon their times are over.
const BETWEEN_LOOKS: Duration = Duration::from_nanos(100);

/// A time so late that nobody waits for it.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time `limit` after `from`, for any limit that a configuration may name.
pub(crate) fn later(from: Instant, limit: Duration) -> Instant {
    from.checked_add(limit).unwrap_or_else(|| from + FAR)
}

/// What is told that its time is over.
pub(crate) trait Overdue {
    /// Its time is over. Returns when it wants to be told again, if it does.
    fn overdue(&self, now: Instant) -> Option<Instant>;
}

/// The deadlines of a worker's requests. Lives on one thread.
#[derive(Clone, Default)]
pub(crate) struct Deadlines(Rc<Table>);

#[derive(Default)]
struct Table {
    entries: RefCell<Slab<Entry>>,
    /// When the next look is due; nothing while there is nothing to look for.
    next: Cell<Option<Instant>>,
    /// `next` was brought forward.
    sooner: Notify,
    has_timer: Cell<bool>,
}

struct Entry {
    /// Nothing once it was told.
    at: Option<Instant>,
    whom: Whom,
}

enum Whom {
    Task(Waker),
    Object(Weak<dyn Overdue>),
}

/// Keeps a place among the deadlines until it is dropped.
struct Place {
    table: Rc<Table>,
    key: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.entries.borrow_mut().remove(self.key);
    }
}

/// Somebody is told when its time is over, as long as this lives.
pub(crate) struct Alarm(#[expect(dead_code, reason = "held for its end")] Place);

/// A future that ends when its time is over.
pub(crate) struct Until {
    deadlines: Deadlines,
    at: Instant,
    place: Option<Place>,
}

impl Deadlines {
    /// Waits for a time.
    pub(crate) fn until(&self, at: Instant) -> Until {
        Until { deadlines: self.clone(), at, place: None }
    }

    /// Tells `whom` when the time is over.
    pub(crate) fn tell(&self, whom: Weak<dyn Overdue>, at: Instant) -> Alarm {
        Alarm(self.take_place(Whom::Object(whom), at))
    }

    fn take_place(&self, whom: Whom, at: Instant) -> Place {
        let table = &self.0;
        let key = table.entries.borrow_mut().insert(Entry { at: Some(at), whom });
        table.look_at(at);
        if !table.has_timer.replace(true) {
            tokio::task::spawn_local(run(Rc::clone(table)));
        }
        Place { table: Rc::clone(table), key }
    }
}

/// The timer; ends with the worker.
async fn run(table: Rc<Table>) {
    loop {
        let sooner = table.sooner.notified();
        match table.next.get() {
            None => sooner.await,
            Some(next) => tokio::select! {
                () = sleep_until(next) => table.look(Instant::now()),
                () = sooner => {}
            },
        }
    }
}

impl Table {
    fn look_at(&self, at: Instant) {
        if self.next.get().is_none_or(|next| at < next) {
            self.next.set(Some(at));
            self.sooner.notify_one();
        }
    }

    /// Tells everybody whose time is over.
    fn look(&self, now: Instant) {
        let mut due = Vec::new();
        for (key, entry) in &mut *self.entries.borrow_mut() {
            if entry.at.is_none_or(|at| at > now) {
                continue;
            }
            entry.at = None;
            match &entry.whom {
                Whom::Task(waker) => waker.wake_by_ref(),
                Whom::Object(object) => due.push((key, Weak::clone(object))),
            }
        }
        for (key, object) in due {
            let again = object.upgrade().and_then(|object| object.overdue(now));
            // What was told may have given up its place, and somebody else have it.
            if let Some(entry) = self.entries.borrow_mut().get_mut(key)
                && matches!(&entry.whom, Whom::Object(whom) if whom.ptr_eq(&object))
            {
                entry.at = again;
            }
        }
        let entries = self.entries.borrow();
        let earliest = entries.iter().filter_map(|(_, entry)| entry.at).min();
        let spacing = BETWEEN_LOOKS * u32::try_from(entries.len()).unwrap_or(u32::MAX);
        self.next.set(earliest.map(|at| at.max(now + spacing)));
    }
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(place) = &this.place else {
            let whom = Whom::Task(cx.waker().clone());
            this.place = Some(this.deadlines.take_place(whom, this.at));
            return Poll::Pending;
        };
        let mut entries = place.table.entries.borrow_mut();
        match entries.get_mut(place.key) {
            Some(Entry { at: Some(_), whom: Whom::Task(waker) }) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Is told so often, a second apart.
    struct Told {
        times: RefCell<Vec<Instant>>,
        again: Cell<u32>,
    }

    impl Overdue for Told {
        fn overdue(&self, now: Instant) -> Option<Instant> {
            self.times.borrow_mut().push(now);
            let left = self.again.get().checked_sub(1)?;
            self.again.set(left);
            Some(now + SECOND)
        }
    }

    async fn paused<T>(test: impl Future<Output = T>) -> T {
        tokio::time::pause();
        LocalSet::new().run_until(test).await
    }

    #[tokio::test]
    async fn each_is_told_when_its_time_is_over_and_not_before() {
        paused(async {
            let (deadlines, begin) = (Deadlines::default(), Instant::now());
            let waits = [5, 1, 3, 0].map(|seconds| {
                let until = deadlines.until(begin + seconds * SECOND);
                async move {
                    until.await;
                    begin.elapsed().as_secs()
                }
            });
            let [a, b, c, d] = waits;
            assert_eq!(tokio::join!(a, b, c, d), (5, 1, 3, 0));
            assert!(deadlines.0.entries.borrow().is_empty(), "places are given up");
        })
        .await;
    }

    #[tokio::test]
    async fn an_object_is_told_as_often_as_it_wants_and_no_more_once_its_alarm_is_gone() {
        paused(async {
            let (deadlines, begin) = (Deadlines::default(), Instant::now());
            let told = |again| Rc::new(Told { times: RefCell::default(), again: Cell::new(again) });
            let (thrice, quiet) = (told(2), told(2));
            let watch = |whom: &Rc<Told>| {
                let whom: Weak<Told> = Rc::downgrade(whom);
                deadlines.tell(whom, begin + SECOND)
            };
            let (_kept, gone) = (watch(&thrice), watch(&quiet));
            drop(gone);
            deadlines.until(begin + 9 * SECOND).await;
            let seconds = |told: &Told| -> Vec<u64> {
                told.times.borrow().iter().map(|at| (*at - begin).as_secs()).collect()
            };
            assert_eq!((seconds(&thrice), seconds(&quiet)), (vec![1, 2, 3], vec![]));
        })
        .await;
    }

    #[tokio::test]
    async fn what_leaves_in_time_costs_no_look() {
        paused(async {
            let deadlines = Deadlines::default();
            let begin = Instant::now();
            drop(tokio::time::timeout(SECOND, deadlines.until(begin + 9 * SECOND)).await);
            assert_eq!(deadlines.0.next.get(), Some(begin + 9 * SECOND));
            for _ in 0..100 {
                let later = deadlines.until(Instant::now() + 9 * SECOND);
                drop(tokio::time::timeout(SECOND / 1000, later).await);
            }
            // The first one's time, though it is long gone.
            assert_eq!(deadlines.0.next.get(), Some(begin + 9 * SECOND));
            tokio::time::sleep(20 * SECOND).await;
            assert_eq!(deadlines.0.next.get(), None);
        })
        .await;
    }

    #[test]
    fn limits_without_measure_are_far_away() {
        let now = Instant::now();
        assert_eq!(later(now, SECOND), now + SECOND);
        assert!(later(now, Duration::MAX) >= now + FAR);
    }
}
