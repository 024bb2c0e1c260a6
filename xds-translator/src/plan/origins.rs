//! What is planned for a view of each kind, and from which objects a resource was made that a view
//! plans as its own: a listener, or the cluster of a workload's port.
//!
//! Read back from the plan, on demand: who asks is told of a refusal, which is rare, and a plan
//! that carried its origins would be another plan whenever an object that changes nothing in it
//! came or went.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    AccessFilter, AskFilter, Caller, FilterChainPlan, GatewayKey, InboundKey, LimitPlan,
    ListenerPlan, OutboundKey, Outline, Overruled, PatchesKey, PeersKey, PlanItem, PlansView,
    RouteActionPlan, RouteConfigPlan, RouteSource, TerminalFilter, gateway,
    gateway_servers::merged_servers, inbound, naming, peers, place::Place, rate_limit, sidecar,
};
use crate::{
    ir::{Attachment, Hostname, Labels, ObjectId, ProxySide, RateLimit, RouteTable, Service},
    snapshot::Reader,
};

impl PlansView for OutboundKey {
    fn patches(&self) -> (&PatchesKey, ProxySide) {
        (&self.patches, ProxySide::Outbound)
    }

    fn caller(&self) -> Option<Caller<'_>> {
        Some(Caller {
            namespace: &self.namespace,
            scope: self.scope.as_ref(),
            labels: &self.client_labels,
            attachments: vec![Attachment::Mesh],
        })
    }

    fn outline(&self, reader: &Reader<'_>) -> Outline {
        sidecar::plan_outbound(reader, self)
    }

    fn origins_of(&self, reader: &Reader<'_>, item: &PlanItem) -> BTreeSet<ObjectId> {
        let mut origins = BTreeSet::new();
        if let PlanItem::Listener(listener) = item {
            origins.extend(self.telemetry.policies.iter().cloned());
            let clusters = clusters_of(listener);
            of_services(reader, &self.namespace, &clusters, &mut origins);
            let services = reader.services_visible_to(&self.namespace);
            let here: Vec<&Hostname> =
                services.iter().filter(|s| sits_at(s, listener)).map(|s| &s.key.host).collect();
            let speaks = |table: &RouteTable| {
                table.hosts.iter().any(|host| here.iter().any(|at| host.contains(at)))
            };
            of_tables(
                reader,
                (&self.namespace, &[Attachment::Mesh]),
                &clusters,
                speaks,
                &mut origins,
            );
        }
        origins
    }
}

impl PlansView for InboundKey {
    fn patches(&self) -> (&PatchesKey, ProxySide) {
        (&self.patches, ProxySide::Inbound)
    }

    fn guarded(&self) -> Option<(&Arc<str>, &Labels)> {
        Some((&self.namespace, &self.labels))
    }

    fn caller(&self) -> Option<Caller<'_>> {
        None
    }

    fn outline(&self, reader: &Reader<'_>) -> Outline {
        inbound::plan_inbound(reader, self)
    }

    fn origins_of(&self, reader: &Reader<'_>, item: &PlanItem) -> BTreeSet<ObjectId> {
        let mut origins = BTreeSet::new();
        match item {
            PlanItem::Listener(listener) => {
                origins.extend(self.telemetry.policies.iter().cloned());
                of_inbound(reader, self, listener, &mut origins);
            }
            PlanItem::Cluster(cluster) => {
                of_ports(reader, self, &BTreeSet::from([cluster.name.clone()]), &mut origins);
            }
            _ => {}
        }
        origins
    }
}

impl PlansView for PeersKey {
    fn patches(&self) -> (&PatchesKey, ProxySide) {
        (&self.patches, ProxySide::Inbound)
    }

    fn caller(&self) -> Option<Caller<'_>> {
        None
    }

    fn outline(&self, reader: &Reader<'_>) -> Outline {
        peers::plan_peers(reader, self)
    }

    fn origins_of(&self, _reader: &Reader<'_>, _item: &PlanItem) -> BTreeSet<ObjectId> {
        BTreeSet::new()
    }
}

impl PlansView for GatewayKey {
    fn patches(&self) -> (&PatchesKey, ProxySide) {
        (&self.patches, ProxySide::Gateway)
    }

    fn guarded(&self) -> Option<(&Arc<str>, &Labels)> {
        Some((&self.namespace, &self.labels))
    }

