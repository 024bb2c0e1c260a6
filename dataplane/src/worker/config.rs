//! The configuration in force: what `compile` made, with the clusters' states bound to it.

use std::{fmt, ops::Deref, sync::Arc};

use rustc_hash::FxHashMap;

use crate::{runtime::RuntimeConfig, upstream::LiveCluster};

/// One complete configuration; replaced as a whole.
#[derive(Default)]
pub struct ActiveConfig {
    runtime: RuntimeConfig,
    clusters: FxHashMap<Arc<str>, Arc<LiveCluster>>,
}

impl ActiveConfig {
    /// Indexes clusters that are ready to serve.
    pub fn new(
        runtime: RuntimeConfig,
        clusters: impl IntoIterator<Item = Arc<LiveCluster>>,
    ) -> Self {
        let named = clusters.into_iter().map(|cluster| (Arc::clone(&cluster.name), cluster));
        Self { runtime, clusters: named.collect() }
    }

    /// The cluster of this name, if it is ready.
    pub fn cluster(&self, name: &str) -> Option<&Arc<LiveCluster>> {
        self.clusters.get(name)
    }

    /// Every cluster, in no order.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<LiveCluster>> {
        self.clusters.values()
    }
}

impl Deref for ActiveConfig {
    type Target = RuntimeConfig;

    fn deref(&self) -> &RuntimeConfig {
        &self.runtime
    }
}

impl fmt::Debug for ActiveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveConfig")
            .field("runtime", &self.runtime)
            .field("clusters", &self.clusters.len())
            .finish()
    }
}
