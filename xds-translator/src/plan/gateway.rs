//! Everything of a gateway: listeners by merged servers, route configurations by bound tables, clusters of what it sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    ChainMatch, ClientFacts, ClusterClient, Direction, DomainForm, Entry, FilterChainPlan, FixedCluster, GatewayKey,
    HttpRole, ItemKey, ListenerFilter, ListenerPlan, Outline, PlanItem, RouteFrame, RouteSource, TerminalFilter,
    VirtualHostKey, VirtualHostTarget,
    authz::Access,
    client::{Client, StaticMatch, destinations},
    defaults::{self, ANY_ADDRESS, HANDSHAKE},
    gateway_servers::{PortKind, PortServers, Served, bound_hosts, merged_servers, server_context, server_names},
    naming, outbound_listener,
    sidecar::{add_service, sort_entries},
    tcp_route::TcpScope,
    virtual_host::{self, Claim},
};
use crate::{
    ir::{Attachment, GatewayProtocol, Hostname, ObjectId, RouteTable, ServerTlsMode},
    snapshot::Reader,
};

/// ALPN for clients that speak HTTP.
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];
/// ALPN for peers of the mesh that send bytes.
const MESH_TCP_ALPN: [&str; 3] = ["istio", "h2", "http/1.1"];

/// Plans everything of a gateway.
pub(crate) fn plan_gateway(reader: &Reader<'_>, key: &GatewayKey) -> Outline {
    let gateway = Gateway::new(reader, key);
    let mut outline = Outline::default();
    outline.clusters.push(Entry::shared(ItemKey::Fixed(FixedCluster::BlackHole)));
    // Every service is looked up.
    reader.survey(&key.namespace);
    for service in reader.services_visible_to(&key.namespace).iter() {
        add_service(&mut outline, reader, &gateway.client, service);
    }
    sort_entries(&mut outline);
    let mut frames: BTreeMap<Arc<str>, Vec<VirtualHostKey>> = BTreeMap::new();
    let ports = merged_servers(reader, key);
    let mut listeners: Vec<ListenerPlan> = ports.iter().filter_map(|p| gateway.listener(p, &mut frames)).collect();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    // Two servers may ask for the same address in different words; a name is unique.
    listeners.dedup_by(|a, b| a.name == b.name);
    outline.listeners = listeners.into_iter().map(|l| Entry::Own(Arc::new(PlanItem::Listener(Box::new(l))))).collect();
    outline.routes = frames.into_iter().map(|(name, hosts)| route_frame(name, hosts)).collect();
    outline
}

fn route_frame(name: Arc<str>, hosts: Vec<VirtualHostKey>) -> RouteFrame {
    let virtual_hosts = hosts.into_iter().map(|key| Arc::new(ItemKey::VirtualHost(key))).collect();
    RouteFrame { name, ignore_port_in_host: true, virtual_hosts }
}

struct Gateway<'a> {
    reader: &'a Reader<'a>,
    key: &'a GatewayKey,
    client: Client<'a>,
    access: Access,
}

/// What the servers and tables of one host come to.
#[derive(Default)]
struct Bound {
    tables: BTreeMap<(i64, ObjectId), Arc<RouteTable>>,
    gateways: BTreeSet<ObjectId>,
    redirect: bool,
}

impl<'a> Gateway<'a> {
    fn new(reader: &'a Reader<'a>, key: &'a GatewayKey) -> Self {
        let client = Client {
            namespace: &key.namespace,
            labels: &key.client_labels,
            locality: key.locality.as_ref(),
            kind: ClusterClient::Gateway,
        };
        Self { reader, key, client, access: Access::of(reader, &key.namespace, &key.labels) }
    }

    /// The tables attached to a gateway object, oldest first.
    fn tables(&self, gateway: &ObjectId) -> Arc<[Arc<RouteTable>]> {
        self.reader.route_tables(&Attachment::Gateway(gateway.clone()), &self.key.namespace)
    }

    // ----------------------------------------------------------------------------------------------------- listeners

