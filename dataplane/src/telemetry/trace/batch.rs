//! Spans wait to be told together: of each tracer a batch per worker.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

use super::Finished;
use crate::runtime::trace::Tracer;

/// A batch has no more spans.
const FULL: usize = 256;
/// Batches that are told at a time; where a collector is slower than the traffic, spans are lost.
const MOST_UNDER_WAY: usize = 4;

/// The batches of a worker.
#[derive(Default)]
pub struct Batches {
    waiting: RefCell<Vec<Batch>>,
    under_way: Cell<usize>,
}

struct Batch {
    tracer: Arc<Tracer>,
    spans: Vec<Finished>,
}

/// What follows from one more span.
#[derive(Debug, PartialEq)]
pub enum Due {
    /// The batch that it is in is told by and by.
    Nothing,
    /// It has begun a batch, which is to be taken after [`Batches::PATIENCE`].
    Later,
    /// Its batch is full.
    Now(Vec<Finished>),
}

impl Batches {
    /// How long a span waits for others.
    pub const PATIENCE: Duration = Duration::from_secs(1);

    /// One more span.
    pub fn add(&self, tracer: &Arc<Tracer>, span: Finished) -> Due {
        let mut waiting = self.waiting.borrow_mut();
        let Some(at) = waiting.iter().position(|batch| Arc::ptr_eq(&batch.tracer, tracer)) else {
            waiting.push(Batch { tracer: Arc::clone(tracer), spans: vec![span] });
            return Due::Later;
        };
        waiting[at].spans.push(span);
        if waiting[at].spans.len() < FULL {
            return Due::Nothing;
        }
        Due::Now(waiting.swap_remove(at).spans)
    }

    /// The spans that wait for this tracer.
    pub fn take(&self, tracer: &Arc<Tracer>) -> Vec<Finished> {
        let mut waiting = self.waiting.borrow_mut();
        let at = waiting.iter().position(|batch| Arc::ptr_eq(&batch.tracer, tracer));
        at.map(|at| waiting.swap_remove(at).spans).unwrap_or_default()
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
    use super::{
        super::tests::{finished, tracer},
        *,
    };

    #[test]
    fn a_batch_is_told_when_it_is_full_or_old() {
        let (batches, first, second) = (Batches::default(), tracer(), tracer());
        assert_eq!(batches.add(&first, finished("a")), Due::Later);
        assert_eq!(batches.add(&first, finished("b")), Due::Nothing);
        assert_eq!(batches.add(&second, finished("c")), Due::Later);
        assert_eq!(batches.take(&first), [finished("a"), finished("b")]);
        assert_eq!(batches.take(&first), []);
        assert_eq!(batches.add(&first, finished("d")), Due::Later);
        for _ in 2..FULL {
            assert_eq!(batches.add(&first, finished("e")), Due::Nothing);
        }
        let Due::Now(full) = batches.add(&first, finished("f")) else { panic!("it is full") };
        assert_eq!(full.len(), FULL);
        assert_eq!(batches.take(&second), [finished("c")]);
    }

    #[test]
    fn a_slow_collector_keeps_no_more_than_some() {
        let batches = Batches::default();
        assert!((0..MOST_UNDER_WAY).all(|_| batches.begin()));
        assert!(!batches.begin() && !batches.begin());
        batches.end();
        assert!(batches.begin() && !batches.begin());
    }
}
