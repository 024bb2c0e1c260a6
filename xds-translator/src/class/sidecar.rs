//! The views of a sidecar: outbound, and inbound once its workload is known.

use std::{collections::BTreeSet, sync::Arc};

use super::Facts;
use crate::{
    ir::{Discovery, MeshTls, ObjectId, ProxySide, ServiceKey, Workload},
    plan::{CaptureMode, Features, InboundKey, OutboundKey, ViewKey},
};

impl Facts<'_> {
    pub(super) fn sidecar_views(&self) -> Vec<ViewKey> {
        let mut views = vec![ViewKey::Outbound(self.outbound())];
        views.extend(self.inbound().map(ViewKey::Inbound));
        views
    }

    /// Credentials of policies that select the workload, for what is sent out. None while it is not
    /// known: nobody vouches for its labels.
    pub(super) fn sidecar_credentials(&self) -> BTreeSet<Arc<str>> {
        let Some(workload) = self.workload else { return BTreeSet::new() };
        let backends = self.snapshot.backends();
        backends.credentials_of_client(self.namespace(), &workload.labels).collect()
    }

    fn scope(&self) -> Option<ObjectId> {
        let root = &self.snapshot.mesh().root_namespace;
        self.snapshot
            .scopes()
            .of(root, self.namespace(), &self.labels)
            .map(|scope| scope.origin.id.clone())
    }

    pub(super) fn outbound(&self) -> OutboundKey {
        let mesh_port = self.snapshot.mesh().http_proxy_port;
        OutboundKey {
            namespace: self.namespace().clone(),
            scope: self.scope(),
            client_labels: self.client_labels(),
            locality: self.locality(),
            knows_peers: self.zones_matter(),
            // The inbound addresses shape the inbound view only.
            capture: match &self.node.facts.capture {
                CaptureMode::Redirect => CaptureMode::Redirect,
                CaptureMode::None { outbound, .. } => {
                    CaptureMode::None { outbound: *outbound, inbound: None, application: None }
                }
            },
            features: Features {
                captures_dns: self.node.facts.captures_dns,
                ..self.features(self.node.facts.http_proxy_port.or(mesh_port))
            },
            telemetry: self.telemetry(),
            patches: self.patches(ProxySide::Outbound),
        }
    }

    /// `None` for a proven proxy whose workload is not known yet. On the plaintext port labels from
    /// the metadata stand in.
    fn inbound(&self) -> Option<InboundKey> {
        if self.workload.is_none() && (self.node.proven.is_some() || self.labels.is_empty()) {
            return None;
        }
        let (capture, address) = match &self.node.facts.capture {
            CaptureMode::Redirect => (CaptureMode::Redirect, None),
            CaptureMode::None { inbound, application, .. } => {
                let own = inbound.is_none().then(|| self.address());
                (
                    CaptureMode::None {
                        outbound: None,
                        inbound: *inbound,
                        application: *application,
                    },
                    own,
                )
            }
        };
        Some(InboundKey {
            namespace: self.namespace().clone(),
            labels: self.labels.clone(),
            service_account: self.service_account.clone(),
            ports: self.service_ports(),
            scope: self.scope(),
            capture,
            address,
            features: self.features(None),
            telemetry: self.telemetry(),
            patches: self.patches(ProxySide::Inbound),
        })
    }

    /// Service ports that lead to the workload: (service, service port, container port); sorted,
    /// unique.
    pub(super) fn service_ports(&self) -> Vec<(ServiceKey, u16, u16)> {
        let stand_in;
        let workload = match self.workload {
            Some(workload) => workload,
            None => {
                stand_in = self.unregistered();
                &stand_in
            }
        };
        self.snapshot.ports_of(workload)
    }

    /// A workload as its node describes it.
    fn unregistered(&self) -> Workload {
        let id = self.node.workload.clone();
        let object = ObjectId {
            kind: crate::dialect::Kind::POD,
            namespace: id.namespace.clone(),
            name: id.name.clone(),
        };
        Workload {
            origin: crate::ir::Origin { id: object, created: 0 },
            addresses: vec![self.node.address],
            host: None,
            labels: self.labels.clone(),
            service_account: self.service_account.clone(),
            mesh_tls: MeshTls::Always,
            locality: self.node.facts.locality.clone(),
            discovery: Discovery::Slices,
            named_ports: Default::default(),
            container_ports: Vec::new(),
            weight: None,
            network: Arc::default(),
            node: Arc::default(),
            workload_name: id.name.clone(),
            ready: true,
            registered: false,
            host_network: false,
            edge: None,
            id,
        }
    }
}
