//! One leader among the replicas: who holds the Lease writes what must be written once.
//! [`Election`] decides and knows no clock; [`run`] asks the API server.
//!
//! A Lease of another is over when it did not change for its duration on this machine's own clock,
//! so that clocks may differ. The leader counts from before it asked, so that it steps down
//! ([`RENEW`]) before another may take over ([`LEASE`]); what a leader writes must therefore be
//! sent within the difference, or not at all.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Error,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{KubeCluster, Trouble};

/// Name of the Lease, in the root namespace.
pub const LEASE_NAME: &str = "ferromesh-leader";
/// How long others leave a Lease alone that does not change.
const LEASE: Duration = Duration::from_secs(15);
/// How long a leader goes on that cannot renew.
const RENEW: Duration = Duration::from_secs(10);
/// Pause between two tries, off by up to a quarter so that replicas do not meet each time.
const RETRY: Duration = Duration::from_secs(2);
/// How long one question to the API server may take.
const ANSWER: Duration = Duration::from_secs(5);
/// What is logged while the Lease cannot be had.
const SILENT: &str = "the Lease of the leader cannot be read or written";
/// How long the release may take when the process ends.
const RELEASE: Duration = Duration::from_secs(2);

/// Runs for leadership until `stop`, then releases the Lease. `leads` always says whether this
/// replica leads.
///
/// `identity` must differ between replicas: the pod's name. Trouble with the API server is no
/// error: who cannot ask does not lead.
pub async fn run(
    cluster: KubeCluster,
    root_namespace: &str,
    identity: String,
    leads: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let leases = Api::namespaced(cluster.client(), root_namespace);
    let mut candidate =
        Candidate { leases, election: Election::new(identity), leads, trouble: Trouble::default() };
    stop.run_until_cancelled(candidate.campaign()).await;
    candidate.resign().await;
}

/// Does `work` whenever this replica leads, and drops it at once when it leads no more. Ends when
/// nobody can lead any more: the election is over.
pub async fn while_leading<F: Future<Output = ()>>(
    mut leads: watch::Receiver<bool>,
    mut work: impl FnMut() -> F,
) {
    while leads.wait_for(|leads| *leads).await.is_ok() {
        tokio::select! {
            biased;
            _ = leads.wait_for(|leads| !*leads) => {}
            () = work() => {}
        }
        if leads.wait_for(|leads| !*leads).await.is_err() {
            return;
        }
    }
}

/// What a Lease says, as far as it matters.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Record {
    /// Empty: nobody.
    holder: String,
    duration: Duration,
    transitions: i32,
    /// The API server's version of the object: changes with every write.
    version: String,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Move {
    /// There is no Lease.
    Create,
    /// Write this version of the Lease with us as the holder; `transitions` times it changed hands.
    Write { version: String, transitions: i32 },
    /// Another holds it.
    Wait,
}

/// Who holds the Lease, as far as one replica can tell.
#[derive(Debug)]
struct Election {
    identity: String,
    /// The Lease, and since when it did not change.
    observed: Option<(Record, Instant)>,
    /// When the write began by which this replica leads.
    renewed: Option<Instant>,
}

impl Election {
    fn new(identity: String) -> Self {
        Self { identity, observed: None, renewed: None }
    }

    /// The API server has this Lease at `now`; `None`: it has none.
    fn observe(&mut self, record: Option<Record>, now: Instant) {
        if record.as_ref().is_none_or(|r| r.holder != self.identity) {
            self.renewed = None;
        }
        let since = match (&record, &self.observed) {
            (Some(new), Some((old, since))) if new == old => *since,
            _ => now,
        };
        self.observed = record.map(|record| (record, since));
    }

    /// A write that began at `begun` made the Lease ours.
    fn won(&mut self, record: Record, begun: Instant) {
        self.observed = Some((record, begun));
        self.renewed = Some(begun);
    }

    fn next(&self, now: Instant) -> Move {
        let Some((record, since)) = &self.observed else { return Move::Create };
        let ours = record.holder == self.identity;
        let over = record.holder.is_empty() || now >= *since + record.duration;
        if !ours && !over {
            return Move::Wait;
        }
        let transitions = record.transitions + i32::from(!ours);
        Move::Write { version: record.version.clone(), transitions }
    }

