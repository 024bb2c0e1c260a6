//! Outlier detection: takes an endpoint out of the load after failures in a row, for a time that
//! grows each time.
//!
//! Judged when an answer arrives; what Envoy does in a sweep every `interval` (an ejection ends, the
//! next one of an endpoint that stays well gets shorter) is reckoned when it ejects, so that nothing
//! sweeps. Knows counters and settings; the balancer asks [`EndpointState::is_ejected`]. Spec: Envoy
//! "Outlier detection", consecutive detectors.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use super::{
    EndpointState,
    cluster_state::{ClusterState, LiveSet},
};
use crate::runtime::cluster::OutlierDetection;

/// How an endpoint has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It has answered with this HTTP status.
    Status(u16),
    /// A TCP connection was made, which is all that is expected of it.
    Connected,
    /// It could not be reached, reset the connection, or did not answer in time.
    LocalOrigin,
}

/// Counts an outcome, and ejects the endpoint when a detector's limit is reached and enough others
/// stay.
pub fn record(
    cluster: &ClusterState,
    settings: &OutlierDetection,
    endpoint: &EndpointState,
    outcome: Outcome,
) {
    if count(settings, endpoint, outcome) {
        let now_ms = cluster.now_ms();
        if may_eject(&cluster.endpoints(), settings, endpoint, now_ms) {
            eject(settings, endpoint, now_ms);
        }
    }
}

/// Counts, and says whether a limit has been reached.
fn count(settings: &OutlierDetection, endpoint: &EndpointState, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Status(status) => {
            if settings.split_local_origin {
                endpoint.consecutive_local.store(0, Relaxed);
            }
            let five = reached(
                &endpoint.consecutive_5xx,
                (500..600).contains(&status),
                settings.consecutive_5xx,
            );
            let gateway = matches!(status, 502..=504);
            reached(&endpoint.consecutive_gateway, gateway, settings.consecutive_gateway_failure)
                || five
        }
        Outcome::Connected => {
            // Without the split, Envoy counts it as a 200 answer: what failed before is no row any
            // more.
            for row in [
                &endpoint.consecutive_5xx,
                &endpoint.consecutive_gateway,
                &endpoint.consecutive_local,
            ] {
                reached(row, false, 0);
            }
            false
        }
        Outcome::LocalOrigin if settings.split_local_origin => {
            reached(&endpoint.consecutive_local, true, settings.consecutive_local_origin_failure)
        }
        // Without the split, Envoy counts these as a 503 answer.
        Outcome::LocalOrigin => {
            let five = reached(&endpoint.consecutive_5xx, true, settings.consecutive_5xx);
            reached(&endpoint.consecutive_gateway, true, settings.consecutive_gateway_failure)
                || five
        }
    }
}

/// Adds to or clears a row of failures; a limit of 0 switches the detector off.
fn reached(row: &AtomicU32, failed: bool, limit: u32) -> bool {
    if !failed {
        // The common case writes nothing to shared memory.
        if row.load(Relaxed) != 0 {
            row.store(0, Relaxed);
        }
        return false;
    }
    let length = row.fetch_add(1, Relaxed).saturating_add(1);
    limit != 0 && length >= limit
}

/// So many may be out that their share is at most the limit; where that is said, one always.
fn may_eject(
    set: &LiveSet,
    settings: &OutlierDetection,
    endpoint: &EndpointState,
    now_ms: u64,
) -> bool {
    if endpoint.is_ejected(now_ms) {
        return false;
    }
    let (ejected, total) = set.iter().fold((0u64, 0u64), |(ejected, total), other| {
        (ejected + u64::from(other.state.is_ejected(now_ms)), total + 1)
    });
    (settings.always_one && ejected == 0)
        || (ejected + 1) * 100 <= u64::from(settings.max_ejection_percent) * total
}

