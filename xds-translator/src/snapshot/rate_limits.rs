//! Rate limits by scope.

use std::sync::Arc;

use super::{
    by_scope::{ByScope, touch_scope},
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{Labels, RateLimit};

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
    /// Rate limits of workloads with these labels; sorted by object.
    pub fn rate_limits(&self, namespace: &str, labels: &Labels) -> Vec<Arc<RateLimit>> {
        self.record(Dep::RateLimits(namespace.into()));
        let governs = |limit: &RateLimit| limit.selector.matches(labels);
        self.snapshot().rate_limits().0.governing(namespace, governs)
    }
}
