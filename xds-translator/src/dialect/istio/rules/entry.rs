//! Rules of ServiceEntries and WorkloadEntries.

use std::net::IpAddr;

use super::{gateway::check_port, line::check_socket};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{HostForm, check_export_to, check_host, check_network, each, is_dns_name},
        istio::service_entry::{Location, Resolution, ServiceEntry, WorkloadEntry},
    },
};

pub(in crate::dialect::istio) fn check_entry(entry: &ServiceEntry, at: &mut Decoder) {
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
        (Resolution::Dns | Resolution::DnsRoundRobin, Some(index))
            if entry.endpoints.is_empty() =>
        {
            each_at("hosts", index, at, |at| {
                at.invalid(
                    "a wildcard cannot be resolved by DNS",
                    Some("resolution `NONE` or `DYNAMIC_DNS`".to_owned()),
                )
            });
        }
        (Resolution::None, _) if !entry.endpoints.is_empty() => {
            at.within("endpoints", |at| {
                at.invalid(
                    "resolution NONE uses no endpoints",
                    Some("resolution `STATIC` or `DNS`".to_owned()),
                )
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
                Diagnostic::info(
                    Code::NoEffect,
                    path,
                    "without addresses, TCP ports cannot be told apart",
                )
            })
        });
    }
    each("endpoints", &entry.endpoints, at, |endpoint, at| {
        check_workload(endpoint, at);
        let numeric =
            endpoint.address.parse::<IpAddr>().is_ok() || endpoint.address.starts_with("unix://");
        if entry.resolution == Resolution::Static && !numeric && !endpoint.address.is_empty() {
            at.within("address", |at| {
                at.invalid(
                    "resolution STATIC needs addresses, not names",
                    Some("resolution `DNS`".to_owned()),
                )
            });
        }
    });
}

fn each_at(field: &'static str, index: usize, at: &mut Decoder, f: impl FnOnce(&mut Decoder)) {
    at.within(field, |at| at.within_index(index, f));
}

pub(in crate::dialect::istio) fn check_workload(entry: &WorkloadEntry, at: &mut Decoder) {
    let address = &*entry.address;
    if address.is_empty() && entry.network.is_empty() {
        at.missing("address", None);
    }
    at.within("address", |at| check_socket(address, at));
    let valid = address.is_empty()
        || address.parse::<IpAddr>().is_ok()
        || address.strip_prefix("unix://").is_some_and(|path| path.starts_with(['/', '@']))
        || is_dns_name(address);
    if !valid {
        at.within("address", |at| {
            at.invalid(
                format!("`{address}` is not an address, a host name or `unix:///path`"),
                None,
            )
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
