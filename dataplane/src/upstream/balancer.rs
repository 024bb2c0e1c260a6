//! Chooses an endpoint: first the priority, then (if asked for) the locality, then the endpoint by
//! the cluster's policy. A function call over flat arrays; the only shared state is the turn
//! counter and the in-flight counts.
//!
//! Spec: Envoy "Load balancing": priority levels, panic threshold, locality weighted, zone aware,
//! least request.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use smallvec::SmallVec;

use super::{
    LiveCluster,
    cluster_state::{ClusterState, LiveEndpoint, LivePriority, LiveSet},
    zones::Peers,
};
use crate::runtime::{
    cluster::{BalanceSettings, LbPolicy, OverLocalities, ZoneSettings},
    endpoint::HealthStatus,
};

/// Attempts to draw a host that was not tried before (Envoy's `host_selection_retry_max_attempts`).
const MAX_REDRAWS: usize = 5;

/// What the choice may depend on besides the endpoints.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draw<'a> {
    /// Hash of the request, for policies that balance by it.
    pub hash: Option<u64>,
    /// Endpoints that earlier attempts have used, to be avoided while others are left.
    pub tried: &'a [std::net::SocketAddr],
}

/// An endpoint for the next request, or `None` when none may take it (response flag `UH`).
pub fn choose(
    cluster: &LiveCluster,
    draw: Draw<'_>,
    random: &mut impl FnMut() -> u64,
) -> Option<LiveEndpoint> {
    let set = cluster.state.endpoints();
    let now_ms = cluster.state.now_ms();
    let mut chosen = choose_from(&set, cluster, now_ms, draw, random)?;
    for _ in 0..MAX_REDRAWS {
        if !draw.tried.contains(&chosen.state.address) {
            break;
        }
        chosen = choose_from(&set, cluster, now_ms, Draw { hash: None, ..draw }, random)?;
    }
    Some(chosen.clone())
}

/// Whether [`choose`] would find an endpoint now.
pub fn has_any(cluster: &LiveCluster, random: &mut impl FnMut() -> u64) -> bool {
    let (set, now_ms) = (cluster.state.endpoints(), cluster.state.now_ms());
    choose_priority(&set, &cluster.balance, now_ms, random).is_some_and(|(priority, panic)| {
        let endpoints = group(&set, priority, &Means::of(cluster), now_ms, panic, random);
        !candidates(priority, endpoints, now_ms, panic).is_empty()
    })
}

fn choose_from<'a>(
    set: &'a LiveSet,
    cluster: &LiveCluster,
    now_ms: u64,
    draw: Draw<'_>,
    random: &mut impl FnMut() -> u64,
) -> Option<&'a LiveEndpoint> {
    let (priority, panic) = choose_priority(set, &cluster.balance, now_ms, random)?;
    let endpoints = group(set, priority, &Means::of(cluster), now_ms, panic, random);
    let candidates = candidates(priority, endpoints, now_ms, panic);
    pick(&candidates, cluster.policy, &cluster.state, draw, random)
}

