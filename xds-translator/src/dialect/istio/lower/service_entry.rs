//! ServiceEntries: hosts that are not Kubernetes Services.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::dialect::{
    lowering::Lowering,
    names::takes_mesh_tls,
    names::{distribution_of, locality, locality_of, protocol},
};
use crate::{
    diagnostic::FieldPath,
    dialect::istio::service_entry::{
        Location, Resolution as Declared, ServiceEntry, WorkloadEntry,
    },
    ir::{
        Hostname, Protocol, Resolution, Selector, Service, ServiceAddress, ServiceKey, ServicePort,
        TargetPort, allocated_address,
    },
    snapshot::{InlineAddress, InlineEndpoint, Item, ServiceDefinition},
};

/// Label by which a ServiceEntry declines an allocated address.
const ALLOCATE: &str = "networking.istio.io/enable-autoallocate-ip";

impl Lowering<'_> {
    pub(in crate::dialect) fn service_entry(&mut self, spec: &ServiceEntry) -> Vec<Item> {
        let resolution = match spec.resolution {
            Declared::None => Resolution::OriginalDst,
            Declared::Static => Resolution::Static,
            Declared::Dns => Resolution::Dns { round_robin: false },
            Declared::DnsRoundRobin => Resolution::Dns { round_robin: true },
            Declared::DynamicDns => Resolution::Named,
        };
        let export_to = self.visibility(&spec.export_to, self.mesh.service_export_to.as_ref());
        let template = Service {
            key: ServiceKey {
                host: Hostname::new("*"),
                namespace: self.namespace().clone(),
                shown_to: Some(Arc::new(export_to.clone())),
            },
            origin: self.origin(),
            addresses: self.entry_addresses(&spec.addresses),
            allocated: None,
            ports: self.entry_ports(spec),
            resolution,
            headless: false,
            external: spec.location == Location::MeshExternal,
            export_to,
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
            distribution: distribution_of(&self.meta.annotations),
        };
        let inline: Vec<InlineEndpoint> = spec
            .endpoints
            .iter()
            .enumerate()
            .filter_map(|(i, e)| self.inline_endpoint(i, e))
            .collect();
        let hosts: BTreeSet<Hostname> = spec.hosts.iter().map(|h| Hostname::new(h)).collect();
        let services = hosts.into_iter().map(|host| self.of_host(&template, host, spec));
        services.map(|service| item(service, &inline)).collect()
    }

    /// The service of one of the hosts.
    fn of_host(&self, template: &Service, host: Hostname, spec: &ServiceEntry) -> Service {
        let dynamic = spec.resolution == Declared::DynamicDns;
        let allocates = self.allocates(spec) && (dynamic || !host.is_wildcard());
        // A whole name can be resolved before anybody asks.
        let resolution = match dynamic && !host.is_wildcard() {
            true => Resolution::Dns { round_robin: false },
            false => template.resolution.clone(),
        };
        Service {
            allocated: allocates.then(|| allocated_address(self.namespace(), &host)),
            key: ServiceKey { host, ..template.key.clone() },
            resolution,
            ..template.clone()
        }
    }

    /// Whether an address may stand for a host: nobody gave it one, and where a connection is going
    /// is decided by the mesh.
    fn allocates(&self, spec: &ServiceEntry) -> bool {
        let declined =
            self.meta.labels.get(ALLOCATE).is_some_and(|word| word.eq_ignore_ascii_case("false"));
        spec.addresses.is_empty() && spec.resolution != Declared::None && !declined
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
            let protocol = protocol(&port.protocol).unwrap_or(Protocol::Auto);
            if spec.resolution == Declared::DynamicDns && !protocol.names_host() {
                self.unserved(
                    FieldPath::of("spec.ports").index(i).field("protocol"),
                    "only HTTP, HTTP2, GRPC and TLS say which name is to be resolved (DYNAMIC_DNS); \
                     the port is left out",
                );
                continue;
            }
            ports.push(ServicePort {
                number: port.number,
                name: port.name.clone(),
                protocol,
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

fn item(service: Service, inline: &[InlineEndpoint]) -> Item {
    let service = Arc::new(service);
    Item::Service(Arc::new(ServiceDefinition { service, inline: inline.to_vec() }))
}

fn one_address_is_no_network(net: ipnet::IpNet) -> ServiceAddress {
    match net.prefix_len() == net.max_prefix_len() {
        true => ServiceAddress::Ip(net.addr()),
        false => ServiceAddress::Net(net.trunc()),
    }
}
