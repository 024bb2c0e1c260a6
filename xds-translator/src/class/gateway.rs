//! The view of a gateway.

use std::{collections::BTreeSet, sync::Arc};

use super::{Facts, credentials};
use crate::{
    ir::GatewayConfig,
    plan::{CaptureMode, GatewayKey, ViewKey},
};

impl Facts<'_> {
    /// The view, and the credentials that its configuration speaks of.
    pub(super) fn gateway_view(&self) -> (Vec<ViewKey>, BTreeSet<Arc<str>>) {
        let gateways = self.snapshot.gateways().selecting(&self.labels);
        let key = GatewayKey {
            namespace: self.namespace().clone(),
            gateways: gateways.iter().map(|g| g.origin.id.clone()).collect(),
            labels: self.labels.clone(),
            client_labels: self.client_labels(),
            ports: self.listener_ports(&gateways),
            locality: self.locality(),
            bind: match &self.node.facts.capture {
                CaptureMode::Redirect => None,
                CaptureMode::None { inbound, .. } => *inbound,
            },
            service_account: self.service_account.clone(),
            features: self.features(None),
        };
        let mut names: BTreeSet<Arc<str>> = gateways.iter().flat_map(|g| credentials::of_servers(g)).collect();
        names.extend(self.snapshot.backends().credentials_visible_to(self.namespace()));
        (vec![ViewKey::Gateway(key)], names)
    }

    /// Server ports and the ports of the workload that Services lead them to; ports that no server uses are left out.
    fn listener_ports(&self, gateways: &[Arc<GatewayConfig>]) -> Vec<(u16, u16)> {
        let used: BTreeSet<u16> = gateways.iter().flat_map(|g| &g.servers).map(|s| s.port).collect();
        let leading = self.service_ports().into_iter().map(|(_, number, target)| (number, target));
        let pairs: BTreeSet<(u16, u16)> = leading.filter(|(number, _)| used.contains(number)).collect();
        pairs.into_iter().collect()
    }
}