/// Endpoints among which the policy chooses.
enum Candidates<'a> {
    /// All of these, which weigh the same.
    Uniform(&'a [LiveEndpoint]),
    /// These, each with the sum of weights up to and including it.
    Weighted(SmallVec<[(&'a LiveEndpoint, u64); 8]>),
}

/// The priority that takes the request, and whether it panics (uses endpoints whatever their
/// health).
fn choose_priority<'a>(
    set: &'a LiveSet,
    balance: &BalanceSettings,
    now_ms: u64,
    random: &mut impl FnMut() -> u64,
) -> Option<(&'a LivePriority, bool)> {
    let scaled = |share: u32| (share * set.overprovisioning_factor / 100).min(100);
    let [first, rest @ ..] = &set.priorities[..] else { return None };
    let available = available_share(first, now_ms);
    if rest.is_empty() || scaled(available) == 100 {
        return Some((first, scaled(available) < 100 && panics(available, balance)));
    }
    let shares: SmallVec<[u32; 4]> =
        set.priorities.iter().map(|p| available_share(p, now_ms)).collect();
    let total = shares.iter().map(|share| scaled(*share)).sum::<u32>().min(100);
    if total == 0 {
        return Some((first, panics(0, balance)));
    }
    // Each priority takes what it can of what the ones before it have left.
    let mut point = u32::try_from(random() % 100).unwrap_or(0);
    let mut last = None;
    for (priority, share) in set.priorities.iter().zip(&shares).filter(|(_, share)| **share > 0) {
        let load = scaled(*share) * 100 / total;
        last = Some((priority, total < 100 && panics(*share, balance)));
        if point < load {
            break;
        }
        point -= load;
    }
    last
}

fn panics(available_percent: u32, balance: &BalanceSettings) -> bool {
    available_percent < balance.panic_threshold
}

/// Percentage of endpoints that may take requests.
fn available_share(priority: &LivePriority, now_ms: u64) -> u32 {
    let total = priority.endpoints.len();
    let available =
        priority.endpoints.iter().filter(|endpoint| is_available(endpoint, now_ms)).count();
    u32::try_from(available * 100 / total.max(1)).unwrap_or(100)
}

fn is_available(endpoint: &LiveEndpoint, now_ms: u64) -> bool {
    endpoint.spec.health == HealthStatus::Healthy && !endpoint.state.is_ejected(now_ms)
}

/// By what a locality is chosen.
struct Means<'a> {
    localities: OverLocalities,
    peers: &'a Peers,
}

impl<'a> Means<'a> {
    fn of(cluster: &'a LiveCluster) -> Self {
        Self { localities: cluster.balance.localities, peers: &cluster.state.peers }
    }
}

/// The endpoints of a priority, or of one of its localities.
fn group<'a>(
    set: &'a LiveSet,
    priority: &'a LivePriority,
    means: &Means<'_>,
    now_ms: u64,
    panic: bool,
    random: &mut impl FnMut() -> u64,
) -> &'a [LiveEndpoint] {
    let is_first = set.priorities.first().is_some_and(|first| std::ptr::eq(first, priority));
    match &means.localities {
        OverLocalities::Weighted => choose_locality(priority, now_ms, panic, random),
        OverLocalities::Zones(zones) if is_first && !panic => {
            choose_zone(priority, zones, means.peers, now_ms, random)
        }
        OverLocalities::Alike | OverLocalities::Zones(_) => &priority.endpoints,
    }
}

fn choose_zone<'a>(
    priority: &'a LivePriority,
    zones: &ZoneSettings,
    peers: &Peers,
    now_ms: u64,
    random: &mut impl FnMut() -> u64,
) -> &'a [LiveEndpoint] {
    let of = |range: &std::ops::Range<usize>| &priority.endpoints[range.clone()];
    let upstream: SmallVec<[_; 8]> = priority
        .localities
        .iter()
        .map(|l| {
            let available = of(&l.range).iter().filter(|e| is_available(e, now_ms)).count();
            (&l.place, available as u64)
        })
        .collect();
    match peers.choose(zones, &upstream, random) {
        Some(at) => of(&priority.localities[at].range),
        None => &priority.endpoints,
    }
}

fn candidates<'a>(
    priority: &'a LivePriority,
    endpoints: &'a [LiveEndpoint],
    now_ms: u64,
    panic: bool,
) -> Candidates<'a> {
    let all_available = endpoints.iter().all(|endpoint| is_available(endpoint, now_ms));
    if priority.uniform && (panic || all_available) {
        return Candidates::Uniform(endpoints);
    }
    let takes = |endpoint: &&LiveEndpoint| panic || is_available(endpoint, now_ms);
    let mut eligible: SmallVec<[&LiveEndpoint; 16]> = endpoints.iter().filter(takes).collect();
    if eligible.is_empty() {
        let degraded = |e: &&LiveEndpoint| {
            e.spec.health == HealthStatus::Degraded && !e.state.is_ejected(now_ms)
        };
        eligible = endpoints.iter().filter(degraded).collect();
    }
    let mut sum = 0;
    Candidates::Weighted(
        eligible
            .into_iter()
            .map(|endpoint| {
                sum += u64::from(endpoint.spec.weight.max(1));
                (endpoint, sum)
            })
            .collect(),
    )
}

