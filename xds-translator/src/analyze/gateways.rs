//! Gateways: their routes and credentials.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    clients::nodes,
    input::{Input, reason},
};
use crate::{
    class::{client_view, is_gateway},
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::Kind,
    ir::{
        Attachment, Field, GatewayConfig, GatewayServer, Hostname, ObjectId, ServerTls,
        ServerTlsMode, Workload,
    },
    plan::{Contested, Overruled, bound_hosts, closer_hosts, overruled},
    snapshot::{Reader, workload_port},
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for gateway in input.gateways() {
        let namespaces = proxy_namespaces(input, gateway);
        let mut found = Vec::new();
        check_routes(input, gateway, &namespaces, &mut found);
        check_credentials(input, gateway, &namespaces, &mut found);
        if !gateway.selector.is_empty() && input.knows_workloads() && namespaces.is_empty() {
            let field = FieldPath::of("spec.selector");
            found.push(
                Diagnostic::warning(Code::SelectsNothing, field, "selects no workload")
                    .istio("IST0101")
                    .fix("labels that the gateway's pods have"),
            );
        }
        check_ports(input, gateway, &mut found);
        findings.extend(found.into_iter().map(|f| input.diagnose(&gateway.origin.id, f)));
    }
    check_servers(input, findings);
}

/// Servers that no proxy serves as they are written, since an older one has their place.
fn check_servers(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let reader = Reader::new(&input.snapshot);
    let views = nodes(input).into_iter().filter_map(|node| client_view(&input.snapshot, &node));
    let overruled: BTreeSet<Overruled> = views.flat_map(|view| overruled(&reader, &view)).collect();
    findings.extend(overruled.iter().map(|overruled| conflict(input, overruled)));
}

fn conflict(input: &Input<'_>, overruled: &Overruled) -> Diagnostic {
    let Overruled { gateway, at, by, contested } = overruled;
    let (what, fix) = match contested {
        Contested::CloserHost(host) => return overlap(input, overruled, host),
        Contested::Port(port) => (
            format!("port {port} is for another kind of traffic"),
            "use another port, or another gateway's workload",
        ),
        Contested::Host(host) => {
            (format!("host `{host}` has its certificate"), "name each host in one server of a port")
        }
        Contested::Connections(port) => {
            (format!("the connections of port {port} go where its routes say"), "use another port")
        }
    };
    let winner = if by == gateway { "an earlier server of this object" } else { &*by.name };
    let origin = |id: &ObjectId| input.snapshot.gateways().get(id).map(|config| &config.origin);
    let why = match (origin(by), origin(gateway)) {
        (Some(first), Some(second)) if by != gateway => format!(" ({})", reason(first, second)),
        _ => String::new(),
    };
    let message = format!("{what} because of {winner}, which wins{why}; it is not served here");
    let field = FieldPath::of(at);
    let finding = Diagnostic::error_ref(Code::ConflictingServers, field, message).fix(fix);
    input.relate(input.diagnose(gateway, finding), by, &FieldPath::of("spec.servers"))
}

/// The finding on a wildcard below which another server names a host, and guards it otherwise.
fn overlap(input: &Input<'_>, overruled: &Overruled, host: &Hostname) -> Diagnostic {
    let Overruled { gateway, at, by, .. } = overruled;
    let other = if by == gateway { "another server of this object" } else { &*by.name };
    let message = format!(
        "`{host}` is a host of {other} too, with other rules for clients: requests for it over \
         connections for another host of this server are answered 421"
    );
    let finding = Diagnostic::warning(Code::ConflictingServers, FieldPath::of(at), message)
        .fix("hosts that do not overlap, or the same `tls` for both");
    input.relate(input.diagnose(gateway, finding), by, &FieldPath::of("spec.servers"))
}

