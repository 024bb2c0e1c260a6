//! One worker's counters by their labels: never more than so many, and none that stand still for
//! long.
//!
//! What callers choose (a header as a label, a host that nobody knows) must not fill the memory. Of
//! such hosts a worker tells so many apart, the others are unknown. Of label sets in which a caller
//! has chosen a value a table keeps so many, then all that they chose is `overflow`, so that they do
//! not displace what the mesh itself names; when the whole table is full, one series takes the rest.

use std::{
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};

/// Label sets of a table.
pub(super) const MOST: usize = 2_000;
/// Those of them in which a caller has chosen a value.
pub(super) const MOST_FREE: usize = 1_000;
/// Hosts that a worker tells apart, of those that requests name and no cluster is for: clients
/// choose such names, and each is kept, and told in every scrape.
pub(super) const MOST_HOSTS: usize = 64;
/// What is longer is no name of a host, with or without a port (RFC 1035 section 2.3.4).
pub(super) const LONGEST_HOST: usize = 253 + ":65535".len();
/// A series that has not changed for so long is forgotten; scrapers take one that comes back for a
/// counter that begins anew.
pub(super) const IDLE: Duration = Duration::from_secs(3600);

/// Labels of which there may be too many.
pub(super) trait Bounded: Hash + Eq + Clone {
    /// Whether a caller has chosen a value.
    fn is_free(&self) -> bool;
    /// Without what a caller has chosen.
    fn narrowed(&self) -> Self;
    /// What stands for everything that comes after too many others.
    fn overflow(&self) -> Self;
}

/// Counters that show whether something has happened.
pub(super) trait Counters: Default {
    /// Grows with whatever is counted.
    fn count(&self) -> u64;
}

#[derive(Debug)]
struct Entry<S> {
    series: Arc<S>,
    /// What it had counted when it was last looked at and had changed, and when that was; `None`:
    /// nobody has looked yet.
    seen: Option<(u64, Instant)>,
}

/// One worker's counters by labels.
#[derive(Debug)]
pub(super) struct Table<K, S>(Mutex<Entries<K, S>>);

#[derive(Debug)]
struct Entries<K, S> {
    by_key: FxHashMap<K, Entry<S>>,
    free: usize,
}

impl<K, S> Default for Table<K, S> {
    fn default() -> Self {
        Self(Mutex::new(Entries { by_key: FxHashMap::default(), free: 0 }))
    }
}

/// A series as a scrape sees it.
pub(super) struct Seen<K, S> {
    pub(super) key: K,
    pub(super) series: Arc<S>,
    /// It has not changed for so long that it may go.
    pub(super) idle: bool,
}

impl<K: Bounded, S: Counters> Table<K, S> {
    /// The counters for these labels, or for what stands for them where there are too many.
    pub(super) fn series(&self, key: &K) -> Arc<S> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.by_key.get(key) {
            return Arc::clone(&entry.series);
        }
        let mut key = key.clone();
        if key.is_free() && entries.free >= MOST_FREE {
            key = key.narrowed();
        }
        if entries.by_key.len() >= MOST && !entries.by_key.contains_key(&key) {
            key = key.overflow();
        }
        entries.series(key)
    }

    /// Every series, at this time.
    pub(super) fn look(&self, now: Instant) -> Vec<Seen<K, S>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = entries.by_key.iter_mut().map(|(key, entry)| {
            let idle = entry.is_idle(now);
            Seen { key: key.clone(), series: Arc::clone(&entry.series), idle }
        });
        seen.collect()
    }

    /// Forgets a series that is still as it was looked at last, and that nobody holds; says whether
    /// it was so.
    pub(super) fn forget(&self, key: &K, now: Instant) -> bool {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = entries.by_key.get_mut(key) else { return false };
        // Under the lock nobody gets it anew; who holds it may count at any time.
        let goes = entry.is_idle(now) && Arc::strong_count(&entry.series) == 1;
        if goes {
            entries.by_key.remove(key);
            entries.free -= usize::from(key.is_free());
        }
        goes
    }
}

impl<K: Bounded, S: Counters> Entries<K, S> {
    fn series(&mut self, key: K) -> Arc<S> {
        if let Some(entry) = self.by_key.get(&key) {
            return Arc::clone(&entry.series);
        }
        self.free += usize::from(key.is_free());
        let series = Arc::<S>::default();
        self.by_key.insert(key, Entry { series: Arc::clone(&series), seen: None });
        series
    }
}

impl<S: Counters> Entry<S> {
    fn is_idle(&mut self, now: Instant) -> bool {
        let count = self.series.count();
        match self.seen {
            Some((before, since)) if before == count => now.duration_since(since) >= IDLE,
            _ => {
                self.seen = Some((count, now));
                false
            }
        }
    }
}

/// Counters with labels that the configuration alone decides, so that there are few.
#[derive(Debug)]
pub(super) struct Few<K>(Mutex<FxHashMap<K, u64>>);

impl<K> Default for Few<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Few<K> {
    /// Counts so many more.
    pub(super) fn count(&self, key: K, many: u64) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *table.entry(key).or_default() += many;
    }

    /// Shows each counter.
    pub(super) fn each(&self, mut visit: impl FnMut(&K, u64)) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.iter().for_each(|(key, count)| visit(key, *count));
    }
}

/// The hosts that one worker tells apart, of those that no cluster is for.
#[derive(Debug, Default)]
pub(super) struct Hosts(Mutex<FxHashSet<Arc<str>>>);

impl Hosts {
    /// The host, or nothing where there are too many others already.
    pub(super) fn known(&self, named: &str) -> Arc<str> {
        if named.is_empty() || named.len() > LONGEST_HOST {
            return Arc::default();
        }
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(named) {
            return Arc::clone(host);
        }
        if hosts.len() >= MOST_HOSTS {
            return Arc::default();
        }
        let host: Arc<str> = named.into();
        hosts.insert(Arc::clone(&host));
        host
    }
}
