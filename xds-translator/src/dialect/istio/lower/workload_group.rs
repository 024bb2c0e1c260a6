//! WorkloadGroups: what their machines are like.

use std::sync::Arc;

use crate::{
    dialect::{
        istio::workload_group::WorkloadGroup,
        lowering::Lowering,
        names::{locality, locality_of, takes_mesh_tls},
    },
    ir::{Labels, WorkloadGroup as Group, topology},
    snapshot::Item,
};

impl Lowering<'_> {
    pub(in crate::dialect) fn workload_group(&mut self, spec: &WorkloadGroup) -> Item {
        let template = &spec.template;
        let common = spec.metadata.iter().flat_map(|metadata| &metadata.labels);
        let labels: Labels =
            common.chain(&template.labels).map(|(k, v)| (k.clone(), v.clone())).collect();
        let network = match template.network.is_empty() {
            true => labels.get(topology::NETWORK).cloned().unwrap_or_default(),
            false => template.network.clone(),
        };
        Item::Group(Arc::new(Group {
            origin: self.origin(),
            mesh_tls: takes_mesh_tls(&labels, &template.service_account),
            service_account: template.service_account.clone(),
            locality: match template.locality.is_empty() {
                true => locality_of(&labels),
                false => locality(&template.locality),
            },
            ports: template.ports.clone(),
            weight: template.weight,
            network,
            probed: spec.probe.is_some(),
            labels,
        }))
    }
}
