//! Rate limits of this process: token buckets that all workers share, without a lock.
//!
//! Buckets are part of the compiled resource: one that changes begins with full buckets, as in
//! Envoy. Spec: Envoy `http.local_ratelimit.v3.LocalRateLimit`, `AtomicTokenBucketImpl`.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{Answer, Counter, FilterRequest, FilterResponse, FilterState, Payload, Step};
use crate::runtime::{
    flags::Flags,
    format::HeaderOps,
    matcher::Share,
    rate_limit::{self, Descriptor, HostLimits, LimitHeaders, RateLimit},
};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What requests and their limits are called in the filter's counters.
const PREFIX: &str = "envoy_local_http_ratelimit_prefix";
const ENABLED: Counter = Counter { name: "envoy_http_local_rate_limit_enabled", label: PREFIX };
const OK: Counter = Counter { name: "envoy_http_local_rate_limit_ok", label: PREFIX };
const RATE_LIMITED: Counter =
    Counter { name: "envoy_http_local_rate_limit_rate_limited", label: PREFIX };
const ENFORCED: Counter = Counter { name: "envoy_http_local_rate_limit_enforced", label: PREFIX };

/// Limits how many requests pass.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// Names the counters.
    pub stat_prefix: Arc<str>,
    /// Status of the answer.
    pub status: u16,
    /// Requests that are counted.
    pub enabled: Share,
    /// Of those that find no token, the ones that are answered.
    pub enforced: Share,
    /// Changes of a request that finds no token and goes on.
    pub request_headers: Arc<HeaderOps>,
    /// Changes of the answer.
    pub response_headers: Arc<HeaderOps>,
    /// Where tokens are taken.
    pub limiter: Arc<Limiter>,
    /// Each downstream connection has buckets of its own.
    pub per_connection: bool,
    /// Policies of this stage are used.
    pub stage: u32,
    /// Policies that are used instead of the route's; empty for none.
    pub own_limits: Vec<RateLimit>,
    /// When the virtual host's policies are used.
    pub host_limits: HostLimits,
    /// Whether responses tell of the limit.
    pub limit_headers: bool,
    /// Whether an answer of 429 tells when to come again.
    pub retry_after: bool,
    /// gRPC clients get `RESOURCE_EXHAUSTED` instead of `UNAVAILABLE`.
    pub resource_exhausted: bool,
}

/// The buckets of one configuration, or of one connection.
#[derive(Debug)]
pub struct Limiter {
    /// For requests that no descriptor matches, or for all.
    pub default: DefaultBucket,
    /// By [`descriptor_key`].
    pub descriptors: FxHashMap<Box<str>, Arc<TokenBucket>>,
    /// The default bucket is asked after the descriptors', too.
    pub always_default: bool,
}

/// What becomes of a request that no descriptor matches.
#[derive(Debug)]
pub enum DefaultBucket {
    /// It passes.
    None,
    /// It never passes.
    Closed,
    /// It takes a token of these.
    Bucket(Arc<TokenBucket>),
}

/// What came of asking for tokens.
struct Verdict {
    allowed: bool,
    /// The bucket that decided; none where there is nothing to tell.
    bucket: Option<Arc<TokenBucket>>,
    headers: LimitHeaders,
}

impl LocalRateLimit {
    /// Takes a token, or answers.
    pub(super) fn step(&self, request: &mut FilterRequest<'_>) -> Step {
        if !self.enabled.contains((request.random)()) {
            return Step::Continue;
        }
        request.notes.count(ENABLED, &self.stat_prefix);
        let now = (request.now)();
        let verdict = self.verdict(request, now);
        self.keep(request, &verdict);
        if verdict.allowed {
            request.notes.count(OK, &self.stat_prefix);
            return Step::Continue;
        }
        request.notes.count(RATE_LIMITED, &self.stat_prefix);
        if !self.enforced.contains((request.random)()) {
            return Step::Change(Arc::clone(&self.request_headers));
        }
        request.notes.count(ENFORCED, &self.stat_prefix);
        Step::Answer(Box::new(self.answer(verdict.bucket.as_deref(), now)))
    }

