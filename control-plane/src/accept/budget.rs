//! Memory for what callers make the server keep: requests that are only begun or wait for an answer,
//! and what streams ask for.
//!
//! Whoever sends the beginning of a large request makes the server keep it. So its whole length is
//! taken off a budget of the process before any of it is kept, and off the caller's share of that;
//! where there is none, the caller's bytes wait in its own machine, since nothing reads them. A
//! caller cannot have more than its share, so that it never is all.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const POISONED: &str = "no code panics while it holds this lock";
const CLOSED: &str = "nobody closes a budget";
/// What is counted.
const UNIT: usize = 1 << 10;
/// Callers after which those are forgotten that have nothing.
const MANY: usize = 256;

/// A budget of bytes.
#[derive(Debug)]
pub struct Budget<K> {
    share: usize,
    all: Arc<Semaphore>,
    callers: Mutex<HashMap<K, Weak<Semaphore>>>,
}

/// Bytes that somebody may keep for as long as this lives.
#[derive(Debug)]
pub struct Reserved {
    _of_all: OwnedSemaphorePermit,
    _of_caller: OwnedSemaphorePermit,
}

impl<K: Eq + Hash> Budget<K> {
    /// So many bytes for all, and so many for each.
    pub fn new(all: usize, share: usize) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(all / UNIT));
        Arc::new(Self { share: share / UNIT, all, callers: Mutex::default() })
    }

    /// Waits for room for a request of this length, which is at most a caller's share. First come,
    /// first served.
    ///
    /// # Panics
    /// Never: nobody closes a budget.
    pub async fn reserve(&self, caller: K, bytes: usize) -> Reserved {
        let units = u32::try_from(bytes.div_ceil(UNIT).min(self.share)).unwrap_or(u32::MAX);
        let own = self.share_of(caller);
        let of_caller = own.acquire_many_owned(units).await.expect(CLOSED);
        let of_all = self.all.clone().acquire_many_owned(units).await.expect(CLOSED);
        Reserved { _of_all: of_all, _of_caller: of_caller }
    }

    /// Room for this length at once; `None`: there is none, or that is more than a caller's share.
    pub fn try_reserve(&self, caller: K, bytes: usize) -> Option<Reserved> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        let own = self.share_of(caller);
        let of_caller = own.try_acquire_many_owned(units).ok()?;
        let of_all = self.all.clone().try_acquire_many_owned(units).ok()?;
        Some(Reserved { _of_all: of_all, _of_caller: of_caller })
    }

    /// Bytes that are not reserved.
    pub fn left(&self) -> usize {
        self.all.available_permits() * UNIT
    }

    fn share_of(&self, caller: K) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().expect(POISONED);
        if let Some(own) = callers.get(&caller).and_then(Weak::upgrade) {
            return own;
        }
        if callers.len() >= MANY {
            callers.retain(|_, own| own.strong_count() > 0);
        }
        let own = Arc::new(Semaphore::new(self.share));
        callers.insert(caller, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_caller_waits_at_its_share_and_others_do_not() {
        let budget = Budget::new(100 * UNIT, 40 * UNIT);
        let take = |caller, units: usize| budget.reserve(caller, units * UNIT).now_or_never();
        let mine = [take("evil", 30), take("evil", 10)];
        assert!(mine.iter().all(Option::is_some));
        assert!(take("evil", 1).is_none(), "its share is used up");
        let others = [take("good", 40), take("better", 20)];
        assert!(others.iter().all(Option::is_some));
        assert!(take("best", 1).is_none(), "the process has no more");
        assert_eq!(budget.left(), 0);
        drop(mine);
        assert!(take("best", 40).is_some());
        let at_once = |caller, units: usize| budget.try_reserve(caller, units * UNIT);
        assert!(at_once("evil", 41).is_none(), "more than its share");
        let mine = at_once("evil", 40);
        assert!(mine.is_some() && at_once("evil", 1).is_none() && at_once("best", 1).is_none());
        drop((others, mine));
        assert_eq!(budget.left(), 100 * UNIT);
    }

    #[tokio::test]
    async fn callers_without_bytes_are_forgotten() {
        let budget = Budget::new(1 << 20, 1 << 20);
        for caller in 0..10 * MANY {
            drop(budget.reserve(caller, UNIT).await);
        }
        assert!(budget.callers.lock().expect(POISONED).len() <= MANY);
    }
}
