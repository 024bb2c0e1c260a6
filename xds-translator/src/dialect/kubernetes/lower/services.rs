//! Kubernetes Services and their EndpointSlices.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::dialect::{
    lowering::Lowering,
    names::{DISTRIBUTION, preferred, protocol},
};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::kubernetes::{self, IntegerOrText},
    ir::{
        Distribution, Hostname, Protocol, Resolution, Service, ServiceAddress, ServiceKey,
        ServicePort, TargetPort, WorkloadId,
    },
    snapshot::{EndpointSlice, Item, ServiceDefinition, SliceEndpoint},
};

/// Who may see a Service: a comma-separated `exportTo`.
const EXPORT_TO: &str = "networking.istio.io/exportTo";
/// Label of a slice with the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Ports on which nothing is detected, because there the server speaks first: SMTP, DNS, MySQL,
/// MongoDB.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

impl Lowering<'_> {
    pub(in crate::dialect) fn service(&mut self, spec: &kubernetes::Service) -> Option<Item> {
        let spec = &spec.spec;
        let key = self.service_key(&self.id.name);
        let headless =
            &*spec.cluster_ip == "None" || spec.cluster_ips.iter().any(|ip| &**ip == "None");
        let resolution = match (&*spec.kind, headless) {
            ("ExternalName", _) if spec.external_name.is_empty() => {
                self.invalid(FieldPath::of("spec.externalName"), "a host name", "nothing");
                return None;
            }
            ("ExternalName", _) => Resolution::Alias(Hostname::new(&spec.external_name)),
            (_, true) => Resolution::OriginalDst,
            _ => Resolution::Static,
        };
        let export_to = self.meta.annotations.get(EXPORT_TO);
        let export_to: Vec<Arc<str>> =
            export_to.iter().flat_map(|t| t.split(',')).map(|t| t.trim().into()).collect();
        let service = Service {
            key,
            origin: self.origin(),
            addresses: self.cluster_ips(spec),
            allocated: None,
            ports: self.service_ports(&spec.ports),
            resolution,
            headless,
            external: false,
            export_to: self.visibility(&export_to, self.mesh.service_export_to.as_ref()),
            selector: (!spec.selector.is_empty()).then(|| spec.selector.clone().into()),
            labels: self.meta.labels.clone(),
            subject_alt_names: Vec::new(),
            kubernetes: true,
            publish_not_ready: spec.publish_not_ready_addresses,
            distribution: self.distribution(&spec.traffic_distribution),
        };
        Some(Item::Service(Arc::new(ServiceDefinition {
            service: Arc::new(service),
            inline: Vec::new(),
        })))
    }

    /// By the specification, else by the annotation, which goes without case. An API server refuses
    /// other words in the specification.
    fn distribution(&mut self, written: &str) -> Option<Distribution> {
        let annotation = self.meta.annotations.get(DISTRIBUTION).cloned().unwrap_or_default();
        let (field, word) = match written {
            "" => (FieldPath::of("metadata.annotations").field(DISTRIBUTION), &*annotation),
            written => (FieldPath::of("spec.trafficDistribution"), written),
        };
        let found = preferred(word);
        if found.is_none() && !word.is_empty() {
            let message =
                format!("`{word}` is no distribution of traffic: no endpoint is preferred");
            self.note(
                Diagnostic::warning(Code::NoEffect, field, message)
                    .fix("`PreferSameZone` or `PreferSameNode`"),
            );
        }
        found
    }

    fn service_key(&self, name: &str) -> ServiceKey {
        let host = Hostname::new(&format!("{name}.{}.svc.{}", self.namespace(), self.mesh.domain));
        ServiceKey::kubernetes(host, self.namespace().clone())
    }

    fn cluster_ips(&mut self, spec: &kubernetes::ServiceSpec) -> Vec<ServiceAddress> {
        let texts: Vec<&Arc<str>> = match spec.cluster_ips.is_empty() {
            true => vec![&spec.cluster_ip],
            false => spec.cluster_ips.iter().collect(),
        };
        let mut addresses = BTreeSet::new();
        for text in texts.into_iter().filter(|t| !t.is_empty() && &***t != "None") {
            match text.parse() {
                Ok(ip) => drop(addresses.insert(ServiceAddress::Ip(ip))),
                Err(_) => self.invalid(FieldPath::of("spec.clusterIP"), "an IP address", text),
            }
        }
        addresses.into_iter().collect()
    }

    fn service_ports(&mut self, ports: &[kubernetes::ServicePort]) -> Vec<ServicePort> {
        let mut lowered: Vec<ServicePort> = Vec::with_capacity(ports.len());
        for (i, port) in ports.iter().enumerate() {
            if !matches!(&*port.protocol, "" | "TCP") {
                let field = FieldPath::of("spec.ports").index(i).field("protocol");
                let message = format!(
                    "{} ports are not part of the mesh; clients reach them directly",
                    port.protocol
                );
                self.note(Diagnostic::info(Code::NotActedOn, field, message));
                continue;
            }
            let target = match &port.target_port {
                IntegerOrText::Absent | IntegerOrText::Number(0) => TargetPort::Number(port.port),
                IntegerOrText::Number(number) => TargetPort::Number(*number),
                IntegerOrText::Name(name) => TargetPort::Name(name.clone()),
            };
            let protocol = declared(port.port, &port.name, &port.app_protocol);
            lowered.push(ServicePort {
                number: port.port,
                name: port.name.clone(),
                protocol,
                target,
            });
        }
        lowered.sort_by_key(|p| p.number);
        lowered.dedup_by_key(|p| p.number);
        lowered
    }

    pub(in crate::dialect) fn slice(&mut self, spec: &kubernetes::EndpointSlice) -> Option<Item> {
        let Some(name) = self.meta.labels.get(SERVICE_NAME) else {
            let field = FieldPath::of("metadata.labels").field(SERVICE_NAME);
            let message = "the slice belongs to no service, so that nobody uses it";
            self.note(Diagnostic::warning(Code::NoEffect, field, message));
            return None;
        };
        if &*spec.address_type == "FQDN" {
            self.unserved(
                FieldPath::of("addressType"),
                "endpoints by host name are not served; use a ServiceEntry",
            );
            return None;
        }
        let tcp = spec.ports.iter().filter(|p| matches!(&*p.protocol, "" | "TCP"));
        let slice = EndpointSlice {
            origin: self.origin(),
            service: self.service_key(name),
            ports: tcp.filter_map(|p| Some((p.name.clone(), p.port?))).collect(),
            endpoints: spec
                .endpoints
                .iter()
                .enumerate()
                .filter_map(|(i, e)| self.slice_endpoint(i, e))
                .collect(),
        };
        Some(Item::Slice(Arc::new(slice)))
    }

    fn slice_endpoint(
        &mut self,
        index: usize,
        endpoint: &kubernetes::SliceEndpoint,
    ) -> Option<SliceEndpoint> {
        let conditions = &endpoint.conditions;
        if conditions.terminating == Some(true) {
            return None;
        }
        let text = endpoint.addresses.first()?;
        let Ok(address) = text.parse::<IpAddr>() else {
            let field = FieldPath::of("endpoints").index(index).field("addresses").index(0);
            self.invalid(field, "an IP address", text);
            return None;
        };
        let pod = endpoint
            .target_ref
            .as_ref()
            .filter(|t| matches!(&*t.kind, "" | "Pod") && !t.name.is_empty());
        let target = pod.map(|t| WorkloadId {
            namespace: if t.namespace.is_empty() {
                self.namespace().clone()
            } else {
                t.namespace.clone()
            },
            name: t.name.clone(),
        });
        // Absent means unknown, and is to be taken as ready (EndpointSlice API).
        Some(SliceEndpoint { address, ready: conditions.ready != Some(false), target })
    }
}

