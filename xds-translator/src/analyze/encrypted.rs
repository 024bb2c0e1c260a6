//! Ports whose clients speak TLS by themselves: what rules put around it a second time, and HTTP
//! rules that nobody can apply to it.
//!
//! Istio: "TLS configuration mistakes", the chapters on double TLS and on HTTP rules of a port that
//! is declared HTTPS.

use std::sync::Arc;

use super::input::Input;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    ir::{
        Attachment, BackendPolicy, ClientTls, HttpRule, Protocol, RouteTable, Service, ServicePort,
        TrafficPolicy,
    },
    snapshot::Item,
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for item in input.items() {
        let (id, found) = match item {
            Item::Backend(policy) => (&policy.origin.id, twice_encrypted(input, policy)),
            Item::Routes(table) => (&table.origin.id, unreadable(input, table)),
            _ => continue,
        };
        if input.is_wanted(id) {
            findings.extend(found.into_iter().map(|finding| input.diagnose(id, finding)));
        }
    }
}

/// Whether what goes through a port is TLS already, which a proxy passes on unread.
fn is_encrypted(port: &ServicePort) -> bool {
    matches!(port.protocol, Protocol::Https | Protocol::Tls)
}

fn declared(port: &ServicePort) -> &'static str {
    if port.protocol == Protocol::Tls { "TLS" } else { "HTTPS" }
}

/// TLS of a rule around that of clients: the server would have to take both off.
fn twice_encrypted(input: &Input<'_>, policy: &BackendPolicy) -> Vec<Diagnostic> {
    let services: Vec<&Arc<Service>> = input.snapshot.services().defining(&policy.host).collect();
    let ports = || services.iter().flat_map(|service| &service.ports).filter(|p| is_encrypted(p));
    let adds = |traffic: &TrafficPolicy| {
        matches!(traffic.tls, Some(ClientTls::Simple(_) | ClientTls::Mutual(_)))
    };
    let mut found = Vec::new();
    let mut note = |field: FieldPath, port: &ServicePort| {
        let message = format!(
            "clients speak TLS to port {} of `{}` by themselves, since it is declared {}: this puts \
             it into TLS once more, which servers do not understand",
            port.number,
            policy.host,
            declared(port),
        );
        let fix =
            "take it out; or declare the port `protocol: HTTP` and have clients call `http://`";
        found.push(Diagnostic::warning(Code::NoEffect, field, message).fix(fix));
    };
    let levels = std::iter::once((FieldPath::of("spec"), &policy.traffic))
        .chain(policy.subsets.iter().map(|s| (FieldPath::of(&s.at), &s.traffic)));
    for (at, traffic) in levels {
        let at = at.field("trafficPolicy");
        let general = ports().find(|port| !traffic.ports.contains_key(&port.number));
        if let Some(port) = general.filter(|_| adds(traffic)) {
            note(at.field("tls"), port);
        }
        for port in ports() {
            if traffic.ports.get(&port.number).is_some_and(adds) {
                note(at.field("portLevelSettings"), port);
            }
        }
    }
    found
}

/// HTTP rules that are for such ports alone: requests to them are never seen.
fn unreadable(input: &Input<'_>, table: &RouteTable) -> Vec<Diagnostic> {
    // Gateways terminate what is for them.
    if table.attachments != [Attachment::Mesh] {
        return Vec::new();
    }
    let services = || table.hosts.iter().flat_map(|host| input.snapshot.services().defining(host));
    let all: Vec<&ServicePort> = services().flat_map(|service| &service.ports).collect();
    let found = table.http.iter().filter_map(|rule| {
        let asked = asked_ports(rule, &all);
        let port = *asked.first().filter(|_| asked.iter().all(|port| is_encrypted(port)))?;
        let message = format!(
            "port {} is declared {}: what goes through it is TLS of clients, so that a rule on HTTP \
             never applies",
            port.number,
            declared(port),
        );
        let fix = "a rule of `tls` with `sniHosts`; or declare the port `protocol: HTTP`, have clients \
                   call `http://`, and originate TLS by a DestinationRule";
        let field = FieldPath::of(&rule.at);
        Some(Diagnostic::warning(Code::NoEffect, field, message).fix(fix))
    });
    found.collect()
}

/// The ports of the table's services that a rule may be for.
fn asked_ports<'a>(rule: &HttpRule, all: &[&'a ServicePort]) -> Vec<&'a ServicePort> {
    let any = rule.matches.is_empty() || rule.matches.iter().any(|m| m.port.is_none());
    let named = |port: &&&ServicePort| rule.matches.iter().any(|m| m.port == Some(port.number));
    all.iter().filter(|port| any || named(port)).copied().collect()
}
