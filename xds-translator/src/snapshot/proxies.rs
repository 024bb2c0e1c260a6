//! What proxies are started with, by level: the mesh, a namespace, a workload.

use std::sync::Arc;

use super::{
    MeshSnapshot,
    family::{Family, Touch},
    levels::Levels,
};
use crate::ir::{Labels, ProxyPolicy, ProxyStart};

/// Every policy of how proxies are started.
#[derive(Clone, Default, Debug)]
pub(crate) struct ProxyPolicies(Levels<ProxyPolicy>);

impl Family for ProxyPolicies {
    type Item = ProxyPolicy;

    fn insert(&mut self, policy: &Arc<ProxyPolicy>) {
        self.0.insert(policy);
    }

    fn remove(&mut self, policy: &ProxyPolicy) {
        self.0.remove(policy);
    }

    /// Proxies that run already have been started.
    fn touch(_: &[&Arc<ProxyPolicy>], _: &mut Touch<'_>) {}
}

impl MeshSnapshot {
    /// What a proxy of a namespace with these labels is started with, as far as objects say it.
    pub fn proxy_start(&self, namespace: &str, labels: &Labels) -> ProxyStart {
        let mesh = self.mesh();
        let levels = self.proxies().0.levels(&mesh.root_namespace, namespace, labels);
        let said = levels.into_iter().flatten().map(|policy| policy.start.clone());
        let said = said.reduce(|special, general| special.over(&general)).unwrap_or_default();
        said.over(&mesh.proxy)
    }
}
