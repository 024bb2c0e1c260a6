//! AuthorizationPolicies with conditions on HTTP that meet ports where something else is spoken.
//!
//! There a DENY rule holds without those conditions and an ALLOW rule does not hold ([`crate::plan`]): both may be more
//! than their author meant, so the ports are named.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::world::{self, World, carries};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{Kind, Object},
    ir::{AccessAction, AccessPolicy, AccessRule, Labels, Protocol, Workload},
    lower::lower,
    snapshot::{Audience, ChangeSet, Item, MeshSnapshot, workload_port},
};

pub(super) fn check(world: &World<'_>, findings: &mut Vec<Diagnostic>) {
    let policies = world.access.iter().filter_map(|(object, _)| Some((*object, policy(world, object)?)));
    let asking: Vec<_> = policies.filter(|(_, policy)| policy.rules.iter().any(AccessRule::needs_http)).collect();
    if asking.is_empty() {
        return;
    }
    let services = services(world);
    for (object, policy) in asking {
        let ports = other_ports(world, &services, &policy);
        for (i, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| rule.needs_http()) {
            let met: Vec<&str> =
                ports.iter().filter(|(port, _)| rule.reaches_port(**port)).map(|(_, name)| &**name).collect();
            if !met.is_empty() {
                let finding = finding(policy.action, FieldPath::of("spec.rules").index(i), &met.join(", "));
                findings.push(world.diagnose(object, finding));
            }
        }
    }
}

fn finding(action: AccessAction, rule: FieldPath, ports: &str) -> Diagnostic {
    const REASON: &str = "connections that are not HTTP have nothing that the HTTP conditions could look at";
    let (message, fix) = match action {
        AccessAction::Allow => {
            (format!("{REASON}: the rule lets nobody in at {ports}"), "a rule without HTTP conditions for these ports")
        }
        AccessAction::Deny | AccessAction::Audit => (
            format!("{REASON}: the rule holds without them at {ports}, and covers more than it says"),
            "`to.operation.ports` with the ports that are meant",
        ),
    };
    let finding = match action {
        AccessAction::Deny => Diagnostic::warning(Code::HttpOnly, rule, message),
        AccessAction::Allow | AccessAction::Audit => Diagnostic::info(Code::HttpOnly, rule, message),
    };
    finding.fix(fix)
}

/// The policy as it is enforced, or would be if it were not refused.
fn policy(world: &World<'_>, object: &Object) -> Option<Arc<AccessPolicy>> {
    lower(object, &world.settings).items.into_iter().find_map(|item| match item {
        Item::Access(policy) => Some(policy),
        _ => None,
    })
}

/// Every service, so that the ports of workloads are found as for their proxies.
fn services(world: &World<'_>) -> MeshSnapshot {
    let mut snapshot = MeshSnapshot::new(Arc::new(world.settings.clone()));
    for object in world.by_id.values().filter(|o| matches!(o.id.kind, Kind::Service | Kind::ServiceEntry)) {
        let items = lower(object, &world.settings).items;
        snapshot.replace(&[], &items, &Audience::default(), &mut ChangeSet::default());
    }
    snapshot
}

/// Ports of selected workloads at which something other than HTTP is declared, with the names they have in services.
fn other_ports(world: &World<'_>, services: &MeshSnapshot, policy: &AccessPolicy) -> BTreeMap<u16, String> {
    let selected = world.selected(&policy.origin.id.namespace, &policy.selector.0);
    let selected = selected.filter(|w| w.proxied && !is_gateway(world, w));
    // Replicas have the same ports.
    let mut seen: BTreeSet<(&Arc<str>, &Labels)> = BTreeSet::new();
    let different = selected.filter(|w| seen.insert((&w.object.id.namespace, &w.labels)));
    let mut ports = BTreeMap::new();
    for workload in different.filter_map(|w| workload(world, w.object)) {
        for service in services.services().selecting(&workload) {
            let tcp = service.ports.iter().filter(|p| !p.protocol.is_http() && p.protocol != Protocol::Auto);
            for port in tcp {
                if let Some(number) = workload_port(&workload, port) {
                    ports
                        .entry(number)
                        .or_insert_with(|| format!("port {number} ({}:{})", service.key.host, port.number));
                }
            }
        }
    }
    ports
}

/// A gateway speaks what its Gateways say, whatever its Service declares.
fn is_gateway(world: &World<'_>, workload: &world::Workload<'_>) -> bool {
    let mut selectors = world.gateways.iter().map(|(_, gateway)| &gateway.selector).filter(|s| !s.is_empty());
    selectors.any(|selector| carries(&workload.labels, selector))
}

fn workload(world: &World<'_>, object: &Object) -> Option<Arc<Workload>> {
    lower(object, &world.settings).items.into_iter().find_map(|item| match item {
        Item::Workload(workload) => Some(workload),
        _ => None,
    })
}
