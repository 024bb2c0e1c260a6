//! When certificates are renewed, and the task that does it.
//!
//! [`Renewal`] decides without a clock or a network: the task only asks it, waits and fetches. A
//! certificate is renewed around half of its life, spread over a fifth of it so that workloads that
//! started together do not come back together; after a failure the old one stays in use until it
//! ends. When the file of roots changes, a renewal is due soon: the authority's answer brings the
//! whole new trust bundle.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use ferromesh_proto::recurring::Recurring;
use tokio::sync::watch;

use super::{Identity, csr_client::CertificateSource, kept::Kept};

/// First wait after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Longest wait after failures while nothing is in danger.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// The wall clock may jump, as after a laptop's sleep: look at it at least this often.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// Within this time, at random, workloads fetch anew when the roots have changed for all of them.
const SPREAD: Duration = Duration::from_secs(15);

/// The state of one identity's renewal: pure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renewal {
    /// When to fetch next.
    next: SystemTime,
    /// End of the certificate in use, if there is one.
    not_after: Option<SystemTime>,
    failures: u32,
}

impl Renewal {
    /// Nothing is held: fetch at once.
    pub fn new(now: SystemTime) -> Self {
        Self { next: now, not_after: None, failures: 0 }
    }

    /// An identity of a former process is held, which ends at `not_after`: fetch at once, since
    /// nobody knows whether it is still good, and meanwhile use it.
    pub fn holding(not_after: SystemTime, now: SystemTime) -> Self {
        Self { not_after: Some(not_after), ..Self::new(now) }
    }

    /// A certificate that ends at `not_after` came at `now`; `draw` is random in `0..1`.
    ///
    /// The next one is due at 40 to 60 % of the time from now to its end. Its `not_before` plays no
    /// part: it lies in the past, for a short-lived certificate by more than its whole life.
    pub fn succeeded(&mut self, not_after: SystemTime, now: SystemTime, draw: f64) {
        let life = not_after.duration_since(now).unwrap_or_default();
        *self = Self {
            next: now + life.mul_f64(0.4 + 0.2 * unit(draw)),
            not_after: Some(not_after),
            failures: 0,
        };
    }

    /// Fetching failed at `now`; `draw` is random in `0..1`; `again` is when the control plane
    /// wants to be asked.
    ///
    /// Waits double up to 30 s, each shortened by up to half at random; while a certificate is
    /// held, never for more than an eighth of what is left of it, so that several attempts remain.
    /// No wait is shorter than the control plane wants it, up to 30 s; beyond that, by up to half
    /// of it at random, since others were told the same.
    pub fn failed(&mut self, now: SystemTime, draw: f64, again: Option<Duration>) {
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(16)).min(LONGEST_RETRY);
        let left = self.not_after.map(|end| end.duration_since(now).unwrap_or_default());
        let ceiling = left
            .filter(|left| !left.is_zero())
            .map_or(LONGEST_RETRY, |left| (left / 8).max(FIRST_RETRY));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.min(ceiling).mul_f64(1.0 - 0.5 * unit(draw));
        let wanted = again.unwrap_or_default().min(LONGEST_RETRY).mul_f64(1.0 + 0.5 * unit(draw));
        self.next = now + wait.max(wanted);
    }

    /// There are new roots at `now`; `draw` is random in `0..1`.
    pub fn hasten(&mut self, now: SystemTime, draw: f64) {
        self.next = self.next.min(now + SPREAD.mul_f64(unit(draw)));
    }

    /// How long to wait at `now`; zero when it is time to fetch.
    pub fn wait(&self, now: SystemTime) -> Duration {
        self.next.duration_since(now).unwrap_or_default()
    }

    /// How often fetching failed since it last succeeded.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

fn unit(draw: f64) -> f64 {
    draw.clamp(0.0, 1.0)
}

