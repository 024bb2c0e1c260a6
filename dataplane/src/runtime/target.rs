//! Where a route or a TCP proxy sends: one cluster, one of several by weight, or one that a header
//! names.

use std::sync::Arc;

use super::{filter::FilterOverrides, format::HeaderMutations};

/// One cluster, several by weight, or one that a header names.
#[derive(Clone, Debug)]
pub enum ClusterChoice {
    /// This one.
    One(Arc<str>),
    /// By weight.
    Weighted(WeightedClusters),
    /// The one that the header of this lower-case name names; none if it is missing.
    Header(Arc<str>),
}

/// Several clusters of which one is chosen by weight.
#[derive(Clone, Debug)]
pub struct WeightedClusters {
    clusters: Vec<WeightedCluster>,
    total: u64,
}

impl WeightedClusters {
    /// Sums the weights up; `None` if the sum is zero.
    pub fn new(clusters: Vec<WeightedCluster>) -> Option<Self> {
        let total = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
        (total > 0).then_some(Self { clusters, total })
    }

    /// Every target.
    pub fn clusters(&self) -> &[WeightedCluster] {
        &self.clusters
    }

    /// The target for a random number: over all numbers each gets its share.
    pub fn pick(&self, random: u64) -> &WeightedCluster {
        let mut point = random % self.total;
        let chosen = self.clusters.iter().find(|cluster| {
            let weight = u64::from(cluster.weight);
            let inside = point < weight;
            point = point.saturating_sub(weight);
            inside
        });
        chosen.expect("the point is below the sum of the weights")
    }
}

/// One target of several, chosen by weight.
#[derive(Clone, Debug)]
pub struct WeightedCluster {
    /// The cluster's name.
    pub name: Arc<str>,
    /// Share of the total.
    pub weight: u32,
    /// Header changes for this target, applied before the route's.
    pub headers: HeaderMutations,
    /// Changes the host for this target only.
    pub host_rewrite: Option<Arc<str>>,
    /// What is set for filters, for this target alone.
    pub overrides: FilterOverrides,
}
