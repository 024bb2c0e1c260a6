//! Gateways: their routes and credentials.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    routes,
    world::{World, carries},
};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        Kind, Object,
        istio::{
            gateway::{Gateway, Server},
            shared::{ServerTls, ServerTlsMode},
            virtual_service::VirtualService,
        },
    },
    ir::{Hostname, ObjectId},
};

pub(super) fn check(world: &World<'_>, findings: &mut Vec<Diagnostic>) {
    let mut bound: BTreeMap<&ObjectId, Vec<(&Object, &VirtualService)>> = BTreeMap::new();
    for (object, rules) in &world.routes {
        for gateway in rules.gateways.iter().filter_map(|name| routes::gateway(world, object, name)) {
            bound.entry(&gateway.id).or_default().push((object, rules));
        }
    }
    for (object, gateway) in &world.gateways {
        let routes = bound.get(&object.id).map_or(&[][..], Vec::as_slice);
        let mut found = Vec::new();
        check_routes(world, object, gateway, routes, &mut found);
        check_credentials(world, gateway, &mut found);
        findings.extend(found.into_iter().map(|f| world.diagnose(object, f)));
    }
}

fn check_routes(
    world: &World<'_>,
    object: &Object,
    gateway: &Gateway,
    routes: &[(&Object, &VirtualService)],
    found: &mut Vec<Diagnostic>,
) {
    for (i, server) in gateway.servers.iter().enumerate() {
        let tls = server.tls.as_ref();
        let needs_no_route = tls.is_some_and(|t| t.https_redirect || t.mode == Some(ServerTlsMode::AutoPassthrough));
        let bound = routes.iter().any(|(route, rules)| binds(world, object, server, route, rules));
        if !needs_no_route && !bound {
            let fix = format!("`gateways: [{}]` on a VirtualService", object.id.name);
            let path = FieldPath::of("spec.servers").index(i);
            found.push(Diagnostic::info(Code::NoEffect, path, "no route is bound to this gateway").fix(fix));
        }
    }
}

/// Whether a route may bind to a server: its namespace and one of its hosts fit.
fn binds(world: &World<'_>, gateway: &Object, server: &Server, route: &Object, rules: &VirtualService) -> bool {
    server.hosts.iter().any(|host| {
        let (namespace, host) = host.split_once('/').unwrap_or(("*", host));
        let allowed = match namespace {
            "*" => true,
            "." => route.id.namespace == gateway.id.namespace,
            named => *route.id.namespace == *named,
        };
        let host = Hostname::new(host);
        allowed
            && rules
                .hosts
                .iter()
                .any(|h| host.overlaps(&Hostname::new(h)) || host.overlaps(&world.qualify(h, &route.id.namespace)))
    })
}

fn check_credentials(world: &World<'_>, gateway: &Gateway, found: &mut Vec<Diagnostic>) {
    let everywhere = world.workloads.iter().flat_map(|(namespace, list)| list.iter().map(move |w| (*namespace, w)));
    let namespaces: BTreeSet<&str> =
        everywhere.filter(|(_, w)| carries(&w.labels, &gateway.selector)).map(|(ns, _)| ns).collect();
    for (i, server) in gateway.servers.iter().enumerate() {
        let Some(tls) = &server.tls else { continue };
        let path = FieldPath::of("spec.servers").index(i).field("tls");
        let several =
            tls.credential_names.iter().enumerate().map(|(j, name)| (path.field("credentialNames").index(j), name));
        let one = std::iter::once((path.field("credentialName"), &tls.credential_name));
        for (path, name) in one.chain(several).filter(|(_, name)| !name.is_empty() && !name.contains("://")) {
            found.extend(missing_credential(world, &namespaces, path, name));
        }
        found.extend(missing_client_ca(world, &namespaces, &path, tls));
    }
    if !gateway.selector.is_empty() && world.knows_workloads() && namespaces.is_empty() {
        found.push(Diagnostic::info(Code::NoEffect, FieldPath::of("spec.selector"), "selects no workload"));
    }
}

/// The finding on a CA for client certificates that a gateway does not find: in a Secret of its own, in `NAME-cacert`, or
/// as `ca.crt` of the credential.
fn missing_client_ca(
    world: &World<'_>,
    namespaces: &BTreeSet<&str>,
    path: &FieldPath,
    tls: &ServerTls,
) -> Option<Diagnostic> {
    if !matches!(tls.mode, Some(ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual))
        || !tls.ca_certificates.is_empty()
    {
        return None;
    }
    if !tls.ca_cert_credential_name.is_empty() {
        return missing_credential(world, namespaces, path.field("caCertCredentialName"), &tls.ca_cert_credential_name);
    }
    let name = &tls.credential_name;
    // A credential that is not there is a finding of its own.
    let holds_ca = |namespace: &str| world.credentials.get(&(namespace, &**name)).copied().unwrap_or(true);
    let beside = format!("{name}-cacert");
    let found = |namespace: &&&str| holds_ca(namespace) || world.credentials.contains_key(&(**namespace, &*beside));
    let namespace = namespaces.iter().find(|ns| !name.is_empty() && !found(ns))?;
    let message = format!(
        "no CA for client certificates: neither Secret `{beside}` in namespace {namespace} nor `ca.crt` in `{name}`"
    );
    let finding = Diagnostic::error_ref(Code::MissingCredential, path.field("credentialName"), message);
    Some(finding.fix(format!("create Secret `{beside}` in namespace {namespace}, with the key `ca.crt`")))
}

/// The finding on a credential that is not in every namespace where the gateway's workloads run. Without workloads
/// nothing can be said.
fn missing_credential(
    world: &World<'_>,
    namespaces: &BTreeSet<&str>,
    path: FieldPath,
    name: &str,
) -> Option<Diagnostic> {
    let missing: Vec<&str> =
        namespaces.iter().copied().filter(|ns| !world.credentials.contains_key(&(*ns, name))).collect();
    let namespace = missing.first()?;
    let elsewhere = world.credentials.keys().filter(|(_, other)| *other == name).map(|(ns, _)| *ns).collect::<Vec<_>>();
    let found_in = match elsewhere.as_slice() {
        [] => "and in no other namespace".to_owned(),
        list => format!("but in {}", list.join(", ")),
    };
    let message =
        format!("Secret `{name}` is not in namespace {}, where the gateway's pods run, {found_in}", missing.join(", "));
    let finding = Diagnostic::error_ref(Code::MissingCredential, path, message)
        .fix(format!("create Secret `{name}` in namespace {namespace}"));
    let objects = elsewhere.iter().filter_map(|ns| world.object(Kind::Secret, ns, name));
    Some(objects.fold(finding, |f, o| f.related(o.id.clone(), world.locate(o, &FieldPath::root()))))
}
