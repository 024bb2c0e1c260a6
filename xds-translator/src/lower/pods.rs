//! Pods and WorkloadEntries: workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Lowering,
    names::{locality, locality_of},
};
use crate::{
    diagnostic::FieldPath,
    dialect::{istio::service_entry::WorkloadEntry, kubernetes},
    ir::{Hostname, Labels, Workload, WorkloadId},
    snapshot::Item,
};

/// Whether a workload's sidecar takes mutual TLS: `istio` or `disabled`.
pub(super) const TLS_MODE: &str = "security.istio.io/tlsMode";
/// The network a workload is on.
const NETWORK: &str = "topology.istio.io/network";

impl Lowering<'_> {
    pub(super) fn pod(&mut self, spec: &kubernetes::Pod) -> Item {
        let labels = self.object.meta.labels.clone();
        let containers = spec.spec.containers.iter().chain(&spec.spec.init_containers);
        let tcp = containers.flat_map(|c| &c.ports).filter(|p| matches!(&*p.protocol, "" | "TCP"));
        let ports: Vec<_> = tcp.collect();
        let named: BTreeMap<Arc<str>, u16> =
            ports.iter().filter(|p| !p.name.is_empty()).map(|p| (p.name.clone(), p.container_port)).collect();
        let account = [&spec.spec.service_account_name, &spec.spec.service_account].into_iter().find(|a| !a.is_empty());
        Item::Workload(Arc::new(Workload {
            id: self.workload_id(),
            origin: self.object.origin(),
            addresses: self.pod_addresses(&spec.status),
            host: None,
            service_account: account.cloned().unwrap_or_else(|| "default".into()),
            mesh_tls: labels.get(TLS_MODE).is_some_and(|mode| &**mode == "istio") && !spec.spec.host_network,
            locality: locality_of(&labels),
            named_ports: named,
            container_ports: ports.iter().map(|p| p.container_port).collect::<BTreeSet<_>>().into_iter().collect(),
            weight: None,
            network: labels.get(NETWORK).cloned().unwrap_or_else(|| "".into()),
            workload_name: self.workload_name(),
            ready: is_ready(&spec.status) && !self.object.meta.deleting,
            host_network: spec.spec.host_network,
            labels,
        }))
    }

    fn workload_id(&self) -> WorkloadId {
        WorkloadId { namespace: self.namespace().clone(), name: self.object.id.name.clone() }
    }

    fn pod_addresses(&mut self, status: &kubernetes::PodStatus) -> Vec<IpAddr> {
        // A finished pod's address may already be another pod's.
        if matches!(&*status.phase, "Succeeded" | "Failed") {
            return Vec::new();
        }
        let texts = std::iter::once(&status.pod_ip).chain(status.pod_ips.iter().map(|ip| &ip.ip));
        let mut addresses = Vec::new();
        for text in texts.filter(|t| !t.is_empty()) {
            match text.parse::<IpAddr>() {
                Ok(ip) if addresses.contains(&ip) => {}
                Ok(ip) => addresses.push(ip),
                Err(_) => self.invalid(FieldPath::of("status.podIP"), "an IP address", text),
            }
        }
        addresses
    }

    /// The Deployment behind a ReplicaSet, another controller, or the pod itself.
    fn workload_name(&self) -> Arc<str> {
        match &self.object.meta.controller {
            Some((kind, name)) if &**kind == "ReplicaSet" => {
                name.rsplit_once('-').map_or(name.clone(), |(d, _)| d.into())
            }
            Some((_, name)) => name.clone(),
            None => self.object.id.name.clone(),
        }
    }

    pub(super) fn workload_entry(&mut self, spec: &WorkloadEntry) -> Option<Item> {
        if spec.address.starts_with("unix:") {
            self.unserved(
                FieldPath::of("spec.address"),
                "Unix sockets are served as endpoints of a ServiceEntry only, not as WorkloadEntry",
            );
            return None;
        }
        let labels: Labels =
            self.object.meta.labels.iter().chain(&spec.labels).map(|(k, v)| (k.clone(), v.clone())).collect();
        let ip = spec.address.parse::<IpAddr>().ok();
        let host = (ip.is_none() && !spec.address.is_empty()).then(|| Hostname::new(&spec.address));
        let ports: BTreeSet<u16> = spec.ports.values().copied().collect();
        let place = match spec.locality.is_empty() {
            true => locality_of(&labels),
            false => locality(&spec.locality),
        };
        Some(Item::Workload(Arc::new(Workload {
            id: self.workload_id(),
            origin: self.object.origin(),
            addresses: ip.into_iter().collect(),
            host,
            mesh_tls: takes_mesh_tls(&labels, &spec.service_account),
            service_account: spec.service_account.clone(),
            locality: place,
            named_ports: spec.ports.clone(),
            container_ports: ports.into_iter().collect(),
            weight: spec.weight,
            network: if spec.network.is_empty() {
                labels.get(NETWORK).cloned().unwrap_or_default()
            } else {
                spec.network.clone()
            },
            workload_name: self.object.id.name.clone(),
            ready: true,
            host_network: false,
            labels,
        })))
    }
}

/// Whether an entry takes mutual TLS: as its label says, else when it has an account.
pub(super) fn takes_mesh_tls(labels: &Labels, service_account: &str) -> bool {
    labels.get(TLS_MODE).map_or(!service_account.is_empty(), |mode| &**mode == "istio")
}

/// Running, and ready as far as anybody says: pods in files often carry no conditions.
fn is_ready(status: &kubernetes::PodStatus) -> bool {
    let runs = matches!(&*status.phase, "" | "Running");
    let condition = status.conditions.iter().find(|c| &*c.kind == "Ready");
    runs && condition.is_none_or(|c| &*c.status == "True")
}
