//! Rules of ServiceEntries and WorkloadEntries.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    gateway::check_port,
    label::{check_labels, check_workload_selector},
    line::{check_socket, socket_path},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{
            Audience, HostForm, check_export_to, check_host, check_network, each, is_domain,
            is_label,
        },
        istio::{
            service_entry::{Location, Resolution, ServiceEntry, WorkloadEntry},
            shared::Port,
        },
    },
};

pub(in crate::dialect::istio) fn check_entry(entry: &ServiceEntry, at: &mut Decoder) {
    check_workload_selector(entry.workload_selector.as_ref(), at);
    each("hosts", &entry.hosts, at, |host, at| match &**host {
        "*" => at.invalid("`*` alone would take all traffic", Some("name the hosts".to_owned())),
        host => check_host(host, HostForm::Wildcard, at),
    });
    check_addresses(entry, at);
    check_ports(entry, at);
    check_export_to(&entry.export_to, Audience::Anybody, at);
    if entry.workload_selector.is_some() && !entry.endpoints.is_empty() {
        at.invalid("only one of `workloadSelector`, `endpoints` may be given", None);
    }
    check_resolution(entry, at);
    if entry.location == Location::MeshInternal
        && entry.resolution == Resolution::None
        && entry.addresses.is_empty()
        && wildcard(entry).is_some()
    {
        at.within("addresses", |at| {
            at.remark(|path| {
                Diagnostic::info(
                    Code::NoEffect,
                    path,
                    "without addresses, TCP ports cannot be told apart",
                )
            })
        });
    }
    each("endpoints", &entry.endpoints, at, |endpoint, at| check_endpoint(entry, endpoint, at));
}

/// The first host that is a wildcard.
fn wildcard(entry: &ServiceEntry) -> Option<usize> {
    entry.hosts.iter().position(|host| host.starts_with('*'))
}

/// Notes addresses that are none, and networks where one address is resolved.
fn check_addresses(entry: &ServiceEntry, at: &mut Decoder) {
    let by_dns = !matches!(entry.resolution, Resolution::None | Resolution::Static);
    each("addresses", &entry.addresses, at, |address, at| {
        check_network(address, at);
        if by_dns && address.contains('/') {
            let fix = Some("resolution `NONE` or `STATIC`, or single addresses".to_owned());
            let resolution = entry.resolution.as_str();
            at.invalid(format!("no network has resolution {resolution}"), fix);
        }
    });
}

fn check_ports(entry: &ServiceEntry, at: &mut Decoder) {
    let mut names: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    let mut numbers: BTreeMap<u16, usize> = BTreeMap::new();
    at.within("ports", |at| {
        for (index, port) in entry.ports.iter().enumerate() {
            at.within_index(index, |at| {
                check_port(port, false, at);
                check_port_name(port, at);
                let first = *names.entry(&port.name).or_insert(index);
                if first != index && !port.name.is_empty() {
                    let message = format!("`ports[{first}]` has the name `{}`", port.name);
                    at.within("name", |at| at.invalid(message, None));
                }
                let first = *numbers.entry(port.number).or_insert(index);
                if first != index && port.number != 0 {
                    let message = format!("`ports[{first}]` has the number {}", port.number);
                    at.within("number", |at| at.invalid(message, None));
                }
            });
        }
    });
    check_shared_ports(entry, at);
}

fn check_port_name(port: &Port, at: &mut Decoder) {
    if port.name.is_empty() {
        let number = port.number;
        at.missing("name", Some(format!("a name of its own, such as `tcp-{number}`")));
    } else if !is_label(&port.name) {
        at.within("name", |at| {
            at.invalid(format!("`{}` is not the name of a port", port.name), None)
        });
    }
}

