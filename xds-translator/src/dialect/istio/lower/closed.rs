//! What stands in for an AuthorizationPolicy that was read, cannot be expressed at all, and of which
//! no version was ever accepted: what it could mean, with every door closed.

use crate::{
    dialect::{
        istio::{
            security::{Action, AuthorizationPolicy},
            shared::TargetRef,
        },
        lowering::Lowering,
    },
    ir::{AccessAction, AccessRule, Labels, Selector},
    snapshot::Item,
};

/// Labels of the pods of a Gateway and of a GatewayClass (Gateway API).
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const GATEWAY_CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";

impl Lowering<'_> {
    /// What it denies is everything, what it allows is nothing; an audit guards nothing.
    pub(super) fn closed_access(&mut self, spec: &AuthorizationPolicy) -> Option<Item> {
        let (action, rules) = match spec.action {
            Action::Allow => (AccessAction::Allow, Vec::new()),
            Action::Deny | Action::Custom => (AccessAction::Deny, vec![AccessRule::default()]),
            Action::Audit => return None,
        };
        let written = || spec.selector.as_ref().map(|s| Selector::from(s.match_labels.clone()));
        let selector = target(spec).or_else(written).unwrap_or_default();
        Some(self.access_policy(selector, action, rules))
    }
}

/// The workloads that a policy is attached to, if they can be told from its target alone; else all
/// of its scope are meant.
fn target(spec: &AuthorizationPolicy) -> Option<Selector> {
    let mut targets = spec.target_refs.iter().chain(&spec.target_ref);
    let (Some(TargetRef { kind, name, .. }), None) = (targets.next(), targets.next()) else {
        return None;
    };
    let label = match &**kind {
        "Gateway" => GATEWAY_NAME,
        "GatewayClass" => GATEWAY_CLASS,
        _ => return None,
    };
    (!name.is_empty()).then(|| Selector::from(Labels::from([(label.into(), name.clone())])))
}