    /// `None`: no server of the port has anywhere to send a connection to.
    fn listener(
        &self,
        port: &PortServers,
        frames: &mut BTreeMap<Arc<str>, Vec<VirtualHostKey>>,
    ) -> Option<ListenerPlan> {
        let address = port.bind.or(self.key.bind).unwrap_or(ANY_ADDRESS);
        let name = naming::listener(address, port.port);
        let chains = match port.kind {
            PortKind::Http => vec![self.plain_http_chain(port, &name, frames)],
            PortKind::Tls => port.servers.iter().flat_map(|s| self.tls_chains(port, s, &name, frames)).collect(),
            PortKind::Tcp => port.servers.iter().flat_map(|s| self.tcp_chains(s)).collect(),
        };
        let chains = outbound_listener::distinct(chains);
        let tls = port.kind == PortKind::Tls;
        let inspector = tls.then_some(ListenerFilter::TlsInspector(Vec::new()));
        (!chains.is_empty()).then(|| ListenerPlan {
            name,
            address,
            port: port.port,
            bind: true,
            use_original_dst: false,
            direction: Direction::Outbound,
            listener_filters: inspector.into_iter().collect(),
            filters_timeout: None,
            continue_on_timeout: false,
            chains,
            default_chain: None,
            accept_one: true,
            access_log: defaults::access_log(self.reader.mesh()),
        })
    }

    fn plain_http_chain(
        &self,
        port: &PortServers,
        listener: &str,
        frames: &mut BTreeMap<Arc<str>, Vec<VirtualHostKey>>,
    ) -> FilterChainPlan {
        let rds: Arc<str> = format!("http.{}{}", port.port, bind_suffix(port.bind)).into();
        frames.insert(rds.clone(), self.virtual_hosts(&port.servers));
        self.http_chain(listener, rds, ChainMatch::default(), None)
    }

