//! WorkloadEntries: workloads that are no pods.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::{
    diagnostic::FieldPath,
    dialect::{
        istio::service_entry::WorkloadEntry,
        lowering::Lowering,
        names::{locality, locality_of, takes_mesh_tls},
    },
    ir::{Discovery, Hostname, Labels, Workload, topology},
    snapshot::Item,
};

impl Lowering<'_> {
    pub(in crate::dialect) fn workload_entry(&mut self, spec: &WorkloadEntry) -> Option<Item> {
        if spec.address.starts_with("unix:") {
            self.unserved(
                FieldPath::of("spec.address"),
                "Unix sockets are served as endpoints of a ServiceEntry only, not as WorkloadEntry",
            );
            return None;
        }
        let labels: Labels = self
            .meta
            .labels
            .iter()
            .chain(&spec.labels)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let ip = spec.address.parse::<IpAddr>().ok();
        let host = (ip.is_none() && !spec.address.is_empty()).then(|| Hostname::new(&spec.address));
        let ports: BTreeSet<u16> = spec.ports.values().copied().collect();
        let place = match spec.locality.is_empty() {
            true => locality_of(&labels),
            false => locality(&spec.locality),
        };
        Some(Item::Workload(Arc::new(Workload {
            id: self.workload_id(),
            origin: self.origin(),
            addresses: ip.into_iter().collect(),
            host,
            mesh_tls: takes_mesh_tls(&labels, &spec.service_account),
            service_account: spec.service_account.clone(),
            locality: place,
            discovery: Discovery::Selectors,
            named_ports: spec.ports.clone(),
            container_ports: ports.into_iter().collect(),
            weight: spec.weight,
            network: if spec.network.is_empty() {
                labels.get(topology::NETWORK).cloned().unwrap_or_default()
            } else {
                spec.network.clone()
            },
            node: "".into(),
            workload_name: self.id.name.clone(),
            ready: true,
            registered: false,
            host_network: false,
            edge: None,
            labels,
        })))
    }
}
