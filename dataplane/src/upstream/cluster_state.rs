//! The state of a cluster that outlives a configuration: its endpoint set, the counters of each
//! endpoint, and how much of the circuit breakers' limits is in use.
//!
//! All counters are relaxed atomics shared by the workers: each is a statistic or a limit, none
//! guards memory. The endpoint set is replaced as a whole; an endpoint that stays keeps its
//! counters.

use std::{
    collections::HashMap,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{own::OwnConnections, zones::Peers};
use crate::runtime::endpoint::{
    DnsRefresh, Endpoint, EndpointAddress, EndpointSet, HealthStatus, Locality, LocalityEndpoints,
    Workload,
};

/// Endpoints of an original-destination cluster that nobody uses are forgotten once this many are
/// known.
const MAX_IDLE_ORIGINAL_DESTINATIONS: usize = 1024;

/// Counters of one address of one cluster; shared by all workers and kept while the address stays
/// in the set.
#[derive(Debug)]
pub struct EndpointState {
    /// Where to connect to.
    pub address: SocketAddr,
    /// Requests (or TCP connections) in flight.
    pub active: AtomicU32,
    /// 5xx answers, or failures of any kind, in a row.
    pub consecutive_5xx: AtomicU32,
    /// 502, 503, 504, or failures of any kind, in a row.
    pub consecutive_gateway: AtomicU32,
    /// Connect failures, resets and timeouts in a row.
    pub consecutive_local: AtomicU32,
    /// By how many times the last ejection was longer than the first is; Envoy's backoff of ejections.
    pub ejections: AtomicU32,
    /// Milliseconds on the cluster's clock until which it is or was ejected; 0 if it never was.
    pub ejected_until: AtomicU64,
}

impl EndpointState {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            active: AtomicU32::new(0),
            consecutive_5xx: AtomicU32::new(0),
            consecutive_gateway: AtomicU32::new(0),
            consecutive_local: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
        }
    }

    /// Whether outlier detection keeps it out of the load at `now_ms`.
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        self.ejected_until.load(Relaxed) > now_ms
    }
}

/// One endpoint of the set in use.
#[derive(Clone, Debug)]
pub struct LiveEndpoint {
    /// Its counters, shared with earlier and later sets.
    pub state: Arc<EndpointState>,
    /// What configuration says of it; its address may be a name, `state` has the resolved one.
    pub spec: Arc<Endpoint>,
    /// Who runs there, if configuration says so.
    pub workload: Option<Arc<Workload>>,
}

/// A part of a priority's endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalityRange {
    /// Where they are.
    pub place: Locality,
    /// Share among the localities of the priority.
    pub weight: u32,
    /// Indices into [`LivePriority::endpoints`]; never empty.
    pub range: Range<usize>,
}

/// The endpoints of one priority.
#[derive(Clone, Debug)]
pub struct LivePriority {
    /// Grouped by locality; never empty.
    pub endpoints: Vec<LiveEndpoint>,
    /// The groups, in order, without gaps.
    pub localities: Vec<LocalityRange>,
    /// All are healthy by configuration and weigh the same, so any may be drawn blindly.
    pub uniform: bool,
}

/// An immutable set of endpoints with resolved addresses.
#[derive(Clone, Debug)]
pub struct LiveSet {
    /// Lowest priority number first; may be empty.
    pub priorities: Vec<LivePriority>,
    /// Percentage that scales the share of a priority.
    pub overprovisioning_factor: u32,
}

impl Default for LiveSet {
    fn default() -> Self {
        Self { priorities: Vec::new(), overprovisioning_factor: 140 }
    }
}

/// How much of each circuit breaker limit is in use.
#[derive(Debug, Default)]
pub struct Usage {
    /// Open upstream connections of all workers.
    pub connections: AtomicU32,
    /// Requests that wait for a connection.
    pub pending: AtomicU32,
    /// Requests in flight.
    pub requests: AtomicU32,
    /// Retries in flight.
    pub retries: AtomicU32,
}

/// What is remembered about a cluster while configurations come and go.
#[derive(Debug)]
pub struct ClusterState {
    /// The cluster's name.
    pub name: Arc<str>,
    /// Circuit breaker counters.
    pub usage: Usage,
    /// Position of round-robin balancing.
    pub turn: AtomicUsize,
    endpoints: ArcSwap<LiveSet>,
    names: ArcSwapOption<Names>,
    original: Mutex<FxHashMap<SocketAddr, Arc<EndpointState>>>,
    epoch: Instant,
    /// Connections of this and all other clusters.
    pub(super) own: Arc<OwnConnections>,
    /// The proxy's replicas.
    pub(super) peers: Arc<Peers>,
}

