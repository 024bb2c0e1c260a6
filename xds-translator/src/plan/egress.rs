//! What a sidecar sees: the services and route tables that its Sidecar object and `exportTo` leave.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    OutboundKey,
    client::{as_reached, destinations, l4_destinations, resolve_alias, stands_for_another},
};
use crate::{
    ir::{
        Attachment, Capture, EgressListener, Hostname, ListenerPort, OutboundTraffic, RouteTable,
        ScopeHost, ScopeNamespace, Service, ServiceKey,
    },
    snapshot::Reader,
};

/// Everything that a sidecar sees, by egress listener.
pub(crate) struct Sight {
    /// At least one; the catch-all, when there is one, comes last.
    pub(crate) egress: Vec<Egress>,
    /// What happens to unknown destinations.
    pub(crate) unknown: OutboundTraffic,
}

/// One egress listener with what it sees.
pub(crate) struct Egress {
    /// `None`: the catch-all.
    pub(crate) own: Option<OwnListener>,
    /// Oldest first, as conflicts are decided.
    pub(crate) services: Vec<Arc<Service>>,
    /// Oldest first; in outline form.
    pub(crate) tables: Vec<Arc<RouteTable>>,
    /// Those of them with TCP or TLS rules.
    pub(crate) l4_tables: Vec<Arc<RouteTable>>,
}

impl Egress {
    fn new(
        own: Option<OwnListener>,
        mut services: Vec<Arc<Service>>,
        tables: Vec<Arc<RouteTable>>,
    ) -> Self {
        services.sort_by(|a, b| age(a).cmp(&age(b)));
        let l4_tables =
            tables.iter().filter(|t| !t.tls.is_empty() || !t.tcp.is_empty()).cloned().collect();
        Self { own, services, tables, l4_tables }
    }
}

/// The listener that a Sidecar object asks for.
pub(crate) struct OwnListener {
    pub(crate) port: ListenerPort,
    pub(crate) bind: Option<IpAddr>,
    pub(crate) capture: Capture,
}

impl Sight {
    pub(crate) fn of(reader: &Reader<'_>, key: &OutboundKey) -> Self {
        let visible: Vec<Arc<Service>> = reader
            .services_visible_to(&key.namespace)
            .iter()
            .map(|service| as_reached(reader, service, &key.namespace))
            .collect();
        let tables = reader.route_tables(&Attachment::Mesh, &key.namespace);
        let scope = key.scope.as_ref().and_then(|id| reader.scope(id));
        let unknown = reader.unknown_traffic(&key.namespace, scope.map(AsRef::as_ref));
        let listeners = scope.map(|s| s.egress.as_slice()).unwrap_or_default();
        let mut egress: Vec<Egress> = if listeners.is_empty() {
            vec![Egress::new(None, visible, tables.to_vec())]
        } else {
            let world =
                World { reader, namespace: &key.namespace, visible: &visible, tables: &tables };
            listeners.iter().map(|listener| world.restrict(listener)).collect()
        };
        egress.sort_by_key(|seen| seen.own.is_none());
        Self { egress, unknown }
    }

    /// Every service of every listener, each once, by key.
    pub(crate) fn services(&self) -> Vec<&Arc<Service>> {
        let mut seen: BTreeSet<&ServiceKey> = BTreeSet::new();
        let all = self.egress.iter().flat_map(|e| &e.services);
        let mut services: Vec<&Arc<Service>> = all.filter(|s| seen.insert(&s.key)).collect();
        services.sort_by(|a, b| a.key.cmp(&b.key));
        services
    }

    /// Ports for which the Sidecar object has a listener of its own, so that the catch-all opens
    /// none.
    pub(crate) fn own_ports(&self) -> BTreeSet<u16> {
        self.egress.iter().filter_map(|e| e.own.as_ref()).map(|own| own.port.number).collect()
    }
}

/// Older services win conflicts; namespace, name and host decide among equals.
pub(crate) fn age(service: &Service) -> (i64, &str, &str, &str) {
    (
        service.origin.created,
        &service.origin.id.namespace,
        &service.origin.id.name,
        service.key.host.as_str(),
    )
}

/// What a client could see, before a Sidecar object restricts it.
struct World<'a> {
    reader: &'a Reader<'a>,
    /// The client's.
    namespace: &'a str,
    visible: &'a [Arc<Service>],
    tables: &'a [Arc<RouteTable>],
}

impl World<'_> {
    fn restrict(&self, listener: &EgressListener) -> Egress {
        let own = listener.port.clone().map(|port| OwnListener {
            port,
            bind: listener.bind,
            capture: listener.capture,
        });
        let port = own.as_ref().map(|own| own.port.number);
        let tables: Vec<Arc<RouteTable>> =
            self.tables.iter().filter(|table| self.sees_table(listener, table)).cloned().collect();
        let led_to = self.led_to(listener, &tables);
        let has_port = |service: &Service| port.is_none_or(|number| service.port(number).is_some());
        let sees = |service: &Service| {
            self.sees_service(listener, service) || led_to.contains(&service.key.host)
        };
        let services = self.visible.iter().filter(|s| has_port(s) && sees(s)).cloned().collect();
        Egress::new(own, services, tables)
    }

    /// What a visible table sends requests to, and what a visible alias stands for, is visible too,
    /// or they could not work.
    fn led_to<'h>(
        &'h self,
        listener: &EgressListener,
        tables: &'h [Arc<RouteTable>],
    ) -> BTreeSet<&'h Hostname> {
        let routed = tables
            .iter()
            .flat_map(|table| destinations(table).chain(l4_destinations(table)))
            .map(|destination| &destination.host);
        let aliases = self
            .visible
            .iter()
            .filter(|service| stands_for_another(self.reader, service, self.namespace));
        let targets = aliases
            .filter(|alias| self.sees_service(listener, alias))
            .filter_map(|alias| resolve_alias(self.reader, alias, self.namespace));
        routed.chain(targets.map(|target| &target.key.host)).collect()
    }

    fn sees_service(&self, listener: &EgressListener, service: &Service) -> bool {
        let key = &service.key;
        let is_among = |hosts: &[ScopeHost]| self.contain(hosts, &key.namespace, &key.host);
        is_among(&listener.hosts) && !is_among(&listener.hidden)
    }

    /// Whether it sees one of the table's hosts.
    fn sees_table(&self, listener: &EgressListener, table: &RouteTable) -> bool {
        let namespace = &table.origin.id.namespace;
        let sees = |host: &Hostname| {
            let shows = |h: &ScopeHost| self.in_namespace(h, namespace) && h.host.overlaps(host);
            listener.hosts.iter().any(shows) && !self.contain(&listener.hidden, namespace, host)
        };
        table.hosts.iter().any(sees)
    }

    fn contain(&self, hosts: &[ScopeHost], namespace: &str, host: &Hostname) -> bool {
        hosts.iter().any(|h| self.in_namespace(h, namespace) && h.host.contains(host))
    }

    fn in_namespace(&self, host: &ScopeHost, namespace: &str) -> bool {
        match &host.namespace {
            ScopeNamespace::Any => true,
            ScopeNamespace::Clients => *self.namespace == *namespace,
            ScopeNamespace::Named(name) => **name == *namespace,
            ScopeNamespace::Nobody => false,
        }
    }
}
