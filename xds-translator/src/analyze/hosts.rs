//! Hosts that several objects define: what is read as one service, and what is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    clients::clients,
    input::{Input, reason},
};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::istio::service_entry::ServiceEntry,
    ir::{ObjectId, Service, ServiceAddress, ServicePort},
    plan::{Displaced, ViewKey, displaced},
    snapshot::{Item, Reader},
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    check_hosts(input, findings);
    check_places(input, findings);
    check_allocated(input, findings);
}

/// Allocated addresses that another service has too.
fn check_allocated(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let mut at: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
    for service in services(input) {
        let own = service.addresses.iter().filter_map(|address| match address {
            ServiceAddress::Ip(ip) => Some(*ip),
            ServiceAddress::Net(_) => None,
        });
        let addresses = own.chain(service.allocated.map(IpAddr::V4));
        addresses.for_each(|address| at.entry(address).or_default().push(service));
    }
    for (address, mut services) in at {
        // Who has the address by its own word comes before who was given it.
        let rank = |s: &Service| (s.allocated.is_some(), s.origin.created, s.key.clone());
        services.sort_by_key(|service| rank(service));
        let [first, others @ ..] = services.as_slice() else { continue };
        let given = others.iter().filter(|s| s.allocated.is_some() && s.key.host != first.key.host);
        findings.extend(given.map(|service| {
            let message = format!(
                "`{}` is allocated {address}, and so has `{}` of {}: where DNS answers with \
                 allocated addresses, connections go there",
                service.key.host, first.key.host, first.origin.id
            );
            let finding =
                Diagnostic::warning(Code::AddressesRequired, FieldPath::of("spec.hosts"), message)
                    .fix("`addresses` of its own");
            said_of(input, service, first, finding)
        }));
    }
}

/// Every definition of a service.
fn services<'a>(input: &'a Input<'_>) -> impl Iterator<Item = &'a Service> {
    input.items().iter().filter_map(|item| match item {
        Item::Service(definition) => Some(&*definition.service),
        _ => None,
    })
}

/// Ports that clients cannot tell from those of an older service, because neither has an address.
fn check_places(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    if !may_displace(input) {
        return;
    }
    let mut found: BTreeMap<Displaced, BTreeSet<Arc<str>>> = BTreeMap::new();
    for clients in clients(input) {
        let ViewKey::Outbound(key) = &clients.view else { continue };
        for displaced in displaced(&Reader::new(&input.snapshot), key) {
            found.entry(displaced).or_default().extend(clients.namespaces.iter().cloned());
        }
    }
    findings.extend(found.iter().filter_map(|(displaced, of)| unplaced(input, displaced, of)));
}

/// Whether some port is shared on the wildcard address by bytes that nothing tells apart; planning
/// for every kind of client costs more than to look.
fn may_displace(input: &Input<'_>) -> bool {
    let mut sharing: BTreeMap<u16, (bool, usize)> = BTreeMap::new();
    for service in services(input).filter(|service| !service.headless) {
        for port in &service.ports {
            let opaque = !port.protocol.is_http() && service.addresses.is_empty();
            if opaque || port.protocol.is_http() {
                let (any, count) = sharing.entry(port.number).or_default();
                (*any, *count) = (*any || opaque, *count + 1);
            }
        }
    }
    sharing.values().any(|(opaque, count)| *opaque && *count > 1)
}

fn unplaced(
    input: &Input<'_>,
    displaced: &Displaced,
    namespaces: &BTreeSet<Arc<str>>,
) -> Option<Diagnostic> {
    let services = input.snapshot.services();
    let service = services.service(&displaced.service)?;
    let first = services.service(displaced.by.as_ref()?)?;
    let namespaces: Vec<String> = namespaces.iter().map(|n| format!("`{n}`")).collect();
    let (host, port) = (&service.key.host, displaced.port);
    let message = format!(
        "clients of {} find `{}` of {} at port {port} of `{host}` ({}): without an address nothing \
         tells the connections of the two apart",
        namespaces.join(", "),
        first.key.host,
        first.origin.id,
        reason(&first.origin, &service.origin)
    );
    let field = match port_index(input, service, port) {
        Some(index) => FieldPath::of("spec.ports").index(index),
        None => FieldPath::of("spec.ports"),
    };
    let finding = Diagnostic::warning(Code::AddressesRequired, field, message)
        .fix("`addresses` of its own that clients call, or another port");
    Some(said_of(input, service, first, finding))
}

/// Where the object of a service writes a port.
fn port_index(input: &Input<'_>, service: &Service, port: u16) -> Option<usize> {
    let spec = input.object(&service.origin.id)?.content::<ServiceEntry>()?;
    spec.ports.iter().position(|written| written.number == port)
}

