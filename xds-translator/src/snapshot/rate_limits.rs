//! Rate limits by scope.

use std::sync::Arc;

use super::{
    by_scope::{ByScope, touch_scope},
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{Labels, ObjectId, PolicyTarget, RateLimit};

/// Every rate limit of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct RateLimits(ByScope<RateLimit>);

impl Family for RateLimits {
    type Item = RateLimit;

    fn insert(&mut self, limit: &Arc<RateLimit>) {
        self.0.insert(&limit.scope, &limit.origin, limit);
    }

    fn remove(&mut self, limit: &RateLimit) {
        self.0.remove(&limit.scope, &limit.origin);
    }

    fn touch(versions: &[&Arc<RateLimit>], touch: &mut Touch<'_>) {
        versions.iter().for_each(|limit| touch_scope(&limit.scope, Dep::RateLimits, touch));
    }
}

impl Reader<'_> {
    /// Rate limits of workloads with these labels, put together with the ports that other objects
    /// describe, and of the proxies that serve these gateway
    /// objects; sorted by object.
    pub fn rate_limits(
        &self,
        namespace: &str,
        labels: &Labels,
        gateways: &[ObjectId],
    ) -> Vec<Arc<RateLimit>> {
        self.record(Dep::RateLimits(namespace.into()));
        let governs = |limit: &RateLimit| limit.selector.matches(labels) && limit.is_for(gateways);
        let limits = self.snapshot().rate_limits().0.governing(namespace, governs).into_iter();
        limits.filter_map(|limit| self.whole_limit(limit, namespace, labels)).collect()
    }

    /// A limit with the ports to which it refers; `None`: none of them is there.
    fn whole_limit(
        &self,
        limit: Arc<RateLimit>,
        namespace: &str,
        labels: &Labels,
    ) -> Option<Arc<RateLimit>> {
        let Some(shared) = &limit.ports else { return Some(limit) };
        let ports = self.shared_ports(shared, namespace, labels);
        let target = (!ports.is_empty()).then_some(PolicyTarget::Ports(ports))?;
        Some(Arc::new(RateLimit { target, ports: None, ..RateLimit::clone(&limit) }))
    }

    /// Rate limits of any workload of a namespace, as lowered; sorted by object.
    pub fn rate_limits_of(&self, namespace: &str) -> Vec<Arc<RateLimit>> {
        self.record(Dep::RateLimits(namespace.into()));
        self.snapshot().rate_limits().0.governing(namespace, |_| true)
    }
}