impl ClusterState {
    fn new(name: &str, own: &Arc<OwnConnections>, peers: &Arc<Peers>) -> Self {
        Self {
            own: Arc::clone(own),
            peers: Arc::clone(peers),
            name: name.into(),
            usage: Usage::default(),
            turn: AtomicUsize::new(0),
            endpoints: ArcSwap::default(),
            names: ArcSwapOption::empty(),
            original: Mutex::default(),
            epoch: Instant::now(),
        }
    }

    /// Milliseconds on this cluster's clock, as outlier detection counts them; starts at 1, so that
    /// 0 can mean never.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The endpoints in use.
    pub fn endpoints(&self) -> Arc<LiveSet> {
        self.endpoints.load_full()
    }

    /// Replaces the endpoint set by one of addresses; an endpoint whose address stays keeps its
    /// counters. Of equal addresses the first counts, and names are left out.
    pub fn publish(&self, set: &EndpointSet) {
        self.names.store(None);
        self.publish_resolved(set, |_, _| Vec::new());
    }

    /// Replaces the endpoint set by one of names, which the resolver task looks up soon and then
    /// again and again. Until the first answer the previous endpoints stay.
    pub fn resolve(&self, set: Arc<EndpointSet>, refresh: DnsRefresh, first_address_only: bool) {
        let fresh = Names { set, refresh, first_address_only };
        if self.names.load().as_deref() != Some(&fresh) {
            self.names.store(Some(Arc::new(fresh)));
        }
    }

    /// The names to look up; `None` for a cluster whose endpoints are addresses.
    pub fn names(&self) -> Option<Arc<Names>> {
        self.names.load_full()
    }

    /// Replaces the endpoint set, taking each name's addresses from `resolved(host, port)`.
    pub fn publish_resolved(
        &self,
        set: &EndpointSet,
        resolved: impl Fn(&str, u16) -> Vec<SocketAddr>,
    ) {
        let previous = self.endpoints.load();
        let mut known: FxHashMap<SocketAddr, Arc<EndpointState>> = previous
            .iter()
            .map(|endpoint| (endpoint.state.address, Arc::clone(&endpoint.state)))
            .collect();
        let mut taken = FxHashSet::default();
        let mut builder = LiveSetBuilder::default();
        for locality in &set.localities {
            let addressed = locality.endpoints.iter().flat_map(|spec| addresses(spec, &resolved));
            let live: Vec<LiveEndpoint> = addressed
                .filter(|(address, _)| taken.insert(*address))
                .map(|(address, spec)| {
                    let state = known
                        .remove(&address)
                        .unwrap_or_else(|| Arc::new(EndpointState::new(address)));
                    let workload =
                        spec.workload.as_deref().map(|text| Arc::new(Workload::parse(text)));
                    LiveEndpoint { state, spec: Arc::clone(spec), workload }
                })
                .collect();
            builder.push(locality, live);
        }
        self.endpoints.store(Arc::new(builder.build(set.overprovisioning_factor)));
    }

    /// The counters of an address that the connection itself names (original-destination clusters).
    pub fn original_destination(&self, address: SocketAddr) -> Arc<EndpointState> {
        let mut known = self.original.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_IDLE_ORIGINAL_DESTINATIONS {
            known.retain(|_, state| Arc::strong_count(state) > 1);
        }
        Arc::clone(known.entry(address).or_insert_with(|| Arc::new(EndpointState::new(address))))
    }
}

/// The names that make up a cluster's endpoint set.
#[derive(Clone, PartialEq, Debug)]
pub struct Names {
    /// The endpoints as configured.
    pub set: Arc<EndpointSet>,
    /// How often they are looked up, and which addresses count.
    pub refresh: DnsRefresh,
    /// Only the first address of an answer becomes an endpoint (logical DNS).
    pub first_address_only: bool,
}

fn addresses<'a>(
    spec: &'a Arc<Endpoint>,
    resolved: &impl Fn(&str, u16) -> Vec<SocketAddr>,
) -> Vec<(SocketAddr, &'a Arc<Endpoint>)> {
    let found = match &spec.address {
        EndpointAddress::Socket(address) => vec![*address],
        EndpointAddress::Name { host, port } => resolved(host, *port),
    };
    found.into_iter().map(|address| (address, spec)).collect()
}

