//! `policy.linkerd.io EgressNetwork`: whether traffic leaves the cluster.

use std::sync::Arc;

use super::authentication::CallerNetwork;
use crate::{
    dialect::{
        lowering::Lowering,
        schema::{choice, object},
        spec::Spec,
    },
    ir::{OutboundPolicy, PolicyScope},
    snapshot::Item,
};

/// The namespace whose objects are for all namespaces, as Linkerd has it unless it is told another.
const EVERYWHERE: &str = "linkerd-egress";

object! { no_null;
    /// Whether traffic leaves the cluster.
    EgressNetwork {
        /// What becomes of traffic for hosts and addresses that the mesh does not know.
        "trafficPolicy" traffic_policy: EgressTraffic [required],
        /// Which addresses are meant.
        "networks" networks: Vec<CallerNetwork> [refused("only all addresses that the mesh does not know can be meant; a ServiceEntry lets single ones be reached")],
    }
}

choice! {
    /// What becomes of traffic that leaves the cluster.
    EgressTraffic {
        /// It is refused.
        Deny = "Deny",
        /// It passes.
        Allow = "Allow",
    }
}

impl Spec for EgressNetwork {
    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        let namespace = lowering.namespace().clone();
        vec![Item::Outbound(Arc::new(OutboundPolicy {
            origin: lowering.origin(),
            scope: match &*namespace {
                EVERYWHERE => PolicyScope::Mesh,
                _ => PolicyScope::Namespace(namespace),
            },
            allowed: self.traffic_policy == EgressTraffic::Allow,
        }))]
    }
}
