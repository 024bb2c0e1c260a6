//! Which settings hold for a cluster: mesh < policy < subset, and a port's own block instead of all
//! of them.
//!
//! Blocks are taken whole, never field by field, as Istio does.

use std::sync::Arc;

use super::ClusterKey;
use crate::{
    ir::{
        BackendPolicy, ClientTls, ConnectionPool, LoadBalancer, MeshDefaults, OutlierDetection,
        RetryBudget, Subset, TrafficPolicy, Tunnel,
    },
    snapshot::Reader,
};

/// The settings in force for one port of a service or subset.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Traffic {
    pub(crate) load_balancer: LoadBalancer,
    pub(crate) pool: ConnectionPool,
    pub(crate) outlier: Option<OutlierDetection>,
    /// `None`: nobody said anything, so the mesh decides.
    pub(crate) tls: Option<ClientTls>,
    pub(crate) retry_budget: Option<RetryBudget>,
    pub(crate) proxy_protocol: Option<u8>,
    pub(crate) tunnel: Option<Tunnel>,
}

/// The policies of a key, whole.
pub(crate) fn whole_policies(reader: &Reader<'_>, key: &ClusterKey) -> Vec<Arc<BackendPolicy>> {
    key.policies.iter().filter_map(|id| reader.backend_policy(id).cloned()).collect()
}

/// Several policies for one host read as one: the oldest policy that says anything speaks for the
/// whole service, subsets of all of them stay, and the oldest subset of a name wins. What it leaves
/// out is as those say that fill in, the oldest first.
pub(crate) struct MergedPolicy<'a> {
    policies: Vec<&'a BackendPolicy>,
}

impl<'a> MergedPolicy<'a> {
    /// `policies` are oldest first.
    pub(crate) fn new(policies: impl IntoIterator<Item = &'a Arc<BackendPolicy>>) -> Self {
        Self { policies: policies.into_iter().map(AsRef::as_ref).collect() }
    }

    /// The object that metadata names.
    pub(crate) fn config_path(&self) -> Option<Arc<str>> {
        let first = self.policies.iter().find(|p| !p.fills_in).or(self.policies.first());
        first.map(|p| p.origin.config_path().into())
    }

    fn top(&self) -> Option<&'a TrafficPolicy> {
        let speaking = self.policies.iter().filter(|p| !p.fills_in).map(|p| &p.traffic);
        speaking.into_iter().find(|t| **t != TrafficPolicy::default())
    }

    /// Subsets in the order of age, each name once.
    pub(crate) fn subsets(&self) -> Vec<&'a Subset> {
        let mut subsets: Vec<&'a Subset> = Vec::new();
        for subset in self.policies.iter().flat_map(|p| &p.subsets) {
            if subsets.iter().all(|known| known.name != subset.name) {
                subsets.push(subset);
            }
        }
        subsets
    }

    /// Whether a subset is there; what has no name is the whole service.
    pub(crate) fn has_subset(&self, subset: &str) -> bool {
        subset.is_empty() || self.subset(subset).is_some()
    }

    /// The oldest subset of this name.
    pub(crate) fn subset(&self, name: &str) -> Option<&'a Subset> {
        self.policies.iter().flat_map(|p| &p.subsets).find(|s| &*s.name == name)
    }

    /// Whether user credentials may be used by sidecars: only a policy that selects its clients
    /// allows that.
    pub(crate) fn selects_clients(&self) -> bool {
        self.policies.iter().any(|p| p.workload_selector.is_some())
    }

    /// The settings for one port of a subset (empty: of the service).
    pub(crate) fn traffic(&self, mesh: &MeshDefaults, port: u16, subset: &str) -> Traffic {
        let mut blocks = Blocks::default();
        // The last one that is applied counts.
        for policy in self.policies.iter().rev().filter(|p| p.fills_in) {
            blocks.apply(Some(&policy.traffic), port);
        }
        blocks.apply(self.top(), port);
        blocks.apply(self.subset(subset).map(|s| &s.traffic), port);
        blocks.resolve(mesh)
    }
}

/// Blocks collected so far; `None`: inherited from the mesh.
#[derive(Default)]
struct Blocks<'a> {
    load_balancer: Option<&'a LoadBalancer>,
    pool: Option<&'a ConnectionPool>,
    outlier: Option<&'a OutlierDetection>,
    tls: Option<&'a ClientTls>,
    retry_budget: Option<RetryBudget>,
    proxy_protocol: Option<u8>,
    tunnel: Option<&'a Tunnel>,
}

impl<'a> Blocks<'a> {
    fn apply(&mut self, policy: Option<&'a TrafficPolicy>, port: u16) {
        let Some(policy) = policy else { return };
        self.load_balancer = policy.load_balancer.as_ref().or(self.load_balancer);
        self.pool = policy.connection_pool.as_ref().or(self.pool);
        self.outlier = policy.outlier.as_ref().or(self.outlier);
        self.tls = policy.tls.as_ref().or(self.tls);
        self.retry_budget = policy.retry_budget.or(self.retry_budget);
        self.proxy_protocol = policy.proxy_protocol.or(self.proxy_protocol);
        self.tunnel = policy.tunnel.as_ref().or(self.tunnel);
        if let Some(own) = policy.ports.get(&port) {
            // A port's block inherits nothing: what it leaves out is the default, not the policy's
            // value.
            self.load_balancer = own.load_balancer.as_ref();
            self.pool = own.connection_pool.as_ref();
            self.outlier = own.outlier.as_ref();
            self.tls = own.tls.as_ref();
        }
    }

