//! What the values of Kubernetes' objects must keep to, seen on their own.

use super::fields::{EndpointSlice, PodStatus, Secret, ServiceSpec};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{check_address, check_range, each},
    },
};

pub(super) fn check_service(service: &ServiceSpec, at: &mut Decoder) {
    let external = &*service.kind == "ExternalName";
    if external && service.external_name.is_empty() {
        at.missing("externalName", None);
    }
    let no_address = |a: &str| a.is_empty() || a == "None";
    if !no_address(&service.cluster_ip) {
        at.within("clusterIP", |at| check_address(&service.cluster_ip, at));
    }
    each("clusterIPs", &service.cluster_ips, at, |address, at| {
        if !no_address(address) {
            check_address(address, at);
        }
    });
    let mut numbers = std::collections::BTreeSet::new();
    each("ports", &service.ports, at, |port, at| {
        if port.port == 0 {
            check_range("port", 0, 1..=65535, at);
        }
        if port.port != 0 && !numbers.insert((port.port, transport(&port.protocol))) {
            at.within("port", |at| at.invalid(format!("a second port {}", port.port), None));
        }
    });
}

fn transport(protocol: &str) -> String {
    if protocol.is_empty() { "TCP".to_owned() } else { protocol.to_ascii_uppercase() }
}

pub(super) fn check_pod(status: &PodStatus, at: &mut Decoder) {
    if !status.pod_ip.is_empty() {
        at.within("podIP", |at| check_address(&status.pod_ip, at));
    }
    each("podIPs", &status.pod_ips, at, |address, at| {
        at.within("ip", |at| check_address(&address.ip, at))
    });
}

pub(super) fn check_slice(slice: &EndpointSlice, at: &mut Decoder) {
    if &*slice.address_type == "FQDN" {
        return;
    }
    each("endpoints", &slice.endpoints, at, |endpoint, at| {
        each("addresses", &endpoint.addresses, at, |address, at| check_address(address, at));
    });
}

pub(super) fn check_secret(secret: &Secret, at: &mut Decoder) {
    if &*secret.kind != "kubernetes.io/tls" {
        return;
    }
    for key in ["tls.crt", "tls.key"] {
        if !secret.data.contains_key(key) && !secret.string_data.contains_key(key) {
            at.within("data", |at| {
                let path = at.path().field(key);
                at.note(Diagnostic::error(
                    Code::MissingField,
                    path,
                    "missing, but a `kubernetes.io/tls` Secret needs it",
                ));
            });
        }
    }
}
