//! PeerAuthentications.

use std::sync::Arc;

use super::Lowering;
use crate::{
    dialect::istio::security::{MutualTls, MutualTlsMode, PeerAuthentication},
    ir::{PeerTls, PeerTlsPolicy, Selector},
    snapshot::Item,
};

impl Lowering<'_> {
    pub(super) fn peer_authentication(&mut self, spec: &PeerAuthentication) -> Item {
        let selector = spec.selector.as_ref().map(|s| Selector(s.match_labels.clone())).unwrap_or_default();
        let ports = match selector.is_empty() {
            // Ports belong to workloads, and only a selector names some.
            true => Default::default(),
            false => spec.port_level_mtls.iter().map(|(port, tls)| (*port, mode(tls))).collect(),
        };
        let policy =
            PeerTlsPolicy { origin: self.object.origin(), selector, mode: spec.mtls.as_ref().and_then(mode), ports };
        Item::PeerTls(Arc::new(policy))
    }
}

fn mode(tls: &MutualTls) -> Option<PeerTls> {
    match tls.mode {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(PeerTls::Disable),
        MutualTlsMode::Permissive => Some(PeerTls::Permissive),
        MutualTlsMode::Strict => Some(PeerTls::Strict),
    }
}
