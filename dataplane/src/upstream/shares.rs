//! What each endpoint of a priority has of the tables that hashes are looked up in: by weight, among
//! all or within its locality.

use super::{
    cluster_state::{LivePriority, LocalityRange},
    consistent::Share,
};
use crate::runtime::cluster::{HashKey, LbPolicy};

/// The place of the endpoint that a hash leads to among those of a priority, of which `members` may
/// take requests; attempts after the first lead further on. `None` without members.
pub(super) fn place(
    priority: &LivePriority,
    policy: LbPolicy,
    by_locality: bool,
    members: &[u32],
    attempt: (u64, u32),
) -> Option<usize> {
    priority.tables.place(policy, by_locality, members, attempt, || {
        let weights = match by_locality {
            true => weights_by_locality(priority, members),
            false => normalized(priority, members, 1.0).collect(),
        };
        let key = match policy {
            LbPolicy::RingHash { key, .. } | LbPolicy::Maglev { key, .. } => key,
            _ => HashKey::Address,
        };
        weights.into_iter().map(|(place, weight)| share(priority, key, place, weight)).collect()
    })
}

fn share(priority: &LivePriority, key: HashKey, place: u32, weight: f64) -> Share {
    let endpoint = &priority.endpoints[place as usize];
    let key = match key {
        HashKey::Address => endpoint.state.address.to_string(),
        HashKey::HostName => endpoint.spec.host_name().unwrap_or_default().to_owned(),
    };
    Share { key, place, weight }
}

/// Each of these with its part of `share`.
fn normalized<'a>(
    priority: &'a LivePriority,
    members: &'a [u32],
    share: f64,
) -> impl Iterator<Item = (u32, f64)> + 'a {
    let weight = |place: &u32| priority.endpoints[*place as usize].spec.weight;
    let sum: u64 = members.iter().map(|place| u64::from(weight(place))).sum();
    members.iter().map(move |place| (*place, f64::from(weight(place)) * share / sum as f64))
}

/// Localities share by weight, whatever is available of each; those without weight get nothing.
fn weights_by_locality(priority: &LivePriority, members: &[u32]) -> Vec<(u32, f64)> {
    let mut localities: Vec<_> = priority.localities.iter().collect();
    localities.sort_by(|a, b| a.locality.cmp(&b.locality));
    let sum: u64 = localities.iter().map(|one| u64::from(one.weight)).sum();
    let weighing = localities.into_iter().filter(|one| one.weight > 0);
    let of = |one: &LocalityRange| {
        let place = |at: usize| members.partition_point(|member| (*member as usize) < at);
        let own = &members[place(one.range.start)..place(one.range.end)];
        normalized(priority, own, f64::from(one.weight) / sum as f64).collect::<Vec<_>>()
    };
    weighing.flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use xxhash_rust::xxh64::xxh64;

    use super::{super::cluster_state::tests::*, *};
    use crate::{
        runtime::{cluster::HashFunction, endpoint::LocalityEndpoints},
        upstream::{ClusterState, StateRegistry},
    };

    const RING: LbPolicy = LbPolicy::RingHash {
        minimum: 1024,
        maximum: 8 << 20,
        function: HashFunction::XxHash,
        key: HashKey::Address,
    };
    const MURMUR: LbPolicy = LbPolicy::RingHash {
        minimum: 1024,
        maximum: 8 << 20,
        function: HashFunction::Murmur2,
        key: HashKey::Address,
    };
    const MAGLEV: LbPolicy = LbPolicy::Maglev { table_size: 65_537, key: HashKey::Address };

    fn cluster(localities: Vec<LocalityEndpoints>) -> Arc<ClusterState> {
        let state = StateRegistry::default().cluster("a", 1);
        state.publish(&set(localities));
        state
    }

    /// Port by key for so many keys.
    fn ports(
        state: &ClusterState,
        policy: LbPolicy,
        by_locality: bool,
        members: &[u32],
        keys: u64,
    ) -> Vec<u16> {
        let live = state.endpoints();
        let priority = &live.priorities[0];
        let port = |key: u64| {
            let hash = xxh64(&key.to_le_bytes(), 0);
            let place = place(priority, policy, by_locality, members, (hash, 0)).expect("a place");
            priority.endpoints[place].state.address.port()
        };
        (0..keys).map(port).collect()
    }

    fn shares(ports: &[u16]) -> BTreeMap<u16, usize> {
        let mut shares = BTreeMap::new();
        ports.iter().for_each(|port| *shares.entry(*port).or_default() += 1);
        shares
    }

    #[test]
    fn shares_are_those_of_the_weights_of_those_that_take_requests() {
        let state = cluster(vec![locality(
            0,
            1,
            vec![endpoint(1, 1), endpoint(2, 2), endpoint(3, 3), endpoint(4, 4)],
        )]);
        for policy in [RING, MURMUR, MAGLEV] {
            let all = ports(&state, policy, false, &[0, 1, 2, 3], 20_000);
            assert_eq!(all, ports(&state, policy, false, &[0, 1, 2, 3], 20_000), "{policy:?}");
            for (port, share) in shares(&all) {
                let expected = usize::from(port) * 2_000;
                assert!(share.abs_diff(expected) < expected / 4, "{policy:?} {port}: {share}");
            }
            let fewer = ports(&state, policy, false, &[0, 1, 3], 20_000);
            assert!(!fewer.contains(&3));
        }
    }

    #[test]
    fn localities_share_by_their_weights_whatever_they_hold() {
        let state = cluster(vec![
            locality(0, 3, vec![endpoint(1, 1)]),
            locality(0, 1, vec![endpoint(2, 1), endpoint(3, 1)]),
            locality(0, 0, vec![endpoint(4, 100)]),
        ]);
        for policy in [RING, MAGLEV] {
            let shares = shares(&ports(&state, policy, true, &[0, 1, 2, 3], 20_000));
            assert_eq!(shares.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
            for (port, expected) in [(1, 15_000), (2, 2_500), (3, 2_500)] {
                assert!(shares[&port].abs_diff(expected) < expected / 4, "{policy:?} {shares:?}");
            }
        }
    }

    #[test]
    fn a_retry_goes_on_to_others_and_nobody_is_found_among_none() {
        let state = cluster(vec![locality(0, 1, (1..=5).map(|port| endpoint(port, 1)).collect())]);
        let live = state.endpoints();
        let members = [0, 1, 2, 3, 4];
        for policy in [RING, MAGLEV] {
            let at = |attempt| place(&live.priorities[0], policy, false, &members, (7, attempt));
            let seen: std::collections::BTreeSet<_> = (0..20).map(at).collect();
            assert!(seen.len() > 2, "{policy:?}: {seen:?}");
            assert_eq!(place(&live.priorities[0], policy, false, &[], (7, 0)), None);
        }
    }
}
