//! Ports that policies name: whether anybody has them, and what is spoken there.

use std::{collections::BTreeSet, sync::Arc};

use super::input::Input;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    ir::{
        AccessPolicy, BackendPolicy, CallMatch, ClientTls, PeerTlsPolicy, Protocol, Service,
        Workload,
    },
    snapshot::Item,
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for item in input.items() {
        let (id, found) = match item {
            Item::PeerTls(policy) => (&policy.origin.id, peer_tls(input, policy)),
            Item::Access(policy) => (&policy.origin.id, access(input, policy)),
            Item::Backend(policy) => (&policy.origin.id, backend(input, policy)),
            _ => continue,
        };
        findings.extend(found.into_iter().map(|finding| input.diagnose(id, finding)));
    }
}

/// The ports of some workloads, as far as they are declared.
struct Ports {
    /// At the workloads.
    own: BTreeSet<u16>,
    /// Of services, with where each arrives.
    of_services: BTreeSet<(u16, u16)>,
}

impl Ports {
    fn of<'a>(input: &Input<'_>, workloads: impl Iterator<Item = &'a Arc<Workload>>) -> Self {
        let mut ports = Self { own: BTreeSet::new(), of_services: BTreeSet::new() };
        for workload in workloads {
            ports.own.extend(&workload.container_ports);
            let leading = input.snapshot.ports_of(workload).into_iter();
            ports.of_services.extend(leading.map(|(_, number, target)| (number, target)));
        }
        ports.own.extend(ports.of_services.iter().map(|(_, at)| *at));
        ports
    }

    /// The finding on a port that is not one of the workloads; none where nothing is declared.
    fn finding(&self, port: u16, field: FieldPath) -> Option<Diagnostic> {
        if self.own.is_empty() || self.own.contains(&port) {
            return None;
        }
        let arriving: Vec<u16> =
            self.of_services.iter().filter(|(from, _)| *from == port).map(|(_, at)| *at).collect();
        let Some(first) = arriving.first() else {
            let message = format!("none of the selected workloads is known to have port {port}");
            return Some(Diagnostic::info(Code::NoEffect, field, message));
        };
        let message = format!(
            "{port} is the port of a Service, which arrives at {first}: here ports are those of \
             workloads, so that this holds nowhere"
        );
        Some(Diagnostic::warning(Code::NoEffect, field, message).fix(format!("`{first}`")))
    }
}

fn peer_tls(input: &Input<'_>, policy: &PeerTlsPolicy) -> Vec<Diagnostic> {
    let root = input.root();
    let governed = |w: &&Arc<Workload>| policy.governs(root, &w.id.namespace, &w.labels);
    let ports = Ports::of(input, input.snapshot.all_workloads().filter(governed));
    let field = |port: &u16| FieldPath::of("spec.portLevelMtls").field(port.to_string());
    policy.ports.keys().filter_map(|port| ports.finding(*port, field(port))).collect()
}

fn access(input: &Input<'_>, policy: &AccessPolicy) -> Vec<Diagnostic> {
    let governed = |w: &&Arc<Workload>| policy.governs(&w.id.namespace, &w.labels);
    let ports = Ports::of(input, input.snapshot.all_workloads().filter(governed));
    let mut found = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let at = FieldPath::of("spec.rules").index(index);
        for (to, conditions) in rule.to.iter().enumerate() {
            let at = at.field("to").index(to).field("operation").field("ports");
            found.extend(wanted(conditions).filter_map(|port| ports.finding(port, at.clone())));
        }
        let at = at.field("when");
        found.extend(wanted(&rule.when_to).filter_map(|port| ports.finding(port, at.clone())));
    }
    found
}

fn wanted(conditions: &[CallMatch]) -> impl Iterator<Item = u16> {
    conditions.iter().flat_map(|condition| match condition {
        CallMatch::Port(ports) => ports.wanted.clone(),
        _ => Vec::new(),
    })
}

fn backend(input: &Input<'_>, policy: &BackendPolicy) -> Vec<Diagnostic> {
    let services: Vec<&Arc<Service>> = input.snapshot.services().defining(&policy.host).collect();
    let mut found = Vec::new();
    let levels = std::iter::once((FieldPath::of("spec"), &policy.traffic))
        .chain(policy.subsets.iter().map(|s| (FieldPath::of(&s.at), &s.traffic)));
    for (at, traffic) in levels {
        let field = at.field("trafficPolicy").field("portLevelSettings");
        let unknown = |port: &&u16| services.iter().all(|s| s.port(**port).is_none());
        for port in traffic.ports.keys().filter(unknown).filter(|_| !services.is_empty()) {
            let message = format!("`{}` has no port {port}", policy.host);
            let ports = services.iter().flat_map(|s| &s.ports).map(|p| p.number.to_string());
            let known: BTreeSet<String> = ports.collect();
            let fix = format!("one of {}", known.into_iter().collect::<Vec<_>>().join(", "));
            found.push(Diagnostic::warning(Code::NoEffect, field.clone(), message).fix(fix));
        }
    }
    found.extend(unnamed_server(policy, &services));
    found
}

/// TLS to a server whose certificate may be for any name: connections that are no requests have no
/// host to take one from, and a given SNI is in the place of the host.
fn unnamed_server(policy: &BackendPolicy, services: &[&Arc<Service>]) -> Option<Diagnostic> {
    let Some(ClientTls::Simple(tls) | ClientTls::Mutual(tls)) = &policy.traffic.tls else {
        return None;
    };
    if !tls.subject_alt_names.is_empty() || tls.skip_verify {
        return None;
    }
    let opaque = |p: Protocol| {
        matches!(p, Protocol::Tcp | Protocol::Mongo | Protocol::Redis | Protocol::Mysql)
    };
    let by_sni = !tls.sni.is_empty();
    let unnamed = services.iter().filter(|s| s.subject_alt_names.is_empty());
    let mut ports = unnamed.flat_map(|service| &service.ports);
    let port = ports.find(|p| {
        (by_sni || opaque(p.protocol)) && !policy.traffic.ports.contains_key(&p.number)
    })?;
    let field = FieldPath::of("spec.trafficPolicy.tls");
    let taken =
        "no name is expected of the server: every certificate of a trusted authority is taken";
    if by_sni {
        let message =
            format!("`sni` asks for a certificate and demands no name of it, so that {taken}");
        let fix = format!("`subjectAltNames: [{}]`", tls.sni);
        return Some(Diagnostic::info(Code::NoEffect, field, message).fix(fix));
    }
    let message =
        format!("port {} of `{}` is not for HTTP, so that {taken}", port.number, policy.host);
    let fix = format!("`sni: {0}` and `subjectAltNames: [{0}]`", policy.host);
    Some(Diagnostic::warning(Code::NoEffect, field, message).fix(fix))
}