/// A locality by weight, scaled by how many of its endpoints are available.
fn choose_locality<'a>(
    priority: &'a LivePriority,
    now_ms: u64,
    panic: bool,
    random: &mut impl FnMut() -> u64,
) -> &'a [LiveEndpoint] {
    let effective = |endpoints: &[LiveEndpoint], weight: u32| {
        let available =
            endpoints.iter().filter(|e| panic || is_available(e, now_ms)).count() as u64;
        let share = (available * 140).min(endpoints.len() as u64 * 100) * 1000
            / (endpoints.len() as u64 * 100).max(1);
        u64::from(weight) * share
    };
    let weights: SmallVec<[u64; 8]> = priority
        .localities
        .iter()
        .map(|l| effective(&priority.endpoints[l.range.clone()], l.weight))
        .collect();
    let total: u64 = weights.iter().sum();
    if total == 0 {
        return &priority.endpoints;
    }
    let mut point = random() % total;
    for (locality, weight) in priority.localities.iter().zip(&weights) {
        if point < *weight {
            return &priority.endpoints[locality.range.clone()];
        }
        point -= weight;
    }
    &priority.endpoints
}

fn pick<'a>(
    candidates: &Candidates<'a>,
    policy: LbPolicy,
    state: &ClusterState,
    draw: Draw<'_>,
    random: &mut impl FnMut() -> u64,
) -> Option<&'a LiveEndpoint> {
    if candidates.is_empty() {
        return None;
    }
    Some(match policy {
        LbPolicy::RoundRobin => candidates.in_turn(state.turn.fetch_add(1, Relaxed)),
        LbPolicy::LeastRequest { choices } => candidates.least_busy(choices, random),
        LbPolicy::Random | LbPolicy::ClusterProvided => candidates.at(random()),
        LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => match draw.hash {
            Some(hash) => candidates.by_hash(hash),
            None => candidates.at(random()),
        },
    })
}

impl<'a> Candidates<'a> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Uniform(endpoints) => endpoints.is_empty(),
            Self::Weighted(endpoints) => endpoints.is_empty(),
        }
    }

    /// The endpoint at a point of the weights' sum; `self` is not empty.
    fn at(&self, point: u64) -> &'a LiveEndpoint {
        match self {
            Self::Uniform(endpoints) => &endpoints[(point % endpoints.len() as u64) as usize],
            Self::Weighted(endpoints) => {
                let point = point % endpoints.last().map_or(1, |(_, sum)| *sum);
                endpoints[endpoints.partition_point(|(_, sum)| *sum <= point)].0
            }
        }
    }

    /// Visits the weights' sum in strides that share no divisor with it and are close to the golden
    /// section of it: each endpoint gets its exact share in every full turn, and never all of it at
    /// once.
    fn in_turn(&self, turn: usize) -> &'a LiveEndpoint {
        match self {
            Self::Uniform(_) => self.at(turn as u64),
            Self::Weighted(endpoints) => {
                let sum = endpoints.last().map_or(1, |(_, sum)| *sum);
                let golden = (sum as u128 * 618 / 1000) as u64;
                let stride = (golden.max(1)..).find(|stride| coprime(*stride, sum)).unwrap_or(1);
                self.at(((turn as u64 % sum) as u128 * u128::from(stride) % u128::from(sum)) as u64)
            }
        }
    }

    fn least_busy(&self, choices: u32, random: &mut impl FnMut() -> u64) -> &'a LiveEndpoint {
        // Requests per weight, compared without division. The draw has the weights already: of idle
        // endpoints the first counts, or the lighter would hardly ever be asked.
        let load = |e: &LiveEndpoint| u64::from(e.state.active.load(Relaxed));
        let weight = |e: &LiveEndpoint| match self {
            Self::Uniform(_) => 1,
            Self::Weighted(_) => u64::from(e.spec.weight.max(1)),
        };
        let mut best = self.at(random());
        for _ in 1..choices.max(2) {
            let other = self.at(random());
            if load(other) * weight(best) < load(best) * weight(other) {
                best = other;
            }
        }
        best
    }

    /// Rendezvous hashing: an endpoint that comes or goes moves only its own share. Ring and Maglev
    /// promise the same.
    fn by_hash(&self, hash: u64) -> &'a LiveEndpoint {
        let score = |endpoint: &LiveEndpoint| {
            let mixed = xxhash_rust::xxh3::xxh3_64_with_seed(
                endpoint.state.address.to_string().as_bytes(),
                hash,
            );
            let uniform = (mixed >> 11) as f64 / (1u64 << 53) as f64;
            -f64::from(endpoint.spec.weight.max(1)) / uniform.max(f64::MIN_POSITIVE).ln()
        };
        let mut best = self.at(0);
        let mut best_score = f64::MIN;
        for endpoint in self.iter() {
            let score = score(endpoint);
            if score > best_score {
                (best, best_score) = (endpoint, score);
            }
        }
        best
    }

    fn iter(&self) -> impl Iterator<Item = &'a LiveEndpoint> + '_ {
        let (uniform, weighted): (&'a [LiveEndpoint], &[(&'a LiveEndpoint, u64)]) = match self {
            Self::Uniform(endpoints) => (endpoints, &[]),
            Self::Weighted(endpoints) => (&[], endpoints),
        };
        uniform.iter().chain(weighted.iter().map(|(endpoint, _)| *endpoint))
    }
}

