//! Access policies by scope: who may call.

use std::sync::Arc;

use super::{
    by_scope::{ByScope, touch_scope},
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{
    AccessAction, AccessPolicy, AccessRule, Labels, PolicyScope, PolicyTarget, Selector, Unmatched,
};

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
    /// Access policies that govern workloads with these labels, put together with the ports and
    /// callers that other objects describe, and the default of ports that none describes; sorted by
    /// object.
    pub fn access_policies(&self, namespace: &str, labels: &Labels) -> Vec<Arc<AccessPolicy>> {
        self.record(Dep::Access(namespace.into()));
        let governs = |policy: &AccessPolicy| policy.governs(namespace, labels);
        let policies = self.snapshot().access().0.governing(namespace, governs).into_iter();
        let whole = policies.filter_map(|policy| self.whole(policy, namespace, labels));
        let mut whole: Vec<_> = whole.chain(self.default_access(namespace, labels)).collect();
        whole.sort_by(|one, other| one.origin.id.cmp(&other.origin.id));
        whole
    }

    /// A policy with what it refers to; `None`: no port that it means is there.
    fn whole(
        &self,
        policy: Arc<AccessPolicy>,
        namespace: &str,
        labels: &Labels,
    ) -> Option<Arc<AccessPolicy>> {
        if policy.ports.is_none() && policy.shared_callers.is_empty() {
            return Some(policy);
        }
        let mut whole = AccessPolicy::clone(&policy);
        if let Some(shared) = whole.ports.take() {
            let ports = self.shared_ports(&shared, namespace, labels);
            if ports.is_empty() {
                return None;
            }
            whole.target = PolicyTarget::Ports(ports);
        }
        for shared in std::mem::take(&mut whole.shared_callers) {
            match self.caller_set(&shared.set).filter(|set| !set.alternatives.is_empty()) {
                Some(set) => whole.rules.iter_mut().for_each(|r| r.narrow(&set.alternatives)),
                None => whole.rules.clear(),
            }
        }
        Some(Arc::new(whole))
    }

    /// What is said of ports that no object describes, as a policy; `None`: nothing, or that
    /// everybody passes.
    fn default_access(&self, namespace: &str, labels: &Labels) -> Option<Arc<AccessPolicy>> {
        let default = self.access_default(namespace, labels)?;
        if default.rules.contains(&AccessRule::default()) {
            return None;
        }
        let described = self.workload_ports(namespace, labels).into_iter();
        Some(Arc::new(AccessPolicy {
            origin: default.origin.clone(),
            scope: PolicyScope::Namespace(namespace.into()),
            selector: Selector::default(),
            target: PolicyTarget::Except(described.flat_map(|(_, ports)| ports).collect()),
            ports: None,
            action: AccessAction::Allow,
            authorizer: None,
            rules: default.rules.clone(),
            shared_callers: Vec::new(),
            unmatched: Unmatched::Refuse,
            dry_run: false,
        }))
    }
}
