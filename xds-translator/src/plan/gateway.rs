//! Everything of a gateway: listeners by merged servers, route configurations by bound tables,
//! clusters of what it sees.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry as MapEntry},
    sync::Arc,
};

use super::{
    ChainMatch, ClientFacts, ClusterClient, Direction, DomainForm, Entry, FilterChainPlan,
    FixedCluster, GatewayKey, HttpRole, ItemKey, ListenerFilter, ListenerPlan, Outline, PlanItem,
    RouteFrame, RouteSource, TerminalFilter, TokenFilter, VirtualHostKey, VirtualHostTarget,
    authorizer,
    authz::Access,
    client::{Client, StaticMatch, destinations, leads_to_names},
    defaults::{self, ANY_ADDRESS, HANDSHAKE},
    gateway_servers::{
        Contested, Overruled, PortKind, PortServers, Served, bound_hosts, listener_ports,
        merged_servers, server_context, server_names,
    },
    naming, outbound_listener,
    rate_limit::{self, limits_at},
    relay::Relay,
    sidecar::{add_service, add_unseen},
    tcp_route::TcpScope,
    telemetry::{collectors, telemetry},
    virtual_host::{self, Claim},
};
use crate::{
    ir::{
        Attachment, CallSide, Edge, GatewayProtocol, GatewayRoutes, Hostname, ObjectId, PortNames,
        RateLimit, RouteTable, ServerTlsMode,
    },
    snapshot::Reader,
};

/// ALPN for clients that speak HTTP.
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];
/// ALPN for peers of the mesh that send bytes.
const MESH_TCP_ALPN: [&str; 3] = ["istio", "h2", "http/1.1"];

/// Plans everything of a gateway.
pub(crate) fn plan_gateway(reader: &Reader<'_>, key: &GatewayKey) -> Outline {
    let mut gateway = Gateway::new(reader, key);
    let mut outline = Outline::default();
    outline.extend([Entry::shared(ItemKey::Fixed(FixedCluster::BlackHole))]);
    // Every service is looked up.
    reader.survey(&key.namespace);
    gateway.resolves_names = gateway.leads_to_names();
    for service in reader.services_visible_to(&key.namespace).iter() {
        add_service(&mut outline, reader, &gateway.client, service);
    }
    let needed = collectors(reader, &key.telemetry, &key.namespace);
    add_unseen(&mut outline, reader, &gateway.client, needed);
    add_unseen(&mut outline, reader, &gateway.client, authorizer::services(reader));
    let counters = rate_limit::services(reader, &key.namespace);
    add_unseen(&mut outline, reader, &gateway.client, counters);
    let mut frames = Frames::default();
    let ports = merged_servers(reader, key).ports;
    let servers = ports.iter().flat_map(|port| &port.servers).map(|served| &served.server);
    Relay::new(reader, &gateway.client).add_clusters(&mut outline, servers);
    let mut listeners: Vec<ListenerPlan> =
        ports.iter().filter_map(|p| gateway.listener(p, &mut frames)).collect();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    let told = telemetry(reader, &key.telemetry, &key.namespace, CallSide::Client);
    listeners.iter_mut().for_each(|listener| told.tell(listener, true));
    outline.extend(listeners.into_iter().map(|l| Entry::own(PlanItem::Listener(Box::new(l)))));
    outline.routes = frames.finish();
    outline
}

/// The servers of a gateway's objects that it does not serve, wholly or for one host, because
/// another server has the place; sorted, unique.
pub(crate) fn overruled_servers(reader: &Reader<'_>, key: &GatewayKey) -> BTreeSet<Overruled> {
    let gateway = Gateway::new(reader, key);
    let merged = merged_servers(reader, key);
    let tcp = merged.ports.iter().filter(|port| port.kind == PortKind::Tcp);
    let connections = tcp.flat_map(|port| gateway.overruled_connections(port));
    connections.chain(merged.overruled.iter().cloned()).collect()
}

/// Route configurations. One that is there is never replaced, so that no listener gets the routes
/// of another.
#[derive(Default)]
struct Frames(BTreeMap<GatewayRoutes, Vec<VirtualHostKey>>);

