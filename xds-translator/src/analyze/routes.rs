//! VirtualServices: hosts, subsets and gateways that they name, and each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::world::{World, by_age, carries, exported, reason};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        Kind, Object,
        istio::virtual_service::{Destination, HttpRoute, VirtualService},
    },
    ir::{Hostname, Labels},
};

pub(super) fn check(world: &World<'_>, findings: &mut Vec<Diagnostic>) {
    for (object, rules) in &world.routes {
        let mut found = Vec::new();
        check_destinations(world, object, rules, &mut found);
        check_gateways(world, object, rules, &mut found);
        check_hosts(world, object, rules, &mut found);
        check_http(rules, &mut found);
        findings.extend(found.into_iter().map(|f| world.diagnose(object, f)));
    }
    check_conflicts(world, findings);
}

/// Every destination with its path.
fn destinations(rules: &VirtualService) -> Vec<(FieldPath, &Destination)> {
    let mut list = Vec::new();
    let spec = FieldPath::of("spec");
    for (i, rule) in rules.http.iter().enumerate() {
        let at = spec.field("http").index(i);
        list.extend(
            rule.route
                .iter()
                .enumerate()
                .map(|(j, r)| (at.field("route").index(j).field("destination"), &r.destination)),
        );
        list.extend(rule.mirror.iter().map(|m| (at.field("mirror"), m)));
        list.extend(
            rule.mirrors
                .iter()
                .enumerate()
                .map(|(j, m)| (at.field("mirrors").index(j).field("destination"), &m.destination)),
        );
    }
    for (i, rule) in rules.tls.iter().enumerate() {
        let at = spec.field("tls").index(i).field("route");
        list.extend(rule.route.iter().enumerate().map(|(j, r)| (at.index(j).field("destination"), &r.destination)));
    }
    for (i, rule) in rules.tcp.iter().enumerate() {
        let at = spec.field("tcp").index(i).field("route");
        list.extend(rule.route.iter().enumerate().map(|(j, r)| (at.index(j).field("destination"), &r.destination)));
    }
    list
}

fn check_destinations(world: &World<'_>, object: &Object, rules: &VirtualService, found: &mut Vec<Diagnostic>) {
    for (path, destination) in destinations(rules) {
        if destination.host.is_empty() {
            continue;
        }
        let host = world.qualify(&destination.host, &object.id.namespace);
        if !world.knows_host(&host) {
            let message = format!("`{host}` is no host of a Service or ServiceEntry");
            found.push(Diagnostic::error_ref(Code::MissingReference, path.field("host"), message));
        } else if !destination.subset.is_empty() && !has_subset(world, &host, object, &destination.subset) {
            let message = format!("subset `{}` of `{host}` is in no DestinationRule", destination.subset);
            let fix = subset_fix(world, &host, &destination.subset);
            found.push(Diagnostic::error_ref(Code::MissingReference, path.field("subset"), message).fix(fix));
        } else if let (Some(port), Some((_, service))) = (&destination.port, world.service(&host))
            && !service.spec.ports.is_empty()
            && service.spec.ports.iter().all(|p| p.port != port.number)
        {
            let ports = service.spec.ports.iter().map(|p| p.port.to_string()).collect::<Vec<_>>().join(", ");
            let message = format!("`{host}` has no port {}", port.number);
            let finding = Diagnostic::error_ref(Code::MissingReference, path.field("port").field("number"), message);
            found.push(finding.expected(format!("one of {ports}"), port.number.to_string()));
        }
    }
}

fn has_subset(world: &World<'_>, host: &Hostname, object: &Object, subset: &Arc<str>) -> bool {
    world.backends_for(host, &object.id.namespace).any(|(_, rule)| rule.subsets.iter().any(|s| s.name == *subset))
}

