//! Who is asking: the client-side facts of a view, and the keys of the items that such a client
//! shares with others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    ClientFacts, ClusterClient, ClusterKey, Entry, ItemKey,
    cluster::Means,
    locality::Spread,
    traffic::{MergedPolicy, Traffic},
};
use crate::{
    ir::{
        Attachment, BackendPolicy, Destination, Hostname, HttpAction, HttpMatch, HttpRule, L4Match,
        Labels, Locality, ObjectId, Resolution, RouteTable, RuleOrder, Service,
    },
    snapshot::Reader,
};

/// Aliases of aliases are followed this far; a longer chain is a loop.
const ALIAS_STEPS: usize = 8;

/// The client of an outbound or gateway view.
pub(crate) struct Client<'a> {
    pub(crate) namespace: &'a Arc<str>,
    pub(crate) labels: &'a Labels,
    pub(crate) locality: Option<&'a Locality>,
    /// Whether it knows where its own replicas are.
    pub(crate) knows_peers: bool,
    pub(crate) kind: ClusterClient,
}

impl Client<'_> {
    /// The policies in force for a service, in outline form.
    pub(crate) fn policies(
        &self,
        reader: &Reader<'_>,
        service: &Service,
    ) -> Vec<Arc<BackendPolicy>> {
        reader.backend_policies(
            &service.key.host,
            &service.key.namespace,
            self.namespace,
            self.labels,
        )
    }

    /// The settings in force for a service's port, in outline form.
    pub(crate) fn traffic(
        &self,
        reader: &Reader<'_>,
        service: &Service,
        port: u16,
        subset: &str,
    ) -> Traffic {
        MergedPolicy::new(&self.policies(reader, service)).traffic(reader.mesh(), port, subset)
    }

    /// Every cluster of a service, with its assignment where endpoints are sent over EDS.
    pub(crate) fn service_entries(
        &self,
        reader: &Reader<'_>,
        service: &Service,
    ) -> Vec<(Entry, Option<Entry>)> {
        let policies = self.policies(reader, service);
        let merged = MergedPolicy::new(&policies);
        let subsets = merged.subsets();
        let names: Vec<Arc<str>> = std::iter::once("".into())
            .chain(subsets.iter().map(|subset| subset.name.clone()))
            .collect();
        let ids: Vec<ObjectId> = policies.iter().map(|p| p.origin.id.clone()).collect();
        let mut entries = Vec::with_capacity(service.ports.len() * names.len());
        for port in &service.ports {
            for subset in &names {
                let traffic = merged.traffic(reader.mesh(), port.number, subset);
                let key =
                    self.cluster_key(reader, service, port.number, subset, ids.clone(), &traffic);
                let listed = Means::of(service, &traffic.load_balancer, self.kind) == Means::Listed;
                let assignment = listed.then(|| Entry::shared(ItemKey::Assignment(key.clone())));
                entries.push((Entry::shared(ItemKey::Cluster(key)), assignment));
            }
        }
        entries
    }

    fn cluster_key(
        &self,
        reader: &Reader<'_>,
        service: &Service,
        port: u16,
        subset: &Arc<str>,
        policies: Vec<ObjectId>,
        traffic: &Traffic,
    ) -> ClusterKey {
        let spread = Spread::of(reader.mesh(), service, traffic, self.locality);
        ClusterKey {
            service: service.key.clone(),
            port,
            subset: subset.clone(),
            policies,
            client_labels: spread
                .as_ref()
                .map(|s| s.compared_labels(self.labels))
                .unwrap_or_default(),
            locality: spread.and_then(|spread| spread.compared_place(self.locality?)),
            client: self.kind,
            knows_peers: self.knows_peers,
        }
    }

    /// What a virtual host needs to know of the client, and nothing more, so that clients who agree
    /// on it share one.
    pub(crate) fn facts(
        &self,
        reader: &Reader<'_>,
        hosts: &BTreeSet<&Hostname>,
        tables: &[Arc<RouteTable>],
        gateways: Vec<ObjectId>,
    ) -> Arc<ClientFacts> {
        let matches = || tables.iter().flat_map(|t| &t.http).flat_map(|rule| &rule.matches);
        let asked: BTreeSet<&Arc<str>> = matches().flat_map(|m| m.source_labels.keys()).collect();
        let by_selector = hosts.iter().any(|host| self.depends_on_labels(reader, host));
        let labels = self.labels.iter().filter(|(key, _)| by_selector || asked.contains(key));
        let by_namespace = by_selector
            || matches().any(|m| m.source_namespace.is_some())
            || hosts.iter().any(|host| self.depends_on_namespace(reader, host));
        Arc::new(ClientFacts {
            namespace: if by_namespace { self.namespace.clone() } else { "".into() },
            labels: labels.map(|(k, v)| (k.clone(), v.clone())).collect(),
            gateways,
        })
    }

    fn depends_on_labels(&self, reader: &Reader<'_>, host: &Hostname) -> bool {
        let service = reader.service_by_host(host, self.namespace);
        service
            .is_some_and(|s| self.policies(reader, s).iter().any(|p| p.workload_selector.is_some()))
    }

    /// Whether a client that is known to be nowhere would find another service or other policies
    /// behind the host.
    fn depends_on_namespace(&self, reader: &Reader<'_>, host: &Hostname) -> bool {
        let own = reader.service_by_host(host, self.namespace);
        let anybodys = reader.service_by_host(host, "");
        if own.map(|s| &s.key) != anybodys.map(|s| &s.key) {
            return true;
        }
        let Some(service) = own else { return false };
        let ids = |policies: Vec<Arc<BackendPolicy>>| -> Vec<ObjectId> {
            policies.iter().map(|p| p.origin.id.clone()).collect()
        };
        let nobody = reader.backend_policies(host, &service.key.namespace, "", &Labels::new());
        ids(self.policies(reader, service)) != ids(nobody)
    }
}

