//! ServiceEntries: hosts that are not Kubernetes Services.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::dialect::{
    lowering::Lowering,
    names::takes_mesh_tls,
    names::{locality, locality_of, protocol},
};
use crate::{
    diagnostic::FieldPath,
    dialect::istio::service_entry::{
        Location, Resolution as Declared, ServiceEntry, WorkloadEntry,
    },
    ir::{
        Hostname, Protocol, Resolution, Selector, Service, ServiceAddress, ServiceKey, ServicePort,
        TargetPort,
    },
    snapshot::{InlineAddress, InlineEndpoint, Item, ServiceDefinition},
};

impl Lowering<'_> {
    pub(in crate::dialect) fn service_entry(&mut self, spec: &ServiceEntry) -> Vec<Item> {
        let resolution = match spec.resolution {
            Declared::None => Resolution::OriginalDst,
            Declared::Static => Resolution::Static,
            Declared::Dns => Resolution::Dns { round_robin: false },
            Declared::DnsRoundRobin => Resolution::Dns { round_robin: true },
            Declared::DynamicDns => {
                self.unserved(
                    FieldPath::of("spec.resolution"),
                    "DYNAMIC_DNS is not served yet; traffic goes where the client sends it",
                );
                Resolution::OriginalDst
            }
        };
        let template = Service {
            key: ServiceKey { host: Hostname::new("*"), namespace: self.namespace().clone() },
            origin: self.origin(),
            addresses: self.entry_addresses(&spec.addresses),
            ports: self.entry_ports(spec),
            resolution,
            headless: false,
            external: spec.location == Location::MeshExternal,
            export_to: self.visibility(&spec.export_to, self.mesh.service_export_to.as_ref()),
            selector: spec
                .workload_selector
                .as_ref()
                .map(|s| Selector::from(s.labels.clone()))
                .filter(|s| !s.is_empty()),
            labels: self.meta.labels.clone(),
            subject_alt_names: spec
                .subject_alt_names
                .iter()
                .cloned()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            kubernetes: false,
            publish_not_ready: false,
        };
        let inline: Vec<InlineEndpoint> = spec
            .endpoints
            .iter()
            .enumerate()
            .filter_map(|(i, e)| self.inline_endpoint(i, e))
            .collect();
        let hosts: BTreeSet<Hostname> = spec.hosts.iter().map(|h| Hostname::new(h)).collect();
        hosts.into_iter().map(|host| item(&template, host, &inline)).collect()
    }

    fn entry_addresses(&mut self, texts: &[Arc<str>]) -> Vec<ServiceAddress> {
        let mut addresses = BTreeSet::new();
        for (i, text) in texts.iter().enumerate() {
            match (text.parse::<IpAddr>(), text.parse()) {
                (Ok(ip), _) => drop(addresses.insert(ServiceAddress::Ip(ip))),
                (_, Ok(net)) => drop(addresses.insert(one_address_is_no_network(net))),
                _ => self.invalid(
                    FieldPath::of("spec.addresses").index(i),
                    "an IP address or CIDR network",
                    text,
                ),
            }
        }
        addresses.into_iter().collect()
    }

    fn entry_ports(&mut self, spec: &ServiceEntry) -> Vec<ServicePort> {
        let mut ports: Vec<ServicePort> = Vec::new();
        for (i, port) in spec.ports.iter().enumerate() {
            if port.protocol.eq_ignore_ascii_case("udp") {
                let field = FieldPath::of("spec.ports").index(i).field("protocol");
                self.unserved(
                    field,
                    "UDP ports are not part of the mesh; clients reach them directly",
                );
                continue;
            }
            ports.push(ServicePort {
                number: port.number,
                name: port.name.clone(),
                protocol: protocol(&port.protocol).unwrap_or(Protocol::Auto),
                target: TargetPort::Number(if port.target_port == 0 {
                    port.number
                } else {
                    port.target_port
                }),
            });
        }
        ports.sort_by_key(|p| p.number);
        ports.dedup_by_key(|p| p.number);
        ports
    }

    fn inline_endpoint(&mut self, index: usize, entry: &WorkloadEntry) -> Option<InlineEndpoint> {
        let address = match (entry.address.strip_prefix("unix://"), entry.address.parse()) {
            (Some(path), _) => InlineAddress::Pipe(path.into()),
            (_, Ok(ip)) => InlineAddress::Ip(ip),
            _ if entry.address.is_empty() => {
                let field = FieldPath::of("spec.endpoints").index(index).field("address");
                self.unserved(
                    field,
                    "an endpoint without address is reached over its network's gateway, which is not served yet",
                );
                return None;
            }
            _ => InlineAddress::Host(Hostname::new(&entry.address)),
        };
        Some(InlineEndpoint {
            address,
            ports: entry.ports.clone(),
            labels: entry.labels.clone(),
            service_account: entry.service_account.clone(),
            mesh_tls: takes_mesh_tls(&entry.labels, &entry.service_account),
            locality: if entry.locality.is_empty() {
                locality_of(&entry.labels)
            } else {
                locality(&entry.locality)
            },
            weight: entry.weight.unwrap_or(1).max(1),
            network: entry.network.clone(),
        })
    }
}

fn item(template: &Service, host: Hostname, inline: &[InlineEndpoint]) -> Item {
    let key = ServiceKey { host, namespace: template.key.namespace.clone() };
    let service = Arc::new(Service { key, ..template.clone() });
    Item::Service(Arc::new(ServiceDefinition { service, inline: inline.to_vec() }))
}

fn one_address_is_no_network(net: ipnet::IpNet) -> ServiceAddress {
    match net.prefix_len() == net.max_prefix_len() {
        true => ServiceAddress::Ip(net.addr()),
        false => ServiceAddress::Net(net.trunc()),
    }
}