    /// Until when this replica leads if nothing else happens.
    fn until(&self) -> Option<Instant> {
        self.renewed.map(|begun| begun + RENEW)
    }

    fn leads(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now < until)
    }
}

struct Candidate {
    leases: Api<Lease>,
    election: Election,
    leads: watch::Sender<bool>,
    trouble: Trouble,
}

impl Candidate {
    async fn campaign(&mut self) {
        loop {
            let begun = Instant::now();
            let leading = self.election.until().filter(|until| *until > begun);
            let limit = leading.unwrap_or(begun + ANSWER).min(begun + ANSWER);
            let outcome = timeout_at(limit, self.attempt()).await;
            match outcome {
                Ok(Ok(())) => self.trouble.over(),
                Ok(Err(error)) => self.trouble.tell_why(SILENT, &error.to_string()),
                Err(_) => self.trouble.tell_why(SILENT, "no answer in time"),
            }
            self.announce();
            let again = begun + RETRY.mul_f64(rand::random_range(0.75..1.25));
            if let Some(until) = self.election.until().filter(|until| *until < again) {
                sleep_until(until).await;
                self.announce();
            }
            sleep_until(again).await;
        }
    }

    /// One try to hold the Lease. A leader trusts what it wrote; everybody else looks first.
    async fn attempt(&mut self) -> Result<(), Error> {
        if !self.election.leads(Instant::now()) {
            let lease = self.leases.get_opt(LEASE_NAME).await?;
            self.election.observe(lease.as_ref().map(record), Instant::now());
        }
        let begun = Instant::now();
        let written = match self.election.next(begun) {
            Move::Wait => return Ok(()),
            Move::Create => self.create().await,
            Move::Write { version, transitions } => self.write(&version, transitions).await,
        };
        match written {
            Ok(lease) => self.election.won(record(&lease), begun),
            // Somebody else was faster, or the Lease was deleted: who it is shows at once.
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => {
                let lease = self.leases.get_opt(LEASE_NAME).await?;
                self.election.observe(lease.as_ref().map(record), Instant::now());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn create(&self) -> Result<Lease, Error> {
        let now = Some(MicroTime(Timestamp::now()));
        let spec = LeaseSpec {
            holder_identity: Some(self.election.identity.clone()),
            lease_duration_seconds: Some(seconds(LEASE)),
            lease_transitions: Some(0),
            acquire_time: now.clone(),
            renew_time: now,
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { name: Some(LEASE_NAME.to_owned()), ..ObjectMeta::default() };
        self.leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
    }

    /// Makes the Lease ours or keeps it, unless it is of another version by now.
    async fn write(&self, version: &str, transitions: i32) -> Result<Lease, Error> {
        let now = MicroTime(Timestamp::now());
        let mut spec = json!({
            "holderIdentity": self.election.identity,
            "leaseDurationSeconds": seconds(LEASE),
            "leaseTransitions": transitions,
            "renewTime": now,
        });
        if !self.election.leads(Instant::now()) {
            spec["acquireTime"] = json!(now);
        }
        self.patch(version, spec).await
    }

    async fn patch(&self, version: &str, spec: serde_json::Value) -> Result<Lease, Error> {
        let change = json!({ "metadata": { "resourceVersion": version }, "spec": spec });
        self.leases.patch(LEASE_NAME, &PatchParams::default(), &Patch::Merge(change)).await
    }

    /// Gives the Lease up, so that another need not wait. What it leads must have ended before: it
    /// is told first.
    async fn resign(&mut self) {
        let led = self.election.leads(Instant::now());
        self.leads.send_replace(false);
        let Some((record, _)) = self.election.observed.take().filter(|_| led) else { return };
        let released = json!({ "holderIdentity": "", "leaseDurationSeconds": 1 });
        match timeout(RELEASE, self.patch(&record.version, released)).await {
            Ok(Ok(_)) => tracing::info!("the leadership is given up"),
            _ => tracing::info!(
                "the leadership could not be given up: another takes over when the Lease is over"
            ),
        }
    }

    fn announce(&self) {
        let leads = self.election.leads(Instant::now());
        let changed = self.leads.send_if_modified(|led| std::mem::replace(led, leads) != leads);
        match changed.then_some(leads) {
            Some(true) => tracing::info!(identity = self.election.identity, "this replica leads"),
            Some(false) => {
                tracing::warn!(identity = self.election.identity, "this replica leads no more")
            }
            None => {}
        }
    }
}

/// What matters of a Lease. One without a duration is taken for one of ours.
fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let duration = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok())
        .map_or(LEASE, Duration::from_secs);
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration,
        transitions: spec.lease_transitions.unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).expect("durations of this file are seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Record {
        Record {
            holder: holder.to_owned(),
            duration: LEASE,
            transitions: 3,
            version: version.to_owned(),
        }
    }

    fn write(version: &str, transitions: i32) -> Move {
        Move::Write { version: version.to_owned(), transitions }
    }

    /// What replica `a` does after it saw `seen`, each at a second; and whether it leads then.
    fn check(seen: &[(u64, Option<Record>)], at: u64, expected: &Move) {
        let start = Instant::now();
        let second = |s| start + Duration::from_secs(s);
        let mut election = Election::new("a".to_owned());
        for (when, record) in seen {
            election.observe(record.clone(), second(*when));
        }
        assert_eq!(&election.next(second(at)), expected, "{seen:?} at {at}");
        assert!(!election.leads(second(at)), "only a write of its own makes a leader");
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_ours_or_did_not_change_for_its_duration() {
        let held = |version| Some(lease("b", version));
        check(&[], 0, &Move::Create);
        check(&[(0, None)], 0, &Move::Create);
        check(&[(0, Some(lease("", "1")))], 0, &write("1", 4));
        check(&[(0, Some(lease("a", "1")))], 0, &write("1", 3));
        check(&[(0, held("1"))], 14, &Move::Wait);
        check(&[(0, held("1")), (14, held("1"))], 15, &write("1", 4));
        check(&[(0, held("1")), (14, held("2"))], 28, &Move::Wait);
        check(&[(0, held("1")), (14, held("2"))], 29, &write("2", 4));
        check(&[(0, held("1")), (2, None)], 2, &Move::Create);
    }

    #[test]
    fn a_leader_that_cannot_renew_steps_down_before_another_may_take_over() {
        let start = Instant::now();
        let second = |s| start + Duration::from_secs(s);
        let (mut leader, mut other) =
            (Election::new("a".to_owned()), Election::new("b".to_owned()));
        leader.won(lease("a", "1"), second(0));
        // The other sees the write at the earliest when it was begun.
        other.observe(Some(lease("a", "1")), second(0));
        for s in 0..40 {
            assert!(
                !leader.leads(second(s)) || other.next(second(s)) == Move::Wait,
                "two leaders at {s} s"
            );
        }
        assert!(leader.leads(second(9)) && !leader.leads(second(10)));
        leader.won(lease("a", "2"), second(9));
        assert!(leader.leads(second(18)));
    }

    #[test]
    fn a_leader_steps_down_at_once_when_it_sees_another_or_nobody() {
        for seen in [Some(lease("b", "2")), Some(lease("", "2")), None] {
            let now = Instant::now();
            let mut election = Election::new("a".to_owned());
            election.won(lease("a", "1"), now);
            assert!(election.leads(now));
            election.observe(seen, now);
            assert!(!election.leads(now));
        }
    }

    #[tokio::test]
    async fn work_of_a_leader_begins_and_ends_with_the_leadership() {
        let (leads, following) = watch::channel(false);
        let (running, mut runs) = watch::channel(0_i32);
        let work = move || {
            let running = running.clone();
            async move {
                running.send_modify(|n| *n += 1);
                let _ended = Ended(running);
                std::future::pending().await
            }
        };
        let worker = tokio::spawn(while_leading(following, work));
        for _ in 0..2 {
            leads.send_replace(true);
            runs.wait_for(|n| *n == 1).await.expect("it runs");
            leads.send_replace(false);
            runs.wait_for(|n| *n == 0).await.expect("it ends");
        }
        drop(leads);
        worker.await.expect("it ends with the election");
    }

    struct Ended(watch::Sender<i32>);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.send_modify(|n| *n -= 1);
        }
    }
}