/// The service that an alias stands for; a service that is no alias stands for itself. `None`:
/// outside the mesh.
pub(crate) fn resolve_alias<'a>(
    reader: &Reader<'a>,
    service: &'a Arc<Service>,
    namespace: &str,
) -> Option<&'a Arc<Service>> {
    let mut current = service;
    for _ in 0..ALIAS_STEPS {
        match &current.resolution {
            Resolution::Alias(target) => current = reader.service_by_host(target, namespace)?,
            _ => return Some(current),
        }
    }
    None
}

/// Whether a service is only another name of one that the mesh knows.
pub(crate) fn stands_for_another(
    reader: &Reader<'_>,
    service: &Arc<Service>,
    namespace: &str,
) -> bool {
    matches!(service.resolution, Resolution::Alias(_))
        && resolve_alias(reader, service, namespace).is_some()
}

/// A service with the ports at which clients reach it: another name of a service is good for every
/// port of that service, whatever it lists itself (Kubernetes asks for no `ports` of an
/// ExternalName, and Istio reads none).
pub(crate) fn as_reached(
    reader: &Reader<'_>,
    service: &Arc<Service>,
    namespace: &str,
) -> Arc<Service> {
    let target = matches!(service.resolution, Resolution::Alias(_))
        .then(|| resolve_alias(reader, service, namespace));
    match target.flatten() {
        Some(target) => {
            Arc::new(Service { ports: target.ports.clone(), ..Service::clone(service) })
        }
        None => service.clone(),
    }
}

/// What a table's HTTP rules send requests to.
pub(crate) fn destinations(table: &RouteTable) -> impl Iterator<Item = &Destination> {
    table.http.iter().flat_map(|rule| {
        let forwarded = match &rule.action {
            HttpAction::Forward { destinations, .. } => destinations.as_slice(),
            HttpAction::Redirect(_) | HttpAction::Direct { .. } | HttpAction::Continue { .. } => {
                &[]
            }
        };
        forwarded.iter().map(|d| &d.destination).chain(rule.mirrors.iter().map(|m| &m.destination))
    })
}

/// Whether some of the tables lead to a name that is still to be resolved, at whatever port.
pub(crate) fn leads_to_names<'t>(
    reader: &Reader<'_>,
    namespace: &str,
    tables: impl IntoIterator<Item = &'t Arc<RouteTable>>,
) -> bool {
    let mut led_to = tables.into_iter().flat_map(|table| destinations(table));
    led_to.any(|destination| {
        let service = reader.service_by_host(&destination.host, namespace);
        service.is_some_and(|service| service.resolution == Resolution::Named)
    })
}

/// What a table's TLS and TCP rules send connections to.
pub(crate) fn l4_destinations(table: &RouteTable) -> impl Iterator<Item = &Destination> {
    let tls = table.tls.iter().flat_map(|rule| &rule.destinations);
    let tcp = table.tcp.iter().flat_map(|rule| &rule.destinations);
    tls.chain(tcp).map(|d| &d.destination)
}

