//! The state of a cluster that outlives a configuration: its endpoint set, the counters of each endpoint, and how
//! much of the circuit breakers' limits is in use.
//!
//! All counters are relaxed atomics shared by the workers: each is a statistic or a limit, none guards memory. The
//! endpoint set is replaced as a whole; an endpoint that stays keeps its counters.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;

/// Endpoints of an original-destination cluster that nobody uses are forgotten once this many are known.
const MAX_IDLE_ORIGINAL_DESTINATIONS: usize = 1024;

/// Who runs behind an endpoint, for metric labels: the parts of Istio's `istio.workload` endpoint metadata.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Workload {
    /// The workload's name, such as `reviews-v1`; may be empty.
    pub name: Arc<str>,
    /// Its namespace; may be empty.
    pub namespace: Arc<str>,
    /// The canonical service it belongs to; may be empty.
    pub canonical_service: Arc<str>,
    /// The canonical revision; may be empty.
    pub canonical_revision: Arc<str>,
    /// The Kubernetes cluster it runs in; may be empty.
    pub kube_cluster: Arc<str>,
}

impl Workload {
    /// Reads Istio's `name;namespace;canonical service;canonical revision;cluster`; missing parts stay empty.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(Arc::from);
        let mut next = || parts.next().unwrap_or_default();
        Self {
            name: next(),
            namespace: next(),
            canonical_service: next(),
            canonical_revision: next(),
            kube_cluster: next(),
        }
    }
}

/// One endpoint as configuration describes it.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointSpec {
    /// Where to connect to.
    pub address: SocketAddr,
    /// Share of the load inside its locality; at least 1.
    pub weight: u32,
    /// Lower is used first.
    pub priority: u32,
    /// Index of its locality among the cluster's localities of that priority.
    pub locality: u32,
    /// Share of its locality where load is split by locality weight; equal for all endpoints of a locality.
    pub locality_weight: u32,
    /// False when EDS says that it is unhealthy, draining or timed out.
    pub healthy: bool,
    /// Index into the compiled cluster's transports.
    pub transport: usize,
    /// Who runs there, if configuration says so.
    pub workload: Option<Arc<Workload>>,
}

/// A name to be resolved, every address of which becomes an endpoint like `spec`.
#[derive(Clone, PartialEq, Debug)]
pub struct DnsTarget {
    /// The name, or an address written as text.
    pub host: Arc<str>,
    /// The port to connect to.
    pub port: u16,
    /// The endpoint's other properties; its `address` is overwritten by each answer.
    pub spec: EndpointSpec,
}

/// Counters of one address of one cluster; shared by all workers and kept while the address stays in the set.
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
    /// How often it has been ejected; the next ejection lasts that many times longer.
    pub ejections: AtomicU32,
    /// Milliseconds on the cluster's clock until which it is ejected; 0 when it is not.
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

/// One endpoint of the current set.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its counters, shared with earlier and later sets.
    pub state: Arc<EndpointState>,
    /// What configuration says of it.
    pub spec: EndpointSpec,
}

/// The endpoints of one priority.
#[derive(Clone, Debug, Default)]
pub struct Priority {
    /// In configured order; never empty.
    pub endpoints: Vec<Endpoint>,
    /// Whether some weights or healths differ, so that the balancer must look at each.
    pub uniform: bool,
}

/// An immutable set of endpoints, lowest priority number first.
#[derive(Clone, Debug, Default)]
pub struct EndpointSet {
    /// Priorities that have endpoints; may be empty.
    pub priorities: Vec<Priority>,
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
    endpoints: ArcSwap<EndpointSet>,
    dns: ArcSwap<Vec<DnsTarget>>,
    original: Mutex<FxHashMap<SocketAddr, Arc<EndpointState>>>,
    epoch: Instant,
}