    fn verdict(&self, request: &FilterRequest<'_>, now: Instant) -> Verdict {
        let facts = request.facts();
        let limits = request.limits.unwrap_or_default();
        let descriptors = match self.limiter.descriptors.is_empty() {
            true => SmallVec::new(),
            false => {
                let own = (&self.own_limits[..], self.host_limits, self.stage);
                rate_limit::descriptors(own, limits, &facts)
            }
        };
        let limiter = match self.per_connection {
            true => request.connection_state.limiter.get_or_init(|| self.limiter.fresh()),
            false => &self.limiter,
        };
        limiter.take(&descriptors, now)
    }

    /// Keeps the bucket for the response's head, where that tells of it.
    fn keep(&self, request: &mut FilterRequest<'_>, verdict: &Verdict) {
        let tells = match verdict.headers {
            LimitHeaders::AsFilter => self.limit_headers,
            LimitHeaders::Off => false,
            LimitHeaders::On => true,
        };
        if let Some(bucket) = verdict.bucket.as_ref().filter(|_| tells) {
            let state = FilterState::LocalRateLimit(Arc::clone(bucket));
            request.notes.keep(request.place, state);
        }
    }

    fn answer(&self, bucket: Option<&TokenBucket>, now: Instant) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(bucket) = bucket.filter(|_| self.retry_after && self.status == 429) {
            headers.insert(RETRY_AFTER, HeaderValue::from(bucket.reset_seconds(now).max(1)));
        }
        Answer {
            payload: Payload::Text {
                status: self.status,
                text: "local_rate_limited".into(),
                grpc: self.resource_exhausted.then_some(8),
            },
            flag: Flags::RATE_LIMITED,
            details: "local_rate_limited".into(),
            changes: Some(Arc::clone(&self.response_headers)),
            headers,
        }
    }
}

/// Writes what is left of the limit that was asked.
pub(super) fn write(response: &mut FilterResponse<'_>) {
    let Some(FilterState::LocalRateLimit(bucket)) = response.notes.kept(response.place) else {
        return;
    };
    let now = (response.now)();
    for (name, value) in [
        (LIMIT, bucket.capacity()),
        (REMAINING, bucket.remaining(now)),
        (RESET, bucket.reset_seconds(now)),
    ] {
        response.headers.append(name, HeaderValue::from(value));
    }
}

/// By what a descriptor's bucket is found.
pub fn descriptor_key<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut key = String::new();
    for (name, value) in entries {
        // No header has such a byte, so no two descriptors are spelled alike.
        key.extend([name, "\0", value, "\0"]);
    }
    key
}

impl Limiter {
    /// The same with full buckets of its own.
    fn fresh(&self) -> Arc<Self> {
        let default = match &self.default {
            DefaultBucket::None => DefaultBucket::None,
            DefaultBucket::Closed => DefaultBucket::Closed,
            DefaultBucket::Bucket(bucket) => DefaultBucket::Bucket(Arc::new(bucket.fresh())),
        };
        let descriptors = self.descriptors.iter();
        let descriptors =
            descriptors.map(|(key, bucket)| (key.clone(), Arc::new(bucket.fresh()))).collect();
        Arc::new(Self { default, descriptors, always_default: self.always_default })
    }