    fn tls_chains(
        &self,
        port: &PortServers,
        served: &Served,
        listener: &str,
        frames: &mut BTreeMap<Arc<str>, Vec<VirtualHostKey>>,
    ) -> Vec<FilterChainPlan> {
        let server = &served.server;
        let Some(tls) = &server.tls else { return Vec::new() };
        if matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough) {
            return self.passthrough_chains(served);
        }
        let http = server.protocol == GatewayProtocol::Https;
        let alpn: &[&str] = if !http && tls.mode == ServerTlsMode::MeshMutual { &MESH_TCP_ALPN } else { &HTTP_ALPN };
        let Some(context) = server_context(self.reader.mesh(), tls, alpn) else { return Vec::new() };
        let matches = ChainMatch { server_names: server_names(server), ..ChainMatch::default() };
        if !http {
            // The SNI has been looked at; what the rules ask for besides decides among chains.
            let chains = self.tcp_chains(served).into_iter().map(|chain| FilterChainPlan {
                matches: ChainMatch { server_names: matches.server_names.clone(), ..chain.matches },
                tls: Some(context.clone()),
                ..chain
            });
            return chains.collect();
        }
        let id = &served.gateway.origin.id;
        let (number, name, suffix) = (server.port, &server.port_name, bind_suffix(port.bind));
        let rds: Arc<str> = format!("https.{number}.{name}.{}.{}{suffix}", id.name, id.namespace).into();
        frames.insert(rds.clone(), self.virtual_hosts(std::slice::from_ref(served)));
        vec![self.http_chain(listener, rds, matches, Some(context))]
    }

    fn http_chain(
        &self,
        listener: &str,
        rds: Arc<str>,
        matches: ChainMatch,
        tls: Option<super::DownstreamTls>,
    ) -> FilterChainPlan {
        let prefix = format!("outbound_{listener};");
        let mut http = defaults::http(self.reader.mesh(), &prefix, RouteSource::Rds(rds), HttpRole::Gateway);
        http.access = self.access.http.clone();
        FilterChainPlan {
            name: "".into(),
            matches,
            tls,
            connect_timeout: Some(HANDSHAKE),
            access: Vec::new(),
            terminal: TerminalFilter::Http(Box::new(http)),
        }
    }

    fn tcp_chains(&self, served: &Served) -> Vec<FilterChainPlan> {
        self.l4_chains(served, |scope, tables| scope.tcp_rules(tables, &[]))
    }

    /// By SNI only: whoever has no rule for its name is not let in.
    fn passthrough_chains(&self, served: &Served) -> Vec<FilterChainPlan> {
        let chains = self.l4_chains(served, |scope, tables| scope.tls_rules(tables, &[]));
        let inside = |name: &Arc<str>| served.server.hosts.iter().any(|h| h.host.contains(&Hostname::new(name)));
        let narrowed = chains.into_iter().filter_map(|mut chain| {
            let any = chain.matches.server_names.is_empty();
            chain.matches.server_names.retain(inside);
            (any || !chain.matches.server_names.is_empty()).then_some(chain)
        });
        narrowed.collect()
    }

    fn l4_chains(
        &self,
        served: &Served,
        rules: impl Fn(&TcpScope<'_>, &[&Arc<RouteTable>]) -> Vec<FilterChainPlan>,
    ) -> Vec<FilterChainPlan> {
        let id = &served.gateway.origin.id;
        let all = self.tables(id);
        let bound: Vec<&Arc<RouteTable>> =
            all.iter().filter(|table| !bound_hosts(&served.server, table).is_empty()).collect();
        let attachments = [Attachment::Gateway(id.clone())];
        let scope = TcpScope {
            reader: self.reader,
            client: &self.client,
            conditions: self.conditions(served.server.port, &attachments),
        };
        let chains = rules(&scope, &bound).into_iter();
        chains.map(|chain| FilterChainPlan { access: self.access.tcp.clone(), ..chain }).collect()
    }

    fn conditions<'c>(&'c self, port: u16, attachments: &'c [Attachment]) -> StaticMatch<'c> {
        StaticMatch { port, namespace: &self.key.namespace, labels: &self.key.client_labels, attachments }
    }

    // -------------------------------------------------------------------------------------------------------- routes

    /// The virtual hosts of servers that share a route configuration; never empty.
    fn virtual_hosts(&self, servers: &[Served]) -> Vec<VirtualHostKey> {
        let mut bound: BTreeMap<Hostname, Bound> = BTreeMap::new();
        for served in servers {
            self.bind_tables(served, &mut bound);
            if served.server.https_redirect {
                for host in &served.server.hosts {
                    bound.entry(host.host.clone()).or_default().redirect = true;
                }
            }
        }
        let port = servers.first().map_or(0, |s| s.server.port);
        let claims: Vec<Claim> = bound.into_iter().map(|(host, bound)| self.claim(host, bound, port)).collect();
        let hosts = virtual_host::settle(claims);
        if hosts.is_empty() { vec![blackhole(port)] } else { hosts }
    }

    fn bind_tables(&self, served: &Served, bound: &mut BTreeMap<Hostname, Bound>) {
        let id = &served.gateway.origin.id;
        let attachments = [Attachment::Gateway(id.clone())];
        let conditions = self.conditions(served.server.port, &attachments);
        for table in self.tables(id).iter().filter(|table| conditions.table(table)) {
            for host in bound_hosts(&served.server, table) {
                let entry = bound.entry(host).or_default();
                entry.tables.insert((table.origin.created, table.origin.id.clone()), table.clone());
                entry.gateways.insert(id.clone());
                entry.redirect |= served.server.https_redirect;
            }
        }
    }

    fn claim(&self, host: Hostname, bound: Bound, port: u16) -> Claim {
        let tables: Vec<Arc<RouteTable>> = bound.tables.into_values().collect();
        let hosts: BTreeSet<&Hostname> = tables.iter().flat_map(|t| destinations(t)).map(|d| &d.host).collect();
        let client: Arc<ClientFacts> =
            self.client.facts(self.reader, &hosts, &tables, bound.gateways.into_iter().collect());
        let key = VirtualHostKey {
            target: VirtualHostTarget::Host { host: host.clone(), redirect: bound.redirect },
            port,
            tables: tables.iter().map(|t| t.origin.id.clone()).collect(),
            client,
            domains: DomainForm::Exact,
            taken: Vec::new(),
        };
        Claim { key, name: naming::host_port(host.as_str(), port), domains: vec![host.shared()] }
    }
}

fn bind_suffix(bind: Option<IpAddr>) -> String {
    bind.map(|address| format!(".{address}")).unwrap_or_default()
}

fn blackhole(port: u16) -> VirtualHostKey {
    VirtualHostKey {
        target: VirtualHostTarget::Blackhole,
        port,
        tables: Vec::new(),
        client: Arc::new(ClientFacts::default()),
        domains: DomainForm::Any,
        taken: Vec::new(),
    }
}
