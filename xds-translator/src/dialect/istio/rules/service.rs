//! Rules of services and workloads, Kubernetes' and Istio's, and of the mesh configuration.

use std::net::IpAddr;

use super::{
    backend::{check_locality, check_outlier, check_pool},
    each,
    gateway::check_port,
    line::check_format,
    text::{HostForm, check_address, check_export_to, check_host, check_network, is_dns_name},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        istio::{
            mesh_config::{AccessLogEncoding, MeshConfig},
            service_entry::{Location, Resolution, ServiceEntry, WorkloadEntry},
        },
        kubernetes::{EndpointSlice, PodStatus, Secret, ServiceSpec},
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
            super::check_range("port", 0, 1..=65535, at);
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
    each("podIPs", &status.pod_ips, at, |address, at| at.within("ip", |at| check_address(&address.ip, at)));
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

pub(super) fn check_entry(entry: &ServiceEntry, at: &mut Decoder) {
    each("hosts", &entry.hosts, at, |host, at| {
        check_host(host, HostForm::Wildcard, at);
        if &**host == "*" {
            at.invalid("`*` alone would take all traffic", Some("name the hosts".to_owned()));
        }
    });
    each("addresses", &entry.addresses, at, |address, at| check_network(address, at));
    each("ports", &entry.ports, at, |port, at| check_port(port, false, at));
    check_export_to(&entry.export_to, at);
    if entry.workload_selector.is_some() && !entry.endpoints.is_empty() {
        at.invalid("only one of `workloadSelector`, `endpoints` may be given", None);
    }
    let wildcard = entry.hosts.iter().position(|h| h.starts_with('*'));
    match (entry.resolution, wildcard) {
        (Resolution::Dns | Resolution::DnsRoundRobin, Some(index)) if entry.endpoints.is_empty() => {
            each_at("hosts", index, at, |at| {
                at.invalid(
                    "a wildcard cannot be resolved by DNS",
                    Some("resolution `NONE` or `DYNAMIC_DNS`".to_owned()),
                )
            });
        }
        (Resolution::None, _) if !entry.endpoints.is_empty() => {
            at.within("endpoints", |at| {
                at.invalid("resolution NONE uses no endpoints", Some("resolution `STATIC` or `DNS`".to_owned()))
            });
        }
        _ => {}
    }
    if entry.location == Location::MeshInternal
        && entry.resolution == Resolution::None
        && entry.addresses.is_empty()
        && wildcard.is_some()
    {
        at.within("addresses", |at| {
            at.remark(|path| {
                Diagnostic::info(Code::NoEffect, path, "without addresses, TCP ports cannot be told apart")
            })
        });
    }
    each("endpoints", &entry.endpoints, at, |endpoint, at| {
        check_workload(endpoint, at);
        let numeric = endpoint.address.parse::<IpAddr>().is_ok() || endpoint.address.starts_with("unix://");
        if entry.resolution == Resolution::Static && !numeric && !endpoint.address.is_empty() {
            at.within("address", |at| {
                at.invalid("resolution STATIC needs addresses, not names", Some("resolution `DNS`".to_owned()))
            });
        }
    });
}

fn each_at(field: &'static str, index: usize, at: &mut Decoder, f: impl FnOnce(&mut Decoder)) {
    at.within(field, |at| at.within_index(index, f));
}

pub(super) fn check_workload(entry: &WorkloadEntry, at: &mut Decoder) {
    let address = &*entry.address;
    if address.is_empty() && entry.network.is_empty() {
        at.missing("address", None);
    }
    let valid = address.is_empty()
        || address.parse::<IpAddr>().is_ok()
        || address.strip_prefix("unix://").is_some_and(|path| path.starts_with(['/', '@']))
        || is_dns_name(address);
    if !valid {
        at.within("address", |at| {
            at.invalid(format!("`{address}` is not an address, a host name or `unix:///path`"), None)
        });
    }
    at.within("ports", |at| {
        for (name, port) in &entry.ports {
            if *port == 0 {
                at.within_key(name, |at| at.invalid("expected 1..=65535, got 0", None));
            }
        }
    });
}

/// Where sidecars listen unless told otherwise.
const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;

/// Notes a malformed log format. Text that should be JSON and is not falls back to the default.
fn check_log_format(mesh: &MeshConfig, at: &mut Decoder) {
    if mesh.access_log_encoding != Some(AccessLogEncoding::Json) {
        return check_format(&mesh.access_log_format, at);
    }
    match serde_json::from_str(&mesh.access_log_format) {
        Ok(fields @ serde_json::Value::Object(_)) => check_log_fields(&fields, at),
        _ if mesh.access_log_format.is_empty() => {}
        _ => at.remark(|path| {
            Diagnostic::warning(Code::NoEffect, path, "not a JSON object, so the default fields are logged")
        }),
    }
}

fn check_log_fields(fields: &serde_json::Value, at: &mut Decoder) {
    match fields {
        serde_json::Value::String(format) => check_format(format, at),
        serde_json::Value::Array(items) => items.iter().for_each(|item| check_log_fields(item, at)),
        serde_json::Value::Object(fields) => fields.values().for_each(|field| check_log_fields(field, at)),
        _ => {}
    }
}

pub(super) fn check_mesh(mesh: &MeshConfig, at: &mut Decoder) {
    for (field, name) in [("trustDomain", &mesh.trust_domain), ("rootNamespace", &mesh.root_namespace)] {
        if !name.is_empty() && !is_dns_name(name) {
            at.within(field, |at| at.invalid(format!("`{name}` is not a valid name"), None));
        }
    }
    if let Some(policy) = &mesh.default_traffic_policy {
        at.within("defaultTrafficPolicy", |at| {
            if let Some(pool) = &policy.connection_pool {
                at.within("connectionPool", |at| check_pool(pool, at));
            }
            if let Some(outlier) = &policy.outlier_detection {
                at.within("outlierDetection", |at| check_outlier(outlier, at));
            }
        });
    }
    if let Some(locality) = &mesh.locality_lb_setting {
        at.within("localityLbSetting", |at| check_locality(locality, at));
    }
    if mesh.proxy_listen_port.unwrap_or(OUTBOUND_PORT) == mesh.proxy_inbound_listen_port.unwrap_or(INBOUND_PORT) {
        at.within("proxyListenPort", |at| at.invalid("the same port as `proxyInboundListenPort`", None));
    }
    at.within("accessLogFormat", |at| check_log_format(mesh, at));
    let lines = mesh.access_log_format.lines().count();
    if lines > 1 {
        at.within("accessLogFormat", |at| {
            at.remark(|path| {
                Diagnostic::warning(Code::NoEffect, path, format!("{lines} lines per request"))
                    .fix("`>-` instead of `|`")
            });
        });
    }
}