/// The static conditions of a match, which planning decides.
pub(crate) struct StaticMatch<'a> {
    /// The listener's port (gateways: the server's).
    pub(crate) port: u16,
    pub(crate) namespace: &'a str,
    pub(crate) labels: &'a Labels,
    /// What the routes are attached to.
    pub(crate) attachments: &'a [Attachment],
}

impl StaticMatch<'_> {
    fn holds(
        &self,
        port: Option<u16>,
        source: (&Labels, Option<&Arc<str>>),
        attachments: &[Attachment],
    ) -> bool {
        port.is_none_or(|p| p == self.port)
            && source.0.iter().all(|(k, v)| self.labels.get(k) == Some(v))
            && source.1.is_none_or(|n| **n == *self.namespace)
            && (attachments.is_empty() || attachments.iter().any(|a| self.attachments.contains(a)))
    }

    pub(crate) fn http(&self, m: &HttpMatch) -> bool {
        self.holds(m.port, (&m.source_labels, m.source_namespace.as_ref()), &m.attachments)
    }

    pub(crate) fn l4(&self, m: &L4Match) -> bool {
        self.holds(m.port, (&m.source_labels, m.source_namespace.as_ref()), &m.attachments)
    }

    /// Whether some request can match the rule.
    pub(crate) fn rule(&self, rule: &HttpRule) -> bool {
        // Shared conditions ask nothing of the client.
        rule.is_unconditional()
            || !rule.shared_matches.is_empty()
            || rule.matches.iter().any(|m| self.http(m))
    }

    /// Whether some HTTP rule of the table can match a request to a host.
    pub(crate) fn table_at(&self, table: &RouteTable, host: &Hostname) -> bool {
        table.http.iter().any(|rule| table.serves(rule, host) && self.rule(rule))
    }

    /// Whether some HTTP rule of the table can match.
    pub(crate) fn table(&self, table: &RouteTable) -> bool {
        table.http.iter().any(|rule| self.rule(rule))
    }
}

/// Route tables by host: for each the first table that names it.
pub(crate) struct TableIndex<'t> {
    exact: BTreeMap<&'t Hostname, &'t Arc<RouteTable>>,
    /// The longest first.
    wildcards: Vec<(&'t Hostname, &'t Arc<RouteTable>)>,
    /// In the order in which they come before each other.
    tables: Vec<&'t Arc<RouteTable>>,
}

impl<'t> TableIndex<'t> {
    /// `tables` are in the order of [`Reader::route_tables`].
    pub(crate) fn new(tables: impl Iterator<Item = &'t Arc<RouteTable>>) -> Self {
        let mut index =
            Self { exact: BTreeMap::new(), wildcards: Vec::new(), tables: tables.collect() };
        for &table in &index.tables {
            for host in &table.hosts {
                if host.is_wildcard() {
                    index.wildcards.push((host, table));
                } else {
                    index.exact.entry(host).or_insert(table);
                }
            }
        }
        // Stable: of equal hosts the oldest table stays first.
        index.wildcards.sort_by(|a, b| a.0.by_specificity(b.0));
        index
    }

    /// The tables in force for a host, oldest first: the most specific host first, then the oldest
    /// table; and with it those that are read with it as one ([`Self::joined`]).
    pub(crate) fn in_force(&self, host: &Hostname) -> Vec<&'t Arc<RouteTable>> {
        let exact = self.exact.get_key_value(host).map(|(pattern, table)| (*pattern, *table));
        let by_wildcard =
            || self.wildcards.iter().find(|(pattern, _)| pattern.contains(host)).copied();
        let found = exact.or_else(by_wildcard);
        found.map(|(pattern, table)| self.joined(pattern, table)).unwrap_or_default()
    }

    /// A table that names a host, with those for the same host that are read with it as one
    /// ([`RuleOrder::BySpecificity`]); oldest first.
    pub(crate) fn joined(
        &self,
        host: &Hostname,
        table: &'t Arc<RouteTable>,
    ) -> Vec<&'t Arc<RouteTable>> {
        let joins = |table: &&'t Arc<RouteTable>| {
            table.order == RuleOrder::BySpecificity && table.hosts.contains(host)
        };
        let joins = |other: &&'t Arc<RouteTable>| joins(other) && other.standing == table.standing;
        match table.order {
            RuleOrder::AsWritten => vec![table],
            RuleOrder::BySpecificity => self.tables().filter(joins).collect(),
        }
    }

    /// Every table, oldest first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &'t Arc<RouteTable>> {
        self.tables.iter().copied()
    }
}