/// The DestinationRule that would define the subset, with labels that pods of the service carry.
fn subset_fix(world: &World<'_>, host: &Hostname, subset: &str) -> String {
    let pods = world.service(host).map(|(object, service)| {
        let selector: Labels = service.spec.selector.clone();
        let all = world.workloads.get(&*object.id.namespace).into_iter().flatten();
        all.filter(|w| !selector.is_empty() && carries(&w.labels, &selector)).map(|w| &w.labels).collect::<Vec<_>>()
    });
    let labels = pods.into_iter().flatten();
    let named = labels
        .flat_map(|l| l.iter())
        .filter(|(key, value)| &***value == subset && !key.starts_with("security.istio.io/"));
    // `version` is the label that people use; any other that says the same will do.
    let label = named.map(|(key, _)| &**key).min_by_key(|key| (*key != "version", (*key).to_owned()));
    match label {
        Some(label) => format!(
            "a DestinationRule for `{host}` with `subsets: [{{name: {subset}, labels: {{{label}: {subset}}}}}]`"
        ),
        None => format!(
            "a DestinationRule for `{host}` with a subset `{subset}`; no pod of it carries a label with that value"
        ),
    }
}

fn check_gateways(world: &World<'_>, object: &Object, rules: &VirtualService, found: &mut Vec<Diagnostic>) {
    let mut check = |path: FieldPath, name: &str| {
        if name != "mesh" && gateway(world, object, name).is_none() {
            let message = format!("Gateway `{name}` not found");
            let near = world.gateways.iter().find(|(g, _)| name.rsplit('/').next() == Some(&*g.id.name));
            let finding = Diagnostic::error_ref(Code::MissingReference, path, message);
            found.push(match near {
                Some((other, _)) => finding.fix(format!("`{}/{}`", other.id.namespace, other.id.name)),
                None => finding.fix("create it, or remove the name"),
            });
        }
    };
    for (i, name) in rules.gateways.iter().enumerate() {
        check(FieldPath::of("spec.gateways").index(i), name);
    }
    for (i, rule) in rules.http.iter().enumerate() {
        for (j, m) in rule.matches.iter().enumerate() {
            for (k, name) in m.gateways.iter().enumerate() {
                check(FieldPath::of("spec.http").index(i).field("match").index(j).field("gateways").index(k), name);
            }
        }
    }
}

/// The Gateway that a VirtualService names.
pub(super) fn gateway<'a>(world: &World<'a>, object: &Object, name: &str) -> Option<&'a Object> {
    let (namespace, name) = name.split_once('/').unwrap_or((&object.id.namespace, name));
    world.object(Kind::Gateway, namespace, name)
}

/// Hosts that are one host.
fn check_hosts(world: &World<'_>, object: &Object, rules: &VirtualService, found: &mut Vec<Diagnostic>) {
    let mut first: BTreeMap<Hostname, usize> = BTreeMap::new();
    for (i, host) in rules.hosts.iter().enumerate() {
        let index = *first.entry(world.qualify(host, &object.id.namespace)).or_insert(i);
        if index != i {
            let message = format!("same service as `hosts[{index}]`");
            found
                .push(Diagnostic::info(Code::NoEffect, FieldPath::of("spec.hosts").index(i), message).fix("remove it"));
        }
    }
}

fn check_http(rules: &VirtualService, found: &mut Vec<Diagnostic>) {
    let catch_all = |rule: &HttpRoute| rule.matches.is_empty();
    for (i, rule) in rules.http.iter().enumerate() {
        let path = FieldPath::of("spec.http").index(i);
        check_retries(rule, &path, found);
        if let Some(earlier) = rules.http[..i].iter().position(catch_all) {
            let message = format!("never reached: `http[{earlier}]` takes every request");
            found.push(Diagnostic::info(Code::NoEffect, path, message).fix("put rules without `match` last"));
        }
    }
}

fn check_retries(rule: &HttpRoute, path: &FieldPath, found: &mut Vec<Diagnostic>) {
    let Some(retries) = &rule.retries else { return };
    let (Some(timeout), Some(per_try), Some(attempts)) = (rule.timeout, retries.per_try_timeout, retries.attempts)
    else {
        return;
    };
    let tries = u32::try_from(attempts).unwrap_or(0).saturating_add(1);
    if attempts > 0 && !timeout.is_zero() && per_try.checked_mul(tries).is_none_or(|all| all > timeout) {
        let message = format!("{tries} tries of {per_try:?} exceed `timeout: {timeout:?}`");
        found.push(
            Diagnostic::info(Code::Retries, path.field("retries"), message)
                .fix("a longer `timeout`, or fewer or shorter tries"),
        );
    }
}

/// A VirtualService's claim to a host.
struct Claim<'a> {
    object: &'a Object,
    rules: &'a VirtualService,
    /// Which of its hosts.
    index: usize,
}

