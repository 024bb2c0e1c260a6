//! What becomes of traffic for unknown destinations, by scope.

use std::sync::Arc;

use super::{
    by_scope::{ByScope, touch_scope},
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{OutboundPolicy, OutboundTraffic, SidecarScope};

/// Every policy of outbound traffic.
#[derive(Clone, Default, Debug)]
pub(crate) struct OutboundPolicies(ByScope<OutboundPolicy>);

impl Family for OutboundPolicies {
    type Item = OutboundPolicy;

    fn insert(&mut self, policy: &Arc<OutboundPolicy>) {
        self.0.insert(&policy.scope, &policy.origin, policy);
    }

    fn remove(&mut self, policy: &OutboundPolicy) {
        self.0.remove(&policy.scope, &policy.origin);
    }

    fn touch(versions: &[&Arc<OutboundPolicy>], touch: &mut Touch<'_>) {
        versions.iter().for_each(|policy| touch_scope(&policy.scope, Dep::Outbound, touch));
    }
}

impl Reader<'_> {
    /// What becomes of traffic for unknown destinations: as a policy says that refuses it, else as
    /// the scope of the sidecar says, else as a policy says that lets it pass, else as the mesh says.
    pub fn unknown_traffic(
        &self,
        namespace: &str,
        scope: Option<&SidecarScope>,
    ) -> OutboundTraffic {
        self.record(Dep::Outbound(namespace.into()));
        let policies = self.snapshot().outbound_policies().0.governing(namespace, |_| true);
        if policies.iter().any(|policy| !policy.allowed) {
            return OutboundTraffic::RegistryOnly;
        }
        let passes = (!policies.is_empty()).then_some(OutboundTraffic::AllowAny);
        let own = scope.and_then(|scope| scope.outbound_traffic.clone());
        own.or(passes).unwrap_or_else(|| self.mesh().outbound_traffic.clone())
    }
}
