//! PeerAuthentications.

use std::sync::Arc;

use crate::dialect::lowering::Lowering;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::istio::security::{MutualTls, MutualTlsMode, PeerAuthentication},
    ir::{PeerTls, PeerTlsPolicy, Selector},
    snapshot::Item,
};

impl Lowering<'_> {
    pub(in crate::dialect) fn peer_authentication(&mut self, spec: &PeerAuthentication) -> Item {
        let selector = spec
            .selector
            .as_ref()
            .map(|s| Selector::from(s.match_labels.clone()))
            .unwrap_or_default();
        if !selector.is_empty() && **self.namespace() == *self.mesh.root_namespace {
            let message = "in the root namespace a selector selects workloads of that namespace only, not of the mesh (in Istio: none)";
            let finding =
                Diagnostic::warning(Code::NoEffect, FieldPath::of("spec.selector"), message);
            self.note(finding.fix("put the policy into the namespace of its workloads"));
        }
        let ports = match selector.is_empty() {
            // Ports belong to workloads, and only a selector names some.
            true => Default::default(),
            false => spec
                .port_level_mtls
                .iter()
                .flatten()
                .map(|(port, tls)| (*port, mode(tls)))
                .collect(),
        };
        let policy = PeerTlsPolicy {
            origin: self.origin(),
            selector,
            mode: spec.mtls.as_ref().and_then(mode),
            ports,
        };
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
