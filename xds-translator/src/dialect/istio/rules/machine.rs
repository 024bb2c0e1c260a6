//! Rules of WorkloadGroups.

use super::{entry::check_workload, label::check_labels, line::is_header_name};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::each,
        istio::{
            service_entry::WorkloadEntry,
            workload_group::{MachineProbe, MachineRequest, WorkloadGroup},
        },
    },
};

/// Stands for the address of a machine, which its proxy tells.
const SOME_ADDRESS: &str = "192.0.2.1";

pub(in crate::dialect::istio) fn check_group(group: &WorkloadGroup, at: &mut Decoder) {
    if let Some(metadata) = &group.metadata {
        at.within("metadata", |at| check_labels("labels", &metadata.labels, at));
    }
    at.within("template", |at| {
        if !group.template.address.is_empty() {
            at.within("address", |at| {
                at.invalid(
                    "every machine has an address of its own",
                    Some("take it out".to_owned()),
                )
            });
        }
        if group.template.service_account.is_empty() {
            let fix = "the account that the machines prove".to_owned();
            at.missing("serviceAccount", Some(fix));
        }
        let machine = WorkloadEntry { address: SOME_ADDRESS.into(), ..group.template.clone() };
        check_workload(&machine, at);
    });
    if let Some(probe) = &group.probe {
        at.within("probe", |at| check_probe(probe, at));
    }
}

fn check_probe(probe: &MachineProbe, at: &mut Decoder) {
    let ways = [
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.exec.is_some(),
        probe.grpc.is_some(),
    ];
    if ways.into_iter().filter(|given| *given).count() != 1 {
        at.invalid("exactly one of `httpGet`, `tcpSocket`, `exec`, `grpc` is needed", None);
    }
    let numbers = [
        ("timeoutSeconds", probe.timeout),
        ("periodSeconds", probe.period),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, _) in numbers.into_iter().filter(|(_, number)| *number == Some(0)) {
        at.within(field, |at| at.invalid("at least 1", None));
    }
    if let Some(request) = &probe.http_get {
        at.within("httpGet", |at| check_request(request, at));
    }
    let ports = [
        ("httpGet", probe.http_get.as_ref().map(|get| get.port)),
        ("tcpSocket", probe.tcp_socket.as_ref().map(|socket| socket.port)),
        ("grpc", probe.grpc.as_ref().map(|grpc| grpc.port)),
    ];
    for (field, _) in ports.into_iter().filter(|(_, port)| *port == Some(0)) {
        at.within(field, |at| {
            at.within("port", |at| at.invalid("expected 1..=65535, got 0", None))
        });
    }
}

fn check_request(request: &MachineRequest, at: &mut Decoder) {
    if !matches!(&*request.scheme, "" | "HTTP" | "HTTPS") {
        let path = at.path().field("scheme");
        let finding = Diagnostic::error(Code::InvalidValue, path, "not a known value");
        at.note(finding.expected("HTTP or HTTPS", format!("`{}`", request.scheme)));
    }
    each("httpHeaders", &request.http_headers, at, |header, at| {
        if !is_header_name(&header.name) {
            at.within("name", |at| {
                at.invalid(format!("`{}` is not the name of a header", header.name), None)
            });
        }
    });
}