    fn caller(&self) -> Option<Caller<'_>> {
        Some(Caller {
            namespace: &self.namespace,
            scope: None,
            labels: &self.client_labels,
            attachments: self.gateways.iter().cloned().map(Attachment::Gateway).collect(),
        })
    }

    fn port_behind(&self, port: u16) -> Option<u16> {
        self.ports.iter().find(|(server, _)| *server == port).map(|(_, listener)| *listener)
    }

    fn overruled(&self, reader: &Reader<'_>) -> BTreeSet<Overruled> {
        gateway::overruled_servers(reader, self)
    }

    fn outline(&self, reader: &Reader<'_>) -> Outline {
        gateway::plan_gateway(reader, self)
    }

    fn origins_of(&self, reader: &Reader<'_>, item: &PlanItem) -> BTreeSet<ObjectId> {
        let mut origins = BTreeSet::new();
        if let PlanItem::Listener(listener) = item {
            origins.extend(self.telemetry.policies.iter().cloned());
            of_gateway(reader, self, listener, &mut origins);
        }
        origins
    }
}

fn of_inbound(
    reader: &Reader<'_>,
    key: &InboundKey,
    listener: &ListenerPlan,
    origins: &mut BTreeSet<ObjectId>,
) {
    of_ports(reader, key, &clusters_of(listener), origins);
    of_access(reader, (&key.namespace, &key.labels), listener, origins);
    of_tokens(reader, (&key.namespace, &key.labels), listener, origins);
    let limits = reader.rate_limits(&key.namespace, &key.labels, &[]);
    of_limits(reader, &limits, listener, origins);
    origins.extend(reader.peer_tls_origins(&key.namespace, &key.labels));
}

/// The services that lead to the ports behind some clusters of a workload, and the Sidecar object
/// that declares ports.
fn of_ports(
    reader: &Reader<'_>,
    key: &InboundKey,
    clusters: &BTreeSet<Arc<str>>,
    origins: &mut BTreeSet<ObjectId>,
) {
    let leads = |port: u16| clusters.contains(&naming::inbound_cluster(port));
    for (service, _, _) in key.ports.iter().filter(|(_, _, container)| leads(*container)) {
        origins.extend(reader.service(service).map(|service| service.origin.id.clone()));
    }
    let scope = key.scope.as_ref().and_then(|id| reader.scope(id));
    let declares =
        scope.filter(|scope| scope.ingress.iter().any(|listener| leads(listener.port.number)));
    origins.extend(declares.map(|scope| scope.origin.id.clone()));
}

fn of_gateway(
    reader: &Reader<'_>,
    key: &GatewayKey,
    listener: &ListenerPlan,
    origins: &mut BTreeSet<ObjectId>,
) {
    let ports = merged_servers(reader, key).ports.into_iter().filter(|p| p.port == listener.port);
    let served: BTreeSet<ObjectId> =
        ports.flat_map(|port| port.servers).map(|s| s.gateway.origin.id.clone()).collect();
    let clusters = clusters_of(listener);
    let attachments: Vec<Attachment> = served.iter().cloned().map(Attachment::Gateway).collect();
    of_services(reader, &key.namespace, &clusters, origins);
    of_tables(reader, (&key.namespace, &attachments), &clusters, |_| true, origins);
    of_access(reader, (&key.namespace, &key.labels), listener, origins);
    of_tokens(reader, (&key.namespace, &key.labels), listener, origins);
    let limits = reader.rate_limits(&key.namespace, &key.labels, &key.gateways);
    of_limits(reader, &limits, listener, origins);
    origins.extend(served);
}

/// The services of outbound clusters.
fn of_services(
    reader: &Reader<'_>,
    namespace: &str,
    clusters: &BTreeSet<Arc<str>>,
    origins: &mut BTreeSet<ObjectId>,
) {
    let targets: BTreeSet<(&str, u16)> =
        clusters.iter().filter_map(|name| naming::outbound_target(name)).collect();
    for service in reader.services_visible_to(namespace).iter() {
        if service
            .ports
            .iter()
            .any(|port| targets.contains(&(service.key.host.as_str(), port.number)))
        {
            origins.insert(service.origin.id.clone());
        }
    }
}

/// Whether clients may reach a service through a listener.
fn sits_at(service: &Service, listener: &ListenerPlan) -> bool {
    let address = listener.address.is_unspecified()
        || service.headless
        || Place::of_addresses(&service.addresses)
            .iter()
            .any(|place| place.address == listener.address);
    address && service.ports.iter().any(|port| port.number == listener.port)
}

/// The route tables that `speaks` picks and whose rules for connections lead to some of these
/// clusters.
fn of_tables(
    reader: &Reader<'_>,
    (namespace, attachments): (&str, &[Attachment]),
    clusters: &BTreeSet<Arc<str>>,
    speaks: impl Fn(&RouteTable) -> bool,
    origins: &mut BTreeSet<ObjectId>,
) {
    let targets: BTreeSet<&str> =
        clusters.iter().filter_map(|name| Some(naming::outbound_target(name)?.0)).collect();
    for table in attachments
        .iter()
        .flat_map(|attachment| reader.route_tables(attachment, namespace).to_vec())
    {
        let routes = table
            .tls
            .iter()
            .map(|rule| &rule.destinations)
            .chain(table.tcp.iter().map(|rule| &rule.destinations));
        let mut hosts = routes.flatten().map(|weighted| weighted.destination.host.as_str());
        if speaks(&table) && hosts.any(|host| targets.contains(host)) {
            origins.insert(table.origin.id.clone());
        }
    }
}