/// Servers at ports that no Service leads to, where the gateway's pods are known.
fn check_ports(input: &Input<'_>, gateway: &GatewayConfig, found: &mut Vec<Diagnostic>) {
    let snapshot = &input.snapshot;
    let selected: Vec<&Arc<Workload>> = snapshot
        .all_workloads()
        .filter(|w| w.origin.id.kind == Kind::POD && gateway.selector.matches(&w.labels))
        .collect();
    if selected.is_empty() || gateway.selector.is_empty() {
        return;
    }
    let mut led_to = BTreeSet::new();
    for workload in selected {
        for service in snapshot.services().selecting(workload) {
            for port in &service.ports {
                led_to.insert(port.number);
                led_to.extend(workload_port(workload, port));
            }
        }
    }
    for server in gateway.servers.iter().filter(|server| !led_to.contains(&server.port)) {
        let message = format!("no Service of the gateway's pods leads to port {}", server.port);
        let field = FieldPath::of(&server.at).field("port").field("number");
        found.push(
            Diagnostic::warning(Code::GatewayPort, field, message)
                .fix(format!("port {} in the Service of the gateway", server.port)),
        );
    }
}

/// Where proxies of a gateway are known to run.
fn proxy_namespaces(input: &Input<'_>, gateway: &GatewayConfig) -> BTreeSet<Arc<str>> {
    let snapshot = &input.snapshot;
    let selected =
        |w: &&Arc<Workload>| gateway.selector.matches(&w.labels) && is_gateway(snapshot, w);
    snapshot.all_workloads().filter(selected).map(|w| w.id.namespace.clone()).collect()
}

fn check_routes(
    input: &Input<'_>,
    gateway: &GatewayConfig,
    namespaces: &BTreeSet<Arc<str>>,
    found: &mut Vec<Diagnostic>,
) {
    let id = &gateway.origin.id;
    let reader = Reader::new(&input.snapshot);
    let own = BTreeSet::from([id.namespace.clone()]);
    let namespaces = if namespaces.is_empty() { &own } else { namespaces };
    let tables: Vec<_> = namespaces
        .iter()
        .flat_map(|n| reader.route_tables(&Attachment::Gateway(id.clone()), n).to_vec())
        .collect();
    for server in &gateway.servers {
        let attached = tables.iter().filter(|table| table.is_attached_to(id, &server.port_name));
        let beside = gateway.servers.iter().filter(|other| {
            other.at != server.at && other.port == server.port && server.tls.is_some()
        });
        let closer = closer_hosts(server, beside);
        let bound =
            attached.into_iter().any(|table| !bound_hosts(server, &closer, table).is_empty());
        if !bound && needs_routes(server) {
            let fix = format!("`gateways: [{}]` on a VirtualService", id.name);
            let path = FieldPath::of(&server.at);
            found.push(
                Diagnostic::info(Code::NoEffect, path, "no route is bound to this gateway")
                    .fix(fix),
            );
        }
    }
}

fn needs_routes(server: &GatewayServer) -> bool {
    let by_sni = |tls: &ServerTls| tls.mode == ServerTlsMode::AutoPassthrough;
    !server.https_redirect && !server.tls.as_ref().is_some_and(by_sni)
}

fn check_credentials(
    input: &Input<'_>,
    gateway: &GatewayConfig,
    namespaces: &BTreeSet<Arc<str>>,
    found: &mut Vec<Diagnostic>,
) {
    if gateway.selector.is_empty() && namespaces.is_empty() && input.knows_workloads() {
        found.extend(unserved_credentials(gateway));
    }
    for tls in gateway.servers.iter().filter_map(|server| server.tls.as_ref()) {
        let asks_clients = match tls.mode {
            ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => true,
            ServerTlsMode::Simple => false,
            _ => continue,
        };
        for (name, at) in tls.credentials.iter().zip(&tls.credential_fields) {
            found.extend(missing_credential(input, namespaces, at, name));
        }
        if !gateway.selector.is_empty() && namespaces.is_empty() {
            let of_clients = asks_clients.then_some(tls.ca_credential.as_ref()).flatten();
            let of_clients = of_clients.map(|name| (name, &tls.ca_credential_field));
            let all = tls.credentials.iter().zip(&tls.credential_fields).chain(of_clients);
            found.extend(all.filter_map(|(name, at)| nowhere(input, at, name)));
        }
        found.extend(asks_clients.then(|| missing_client_ca(input, namespaces, tls)).flatten());
    }
}

/// Findings on credentials of a gateway without a selector where nobody is a gateway by labels:
/// who only calls itself one is given none.
fn unserved_credentials(gateway: &GatewayConfig) -> Vec<Diagnostic> {
    let fields = gateway.servers.iter().filter_map(|s| s.tls.as_ref());
    let fields = fields.flat_map(|tls| &tls.credential_fields);
    let message = "nobody is given it: only workloads that a Gateway selects by labels are";
    let finding = |at: &Field| Diagnostic::warning(Code::NoEffect, FieldPath::of(at), message);
    fields.map(|at| finding(at).fix("`selector` with the labels of the gateway's pods")).collect()
}