/// What a Service port declares: `appProtocol`, else the prefix of its name.
fn declared(number: u16, name: &str, app_protocol: &str) -> Protocol {
    match app_protocol {
        "kubernetes.io/h2c" => return Protocol::Http2,
        "kubernetes.io/ws" => return Protocol::Http,
        "kubernetes.io/wss" => return Protocol::Https,
        _ => {}
    }
    let said = if app_protocol.is_empty() { name } else { app_protocol };
    let web = said.get(..8).is_some_and(|prefix| prefix.eq_ignore_ascii_case("grpc-web"));
    let prefix = if web { "grpc-web" } else { said.split('-').next().unwrap_or_default() };
    let undeclared = if SERVER_FIRST.contains(&number) { Protocol::Tcp } else { Protocol::Auto };
    protocol(prefix).unwrap_or(undeclared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_come_from_app_protocol_then_name_then_well_known_port() {
        let table = [
            (80, "http", "", Protocol::Http),
            (80, "http-web", "", Protocol::Http),
            (80, "HTTP2-x", "", Protocol::Http2),
            (80, "grpc-web-x", "", Protocol::GrpcWeb),
            (80, "grpc-x", "", Protocol::Grpc),
            (80, "tcp-web", "http", Protocol::Http),
            (80, "http", "kubernetes.io/h2c", Protocol::Http2),
            (443, "https", "", Protocol::Https),
            (9999, "web", "", Protocol::Auto),
            (9999, "", "", Protocol::Auto),
            (3306, "db", "", Protocol::Tcp),
            (3306, "mysql", "", Protocol::Mysql),
        ];
        for (number, name, app, expected) in table {
            assert_eq!(declared(number, name, app), expected, "{number} {name:?} {app:?}");
        }
    }
}