/// Notes several hosts at a port where nothing in the traffic tells them apart.
fn check_shared_ports(entry: &ServiceEntry, at: &mut Decoder) {
    const WITH_NAMES: [&str; 8] =
        ["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "GRPC_WEB", "HTTP_PROXY", "HTTPS", "TLS"];
    if entry.resolution == Resolution::None || entry.hosts.len() < 2 {
        return;
    }
    each("ports", &entry.ports, at, |port, at| {
        let protocol = port.protocol.to_ascii_uppercase();
        if !WITH_NAMES.contains(&&*protocol) {
            let fix = Some("an object for each host, or protocol `HTTP` or `TLS`".to_owned());
            let message = "connections to it name none of the hosts, so that only one may be given";
            at.within("protocol", |at| at.invalid(message, fix));
        }
    });
}

/// Notes what the way in which endpoints are found does not go with.
fn check_resolution(entry: &ServiceEntry, at: &mut Decoder) {
    match entry.resolution {
        Resolution::None => check_unresolved(entry, at),
        Resolution::Static => {}
        Resolution::Dns | Resolution::DnsRoundRobin => check_resolved(entry, at),
        Resolution::DynamicDns => check_dynamic(entry, at),
    }
}

fn check_unresolved(entry: &ServiceEntry, at: &mut Decoder) {
    if !entry.endpoints.is_empty() {
        at.within("endpoints", |at| {
            at.invalid(
                "resolution NONE uses no endpoints",
                Some("resolution `STATIC` or `DNS`".to_owned()),
            )
        });
    }
    if entry.workload_selector.is_some() {
        at.within("workloadSelector", |at| {
            at.remark(|path| {
                let message = "resolution NONE uses no endpoints, so it selects for nothing";
                Diagnostic::warning(Code::NoEffect, path, message).fix("resolution `STATIC`")
            });
        });
    }
}

fn check_resolved(entry: &ServiceEntry, at: &mut Decoder) {
    if let Some(index) = wildcard(entry).filter(|_| entry.endpoints.is_empty()) {
        at.within("hosts", |at| {
            at.within_index(index, |at| {
                at.invalid(
                    "a wildcard cannot be resolved by DNS",
                    Some("resolution `NONE` or `DYNAMIC_DNS`".to_owned()),
                )
            })
        });
    }
    if entry.resolution == Resolution::DnsRoundRobin && entry.endpoints.len() > 1 {
        at.within("endpoints", |at| {
            let fix = Some("resolution `DNS`".to_owned());
            at.invalid("resolution DNS_ROUND_ROBIN has one endpoint at most", fix);
        });
    }
}

fn check_dynamic(entry: &ServiceEntry, at: &mut Decoder) {
    each("hosts", &entry.hosts, at, |host, at| {
        if !host.starts_with('*') {
            let fix = Some("resolution `DNS`".to_owned());
            at.invalid("resolution DYNAMIC_DNS is for wildcards", fix);
        }
    });
    for (field, given) in
        [("addresses", !entry.addresses.is_empty()), ("endpoints", !entry.endpoints.is_empty())]
    {
        if given {
            at.within(field, |at| at.invalid("resolution DYNAMIC_DNS uses none", None));
        }
    }
    each("ports", &entry.ports, at, |port, at| {
        let protocol = port.protocol.to_ascii_uppercase();
        if !matches!(&*protocol, "HTTP" | "TLS" | "GRPC" | "HTTP2") {
            let path = at.path().field("protocol");
            let message = "resolution DYNAMIC_DNS takes the host from the traffic";
            let finding = Diagnostic::error(Code::InvalidValue, path, message);
            at.note(finding.expected("HTTP, HTTP2, GRPC or TLS", format!("`{}`", port.protocol)));
        }
    });
}

fn check_endpoint(entry: &ServiceEntry, endpoint: &WorkloadEntry, at: &mut Decoder) {
    check_workload(endpoint, at);
    at.within("ports", |at| {
        for name in endpoint.ports.keys() {
            if !entry.ports.iter().any(|port| port.name == *name) {
                let message = format!("`{name}` is none of the ports above");
                at.within_key(name, |at| at.invalid(message, None));
            }
        }
    });
    let address = &*endpoint.address;
    let on_socket = socket_path(address).is_some();
    if entry.resolution == Resolution::Static {
        if !on_socket && !address.is_empty() && address.parse::<IpAddr>().is_err() {
            at.within("address", |at| {
                at.invalid(
                    "resolution STATIC needs addresses, not names",
                    Some("resolution `DNS`".to_owned()),
                )
            });
        }
        if on_socket && entry.ports.len() != 1 {
            at.within("address", |at| {
                at.invalid("a Unix socket serves one port, so that exactly one is needed", None)
            });
        }
    } else if entry.resolution != Resolution::None && (on_socket || address.is_empty()) {
        at.within("address", |at| {
            let message = "resolution by DNS needs a name or an address";
            at.invalid(message, Some("resolution `STATIC`".to_owned()));
        });
    }
}

pub(in crate::dialect::istio) fn check_workload(entry: &WorkloadEntry, at: &mut Decoder) {
    let address = &*entry.address;
    if address.is_empty() && entry.network.is_empty() {
        at.missing("address", None);
    }
    if socket_path(address).is_some() {
        at.within("address", |at| check_socket(address, at));
        if !entry.ports.is_empty() {
            at.within("ports", |at| at.invalid("a Unix socket has no ports", None));
        }
    } else if !address.is_empty() && address.parse::<IpAddr>().is_err() && !is_domain(address) {
        at.within("address", |at| {
            at.invalid(
                format!("`{address}` is not an address, a host name or `unix:///path`"),
                None,
            )
        });
    }
    check_labels("labels", &entry.labels, at);
    at.within("ports", |at| {
        for (name, port) in &entry.ports {
            at.within_key(name, |at| {
                if !is_label(name) {
                    at.invalid(format!("`{name}` is not the name of a port"), None);
                }
                if *port == 0 {
                    at.invalid("expected 1..=65535, got 0", None);
                }
            });
        }
    });
}
