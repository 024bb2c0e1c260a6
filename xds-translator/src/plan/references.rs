//! What the routes of a view lead to, and which of it the view lacks.
//!
//! Read back from the plan like its origins, so that whoever tells users of names that lead nowhere
//! tells of those that proxies are really sent.

use std::{collections::BTreeSet, sync::Arc};

use ferromesh_proto::ResourceType;

use super::{
    Entry, ItemKey, Outline, PlanItem, ViewKey, VirtualHostKey, caller, naming,
    origins::clusters_of,
    plan_outline,
    route::{RouteScope, Target, effective, find_service, named_port},
    traffic::MergedPolicy,
    virtual_host,
};
use crate::{
    ir::{Destination, DestinationPort, Field, HttpAction, HttpRule, Labels, ObjectId, RouteTable},
    snapshot::Reader,
};

/// A destination that a view's routes lead to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Reference {
    /// The route table that names it: of a part its own.
    pub(crate) table: ObjectId,
    /// Where the table names it.
    pub(crate) at: Field,
    /// The port that requests are sent to.
    pub(crate) port: u16,
    /// What the view lacks for it; `None`: the cluster is there.
    pub(crate) lack: Option<Lack>,
}

/// What a view lacks for a destination; the first of several.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Lack {
    /// A service with its host.
    Host,
    /// Its subset.
    Subset,
    /// Its port.
    Port,
}

/// Every destination that requests and connections of a view can be sent to; sorted, unique.
///
/// Left out is what Istio's route configuration `80` has beside what users asked for: a host whose
/// service has other ports only is served there too, and its destinations without a port lead to
/// their port 80 (reference: Istio's recorded configuration).
pub(crate) fn references(reader: &Reader<'_>, key: &ViewKey) -> Vec<Reference> {
    let outline = plan_outline(reader, key);
    let clusters = outline.of(ResourceType::Cluster);
    let view = View { reader, clusters: clusters.iter().map(Entry::resource_name).collect() };
    let mut found = BTreeSet::new();
    let keys = outline.routes.iter().flat_map(|frame| &frame.virtual_hosts);
    let hosts: BTreeSet<&VirtualHostKey> = keys.filter_map(|key| virtual_host_key(key)).collect();
    for host in hosts.into_iter().filter(|host| !host.tables.is_empty()) {
        view.requests(host, &mut found);
    }
    view.connections(key, &outline, &mut found);
    found.into_iter().collect()
}

fn virtual_host_key(key: &ItemKey) -> Option<&VirtualHostKey> {
    match key {
        ItemKey::VirtualHost(key) => Some(key),
        _ => None,
    }
}

/// What clients of a namespace, about whom nothing else is known, would lack for a destination that
/// no rule in use leads to.
pub(crate) fn lack_in(
    reader: &Reader<'_>,
    namespace: &str,
    destination: &Destination,
) -> Option<Lack> {
    let Some(service) = find_service(reader, &destination.host, namespace) else {
        return Some(Lack::Host);
    };
    let key = &service.key;
    let policies = reader.backend_policies(&key.host, &key.namespace, namespace, &Labels::new());
    if !MergedPolicy::new(&policies).has_subset(&destination.subset) {
        return Some(Lack::Subset);
    }
    let known = |port: u16| service.ports.is_empty() || service.port(port).is_some();
    match &destination.port {
        DestinationPort::Number(port) if !known(*port) => Some(Lack::Port),
        DestinationPort::Named(name) if !known(named_port(name, &service.ports)) => {
            Some(Lack::Port)
        }
        _ => None,
    }
}

/// The clusters of a view.
struct View<'a> {
    reader: &'a Reader<'a>,
    clusters: BTreeSet<Arc<str>>,
}

impl View<'_> {
    fn requests(&self, key: &VirtualHostKey, found: &mut BTreeSet<Reference>) {
        let attachments = virtual_host::attachments(key);
        let scope = virtual_host::scope(self.reader, key, &attachments);
        let tables = virtual_host::tables(self.reader, key);
        for reached in scope.reached(tables.iter()) {
            for destination in forwarded(&scope, reached.rule) {
                let target = scope.target(destination);
                let lack = self.lack(&target, destination);
                let aside = lack == Some(Lack::Port)
                    && destination.port.number().is_none()
                    && key.port == 80
                    && key.client.gateways.is_empty();
                if !aside {
                    found.insert(reference(reached.table, destination, target.port, lack));
                }
            }
        }
    }

    /// What rules for connections lead to. A listener's chains tell which of them apply; several
    /// that lead to one cluster are not told apart.
    fn connections(&self, key: &ViewKey, outline: &Outline, found: &mut BTreeSet<Reference>) {
        let listeners = outline.of(ResourceType::Listener).iter().filter_map(|entry| match entry {
            Entry::Own(item) => match &**item {
                PlanItem::Listener(listener) => Some(listener),
                _ => None,
            },
            Entry::Shared(_) => None,
        });
        let clusters: BTreeSet<Arc<str>> =
            listeners.flat_map(|listener| clusters_of(listener)).collect();
        let Some(client) = caller(key) else { return };
        for table in client.tables(self.reader) {
            for destination in client.destinations(&table) {
                let host = &destination.host;
                let service = find_service(self.reader, host, client.namespace);
                for port in ports(&clusters, service.map_or(host, |s| &s.key.host).as_str()) {
                    let target = Target { service, port };
                    if destination.port.number().is_none_or(|own| own == port)
                        && clusters.contains(&target.cluster(destination))
                    {
                        let lack = self.lack(&target, destination);
                        found.insert(reference(&table, destination, port, lack));
                    }
                }
            }
        }
    }

    fn lack(&self, target: &Target<'_>, destination: &Destination) -> Option<Lack> {
        if self.clusters.contains(&target.cluster(destination)) {
            return None;
        }
        let Some(service) = target.service else { return Some(Lack::Host) };
        let host = service.key.host.as_str();
        let sees = |port| self.clusters.contains(&naming::outbound_cluster(port, "", host));
        // A service that the view does not see has no port for it either.
        let seen = service.ports.iter().any(|port| sees(port.number));
        Some(match service.port(target.port) {
            None if seen || service.ports.is_empty() => Lack::Port,
            Some(_) if sees(target.port) => Lack::Subset,
            _ => Lack::Host,
        })
    }
}

fn reference(
    table: &RouteTable,
    destination: &Destination,
    port: u16,
    lack: Option<Lack>,
) -> Reference {
    let table = destination.of.as_ref().unwrap_or(&table.origin.id);
    Reference { table: table.clone(), at: destination.at.clone(), port, lack }
}

/// What a rule forwards requests and copies of them to, and what it would if it had a service:
/// others may get the share of that meanwhile, but it is named.
fn forwarded<'r>(scope: &RouteScope<'_>, rule: &'r HttpRule) -> Vec<&'r Destination> {
    let HttpAction::Forward { destinations, .. } = &rule.action else { return Vec::new() };
    let named = |destination: &Destination| {
        let target = scope.target(destination);
        target.service.is_none() || target.is_there()
    };
    let weighted = effective(destinations, named).into_iter().map(|d| &d.destination);
    weighted.chain(rule.mirrors.iter().map(|m| &m.destination)).collect()
}

/// Ports of a host among clusters.
fn ports(clusters: &BTreeSet<Arc<str>>, host: &str) -> BTreeSet<u16> {
    let targets = clusters.iter().filter_map(|name| naming::outbound_target(name));
    targets.filter(|(of, _)| *of == host).map(|(_, port)| port).collect()
}