impl ClusterState {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            usage: Usage::default(),
            turn: AtomicUsize::new(0),
            endpoints: ArcSwap::default(),
            dns: ArcSwap::default(),
            original: Mutex::default(),
            epoch: Instant::now(),
        }
    }

    /// Milliseconds on this cluster's clock, as outlier detection counts them; starts at 1, so that 0 can mean never.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The current endpoints.
    pub fn endpoints(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        self.endpoints.load()
    }

    /// Replaces the endpoint set; endpoints whose address stays keep their counters. Equal addresses are kept once.
    pub fn replace_endpoints(&self, specs: Vec<EndpointSpec>) {
        let previous = self.endpoints.load();
        let known: HashMap<SocketAddr, &Arc<EndpointState>> =
            previous.iter().map(|endpoint| (endpoint.spec.address, &endpoint.state)).collect();
        let mut fresh: HashMap<SocketAddr, Endpoint> = HashMap::with_capacity(specs.len());
        let mut order: Vec<(u32, SocketAddr)> = Vec::with_capacity(specs.len());
        for spec in specs {
            let state = known.get(&spec.address).map_or_else(|| Arc::new(EndpointState::new(spec.address)), |s| Arc::clone(s));
            let (priority, address) = (spec.priority, spec.address);
            if fresh.insert(address, Endpoint { state, spec }).is_none() {
                order.push((priority, address));
            }
        }
        order.sort_by_key(|(priority, _)| *priority);
        self.endpoints.store(Arc::new(EndpointSet::from_sorted(order.iter().filter_map(|(_, a)| fresh.remove(a)))));
    }

    /// Sets the names whose addresses make up the endpoint set; the resolver task looks them up soon after.
    pub fn resolve(&self, targets: Vec<DnsTarget>) {
        if **self.dns.load() != targets {
            self.dns.store(Arc::new(targets));
        }
    }

    /// The names to resolve; empty for a cluster whose endpoints are addresses.
    pub fn dns_targets(&self) -> Arc<Vec<DnsTarget>> {
        self.dns.load_full()
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

impl EndpointSet {
    fn from_sorted(endpoints: impl Iterator<Item = Endpoint>) -> Self {
        let mut set = Self::default();
        let mut last = None;
        for endpoint in endpoints {
            if last != Some(endpoint.spec.priority) {
                set.priorities.push(Priority { endpoints: Vec::new(), uniform: true });
            }
            last = Some(endpoint.spec.priority);
            if let Some(priority) = set.priorities.last_mut() {
                let first = priority.endpoints.first().map_or(endpoint.spec.weight, |first| first.spec.weight);
                priority.uniform &= endpoint.spec.healthy && endpoint.spec.weight == first;
                priority.endpoints.push(endpoint);
            }
        }
        set
    }

    /// All endpoints, lowest priority number first.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.priorities.iter().flat_map(|priority| &priority.endpoints)
    }
}

/// Cluster states by name and connection-relevant hash, shared by all configurations of the process.
#[derive(Debug, Default)]
pub struct StateRegistry {
    clusters: Mutex<HashMap<(String, u64), Weak<ClusterState>>>,
}

impl StateRegistry {
    /// The state of a cluster: the one that exists for this name and hash as long as any configuration or connection
    /// holds it, else a fresh one. `connection_hash` covers whatever decides how its endpoints are connected to.
    pub fn cluster(&self, name: &str, connection_hash: u64) -> Arc<ClusterState> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = clusters.entry((name.to_owned(), connection_hash)).or_default();
        if let Some(state) = slot.upgrade() {
            return state;
        }
        let state = Arc::new(ClusterState::new(name));
        *slot = Arc::downgrade(&state);
        state
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

    pub(crate) fn spec(port: u16) -> EndpointSpec {
        EndpointSpec {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            weight: 1,
            priority: 0,
            locality: 0,
            locality_weight: 1,
            healthy: true,
            transport: 0,
            workload: None,
        }
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_counters() {
        let state = StateRegistry::default().cluster("a", 1);
        state.replace_endpoints(vec![spec(1), spec(2)]);
        state.endpoints().iter().next().expect("two endpoints").state.active.store(7, Relaxed);
        state.replace_endpoints(vec![spec(3), spec(1)]);
        let counts: Vec<_> =
            state.endpoints().iter().map(|e| (e.spec.address.port(), e.state.active.load(Relaxed))).collect();
        assert_eq!(counts, [(3, 0), (1, 7)]);
    }

    #[test]
    fn priorities_are_sorted_and_grouped() {
        let state = StateRegistry::default().cluster("a", 1);
        let at = |port, priority, weight| EndpointSpec { priority, weight, ..spec(port) };
        state.replace_endpoints(vec![at(1, 1, 1), at(2, 0, 1), at(3, 1, 5), at(2, 0, 1)]);
        let set = state.endpoints();
        let ports: Vec<Vec<u16>> = set
            .priorities
            .iter()
            .map(|p| p.endpoints.iter().map(|e| e.spec.address.port()).collect())
            .collect();
        assert_eq!(ports, [vec![2], vec![1, 3]]);
        assert_eq!(set.priorities.iter().map(|p| p.uniform).collect::<Vec<_>>(), [true, false]);
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

    #[test]
    fn istio_workload_metadata_may_lack_parts() {
        let workload = Workload::parse("reviews-v1;default;reviews;v1;Kubernetes");
        assert_eq!((&*workload.name, &*workload.kube_cluster), ("reviews-v1", "Kubernetes"));
        assert_eq!(&*Workload::parse("a;b").canonical_service, "");
    }
}
