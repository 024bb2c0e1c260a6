//! Pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use serde_json::Value;

use crate::dialect::{
    decode::Decoder,
    istio::{annotation::PROXY_CONFIG, lower::mesh::edge, mesh_config::GatewayTopology},
    lowering::Lowering,
    names::{labelled_tls, locality_of},
    schema::Decode,
};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::kubernetes,
    ir::{Discovery, Edge, MeshTls, Workload, cron_job, topology},
    snapshot::Item,
    yaml,
};

impl Lowering<'_> {
    pub(in crate::dialect) fn pod(&mut self, spec: &kubernetes::Pod) -> Item {
        let labels = self.meta.labels.clone();
        let containers = spec.spec.containers.iter().chain(&spec.spec.init_containers);
        let tcp = containers.flat_map(|c| &c.ports).filter(|p| matches!(&*p.protocol, "" | "TCP"));
        let ports: Vec<_> = tcp.collect();
        let named: BTreeMap<Arc<str>, u16> = ports
            .iter()
            .filter(|p| !p.name.is_empty())
            .map(|p| (p.name.clone(), p.container_port))
            .collect();
        let account = [&spec.spec.service_account_name, &spec.spec.service_account]
            .into_iter()
            .find(|a| !a.is_empty());
        Item::Workload(Arc::new(Workload {
            id: self.workload_id(),
            origin: self.origin(),
            addresses: self.pod_addresses(&spec.status),
            host: None,
            service_account: account.cloned().unwrap_or_else(|| "default".into()),
            mesh_tls: match spec.spec.host_network {
                true => MeshTls::Never,
                false => labelled_tls(&labels).unwrap_or(MeshTls::WhileConnected),
            },
            locality: locality_of(&labels),
            discovery: Discovery::Slices,
            named_ports: named,
            container_ports: ports
                .iter()
                .map(|p| p.container_port)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            weight: None,
            node: spec.spec.node_name.clone(),
            network: labels.get(topology::NETWORK).cloned().unwrap_or_else(|| "".into()),
            workload_name: self.workload_name(),
            ready: is_ready(&spec.status) && !self.meta.deleting,
            registered: false,
            host_network: spec.spec.host_network,
            edge: self.own_edge(),
            labels,
        }))
    }

    /// What stands before a gateway by its own annotation. What cannot be read is said and left out:
    /// a pod is there, whatever is written about its proxy.
    fn own_edge(&mut self) -> Option<Edge> {
        let text = self.meta.annotations.get(PROXY_CONFIG)?;
        let at = FieldPath::of("metadata.annotations").field(PROXY_CONFIG);
        let parsed = yaml::parse(text).ok().flatten();
        let Some(config) = parsed.map(|node| node.to_json()).filter(Value::is_object) else {
            let finding = Diagnostic::warning(Code::InvalidValue, at, "not read");
            self.note(finding.expected("a ProxyConfig in YAML", "something else"));
            return None;
        };
        let mut decoder = Decoder::default();
        let topology = GatewayTopology::decode(config.get("gatewayTopology")?, &mut decoder);
        let found = decoder.finish();
        for wrong in &found {
            let message = format!(
                "gatewayTopology.{}: {}, so that it is not read",
                wrong.field, wrong.message
            );
            self.note(Diagnostic::warning(wrong.code, at.clone(), message));
        }
        found.is_empty().then(|| edge(&topology, self.mesh.edge))
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

    /// The Deployment behind a ReplicaSet, the CronJob behind a Job, another controller, or the pod
    /// itself.
    fn workload_name(&self) -> Arc<str> {
        match &self.meta.controller {
            Some((kind, name)) if &**kind == "ReplicaSet" => {
                name.rsplit_once('-').map_or(name.clone(), |(d, _)| d.into())
            }
            Some((kind, name)) if &**kind == "Job" => cron_job(name).into(),
            Some((_, name)) => name.clone(),
            None => self.id.name.clone(),
        }
    }
}

/// Running, and ready as far as anybody says: pods in files often carry no conditions.
fn is_ready(status: &kubernetes::PodStatus) -> bool {
    let runs = matches!(&*status.phase, "" | "Running");
    let condition = status.conditions.iter().find(|c| &*c.kind == "Ready");
    runs && condition.is_none_or(|c| &*c.status == "True")
}
