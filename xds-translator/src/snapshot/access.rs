//! Access policies by scope: who may call.

use std::sync::Arc;

use super::{
    by_scope::{ByScope, touch_scope},
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{AccessPolicy, Labels};

/// Every access policy of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct AccessPolicies(ByScope<AccessPolicy>);

impl Family for AccessPolicies {
    type Item = AccessPolicy;

    fn insert(&mut self, policy: &Arc<AccessPolicy>) {
        self.0.insert(&policy.scope, &policy.origin, policy);
    }

    fn remove(&mut self, policy: &AccessPolicy) {
        self.0.remove(&policy.scope, &policy.origin);
    }

    fn touch(versions: &[&Arc<AccessPolicy>], touch: &mut Touch<'_>) {
        versions.iter().for_each(|policy| touch_scope(&policy.scope, Dep::Access, touch));
    }
}

impl Reader<'_> {
    /// Access policies that govern workloads with these labels; sorted by object.
    pub fn access_policies(&self, namespace: &str, labels: &Labels) -> Vec<Arc<AccessPolicy>> {
        self.record(Dep::Access(namespace.into()));
        let governs = |policy: &AccessPolicy| policy.governs(namespace, labels);
        self.snapshot().access().0.governing(namespace, governs)
    }
}
