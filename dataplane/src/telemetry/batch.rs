//! What is told to a service waits to be told together: of each service a batch per worker.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

/// A batch has no more items.
const FULL: usize = 256;
/// Batches that are told at a time; where a service is slower than the traffic, items are lost.
const MOST_UNDER_WAY: usize = 4;

/// The batches of a worker: items of one kind, for services of one kind.
pub struct Batches<S, T> {
    waiting: RefCell<Vec<Batch<S, T>>>,
    under_way: Cell<usize>,
}

struct Batch<S, T> {
    service: Arc<S>,
    items: Vec<T>,
}

/// What follows from one more item.
#[derive(Debug, PartialEq)]
pub enum Due<T> {
    /// The batch that it is in is told by and by.
    Nothing,
    /// It has begun a batch, which is to be taken after [`PATIENCE`].
    Later,
    /// Its batch is full.
    Now(Vec<T>),
}

/// How long an item waits for others.
pub const PATIENCE: Duration = Duration::from_secs(1);

impl<S, T> Default for Batches<S, T> {
    fn default() -> Self {
        Self { waiting: RefCell::default(), under_way: Cell::new(0) }
    }
}

impl<S, T> Batches<S, T> {
    /// One more item.
    pub fn add(&self, service: &Arc<S>, item: T) -> Due<T> {
        let mut waiting = self.waiting.borrow_mut();
        let Some(at) = waiting.iter().position(|batch| Arc::ptr_eq(&batch.service, service)) else {
            waiting.push(Batch { service: Arc::clone(service), items: vec![item] });
            return Due::Later;
        };
        waiting[at].items.push(item);
        if waiting[at].items.len() < FULL {
            return Due::Nothing;
        }
        Due::Now(waiting.swap_remove(at).items)
    }

    /// The items that wait for this service.
    pub fn take(&self, service: &Arc<S>) -> Vec<T> {
        let mut waiting = self.waiting.borrow_mut();
        let at = waiting.iter().position(|batch| Arc::ptr_eq(&batch.service, service));
        at.map(|at| waiting.swap_remove(at).items).unwrap_or_default()
    }

    /// Whether one more batch may be told now; who tells it says when it is over.
    pub fn begin(&self) -> bool {
        let free = self.under_way.get() < MOST_UNDER_WAY;
        self.under_way.update(|count| count + usize::from(free));
        free
    }

    /// A batch was told, or could not be.
    pub fn end(&self) {
        self.under_way.update(|count| count - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_told_when_it_is_full_or_old() {
        let (batches, first, second) = (Batches::default(), Arc::new("1"), Arc::new("1"));
        assert_eq!(batches.add(&first, 'a'), Due::Later);
        assert_eq!(batches.add(&first, 'b'), Due::Nothing);
        assert_eq!(batches.add(&second, 'c'), Due::Later);
        assert_eq!(batches.take(&first), ['a', 'b']);
        assert!(batches.take(&first).is_empty());
        assert_eq!(batches.add(&first, 'd'), Due::Later);
        for _ in 2..FULL {
            assert_eq!(batches.add(&first, 'e'), Due::Nothing);
        }
        let Due::Now(full) = batches.add(&first, 'f') else { panic!("it is full") };
        assert_eq!(full.len(), FULL);
        assert_eq!(batches.take(&second), ['c']);
    }

    #[test]
    fn a_slow_service_keeps_no_more_than_some() {
        let batches = Batches::<(), ()>::default();
        assert!((0..MOST_UNDER_WAY).all(|_| batches.begin()));
        assert!(!batches.begin() && !batches.begin());
        batches.end();
        assert!(batches.begin() && !batches.begin());
    }
}
