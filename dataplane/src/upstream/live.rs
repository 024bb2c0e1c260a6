//! A cluster in use: what configuration says of it, and the state that outlives it.

use std::{
    hash::{Hash, Hasher},
    mem,
    ops::Deref,
    sync::Arc,
};

use rustc_hash::FxHasher;

use super::{ClusterState, StateRegistry};
use crate::runtime::cluster::{Cluster, ConnectionSettings, Discovery};

/// A compiled cluster with its state; reads as the cluster.
#[derive(Clone, Debug)]
pub struct LiveCluster {
    spec: Cluster,
    /// What outlives the configuration.
    pub state: Arc<ClusterState>,
}

impl LiveCluster {
    /// Gives a cluster the state that is kept under its name as long as its endpoints are reached
    /// in the same way.
    pub fn bind(registry: &StateRegistry, spec: Cluster) -> Self {
        let hash = connection_hash(&spec.discovery, &spec.connection);
        let state = registry.cluster(&spec.name, hash);
        Self { spec, state }
    }
}

impl Deref for LiveCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.spec
    }
}

/// What decides how endpoints are connected to: clusters that differ here share no state.
fn connection_hash(discovery: &Discovery, connection: &ConnectionSettings) -> u64 {
    let mut hasher = FxHasher::default();
    mem::discriminant(discovery).hash(&mut hasher);
    connection.hash(&mut hasher);
    hasher.finish()
}