/// The finding on a CA for client certificates that a gateway does not find: in a Secret of its
/// own, in `NAME-cacert`, or as `ca.crt` of the credential.
fn missing_client_ca(
    input: &Input<'_>,
    namespaces: &BTreeSet<Arc<str>>,
    tls: &ServerTls,
) -> Option<Diagnostic> {
    if let Some(name) = &tls.ca_credential {
        return missing_credential(input, namespaces, &tls.ca_credential_field, name);
    }
    let (name, at) = tls.credentials.iter().zip(&tls.credential_fields).next()?;
    let credentials = input.snapshot.credentials();
    // A credential that is not there is a finding of its own.
    let holds_ca = |namespace: &Arc<str>| {
        credentials.get(&(namespace.clone(), name.clone())).is_none_or(|fact| fact.holds_ca)
    };
    let beside: Arc<str> = format!("{name}-cacert").into();
    let reader = Reader::new(&input.snapshot);
    let found = |n: &&Arc<str>| holds_ca(n) || reader.credential(n, &beside);
    let missing: Vec<&str> = namespaces.iter().filter(|n| !found(n)).map(AsRef::as_ref).collect();
    let namespace = missing.first().filter(|_| tls.ca_file.is_empty())?;
    let message = format!(
        "no CA for client certificates: neither Secret `{beside}` in namespace {} nor `ca.crt` in `{name}`",
        missing.join(", ")
    );
    let finding = Diagnostic::error_ref(Code::MissingCredential, FieldPath::of(at), message);
    Some(
        finding.fix(format!(
            "create Secret `{beside}` in namespace {namespace}, with the key `ca.crt`"
        )),
    )
}

/// The finding on a credential that is in no namespace, while nobody knows where the gateway's
/// workloads will run.
fn nowhere(input: &Input<'_>, at: &Field, name: &str) -> Option<Diagnostic> {
    let known = input.snapshot.credentials().keys().any(|(_, other)| **other == *name);
    if known || name.contains("://") || !input.knows_workloads() {
        return None;
    }
    let message =
        format!("Secret `{name}` is in no namespace: the gateway's pods will not find it");
    let finding = Diagnostic::warning(Code::MissingCredential, FieldPath::of(at), message);
    Some(finding.fix(format!("create Secret `{name}` in the namespace of the gateway's pods")))
}

/// The finding on a credential that is not in every namespace where the gateway's workloads run.
/// Without workloads nothing can be said.
fn missing_credential(
    input: &Input<'_>,
    namespaces: &BTreeSet<Arc<str>>,
    at: &Field,
    name: &str,
) -> Option<Diagnostic> {
    let reader = Reader::new(&input.snapshot);
    let missing: Vec<&str> =
        namespaces.iter().map(AsRef::as_ref).filter(|n| !reader.credential(n, name)).collect();
    // Another provider of secrets knows what it has.
    let namespace = missing.first().filter(|_| !name.contains("://"))?;
    let credentials = input.snapshot.credentials().keys();
    let elsewhere: Vec<&Arc<str>> =
        credentials.filter(|(_, other)| **other == *name).map(|(n, _)| n).collect();
    let found_in = match elsewhere.as_slice() {
        [] => "and in no other namespace".to_owned(),
        list => format!("but in {}", list.iter().map(|n| &***n).collect::<Vec<_>>().join(", ")),
    };
    let message = format!(
        "Secret `{name}` is not in namespace {}, where the gateway's pods run, {found_in}",
        missing.join(", ")
    );
    let finding = Diagnostic::error_ref(Code::MissingCredential, FieldPath::of(at), message)
        .fix(format!("create Secret `{name}` in namespace {namespace}"));
    let secret =
        |n: &&Arc<str>| ObjectId { kind: Kind::SECRET, namespace: (*n).clone(), name: name.into() };
    let secrets = elsewhere.iter().map(secret).filter(|id| input.object(id).is_some());
    Some(secrets.fold(finding, |f, id| input.relate(f, &id, &FieldPath::root())))
}