/// Most rivals that are named in one finding.
const NAMED_RIVALS: usize = 8;

/// Two VirtualServices for one host in the mesh: sidecars do not merge them.
fn check_conflicts(world: &World<'_>, findings: &mut Vec<Diagnostic>) {
    let mut claims: BTreeMap<Hostname, Vec<Claim<'_>>> = BTreeMap::new();
    for (object, rules) in &world.routes {
        if rules.gateways.is_empty() || rules.gateways.iter().any(|g| &**g == "mesh") {
            let mut seen = BTreeSet::new();
            for (index, host) in rules.hosts.iter().enumerate() {
                let host = world.qualify(host, &object.id.namespace);
                if seen.insert(host.clone()) {
                    claims.entry(host).or_default().push(Claim { object, rules, index });
                }
            }
        }
    }
    for (host, mut claims) in claims {
        claims.sort_by(|a, b| by_age(a.object, b.object));
        for (rank, claim) in claims.iter().enumerate() {
            let others = claims.iter().enumerate().filter(|(other, rival)| *other != rank && meet(claim, rival));
            let rivals: Vec<(bool, &Claim<'_>)> =
                others.take(NAMED_RIVALS).map(|(other, rival)| (other < rank, rival)).collect();
            if !rivals.is_empty() {
                findings.push(conflict(world, &host, claim, &rivals));
            }
        }
    }
}

/// Whether some namespace sees both.
fn meet(a: &Claim<'_>, b: &Claim<'_>) -> bool {
    let public =
        |claim: &Claim<'_>| claim.rules.export_to.is_empty() || claim.rules.export_to.iter().any(|e| &**e == "*");
    let anybody = |claim: &Claim<'_>| claim.rules.export_to.iter().any(|e| &**e != "~");
    let seen_in =
        |claim: &Claim<'_>, namespace: &str| exported(&claim.rules.export_to, &claim.object.id.namespace, namespace);
    match (public(a), public(b)) {
        (true, true) => true,
        (true, false) => anybody(b),
        (false, true) => anybody(a),
        (false, false) => a.rules.export_to.iter().any(|e| match &**e {
            "~" => false,
            "." => seen_in(b, &a.object.id.namespace),
            named => seen_in(b, named),
        }),
    }
}

/// The finding on one of the claimants; each rival with whether it comes first.
fn conflict(world: &World<'_>, host: &Hostname, claim: &Claim<'_>, rivals: &[(bool, &Claim<'_>)]) -> Diagnostic {
    let own = routes_of(claim.rules);
    let message = match rivals.iter().find(|(first, _)| *first) {
        None => {
            let losers = rivals.iter().map(|(_, rival)| rival.object.id.to_string()).collect::<Vec<_>>().join(", ");
            let why = rivals.first().map_or("", |(_, rival)| reason(claim.object, rival.object));
            format!(
                "`{host}` is claimed by {losers} too, and sidecars do not merge: this one wins ({why}), its {own} apply"
            )
        }
        Some((_, winner)) => format!(
            "`{host}` is claimed by {} too, and sidecars do not merge: that one wins ({}), its {} apply; ignored here: {own}",
            winner.object.id,
            reason(winner.object, claim.object),
            routes_of(winner.rules)
        ),
    };
    let field = |index| FieldPath::of("spec.hosts").index(index);
    let finding = Diagnostic::error_ref(Code::ConflictingHosts, field(claim.index), message);
    let finding = world.diagnose(claim.object, finding.fix("merge them into one VirtualService"));
    let related = |finding: Diagnostic, (_, rival): &(bool, &Claim<'_>)| {
        finding.related(rival.object.id.clone(), world.locate(rival.object, &field(rival.index)))
    };
    rivals.iter().fold(finding, related)
}

/// `http[0], http[1]`
fn routes_of(rules: &VirtualService) -> String {
    let list = |name: &'static str, count: usize| (0..count).map(move |i| format!("{name}[{i}]"));
    let all: Vec<String> = list("http", rules.http.len())
        .chain(list("tls", rules.tls.len()))
        .chain(list("tcp", rules.tcp.len()))
        .collect();
    if all.is_empty() { "rules".to_owned() } else { all.join(", ") }
}