fn eject(settings: &OutlierDetection, endpoint: &EndpointState, now_ms: u64) {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    let interval = millis(settings.interval);
    let (base, longest) = (millis(settings.base_ejection_time), millis(settings.max_ejection_time));
    // Each sweep that has found it in the load since takes one off; 0 is an endpoint that was never
    // out, with nothing to take off.
    let well = now_ms.saturating_sub(endpoint.ejected_until.load(Relaxed)) / interval;
    let before = u64::from(endpoint.ejections.load(Relaxed)).saturating_sub(well);
    let grows = before.saturating_mul(base) < longest.saturating_add(base);
    let times = before + u64::from(grows);
    let over = now_ms.saturating_add(base.saturating_mul(times).min(longest.max(base)));
    for row in
        [&endpoint.consecutive_5xx, &endpoint.consecutive_gateway, &endpoint.consecutive_local]
    {
        row.store(0, Relaxed);
    }
    endpoint.ejections.store(u32::try_from(times).unwrap_or(u32::MAX), Relaxed);
    endpoint.ejected_until.store(over.div_ceil(interval).saturating_mul(interval), Relaxed);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::cluster_state::tests::*, *};
    use crate::upstream::StateRegistry;

    fn settings() -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx: 3,
            consecutive_gateway_failure: 2,
            consecutive_local_origin_failure: 2,
            split_local_origin: false,
            interval: Duration::from_secs(1),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 50,
            always_one: false,
        }
    }

    fn cluster(endpoints: u16) -> Arc<ClusterState> {
        let state = StateRegistry::default().cluster("a", 1);
        state.publish(&set(vec![locality(
            0,
            1,
            (1..=endpoints).map(|port| endpoint(port, 1)).collect(),
        )]));
        state
    }

    fn check(settings: &OutlierDetection, outcomes: &[Outcome], ejected: bool) {
        let cluster = cluster(4);
        let first = Arc::clone(&cluster.endpoints().iter().next().expect("four endpoints").state);
        for outcome in outcomes {
            record(&cluster, settings, &first, *outcome);
        }
        assert_eq!(first.is_ejected(cluster.now_ms()), ejected, "{outcomes:?}");
    }

    #[test]
    fn failures_in_a_row_eject() {
        use Outcome::{Connected, LocalOrigin, Status};
        check(&settings(), &[Status(500), Status(500)], false);
        check(&settings(), &[Status(500), Status(500), Status(500)], true);
        check(&settings(), &[Status(500), Status(500), Status(404), Status(500)], false);
        check(&settings(), &[Status(503), Status(504)], true);
        check(&settings(), &[Status(503), Status(500), Status(502)], true);
        check(&settings(), &[LocalOrigin, LocalOrigin], true);
        check(&settings(), &[LocalOrigin, Connected, LocalOrigin], false);
        let off =
            OutlierDetection { consecutive_5xx: 0, consecutive_gateway_failure: 0, ..settings() };
        check(&off, &[Status(503); 20], false);
        let split = OutlierDetection { split_local_origin: true, ..off };
        check(&split, &[LocalOrigin, Connected, LocalOrigin], false);
        check(&split, &[LocalOrigin, LocalOrigin], true);
    }

    #[test]
    fn at_most_the_share_may_be_out_or_always_one() {
        for (endpoints, percent, always_one, expected) in [
            (1, 10, false, 0),
            (1, 10, true, 1),
            (1, 100, false, 1),
            (6, 10, false, 0),
            (6, 10, true, 1),
            (10, 10, false, 1),
            (10, 50, true, 5),
            (3, 50, false, 1),
            (4, 100, false, 4),
            (4, 0, false, 0),
            (4, 0, true, 1),
        ] {
            let cluster = cluster(endpoints);
            let settings =
                OutlierDetection { max_ejection_percent: percent, always_one, ..settings() };
            for endpoint in cluster.endpoints().iter() {
                for _ in 0..3 {
                    record(&cluster, &settings, &endpoint.state, Outcome::Status(500));
                }
            }
            let now = cluster.now_ms();
            let out = cluster
                .endpoints()
                .iter()
                .filter(|endpoint| endpoint.state.is_ejected(now))
                .count();
            assert_eq!(out, expected, "{endpoints} endpoints, {percent} percent, {always_one}");
        }
    }

    #[test]
    fn an_ejection_ends_at_a_sweep_and_the_next_lasts_longer_unless_it_stays_well() {
        let cluster = cluster(1);
        let state = Arc::clone(&cluster.endpoints().iter().next().expect("one endpoint").state);
        // When it is ejected, and when that ends, in seconds; sweeps are a second apart.
        for (at_ms, end_s) in [
            (1_000, 31),
            (31_200, 92),   // 60 s, to the next sweep
            (92_000, 182),  // 90 s
            (183_000, 273), // well at one sweep: 90 s again
            (274_000, 364),
            (370_000, 400), // at six sweeps: from the beginning
            (400_000, 460),
        ] {
            eject(&settings(), &state, at_ms);
            assert_eq!(state.ejected_until.load(Relaxed), end_s * 1000, "ejected at {at_ms}");
            assert!(state.is_ejected(end_s * 1000 - 1) && !state.is_ejected(end_s * 1000));
        }
    }

    #[test]
    fn no_ejection_is_longer_than_the_longest() {
        let cluster = cluster(1);
        let state = Arc::clone(&cluster.endpoints().iter().next().expect("one endpoint").state);
        let mut now = 0;
        for seconds in (1..=20).map(|times| (30 * times).min(300)) {
            eject(&settings(), &state, now);
            assert_eq!(state.ejected_until.load(Relaxed), now + seconds * 1000);
            now += seconds * 1000;
        }
    }
}