/// Keeps `publish` at the newest identity of `source` for as long as it is polled, beginning with the
/// one that is `kept`; ends when nobody listens any more.
pub async fn run(
    source: Arc<dyn CertificateSource>,
    kept: Option<Kept>,
    publish: watch::Sender<Option<Arc<Identity>>>,
) {
    let mut renewal = begin(kept.as_ref(), &publish);
    let (mut trusted, mut trouble) = (source.trust(), Recurring::default());
    while !publish.is_closed() {
        let trust = source.trust();
        if std::mem::replace(&mut trusted, trust) != trust {
            renewal.hasten(SystemTime::now(), rand::random());
            tracing::info!(
                renew_in = renewal.wait(SystemTime::now()).as_secs(),
                "the file of roots has changed"
            );
        }
        let wait = renewal.wait(SystemTime::now());
        if !wait.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(wait.min(LONGEST_NAP)) => {}
                () = publish.closed() => {}
            }
            continue;
        }
        let held = publish.borrow().clone();
        match source.fetch(held).await {
            Ok(identity) => {
                trouble.worked(Instant::now());
                renewal.succeeded(identity.not_after, SystemTime::now(), rand::random());
                tracing::info!(
                    id = %identity.spiffe_id,
                    renew_in = renewal.wait(SystemTime::now()).as_secs(),
                    "new certificate"
                );
                let identity = Arc::new(identity);
                publish.send_replace(Some(identity.clone()));
                keep(kept.clone(), identity).await;
            }
            Err(error) => {
                renewal.failed(SystemTime::now(), rand::random(), error.again());
                if trouble.failed(&error, Instant::now()).is_some() {
                    let retry_in_s = renewal.wait(SystemTime::now()).as_secs_f32();
                    let failures = renewal.failures();
                    tracing::warn!(%error, failures, retry_in_s, "no new certificate");
                }
            }
        }
    }
}

/// Publishes the identity that is kept, if there is one.
fn begin(kept: Option<&Kept>, publish: &watch::Sender<Option<Arc<Identity>>>) -> Renewal {
    let now = SystemTime::now();
    let Some(identity) = kept.and_then(|kept| kept.load(now)) else { return Renewal::new(now) };
    let left = identity.not_after.duration_since(now).unwrap_or_default();
    tracing::info!(id = %identity.spiffe_id, ends_in = left.as_secs(), "kept certificate");
    let renewal = Renewal::holding(identity.not_after, now);
    publish.send_replace(Some(Arc::new(identity)));
    renewal
}