    /// Takes a token of every bucket that is concerned, the slowest first, until one has none.
    fn take(&self, descriptors: &[Descriptor<'_>], now: Instant) -> Verdict {
        let mut matched: SmallVec<[(&Arc<TokenBucket>, LimitHeaders); 4]> =
            descriptors.iter().filter_map(|descriptor| self.matching(descriptor)).collect();
        matched.sort_by(|(a, _), (b, _)| a.per_second.total_cmp(&b.per_second));
        let verdict = |allowed, found: Option<&(&Arc<TokenBucket>, LimitHeaders)>| Verdict {
            allowed,
            bucket: found.map(|(bucket, _)| Arc::clone(bucket)),
            headers: found.map_or(LimitHeaders::AsFilter, |(_, headers)| *headers),
        };
        if let Some(empty) = matched.iter().find(|(bucket, _)| !bucket.take(now)) {
            return verdict(false, Some(empty));
        }
        if !matched.is_empty() && !self.always_default {
            return verdict(true, matched.first());
        }
        match &self.default {
            DefaultBucket::None => verdict(true, matched.first()),
            DefaultBucket::Closed => verdict(false, None),
            DefaultBucket::Bucket(bucket) => {
                let own = (bucket, LimitHeaders::AsFilter);
                match bucket.take(now) {
                    true => verdict(true, Some(matched.first().unwrap_or(&own))),
                    false => verdict(false, Some(&own)),
                }
            }
        }
    }

    fn matching(&self, descriptor: &Descriptor<'_>) -> Option<(&Arc<TokenBucket>, LimitHeaders)> {
        let entries = descriptor.entries.iter().map(|(name, value)| (&**name, &**value));
        let bucket = self.descriptors.get(descriptor_key(entries).as_str())?;
        Some((bucket, descriptor.headers))
    }
}

/// Tokens that come back with time. What is kept is only since when they do: the moment at which
/// the bucket was, or would have been, empty.
pub struct TokenBucket {
    capacity: f64,
    per_second: f64,
    /// The zero of the clock below: the first time that anybody asked.
    epoch: OnceLock<Instant>,
    /// Bits of a number of seconds.
    empty_at: AtomicU64,
}

/// Fewer tokens do not come back, as in Envoy: one a year.
const SLOWEST: f64 = 1.0 / (365.0 * 24.0 * 3600.0);

impl TokenBucket {
    /// A full bucket of `capacity`, into which `tokens` come back in each `interval`.
    pub fn new(capacity: u32, tokens: u32, interval: Duration) -> Self {
        Self::full(f64::from(capacity), (f64::from(tokens) / interval.as_secs_f64()).max(SLOWEST))
    }

    fn full(capacity: f64, per_second: f64) -> Self {
        let empty_at = AtomicU64::new((-capacity / per_second).to_bits());
        Self { capacity, per_second, epoch: OnceLock::new(), empty_at }
    }

    fn fresh(&self) -> Self {
        Self::full(self.capacity, self.per_second)
    }

    /// Takes one token, if there is one. Another worker that is faster makes this one look again.
    pub fn take(&self, now: Instant) -> bool {
        let now = self.seconds(now);
        let mut old = self.empty_at.load(Relaxed);
        loop {
            let tokens = self.tokens(now, f64::from_bits(old));
            if tokens < 1.0 {
                return false;
            }
            let new = now - (tokens - 1.0) / self.per_second;
            match self.empty_at.compare_exchange_weak(old, new.to_bits(), Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(newer) => old = newer,
            }
        }
    }

    /// How many tokens it can hold.
    pub fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    /// How many whole tokens are there.
    pub fn remaining(&self, now: Instant) -> u64 {
        self.now_there(now) as u64
    }

    /// Whole seconds until there is a token.
    pub fn reset_seconds(&self, now: Instant) -> u64 {
        let missing = (1.0 - self.now_there(now)).max(0.0);
        (missing / self.per_second).ceil() as u64
    }

    fn now_there(&self, now: Instant) -> f64 {
        self.tokens(self.seconds(now), f64::from_bits(self.empty_at.load(Relaxed)))
    }

    fn tokens(&self, now: f64, empty_at: f64) -> f64 {
        ((now - empty_at) * self.per_second).min(self.capacity)
    }