impl Frames {
    /// The name of a new route configuration; `None`: it is another server's already.
    fn add(&mut self, routes: GatewayRoutes, hosts: Vec<VirtualHostKey>) -> Option<Arc<str>> {
        let name = routes.name();
        let hosts_of = self.0.entry(routes);
        matches!(hosts_of, MapEntry::Vacant(_)).then(|| {
            hosts_of.or_insert(hosts);
            name
        })
    }

    /// In the order of names.
    fn finish(self) -> Vec<RouteFrame> {
        let frame = |(routes, hosts): (GatewayRoutes, Vec<VirtualHostKey>)| RouteFrame {
            name: routes.name(),
            ignore_port_in_host: true,
            virtual_hosts: hosts.into_iter().map(ItemKey::VirtualHost).map(Arc::new).collect(),
        };
        let mut frames: Vec<RouteFrame> = self.0.into_iter().map(frame).collect();
        frames.sort_by(|a, b| a.name.cmp(&b.name));
        frames
    }
}

struct Gateway<'a> {
    reader: &'a Reader<'a>,
    key: &'a GatewayKey,
    client: Client<'a>,
    access: Access,
    limits: Vec<Arc<RateLimit>>,
    /// Whether routes lead to names that are still to be resolved.
    resolves_names: bool,
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
            knows_peers: key.knows_peers,
            kind: ClusterClient::Gateway,
        };
        let access = Access::of(reader, &key.namespace, &key.labels);
        let limits = reader.rate_limits(&key.namespace, &key.labels, &key.gateways);
        Self { reader, key, client, access, limits, resolves_names: false }
    }

    fn leads_to_names(&self) -> bool {
        let tables = self.key.gateways.iter().map(|gateway| self.tables(gateway));
        let mut tables = tables.map(|tables| tables.to_vec());
        tables.any(|tables| leads_to_names(self.reader, &self.key.namespace, &tables))
    }

    fn edge(&self) -> Edge {
        self.key.edge.unwrap_or(self.reader.mesh().edge)
    }

    /// The tables attached to a gateway object, or to some of its servers; oldest first.
    fn tables(&self, gateway: &ObjectId) -> Arc<[Arc<RouteTable>]> {
        self.reader.route_tables(&Attachment::Gateway(gateway.clone()), &self.key.namespace)
    }

    // ---------------------------------------------------------------------------------------------
    // listeners

    /// `None`: no server of the port has anywhere to send a connection to.
    fn listener(&self, port: &PortServers, frames: &mut Frames) -> Option<ListenerPlan> {
        let address = port.bind.or(self.key.bind).unwrap_or(ANY_ADDRESS);
        let name = naming::listener(address, port.port);
        let chains = match port.kind {
            PortKind::Http => self.plain_http_chain(port, &name, frames).into_iter().collect(),
            PortKind::Tls => {
                port.servers.iter().flat_map(|s| self.tls_chains(port, s, &name, frames)).collect()
            }
            PortKind::Tcp => port.servers.iter().flat_map(|s| self.tcp_chains(s)).collect(),
        };
        let mut chains = outbound_listener::distinct(chains);
        for chain in &mut chains {
            if let TerminalFilter::Http(http) = &mut chain.terminal {
                http.rate_limits = limits_at(self.reader, &self.limits, Some(port.port));
            }
        }
        let tls = port.kind == PortKind::Tls;
        let behind = self.edge().proxy_protocol;
        let proxy = behind.then_some(ListenerFilter::ProxyProtocol);
        let inspector = tls.then_some(ListenerFilter::TlsInspector(Vec::new()));
        (!chains.is_empty()).then(|| ListenerPlan {
            name,
            address,
            port: port.port,
            bind: true,
            use_original_dst: false,
            direction: Direction::Outbound,
            listener_filters: proxy.into_iter().chain(inspector).collect(),
            filters_timeout: None,
            continue_on_timeout: false,
            chains,
            default_chain: None,
            accept_one: true,
            access_logs: Vec::new(),
            port_names: PortNames::from([(
                port.port,
                port.servers.iter().map(|served| served.server.port_name.clone()).collect(),
            )]),
        })
    }

    /// The servers of a port for plain bytes whose chains all match what those of older ones do.
    fn overruled_connections(&self, port: &PortServers) -> Vec<Overruled> {
        let chains = port.servers.iter().map(|served| (served, self.tcp_chains(served)));
        let speaking = chains.filter(|(_, chains)| !chains.is_empty());
        let mut taken: Vec<FilterChainPlan> = Vec::new();
        let mut first: Option<&Served> = None;
        let mut overruled = Vec::new();
        for (served, chains) in speaking {
            let by = *first.get_or_insert(served);
            let before = taken.len();
            taken.extend(chains);
            taken = outbound_listener::distinct(taken);
            if taken.len() == before {
                overruled.push(served.overruled(by, Contested::Connections(port.port)));
            }
        }
        overruled
    }

    fn plain_http_chain(
        &self,
        port: &PortServers,
        listener: &str,
        frames: &mut Frames,
    ) -> Option<FilterChainPlan> {
        let routes = GatewayRoutes::Http { port: port.port, bind: port.bind };
        let rds = frames.add(routes, self.virtual_hosts(&port.servers))?;
        Some(self.http_chain(listener, rds, ChainMatch::default(), None))
    }

    fn tls_chains(
        &self,
        port: &PortServers,
        served: &Served,
        listener: &str,
        frames: &mut Frames,
    ) -> Vec<FilterChainPlan> {
        let server = &served.server;
        let Some(tls) = &server.tls else { return Vec::new() };
        match tls.mode {
            ServerTlsMode::Passthrough => return self.passthrough_chains(served),
            // Access is judged where the mutual TLS ends, by whom the client proves to be: here
            // nobody knows that, so that rules on callers would refuse all of them (Istio).
            ServerTlsMode::AutoPassthrough => {
                return Relay::new(self.reader, &self.client).chains(served);
            }
            _ => {}
        }
        let http = server.protocol == GatewayProtocol::Https;
        let alpn: &[&str] = if !http && tls.mode == ServerTlsMode::MeshMutual {
            &MESH_TCP_ALPN
        } else {
            &HTTP_ALPN
        };
        let Some(context) = server_context(self.reader.mesh(), tls, alpn) else {
            return Vec::new();
        };
        let names = server_names(server).into_iter();
        if !http {
            // The SNI has been looked at; what the rules ask for besides decides among chains.
            let chains = self.tcp_chains(served);
            let for_names = |server_names: Vec<Arc<str>>| {
                let chains = chains.clone().into_iter();
                let tls = Some(context.clone());
                chains.map(move |chain| FilterChainPlan {
                    matches: ChainMatch { server_names: server_names.clone(), ..chain.matches },
                    tls: tls.clone(),
                    ..chain
                })
            };
            return names.flat_map(for_names).collect();
        }
        let hosts = self.virtual_hosts(std::slice::from_ref(served));
        let Some(rds) = frames.add(self.https_routes(port, served), hosts) else {
            return Vec::new();
        };
        let for_names = |server_names: Vec<Arc<str>>| {
            let matches = ChainMatch { server_names, ..ChainMatch::default() };
            self.http_chain(listener, rds.clone(), matches, Some(context.clone()))
        };
        names.map(for_names).collect()
    }

    fn https_routes(&self, port: &PortServers, served: &Served) -> GatewayRoutes {
        let id = &served.gateway.origin.id;
        let several = listener_ports(self.key, served.server.port).len() > 1;
        GatewayRoutes::Https {
            port: served.server.port,
            port_name: served.server.port_name.clone(),
            namespace: id.namespace.clone(),
            gateway: id.name.clone(),
            bind: port.bind,
            listener: several.then_some(port.port),
        }
    }

    fn http_chain(
        &self,
        listener: &str,
        rds: Arc<str>,
        matches: ChainMatch,
        tls: Option<super::DownstreamTls>,
    ) -> FilterChainPlan {
        let prefix = format!("outbound_{listener};");
        let mut http =
            defaults::http(self.reader.mesh(), &prefix, RouteSource::Rds(rds), HttpRole::Gateway);
        http.ask = self.access.ask_http.clone();
        http.tokens = self.access.tokens.clone().map(TokenFilter::rerouting);
        http.access = self.access.http.clone();
        http.resolves_names = self.resolves_names;
        http.edge = self.edge();
        FilterChainPlan {
            name: "".into(),
            matches,
            tls,
            connect_timeout: Some(HANDSHAKE),
            ask: None,
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
        let inside = |name: &Arc<str>| served.owns(&Hostname::new(name));
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
        let server = &served.server;
        let attached = all.iter().filter(|table| table.is_attached_to(id, &server.port_name));
        let bound: Vec<&Arc<RouteTable>> = attached
            .filter(|table| !bound_hosts(server, &served.closer, table).is_empty())
            .collect();
        let attachments = [Attachment::Gateway(id.clone())];
        let scope = TcpScope {
            reader: self.reader,
            client: &self.client,
            conditions: self.conditions(server.port, &attachments),
        };
        let chains = rules(&scope, &bound).into_iter();
        chains.map(|chain| self.guarded(chain)).collect()
    }

    /// A chain of connections with what decides about them.
    fn guarded(&self, chain: FilterChainPlan) -> FilterChainPlan {
        let (ask, access) = (self.access.ask_tcp.clone(), self.access.tcp.clone());
        FilterChainPlan { ask, access, ..chain }
    }

    fn conditions<'c>(&'c self, port: u16, attachments: &'c [Attachment]) -> StaticMatch<'c> {
        StaticMatch {
            port,
            namespace: &self.key.namespace,
            labels: &self.key.client_labels,
            attachments,
        }
    }

    // ---------------------------------------------------------------------------------------------
    // routes

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
        let elsewhere: BTreeSet<&Hostname> =
            servers.iter().flat_map(|s| s.closer.hosts()).collect();
        let misdirected = elsewhere.into_iter().map(|host| misdirected(host, port));
        let own = bound.into_iter().map(|(host, bound)| self.claim(host, bound, port));
        let claims: Vec<Claim> = own.chain(misdirected).collect();
        let hosts = virtual_host::settle(claims);
        if hosts.is_empty() { vec![blackhole(port)] } else { hosts }
    }

    fn bind_tables(&self, served: &Served, bound: &mut BTreeMap<Hostname, Bound>) {
        let id = &served.gateway.origin.id;
        let attachments = [Attachment::Gateway(id.clone())];
        let conditions = self.conditions(served.server.port, &attachments);
        let attached =
            |table: &&Arc<RouteTable>| table.is_attached_to(id, &served.server.port_name);
        let tables = self.tables(id);
        for table in tables.iter().filter(attached) {
            for host in bound_hosts(&served.server, &served.closer, table) {
                if !conditions.table_at(table, &host) {
                    continue;
                }
                let entry = bound.entry(host).or_default();
                entry.tables.insert((table.origin.created, table.origin.id.clone()), table.clone());
                entry.gateways.insert(id.clone());
                entry.redirect |= served.server.https_redirect;
            }
        }
    }

    fn claim(&self, host: Hostname, bound: Bound, port: u16) -> Claim {
        let tables: Vec<Arc<RouteTable>> = bound.tables.into_values().collect();
        let hosts: BTreeSet<&Hostname> =
            tables.iter().flat_map(|t| destinations(t)).map(|d| &d.host).collect();
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

fn blackhole(port: u16) -> VirtualHostKey {
    without_routes(VirtualHostTarget::Blackhole, DomainForm::Any, port)
}

fn misdirected(host: &Hostname, port: u16) -> Claim {
    let target = VirtualHostTarget::Misdirected(host.clone());
    let key = without_routes(target, DomainForm::Exact, port);
    Claim { key, name: naming::host_port(host.as_str(), port), domains: vec![host.shared()] }
}

fn without_routes(target: VirtualHostTarget, domains: DomainForm, port: u16) -> VirtualHostKey {
    VirtualHostKey {
        target,
        port,
        tables: Vec::new(),
        client: Arc::new(ClientFacts::default()),
        domains,
        taken: Vec::new(),
    }
}