/// Collects localities, which come sorted by priority.
#[derive(Default)]
struct LiveSetBuilder {
    priorities: Vec<(u32, LivePriority)>,
}

impl LiveSetBuilder {
    fn push(&mut self, group: &LocalityEndpoints, live: Vec<LiveEndpoint>) {
        if live.is_empty() {
            return;
        }
        let (number, weight) = (group.priority, group.weight);
        if self.priorities.last().is_none_or(|(last, _)| *last != number) {
            let empty =
                LivePriority { endpoints: Vec::new(), localities: Vec::new(), uniform: true };
            self.priorities.push((number, empty));
        }
        let Some((_, priority)) = self.priorities.last_mut() else { return };
        let start = priority.endpoints.len();
        priority.endpoints.extend(live);
        let (place, range) = (group.locality.clone(), start..priority.endpoints.len());
        priority.localities.push(LocalityRange { place, weight, range });
        let first = priority.endpoints[0].spec.weight;
        let alike =
            |e: &LiveEndpoint| e.spec.health == HealthStatus::Healthy && e.spec.weight == first;
        priority.uniform &= priority.endpoints[start..].iter().all(alike);
    }

    fn build(self, overprovisioning_factor: u32) -> LiveSet {
        LiveSet {
            priorities: self.priorities.into_iter().map(|(_, priority)| priority).collect(),
            overprovisioning_factor,
        }
    }
}

impl LiveSet {
    /// All endpoints, lowest priority number first.
    pub fn iter(&self) -> impl Iterator<Item = &LiveEndpoint> {
        self.priorities.iter().flat_map(|priority| &priority.endpoints)
    }
}

/// Cluster states by name and connection-relevant hash, shared by all configurations of the
/// process.
#[derive(Debug, Default)]
pub struct StateRegistry {
    clusters: Mutex<HashMap<(String, u64), Weak<ClusterState>>>,
    own: Arc<OwnConnections>,
    peers: Arc<Peers>,
}

impl StateRegistry {
    /// Of a proxy that is here, as far as it knows.
    pub fn at(here: Locality) -> Self {
        Self { peers: Arc::new(Peers::new(here)), ..Self::default() }
    }

    /// The proxy's replicas.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The state of a cluster: the one that exists for this name and hash as long as any
    /// configuration or connection holds it, else a fresh one. `connection_hash` covers whatever
    /// decides how its endpoints are connected to.
    pub fn cluster(&self, name: &str, connection_hash: u64) -> Arc<ClusterState> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = clusters.entry((name.to_owned(), connection_hash)).or_default();
        if let Some(state) = slot.upgrade() {
            return state;
        }
        let state = Arc::new(ClusterState::new(name, &self.own, &self.peers));
        *slot = Arc::downgrade(&state);
        state
    }

    /// Connections to endpoints of all clusters.
    pub(crate) fn own(&self) -> &OwnConnections {
        &self.own
    }

    /// Every living cluster state; forgets the dead ones.
    pub fn living(&self) -> Vec<Arc<ClusterState>> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.retain(|_, state| state.strong_count() > 0);
        clusters.values().filter_map(Weak::upgrade).collect()
    }
}

/// An increment of a counter that is taken back when dropped.
#[derive(Debug)]
pub struct Held<C: AsRef<AtomicU32>>(C);

impl<C: AsRef<AtomicU32>> Held<C> {
    /// Counts one more.
    pub fn new(counter: C) -> Self {
        counter.as_ref().fetch_add(1, Relaxed);
        Self(counter)
    }

    /// Counts one more unless the counter has reached `limit`.
    pub fn below(counter: C, limit: u32) -> Option<Self> {
        let taken = counter.as_ref().fetch_add(1, Relaxed);
        let held = Self(counter);
        (taken < limit).then_some(held)
    }
}

impl<C: AsRef<AtomicU32>> Drop for Held<C> {
    fn drop(&mut self) {
        self.0.as_ref().fetch_sub(1, Relaxed);
    }
}

/// Names one counter of a cluster's [`Usage`].
#[derive(Clone, Debug)]
pub struct UsageOf(pub Arc<ClusterState>, pub fn(&Usage) -> &AtomicU32);

