//! The view of a gateway.

use std::{collections::BTreeSet, sync::Arc};

use super::{Facts, credentials};
use crate::{
    ir::{GatewayConfig, ProxySide, Workload},
    plan::{CaptureMode, GatewayKey, ViewKey},
    snapshot::MeshSnapshot,
};

/// Whether some Gateway selects a workload by its labels. One without a selector is for all
/// gateways, and makes nobody one.
pub(crate) fn is_gateway(snapshot: &MeshSnapshot, workload: &Workload) -> bool {
    let selecting = snapshot.gateways().selecting(&workload.labels);
    selecting.iter().any(|gateway| !gateway.selector.is_empty())
}

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
            knows_peers: self.zones_matter(),
            bind: match &self.node.facts.capture {
                CaptureMode::Redirect => None,
                CaptureMode::None { inbound, .. } => *inbound,
            },
            service_account: self.service_account.clone(),
            edge: self.workload.and_then(|workload| workload.edge),
            features: self.features(None),
            telemetry: self.telemetry(),
            patches: self.patches(ProxySide::Gateway),
        };
        (vec![ViewKey::Gateway(key)], self.credentials(&gateways))
    }

    /// Credentials of servers and of policies for what is sent out. None for a proven proxy that no
    /// Gateway selects by its labels: whoever has an account could call itself a gateway.
    fn credentials(&self, gateways: &[Arc<GatewayConfig>]) -> BTreeSet<Arc<str>> {
        let selected = || self.workload.is_some_and(|w| is_gateway(self.snapshot, w));
        if self.node.proven.is_some() && !selected() {
            return BTreeSet::new();
        }
        let mut names: BTreeSet<Arc<str>> =
            gateways.iter().flat_map(|g| credentials::of_servers(g)).collect();
        names.extend(self.snapshot.backends().credentials_visible_to(self.namespace()));
        names
    }

    /// Server ports and the ports of the workload that Services lead them to; ports that no server
    /// uses are left out.
    fn listener_ports(&self, gateways: &[Arc<GatewayConfig>]) -> Vec<(u16, u16)> {
        let used: BTreeSet<u16> =
            gateways.iter().flat_map(|g| &g.servers).map(|s| s.port).collect();
        let leading = self.service_ports().into_iter().map(|(_, number, target)| (number, target));
        let pairs: BTreeSet<(u16, u16)> =
            leading.filter(|(number, _)| used.contains(number)).collect();
        pairs.into_iter().collect()
    }
}