/// Hosts that a ServiceEntry shares with a Service or an older ServiceEntry.
fn check_hosts(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let mut said: BTreeSet<(&ObjectId, &ObjectId)> = BTreeSet::new();
    for younger in services(input).filter(|service| !service.kubernetes) {
        let before = before(input, younger);
        let apart = before.iter().find(|first| first.apart_from(younger).is_some());
        if let Some(first) = apart.filter(|f| said.insert((&younger.origin.id, &f.origin.id))) {
            findings.extend(unread(input, first, younger));
        }
        let joined = before.iter().filter(|first| first.apart_from(younger).is_none());
        let joined: Vec<&Service> = joined.copied().collect();
        findings.extend(younger.ports.iter().filter_map(|port| {
            let mut others =
                joined.iter().filter_map(|first| Some((*first, first.port(port.number)?)));
            others.next().and_then(|first| overruled(input, younger, port, first))
        }));
        if let Some(first) =
            joined.first().filter(|f| said.insert((&younger.origin.id, &f.origin.id)))
        {
            findings.extend(unheard(input, first, younger));
        }
    }
}

/// Definitions of the host by other objects that come before this one for some client, as the
/// snapshot orders them.
fn before<'a>(input: &'a Input<'_>, younger: &Service) -> Vec<&'a Service> {
    let definitions = input.snapshot.services().definitions(&younger.key.host);
    let first = |other: &&Service| {
        let older = other.kubernetes || other.origin.by_age(&younger.origin).is_lt();
        other.origin.id != younger.origin.id && older
    };
    let others = definitions.map(|definition| &*definition.service).filter(first);
    others.filter(|other| other.export_to.overlaps(&younger.export_to)).collect()
}

/// A definition that clients get another in the place of; `None` where nothing of it is lost.
fn unread(input: &Input<'_>, first: &Service, younger: &Service) -> Option<Diagnostic> {
    let host = &younger.key.host;
    let other = &first.origin.id;
    let message = if first.key.namespace != younger.key.namespace {
        format!("`{host}` is a host of {other} too: each client gets one of them, not both")
    } else {
        let property = first.apart_from(younger).unwrap_or_default();
        let adds = younger.adds_endpoints_to(first);
        let kept = |port: &&ServicePort| match first.port(port.number) {
            Some(own) => !adds || own.is_same_as(port),
            None => false,
        };
        let lost: Vec<String> =
            younger.ports.iter().filter(|p| !kept(p)).map(|p| p.number.to_string()).collect();
        let ports = match lost.as_slice() {
            [] if adds => return None,
            [] => "not this one".to_owned(),
            lost => format!("and lose port {}", lost.join(", ")),
        };
        format!(
            "`{host}` is a host of {other} too, and with another {property} the two are not read \
             as one: clients that see both get {other}, {ports}"
        )
    };
    let finding = Diagnostic::warning(Code::ConflictingHosts, FieldPath::of("spec.hosts"), message)
        .fix("one object for the host, or an `exportTo` by which no client sees both");
    Some(said_of(input, younger, first, finding))
}

/// A port of which the number is taken by an older definition of the same service.
fn overruled(
    input: &Input<'_>,
    younger: &Service,
    port: &ServicePort,
    (first, taken): (&Service, &ServicePort),
) -> Option<Diagnostic> {
    let number = port.number;
    let other = &first.origin.id;
    let reason = reason(&first.origin, &younger.origin);
    let host = &younger.key.host;
    let (message, fix) = if port.name != taken.name {
        (
            format!(
                "port {number} of `{host}` is `{}` of {other} ({reason}): the endpoints of `{}` \
                 here get nothing",
                taken.name, port.name
            ),
            format!("`name: {}`, or another number", taken.name),
        )
    } else if port.protocol != taken.protocol {
        (
            format!(
                "port {number} of `{host}` speaks {:?}, as {other} says ({reason}), not {:?}",
                taken.protocol, port.protocol
            ),
            "the same protocol in both".to_owned(),
        )
    } else {
        return None;
    };
    let index = port_index(input, younger, number)?;
    let field = FieldPath::of("spec.ports").index(index);
    let finding = Diagnostic::warning(Code::ConflictingHosts, field, message).fix(fix);
    Some(said_of(input, younger, first, finding))
}

/// What a service has once, and an older definition says otherwise.
fn unheard(input: &Input<'_>, first: &Service, younger: &Service) -> Vec<Diagnostic> {
    let properties = [
        (first.external != younger.external, "location"),
        (first.subject_alt_names != younger.subject_alt_names, "subjectAltNames"),
    ];
    let finding = |property: &str| {
        let (host, other) = (&younger.key.host, &first.origin.id);
        let message = format!(
            "`{host}` is read as one with {other}, whose `{property}` holds: {}",
            reason(&first.origin, &younger.origin)
        );
        let field = FieldPath::of("spec").field(property);
        let finding = Diagnostic::warning(Code::ConflictingHosts, field, message)
            .fix(format!("the same `{property}` in both"));
        said_of(input, younger, first, finding)
    };
    let differing = properties.into_iter().filter(|(differs, _)| *differs);
    differing.map(|(_, property)| finding(property)).collect()
}

fn said_of(
    input: &Input<'_>,
    younger: &Service,
    first: &Service,
    finding: Diagnostic,
) -> Diagnostic {
    let finding = input.diagnose(&younger.origin.id, finding);
    input.relate(finding, &first.origin.id, &FieldPath::root())
}