impl AsRef<AtomicU32> for UsageOf {
    fn as_ref(&self) -> &AtomicU32 {
        (self.1)(&self.0.usage)
    }
}

/// Names the in-flight counter of an endpoint.
#[derive(Clone, Debug)]
pub struct ActiveOf(pub Arc<EndpointState>);

impl AsRef<AtomicU32> for ActiveOf {
    fn as_ref(&self) -> &AtomicU32 {
        &self.0.active
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An endpoint on loopback.
    pub(crate) fn endpoint(port: u16, weight: u32) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            address: EndpointAddress::Socket(SocketAddr::from(([127, 0, 0, 1], port))),
            weight,
            health: HealthStatus::Healthy,
            socket_match: Default::default(),
            workload: None,
            hostname: None,
        })
    }

    /// One locality of this priority and weight.
    pub(crate) fn locality(
        priority: u32,
        weight: u32,
        endpoints: Vec<Arc<Endpoint>>,
    ) -> LocalityEndpoints {
        LocalityEndpoints { locality: Default::default(), priority, weight, endpoints }
    }

    /// A set of localities with Envoy's overprovisioning.
    pub(crate) fn set(localities: Vec<LocalityEndpoints>) -> EndpointSet {
        EndpointSet { localities, overprovisioning_factor: 140 }
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_counters() {
        let state = StateRegistry::default().cluster("a", 1);
        state.publish(&set(vec![locality(0, 1, vec![endpoint(1, 1), endpoint(2, 1)])]));
        state.endpoints().iter().next().expect("two endpoints").state.active.store(7, Relaxed);
        state.publish(&set(vec![locality(
            0,
            1,
            vec![endpoint(3, 1), endpoint(1, 1), endpoint(1, 9)],
        )]));
        let counts: Vec<_> = state
            .endpoints()
            .iter()
            .map(|e| (e.state.address.port(), e.state.active.load(Relaxed)))
            .collect();
        assert_eq!(counts, [(3, 0), (1, 7)]);
    }

    #[test]
    fn priorities_hold_their_localities() {
        let state = StateRegistry::default().cluster("a", 1);
        state.publish(&set(vec![
            locality(0, 3, vec![endpoint(1, 1)]),
            locality(0, 1, vec![endpoint(2, 1), endpoint(3, 1)]),
            locality(0, 1, vec![]),
            locality(1, 1, vec![endpoint(4, 1), endpoint(5, 2)]),
        ]));
        let live = state.endpoints();
        let ranges: Vec<Vec<(u32, Range<usize>)>> = live
            .priorities
            .iter()
            .map(|p| p.localities.iter().map(|l| (l.weight, l.range.clone())).collect())
            .collect();
        assert_eq!(ranges, [vec![(3, 0..1), (1, 1..3)], vec![(1, 0..2)]]);
        assert_eq!(live.priorities.iter().map(|p| p.uniform).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn names_are_replaced_by_their_addresses() {
        let state = StateRegistry::default().cluster("a", 1);
        let name = Endpoint {
            address: EndpointAddress::Name { host: "db".into(), port: 5432 },
            ..(*endpoint(1, 1)).clone()
        };
        let names = set(vec![locality(0, 1, vec![Arc::new(name)])]);
        state.publish_resolved(&names, |host, port| {
            assert_eq!((host, port), ("db", 5432));
            vec![([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], port).into()]
        });
        assert_eq!(state.endpoints().iter().count(), 2);
    }

    #[test]
    fn the_registry_hands_out_one_state_per_name_and_hash_while_it_lives() {
        let registry = StateRegistry::default();
        let first = registry.cluster("a", 1);
        assert!(Arc::ptr_eq(&first, &registry.cluster("a", 1)));
        assert!(!Arc::ptr_eq(&first, &registry.cluster("a", 2)));
        assert_eq!(registry.living().len(), 1);
        drop(first);
        assert!(registry.living().is_empty());
    }

    #[test]
    fn a_limit_holds_until_what_took_it_is_dropped() {
        let state = StateRegistry::default().cluster("a", 1);
        let take = || Held::below(UsageOf(Arc::clone(&state), |usage| &usage.requests), 1);
        let held = take();
        assert!(held.is_some());
        assert!(take().is_none());
        drop(held);
        assert!(take().is_some());
        assert_eq!(state.usage.requests.load(Relaxed), 0);
    }
}