fn coprime(mut a: u64, mut b: u64) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

/// The endpoint of an original-destination cluster.
pub fn original_destination(cluster: &LiveCluster, address: std::net::SocketAddr) -> LiveEndpoint {
    use crate::runtime::endpoint::{Endpoint, EndpointAddress};
    let spec = Endpoint {
        address: EndpointAddress::Socket(address),
        weight: 1,
        health: HealthStatus::Healthy,
        socket_match: Default::default(),
        workload: None,
        hostname: None,
    };
    LiveEndpoint {
        state: cluster.state.original_destination(address),
        spec: Arc::new(spec),
        workload: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::cluster_state::tests::*, *};
    use crate::{
        runtime::endpoint::{Endpoint, LocalityEndpoints},
        upstream::StateRegistry,
    };

    /// A reproducible source of random numbers.
    fn random() -> impl FnMut() -> u64 {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
        }
    }

    fn balance(panic_threshold: u32, weighted: bool) -> BalanceSettings {
        let localities = if weighted { OverLocalities::Weighted } else { OverLocalities::Alike };
        BalanceSettings { panic_threshold, localities }
    }

    /// Picks per port.
    fn picks(
        localities: Vec<LocalityEndpoints>,
        policy: LbPolicy,
        balance: BalanceSettings,
        ejected: &[u16],
        times: usize,
    ) -> BTreeMap<u16, usize> {
        let state = StateRegistry::default().cluster("a", 1);
        state.publish(&set(localities));
        for endpoint in
            state.endpoints().iter().filter(|e| ejected.contains(&e.state.address.port()))
        {
            endpoint.state.ejected_until.store(u64::MAX, Relaxed);
        }
        let (set, now) = (state.endpoints(), state.now_ms());
        let mut random = random();
        let mut counts = BTreeMap::new();
        for _ in 0..times {
            if let Some((priority, panic)) = choose_priority(&set, &balance, now, &mut random) {
                let means = Means { localities: balance.localities, peers: &state.peers };
                let endpoints = group(&set, priority, &means, now, panic, &mut random);
                let candidates = candidates(priority, endpoints, now, panic);
                if let Some(endpoint) =
                    pick(&candidates, policy, &state, Draw::default(), &mut random)
                {
                    *counts.entry(endpoint.state.address.port()).or_default() += 1;
                }
            }
        }
        counts
    }

    fn unhealthy(port: u16) -> Arc<Endpoint> {
        Arc::new(Endpoint { health: HealthStatus::Unhealthy, ..(*endpoint(port, 1)).clone() })
    }

    fn near(counts: &BTreeMap<u16, usize>, port: u16, expected: usize) {
        let count = counts.get(&port).copied().unwrap_or(0);
        assert!(
            count.abs_diff(expected) <= 300,
            "port {port}: expected about {expected}, got {counts:?}"
        );
    }

    #[test]
    fn round_robin_gives_exact_shares() {
        let all = vec![locality(0, 1, vec![endpoint(1, 1), endpoint(2, 1), endpoint(3, 1)])];
        let counts = picks(all, LbPolicy::RoundRobin, balance(50, false), &[], 300);
        assert_eq!(counts, BTreeMap::from([(1, 100), (2, 100), (3, 100)]));
        let weighted = vec![locality(0, 1, vec![endpoint(1, 90), endpoint(2, 10)])];
        let counts = picks(weighted, LbPolicy::RoundRobin, balance(50, false), &[], 1000);
        assert_eq!(counts, BTreeMap::from([(1, 900), (2, 100)]));
    }

    #[test]
    fn least_request_prefers_the_idle_and_keeps_weights() {
        let policy = LbPolicy::LeastRequest { choices: 2 };
        for policy in [LbPolicy::Random, policy] {
            let weighted = vec![locality(0, 1, vec![endpoint(1, 3), endpoint(2, 1)])];
            near(&picks(weighted, policy, balance(50, false), &[], 10_000), 1, 7_500);
        }
        let state = StateRegistry::default().cluster("a", 1);
        state.publish(&set(vec![locality(0, 1, vec![endpoint(1, 1), endpoint(2, 1)])]));
        let live = state.endpoints();
        live.priorities[0].endpoints[0].state.active.store(10, Relaxed);
        let candidates = Candidates::Uniform(&live.priorities[0].endpoints);
        let mut random = random();
        let busy = (0..10_000)
            .filter_map(|_| pick(&candidates, policy, &state, Draw::default(), &mut random))
            .filter(|endpoint| endpoint.state.address.port() == 1)
            .count();
        assert!(
            (2_200..2_800).contains(&busy),
            "the busy one is drawn only when drawn twice: {busy}"
        );
    }

    #[test]
    fn without_panic_nobody_takes_what_the_ejected_cannot() {
        let all = || vec![locality(0, 1, vec![endpoint(1, 1), endpoint(2, 1)])];
        let policy = LbPolicy::LeastRequest { choices: 2 };
        assert_eq!(picks(all(), policy, balance(0, false), &[1], 10), BTreeMap::from([(2, 10)]));
        assert!(picks(all(), policy, balance(0, false), &[1, 2], 10).is_empty());
        assert_eq!(picks(all(), policy, balance(50, false), &[1, 2], 1000).len(), 2);
        assert!(picks(vec![], policy, balance(50, false), &[], 10).is_empty());
        assert_eq!(
            picks(
                vec![locality(0, 1, vec![unhealthy(1), endpoint(2, 1)])],
                policy,
                balance(0, false),
                &[],
                9
            )[&2],
            9
        );
    }

    #[test]
    fn a_lower_priority_takes_what_the_first_cannot() {
        let policy = LbPolicy::Random;
        let first_of = |healthy: u16| {
            let firsts = (1..=10)
                .map(|port| if port <= healthy { endpoint(port, 1) } else { unhealthy(port) })
                .collect();
            vec![locality(0, 1, firsts), locality(1, 1, vec![endpoint(99, 1)])]
        };
        assert_eq!(picks(first_of(8), policy, balance(0, false), &[], 1000).get(&99), None);
        near(&picks(first_of(5), policy, balance(0, false), &[], 10_000), 99, 3_000);
        assert_eq!(
            picks(first_of(0), policy, balance(0, false), &[], 1000),
            BTreeMap::from([(99, 1000)])
        );
    }

    #[test]
    fn localities_share_by_weight() {
        let localities = || {
            vec![
                locality(0, 80, vec![endpoint(1, 1)]),
                locality(0, 20, vec![endpoint(2, 1), endpoint(3, 1)]),
            ]
        };
        near(&picks(localities(), LbPolicy::Random, balance(0, true), &[], 10_000), 1, 8_000);
        near(&picks(localities(), LbPolicy::Random, balance(0, false), &[], 9_000), 1, 3_000);
        assert_eq!(
            picks(localities(), LbPolicy::Random, balance(0, true), &[1], 1000).get(&1),
            None
        );
    }

    #[test]
    fn a_hash_always_leads_to_the_same_endpoint_and_moves_little() {
        let state = StateRegistry::default().cluster("a", 1);
        state.publish(&set(vec![locality(0, 1, (1..=5).map(|port| endpoint(port, 1)).collect())]));
        let live = state.endpoints();
        let all = Candidates::Uniform(&live.priorities[0].endpoints);
        let fewer = Candidates::Uniform(&live.priorities[0].endpoints[..4]);
        let port =
            |candidates: &Candidates<'_>, hash| candidates.by_hash(hash).state.address.port();
        for hash in 0..500 {
            let before = port(&all, hash);
            assert_eq!(before, port(&all, hash));
            assert!(before == 5 || before == port(&fewer, hash));
        }
        assert_eq!(
            (0..500).map(|hash| port(&all, hash)).collect::<std::collections::BTreeSet<_>>().len(),
            5
        );
    }
}