    fn seconds(&self, now: Instant) -> f64 {
        let epoch = *self.epoch.get_or_init(|| now);
        match now.checked_duration_since(epoch) {
            Some(after) => after.as_secs_f64(),
            None => -epoch.duration_since(now).as_secs_f64(),
        }
    }
}

impl fmt::Debug for TokenBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its level changes with traffic and says nothing of the configuration.
        f.debug_struct("TokenBucket")
            .field("capacity", &self.capacity)
            .field("per_second", &self.per_second)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    fn seconds(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_bucket_is_full_at_first_and_tokens_come_back_with_time() {
        let (bucket, start) = (TokenBucket::new(2, 1, Duration::from_secs(10)), Instant::now());
        let after = |time| seconds(start, time);
        assert_eq!((bucket.capacity(), bucket.remaining(start)), (2, 2));
        assert!(bucket.take(start) && bucket.take(start) && !bucket.take(start));
        assert_eq!((bucket.remaining(start), bucket.reset_seconds(start)), (0, 10));
        // As Envoy 1.40 answers a second later.
        assert_eq!(bucket.reset_seconds(after(1.02)), 9);
        assert!(!bucket.take(after(9.99)));
        assert!(bucket.take(after(10.01)));
        assert!(!bucket.take(after(10.01)));
        // A request that finds none takes none.
        assert!(bucket.take(after(20.02)));
        // It never holds more than it can.
        assert_eq!(bucket.remaining(after(10_000.0)), 2);
        assert_eq!(bucket.reset_seconds(after(10_000.0)), 0);
    }

    #[test]
    fn tokens_come_back_one_by_one_and_not_all_at_the_end_of_an_interval() {
        let (bucket, start) = (TokenBucket::new(10, 10, Duration::from_secs(1)), Instant::now());
        assert_eq!((0..20).filter(|_| bucket.take(start)).count(), 10);
        assert_eq!((0..20).filter(|_| bucket.take(start + TENTH * 3)).count(), 3);
    }

    #[test]
    fn a_bucket_of_nothing_gives_nothing() {
        let (bucket, start) = (TokenBucket::new(0, 1, TENTH), Instant::now());
        assert!(!bucket.take(start) && !bucket.take(seconds(start, 1e6)));
        assert_eq!((bucket.remaining(start), bucket.reset_seconds(start)), (0, 1));
    }

    #[test]
    fn workers_share_a_bucket_and_take_no_token_twice() {
        let (bucket, now) = (TokenBucket::new(1000, 1, Duration::from_secs(3600)), Instant::now());
        let taken: usize = std::thread::scope(|scope| {
            let taking = || (0..1000).filter(|_| bucket.take(now)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(taking)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(taken, 1000);
    }

    fn limiter(default: DefaultBucket, always_default: bool, buckets: &[(&str, u32)]) -> Limiter {
        let bucket = |capacity| Arc::new(TokenBucket::new(capacity, capacity, TENTH * 600));
        let descriptors = buckets
            .iter()
            .map(|(value, capacity)| (descriptor_key([("k", *value)]).into(), bucket(*capacity)));
        Limiter { default, descriptors: descriptors.collect(), always_default }
    }

    fn of_capacity(capacity: u32) -> DefaultBucket {
        DefaultBucket::Bucket(Arc::new(TokenBucket::new(capacity, capacity, TENTH * 600)))
    }

    /// Whether each of these requests passes, and the capacity of the bucket that is told of.
    fn check(limiter: &Limiter, requests: &[&[&'static str]], expected: &[(bool, Option<u64>)]) {
        let now = Instant::now();
        let verdicts = requests.iter().map(|values| {
            let entry = |value: &&'static str| ("k".into(), (*value).into());
            let described = values.iter().map(|value| Descriptor {
                entries: SmallVec::from_iter([entry(value)]),
                headers: LimitHeaders::AsFilter,
            });
            let verdict = limiter.take(&described.collect::<Vec<_>>(), now);
            (verdict.allowed, verdict.bucket.map(|bucket| bucket.capacity()))
        });
        assert_eq!(verdicts.collect::<Vec<_>>(), expected, "{requests:?}");
    }

    #[test]
    fn descriptors_are_asked_before_the_default_the_slowest_first() {
        let both = limiter(of_capacity(9), true, &[("a", 2), ("b", 3)]);
        check(
            &both,
            &[&["x"], &["b", "a"], &["b", "a"]],
            &[(true, Some(9)), (true, Some(2)), (true, Some(2))],
        );
        // `b` has given no token for the request that `a` has stopped.
        check(
            &both,
            &[&["b", "a"], &["b"], &["b"]],
            &[(false, Some(2)), (true, Some(3)), (false, Some(3))],
        );
    }

    #[test]
    fn the_default_bucket_is_asked_always_or_where_nothing_matches() {
        let always = limiter(of_capacity(1), true, &[("a", 5)]);
        check(&always, &[&["a"], &["a"]], &[(true, Some(5)), (false, Some(1))]);
        let seldom = limiter(of_capacity(1), false, &[("a", 5)]);
        check(
            &seldom,
            &[&["a"], &["a"], &["x"], &["x"]],
            &[(true, Some(5)), (true, Some(5)), (true, Some(1)), (false, Some(1))],
        );
        let closed = limiter(DefaultBucket::Closed, true, &[]);
        check(&closed, &[&[]], &[(false, None)]);
        check(&limiter(DefaultBucket::None, true, &[]), &[&[]], &[(true, None)]);
        let own = closed.fresh();
        check(&own, &[&[]], &[(false, None)]);
    }
}