    fn resolve(self, mesh: &MeshDefaults) -> Traffic {
        Traffic {
            load_balancer: self.load_balancer.cloned().unwrap_or_default(),
            pool: self.pool.or(mesh.connection_pool.as_ref()).cloned().unwrap_or_default(),
            outlier: self.outlier.or(mesh.outlier.as_ref()).cloned(),
            tls: self.tls.cloned(),
            retry_budget: self.retry_budget,
            proxy_protocol: self.proxy_protocol,
            tunnel: self.tunnel.cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ir::Labels, plan::fixture::policy};

    fn pool(max_connections: u32) -> ConnectionPool {
        ConnectionPool { max_connections: Some(max_connections), ..Default::default() }
    }

    fn subset(name: &str, traffic: TrafficPolicy) -> Subset {
        Subset { at: "".into(), name: name.into(), labels: Labels::new(), traffic }
    }

    #[test]
    fn a_block_of_a_subset_replaces_the_block_of_the_policy_whole() {
        let mut rule = policy("default", "rule", "reviews.default.svc.cluster.local");
        rule.traffic.connection_pool = Some(ConnectionPool { max_requests: Some(7), ..pool(100) });
        rule.traffic.outlier =
            Some(OutlierDetection { consecutive_5xx: Some(3), ..Default::default() });
        rule.subsets = vec![subset(
            "v1",
            TrafficPolicy { connection_pool: Some(pool(5)), ..Default::default() },
        )];
        let rule = Arc::new(rule);
        let traffic = MergedPolicy::new([&rule]).traffic(&MeshDefaults::default(), 80, "v1");
        assert_eq!(traffic.pool, pool(5));
        assert_eq!(traffic.outlier.and_then(|o| o.consecutive_5xx), Some(3));
    }

    #[test]
    fn a_block_of_a_port_inherits_nothing() {
        let mut rule = policy("default", "rule", "reviews.default.svc.cluster.local");
        rule.traffic.connection_pool = Some(pool(100));
        rule.traffic.tls = Some(ClientTls::Disable);
        let own = TrafficPolicy { connection_pool: Some(pool(1)), ..Default::default() };
        rule.traffic.ports.insert(9080, own);
        let rule = Arc::new(rule);
        let merged = MergedPolicy::new([&rule]);
        let mesh = MeshDefaults::default();
        assert_eq!(
            (merged.traffic(&mesh, 9080, "").pool, merged.traffic(&mesh, 9080, "").tls),
            (pool(1), None)
        );
        assert_eq!(merged.traffic(&mesh, 80, "").tls, Some(ClientTls::Disable));
    }

    #[test]
    fn what_fills_in_gives_the_blocks_that_are_left_out() {
        let budget = |percent| Some(RetryBudget { percent, minimum: 3, window: None });
        let outlier = || Some(OutlierDetection { consecutive_5xx: Some(7), ..Default::default() });
        let filling = |name: &str, traffic| {
            let policy = policy("default", name, "reviews.default.svc.cluster.local");
            Arc::new(BackendPolicy { fills_in: true, traffic, ..policy })
        };
        let old = filling("a", TrafficPolicy { retry_budget: budget(20), ..Default::default() });
        let young = filling(
            "b",
            TrafficPolicy {
                retry_budget: budget(50),
                outlier: outlier(),
                connection_pool: Some(pool(9)),
                ..Default::default()
            },
        );
        let mut rule = policy("default", "rule", "reviews.default.svc.cluster.local");
        rule.traffic.connection_pool = Some(pool(1));
        let rule = Arc::new(rule);
        let mesh = MeshDefaults::default();
        let merged = MergedPolicy::new([&old, &young, &rule]).traffic(&mesh, 80, "");
        assert_eq!((merged.pool, merged.retry_budget), (pool(1), budget(20)));
        assert_eq!(merged.outlier, outlier());
        let alone = MergedPolicy::new([&old, &young]).traffic(&mesh, 80, "");
        assert_eq!(alone.pool, pool(9));
    }

    #[test]
    fn the_oldest_policy_speaks_for_the_service_and_subsets_of_all_stay() {
        let mut old = policy("default", "a", "reviews.default.svc.cluster.local");
        old.subsets = vec![subset("v1", TrafficPolicy::default())];
        let mut young = policy("default", "b", "reviews.default.svc.cluster.local");
        young.traffic.connection_pool = Some(pool(9));
        young.subsets = vec![
            subset("v1", TrafficPolicy { connection_pool: Some(pool(1)), ..Default::default() }),
            subset("v2", TrafficPolicy::default()),
        ];
        let (old, young) = (Arc::new(old), Arc::new(young));
        let merged = MergedPolicy::new([&old, &young]);
        let mesh = MeshDefaults::default();
        assert_eq!(merged.subsets().iter().map(|s| &*s.name).collect::<Vec<_>>(), ["v1", "v2"]);
        // The older rule is silent about the service as a whole, so the younger one speaks.
        assert_eq!(merged.traffic(&mesh, 80, "v1").pool, pool(9));
    }
}
