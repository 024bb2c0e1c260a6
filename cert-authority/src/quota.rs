//! How many certificates an identity may have: pure arithmetic of time.
//!
//! An identity may be shared by many workloads, and all of them may start at once; so the allowance
//! grows with the number that is known, and with how short their certificates live. What is beyond
//! it is somebody who asks for no reason.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use ferromesh_proto::SpiffeId;

/// Certificates of an identity that no workload is known to have, per minute: proxies outside the
/// registry.
const UNKNOWN_PER_MINUTE: f64 = 60.0;
/// Certificates of a workload per minute, beside those that it needs to renew: it may be restarted
/// over and over.
const RESTARTS_PER_MINUTE: f64 = 6.0;
/// How often a workload may renew within the life of a certificate; agents do at half of it.
const RENEWALS_PER_LIFE: f64 = 4.0;
/// Identities after which those are forgotten whose allowance is whole.
const MANY: usize = 1024;

/// What each identity has had of late.
#[derive(Debug)]
pub(crate) struct Quota {
    /// Life of a certificate.
    life: Duration,
    had: HashMap<SpiffeId, Allowance>,
}

/// Certificates that an identity may have now, and as of when.
#[derive(Debug)]
struct Allowance {
    left: f64,
    at: SystemTime,
    most: f64,
}

impl Quota {
    pub(crate) fn new(life: Duration) -> Self {
        Self { life, had: HashMap::new() }
    }

    /// Takes one certificate for an identity that so many workloads have.
    ///
    /// # Errors
    /// How long to wait for the next.
    pub(crate) fn take(
        &mut self,
        id: &SpiffeId,
        workloads: usize,
        now: SystemTime,
    ) -> Result<(), Duration> {
        if self.had.len() >= MANY && !self.had.contains_key(id) {
            self.forget(now);
        }
        let most = self.per_minute(workloads);
        let had = self.had.entry(id.clone()).or_insert(Allowance { left: most, at: now, most });
        had.refill(most, now);
        if had.left >= 1.0 {
            had.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - had.left) * 60.0 / most))
    }

    fn per_minute(&self, workloads: usize) -> f64 {
        let renewals = RENEWALS_PER_LIFE * 60.0 / self.life.as_secs_f64().max(1.0);
        let workloads = f64::from(u32::try_from(workloads).unwrap_or(u32::MAX));
        UNKNOWN_PER_MINUTE.max(2.0 * renewals) + workloads * (RESTARTS_PER_MINUTE + renewals)
    }

    fn forget(&mut self, now: SystemTime) {
        self.had.retain(|_, had| {
            had.refill(had.most, now);
            had.left < had.most
        });
    }
}

impl Allowance {
    fn refill(&mut self, most: f64, now: SystemTime) {
        // A clock that was set back gives nothing, and takes nothing.
        let passed = now.duration_since(self.at).unwrap_or_default();
        // More workloads than before need theirs at once.
        let grown = (most - self.most).max(0.0);
        self.left = (self.left + grown + passed.as_secs_f64() * most / 60.0).min(most);
        (self.at, self.most) = (now, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY + Duration::from_secs_f64(seconds)
    }

    fn id(account: &str) -> SpiffeId {
        format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
    }

    /// How many of `asked` certificates are given at one moment.
    fn given(quota: &mut Quota, account: &str, workloads: usize, asked: usize, now: f64) -> usize {
        (0..asked).filter(|_| quota.take(&id(account), workloads, at(now)).is_ok()).count()
    }

    #[test]
    fn one_that_asks_without_end_is_held_to_a_minutes_allowance_and_told_when_there_is_more() {
        let mut quota = Quota::new(DAY);
        assert_eq!(given(&mut quota, "evil", 1, 9_249, 0.0), 66);
        let wait = quota.take(&id("evil"), 1, at(0.0)).unwrap_err();
        assert!(wait > Duration::from_millis(500) && wait < Duration::from_secs(2), "{wait:?}");
        assert!(
            quota.take(&id("evil"), 1, at(wait.as_secs_f64() + 0.01)).is_ok(),
            "the hint holds"
        );
        assert_eq!(given(&mut quota, "good", 1, 1, 0.0), 1, "others are not concerned");
    }

    #[test]
    fn a_thousand_workloads_of_one_identity_start_at_once_and_go_on_renewing() {
        let mut quota = Quota::new(DAY);
        assert_eq!(given(&mut quota, "web", 1_000, 1_000, 0.0), 1_000);
        assert_eq!(given(&mut quota, "grown", 1, 66, 0.0), 66);
        assert_eq!(given(&mut quota, "grown", 1_001, 1_000, 0.0), 1_000, "it grew meanwhile");
        let mut short = Quota::new(Duration::from_secs(20));
        for round in 0..60 {
            assert_eq!(
                given(&mut short, "web", 100, 100, f64::from(round) * 10.0),
                100,
                "round {round}"
            );
        }
    }

    #[test]
    fn who_has_not_asked_of_late_is_forgotten() {
        let mut quota = Quota::new(DAY);
        for number in 0..10 * MANY {
            let now = f64::from(u32::try_from(number).unwrap()) * 2.0;
            quota.take(&id(&format!("a{number}")), 0, at(now)).unwrap();
        }
        assert!(quota.had.len() <= MANY, "{}", quota.had.len());
    }

    #[test]
    fn a_clock_that_is_set_back_gives_nothing() {
        let mut quota = Quota::new(DAY);
        assert_eq!(given(&mut quota, "evil", 0, 100, 1_000.0), 60);
        assert_eq!(given(&mut quota, "evil", 0, 100, 0.0), 0);
        assert_eq!(given(&mut quota, "evil", 0, 100, 30.0), 30);
    }
}