async fn keep(kept: Option<Kept>, identity: Arc<Identity>) {
    let Some(kept) = kept else { return };
    // It waits for a disk. That it panicked was said by itself.
    let _ = tokio::task::spawn_blocking(move || kept.save(&identity)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{
        csr_client::{FetchError, Fetching},
        testing,
    };
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(1_000_000.0 + seconds)
    }

    fn check_renewal(life: f64, draw: f64, expected: f64) {
        let mut renewal = Renewal::new(at(0.0));
        assert_eq!(renewal.wait(at(0.0)), Duration::ZERO);
        renewal.succeeded(at(life), at(0.0), draw);
        let wait = renewal.wait(at(0.0)).as_secs_f64();
        assert!(
            (wait - expected).abs() < 1e-3,
            "life {life}, draw {draw}: {wait}, expected {expected}"
        );
    }

    #[test]
    fn a_certificate_is_renewed_around_half_its_life() {
        check_renewal(86_400.0, 0.0, 34_560.0);
        check_renewal(86_400.0, 0.5, 43_200.0);
        check_renewal(86_400.0, 1.0, 51_840.0);
        check_renewal(20.0, 0.5, 10.0);
    }

    /// Waits after each of `expected.len()` failures, without random shortening.
    fn check_retries(left: Option<f64>, expected: &[f64]) {
        let mut renewal = Renewal::new(at(0.0));
        if let Some(left) = left {
            renewal.succeeded(at(left), at(0.0), 0.0);
        }
        for (number, expected) in expected.iter().enumerate() {
            renewal.failed(at(0.0), 0.0, None);
            let wait = renewal.wait(at(0.0)).as_secs_f64();
            assert!(
                (wait - expected).abs() < 1e-3,
                "failure {number}: {wait}, expected {expected}"
            );
        }
    }

    #[test]
    fn retries_slow_down_but_not_beyond_what_the_certificate_allows() {
        check_retries(None, &[0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        check_retries(Some(86_400.0), &[0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]);
        check_retries(Some(8.0), &[0.25, 0.5, 1.0, 1.0, 1.0]);
        check_retries(Some(0.5), &[0.25, 0.25]);
    }

    #[test]
    fn a_retry_is_shortened_by_half_at_most() {
        let mut renewal = Renewal::new(at(0.0));
        renewal.failed(at(0.0), 1.0, None);
        assert_eq!(renewal.wait(at(0.0)), FIRST_RETRY / 2);
    }

    #[test]
    fn a_retry_comes_no_earlier_than_the_control_plane_wants_it() {
        let second = Duration::from_secs(1);
        for (draw, again, expected) in
            [(0.0, second, 1.0), (1.0, second, 1.5), (0.0, 3600 * second, 30.0)]
        {
            let mut renewal = Renewal::new(at(0.0));
            renewal.failed(at(0.0), draw, Some(again));
            assert_eq!(renewal.wait(at(0.0)), Duration::from_secs_f64(expected), "{again:?}");
        }
    }

    #[test]
    fn success_forgets_failures() {
        let mut renewal = Renewal::new(at(0.0));
        renewal.failed(at(0.0), 0.0, None);
        renewal.succeeded(at(100.0), at(0.0), 0.0);
        assert_eq!(renewal.failures(), 0);
    }

    #[test]
    fn new_roots_make_a_renewal_due_soon_and_never_later() {
        let mut renewal = Renewal::new(at(0.0));
        renewal.succeeded(at(86_400.0), at(0.0), 0.0);
        renewal.hasten(at(0.0), 0.5);
        assert_eq!(renewal.wait(at(0.0)), SPREAD / 2);
        renewal.hasten(at(1.0), 1.0);
        assert_eq!(renewal.wait(at(0.0)), SPREAD / 2);
    }

    struct Flaky(AtomicUsize);

    impl CertificateSource for Flaky {
        fn fetch(&self, held: Option<Arc<Identity>>) -> Fetching<'_> {
            Box::pin(async move {
                assert!(held.is_none(), "nothing was published yet");
                match self.0.fetch_add(1, Ordering::Relaxed) {
                    0 => Err(FetchError::NoCredentials),
                    _ => Ok(testing::identity("spiffe://cluster.local/ns/shop/sa/cart")),
                }
            })
        }
    }

    #[tokio::test]
    async fn the_task_retries_publishes_and_ends_with_its_last_listener() {
        let (publish, mut identity) = watch::channel(None);
        let task = tokio::spawn(run(Arc::new(Flaky(AtomicUsize::new(0))), None, publish));
        identity.wait_for(Option::is_some).await.unwrap();
        drop(identity);
        task.await.unwrap();
    }

    /// Never answers with an identity; tells what it was shown.
    struct Away(watch::Sender<Option<String>>);

    impl CertificateSource for Away {
        fn fetch(&self, held: Option<Arc<Identity>>) -> Fetching<'_> {
            self.0.send_replace(held.map(|held| held.chain_pem.clone()));
            Box::pin(async { Err(FetchError::NoCredentials) })
        }
    }

    #[tokio::test]
    async fn a_kept_identity_is_used_at_once_and_renewed_with_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let id = "spiffe://cluster.local/ns/shop/sa/cart";
        let kept = Kept::new(directory.path(), id.parse().unwrap());
        let (publish, mut identity) = watch::channel(None);
        let source = Arc::new(Flaky(AtomicUsize::new(1)));
        let first = tokio::spawn(run(source, Some(kept.clone()), publish));
        let held = identity.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        drop(identity);
        first.await.unwrap();
        let (publish, mut identity) = watch::channel(None);
        let (shown, mut seen) = watch::channel(None);
        let second = tokio::spawn(run(Arc::new(Away(shown)), Some(kept), publish));
        let back = identity.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(back.chain_pem, held.chain_pem);
        let shown = seen.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(shown.as_ref(), Some(&held.chain_pem));
        drop(identity);
        second.await.unwrap();
    }
}