/// Those of some rate limits that stand in a listener.
fn of_limits(
    reader: &Reader<'_>,
    limits: &[Arc<RateLimit>],
    listener: &ListenerPlan,
    origins: &mut BTreeSet<ObjectId>,
) {
    let stands = |plan: &LimitPlan| {
        chains_of(listener).any(|chain| match &chain.terminal {
            TerminalFilter::Http(connection) => connection.rate_limits.contains(plan),
            TerminalFilter::Tcp(_) => false,
        })
    };
    let planned = |limit: &&Arc<RateLimit>| rate_limit::plan(reader, limit);
    let standing = limits.iter().filter(|limit| planned(limit).is_some_and(|plan| stands(&plan)));
    origins.extend(standing.map(|limit| limit.origin.id.clone()));
}

/// The token policies of a workload, where a listener checks tokens.
fn of_tokens(
    reader: &Reader<'_>,
    (namespace, labels): (&str, &Labels),
    listener: &ListenerPlan,
    origins: &mut BTreeSet<ObjectId>,
) {
    let checks = chains_of(listener).any(|chain| match &chain.terminal {
        TerminalFilter::Http(connection) => connection.tokens.is_some(),
        TerminalFilter::Tcp(_) => false,
    });
    if checks {
        let policies = reader.token_policies(namespace, labels);
        let standing = policies.iter().filter(|policy| !policy.rules.is_empty());
        origins.extend(standing.map(|policy| policy.origin.id.clone()));
    }
}

/// The access policies of a workload that stand in a listener, by the names of their rules.
fn of_access(
    reader: &Reader<'_>,
    (namespace, labels): (&str, &Labels),
    listener: &ListenerPlan,
    origins: &mut BTreeSet<ObjectId>,
) {
    let http = |chain: &FilterChainPlan| match &chain.terminal {
        TerminalFilter::Http(connection) => connection.access.clone(),
        TerminalFilter::Tcp(_) => Vec::new(),
    };
    let filters: Vec<AccessFilter> =
        chains_of(listener).flat_map(|c| c.access.iter().cloned().chain(http(c))).collect();
    let asks = |chain: &FilterChainPlan| match &chain.terminal {
        TerminalFilter::Http(connection) => connection.ask.clone(),
        TerminalFilter::Tcp(_) => chain.ask.clone(),
    };
    let asked: Vec<AskFilter> = chains_of(listener).filter_map(asks).collect();
    let decided = filters.iter().flat_map(|f| f.policies.iter().chain(&f.shadow));
    let rules: BTreeSet<&Arc<str>> =
        decided.chain(asked.iter().map(|f| &f.policies)).flat_map(|p| p.keys()).collect();
    for policy in reader.access_policies(namespace, labels) {
        let prefix = naming::access_policy(&policy.origin.id);
        // The names of rules that ask begin with who is asked.
        let of =
            |rule: &&&Arc<str>| rule.starts_with(&prefix) || rule.contains(&format!("-{prefix}"));
        if rules.iter().any(|rule| of(&rule)) {
            origins.insert(policy.origin.id.clone());
        }
    }
}

fn chains_of(listener: &ListenerPlan) -> impl Iterator<Item = &FilterChainPlan> {
    listener.chains.iter().chain(&listener.default_chain)
}

/// Every cluster that a listener names itself.
pub(super) fn clusters_of(listener: &ListenerPlan) -> BTreeSet<Arc<str>> {
    let of_chain = |chain: &FilterChainPlan| -> Vec<Arc<str>> {
        match &chain.terminal {
            TerminalFilter::Tcp(proxy) => {
                proxy.clusters.iter().map(|(name, _)| name.clone()).collect()
            }
            TerminalFilter::Http(connection) => match &connection.routes {
                RouteSource::Inline(config) => routed_clusters(config),
                RouteSource::Rds(_) => Vec::new(),
            },
        }
    };
    chains_of(listener).flat_map(of_chain).collect()
}

fn routed_clusters(config: &RouteConfigPlan) -> Vec<Arc<str>> {
    let routes = config.virtual_hosts.iter().flat_map(|host| &host.routes);
    let forwarded = routes.filter_map(|route| match &route.action {
        RouteActionPlan::Forward(forward) => Some(forward),
        _ => None,
    });
    forwarded
        .flat_map(|forward| forward.clusters.iter().map(|weighted| weighted.name.clone()))
        .collect()
}
