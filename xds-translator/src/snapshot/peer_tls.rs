//! Peer TLS policies by namespace: which TLS workloads take.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    family::{Family, Touch},
    levels::Levels,
    reader::{Dep, Reader},
};
use crate::ir::{Labels, ObjectId, PeerTls, PeerTlsPolicy, WorkloadId};

/// Every peer TLS policy of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct PeerTlsPolicies(Levels<PeerTlsPolicy>);

impl PeerTlsPolicies {
    pub(crate) fn mode(
        &self,
        root: &str,
        namespace: &str,
        labels: &Labels,
        port: Option<u16>,
    ) -> PeerTls {
        let [selected, in_namespace, in_mesh] = self.0.levels(root, namespace, labels);
        let on_port = port.and_then(|port| selected?.ports.get(&port).copied().flatten());
        on_port
            .or_else(|| selected?.mode)
            .or_else(|| in_namespace?.mode)
            .or_else(|| in_mesh?.mode)
            .unwrap_or(PeerTls::Permissive)
    }

    /// Ports for which the policy of workloads with these labels says something of its own; sorted,
    /// unique.
    pub(crate) fn ports(&self, namespace: &str, labels: &Labels) -> Vec<u16> {
        let selected = self.0.selected(namespace, labels);
        let ports = selected.into_iter().flat_map(|policy| &policy.ports);
        ports.filter(|(_, mode)| mode.is_some()).map(|(port, _)| *port).collect()
    }

    pub(crate) fn origins(
        &self,
        root: &str,
        namespace: &str,
        labels: &Labels,
    ) -> BTreeSet<ObjectId> {
        let levels = self.0.levels(root, namespace, labels);
        levels.into_iter().flatten().map(|policy| policy.origin.id.clone()).collect()
    }
}

impl Family for PeerTlsPolicies {
    type Item = PeerTlsPolicy;

    fn insert(&mut self, policy: &Arc<PeerTlsPolicy>) {
        self.0.insert(policy);
    }

    fn remove(&mut self, policy: &PeerTlsPolicy) {
        self.0.remove(policy);
    }

    fn touch(versions: &[&Arc<PeerTlsPolicy>], touch: &mut Touch<'_>) {
        for policy in versions {
            touch.governed(&policy.origin.id.namespace, Dep::PeerTls);
        }
    }
}

impl Reader<'_> {
    /// What workloads with these labels take from peers: the policies of port, workload, namespace
    /// and mesh in this order, the oldest of equals, and `Permissive` when nobody says anything.
    /// `port` is the container port.
    pub fn peer_tls(&self, namespace: &str, labels: &Labels, port: Option<u16>) -> PeerTls {
        self.record(Dep::PeerTls(namespace.into()));
        self.snapshot().peer_tls().mode(
            &self.snapshot().mesh().root_namespace,
            namespace,
            labels,
            port,
        )
    }

    /// Container ports of workloads with these labels for which [`Self::peer_tls`] may say
    /// something else than for the others; sorted, unique.
    pub fn peer_tls_ports(&self, namespace: &str, labels: &Labels) -> Vec<u16> {
        self.record(Dep::PeerTls(namespace.into()));
        self.snapshot().peer_tls().ports(namespace, labels)
    }

    /// The policies of which [`Self::peer_tls`] of some port may be; sorted, unique.
    pub fn peer_tls_origins(&self, namespace: &str, labels: &Labels) -> BTreeSet<ObjectId> {
        self.record(Dep::PeerTls(namespace.into()));
        self.snapshot().peer_tls().origins(
            &self.snapshot().mesh().root_namespace,
            namespace,
            labels,
        )
    }

    /// As [`Self::peer_tls`], for a known workload; `Permissive` for an unknown one.
    pub fn peer_tls_of(&self, id: &WorkloadId, port: u16) -> PeerTls {
        match self.workload(id) {
            Some(workload) => self.peer_tls(&id.namespace, &workload.labels, Some(port)),
            None => PeerTls::Permissive,
        }
    }
}
