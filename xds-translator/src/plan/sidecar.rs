//! The client side of a sidecar: clusters, listeners and route configurations of everything it
//! sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    rc::Rc,
    sync::Arc,
};

use ferromesh_proto::ResourceType;

use super::{
    CaptureMode, ClientFacts, ClusterClient, DomainForm, Entry, FixedCluster, ItemKey, OutboundKey,
    Outline, PlanItem, RouteFrame, VirtualHostKey, VirtualHostTarget, authorizer,
    client::{
        Client, StaticMatch, TableIndex, destinations, leads_to_names, resolve_alias,
        stands_for_another,
    },
    defaults::{ANY_ADDRESS, LOOPBACK},
    egress::{Egress, OwnListener, Sight},
    egress_proxy::Unknown,
    naming,
    outbound_listener::{self, Displaced, Drafts, Offer},
    place::Place,
    rate_limit,
    tcp_route::{TcpPort, TcpScope},
    telemetry::{collectors, telemetry},
    virtual_host::{self, Claim, NameScope},
};
use crate::{
    ir::{
        Attachment, CallSide, Capture, Hostname, ObjectId, Protocol, RESERVED_PORTS, Resolution,
        RouteTable, Service, ServicePort,
    },
    snapshot::Reader,
};

/// Name of the explicit HTTP proxy's route configuration.
const HTTP_PROXY: &str = "http_proxy";

/// Plans the client side of a sidecar.
pub(crate) fn plan_outbound(reader: &Reader<'_>, key: &OutboundKey) -> Outline {
    // Nearly every host is looked up, for this client and for one that could be anybody.
    reader.survey(&key.namespace);
    reader.survey(&"".into());
    let sidecar = Sidecar::new(reader, key);
    let mut outline = Outline::default();
    sidecar.clusters(&mut outline);
    let frames = sidecar.listeners(&mut outline);
    let mut tables = Tables { sidecar: &sidecar, by_port: BTreeMap::new() };
    outline.routes = frames
        .into_iter()
        .map(|(name, frame)| sidecar.route_frame(name, &frame, &mut tables))
        .collect();
    outline
}

/// Ports of services that clients of a view find no place for, because an older service keeps it;
/// sorted, unique.
pub(crate) fn displaced(reader: &Reader<'_>, key: &OutboundKey) -> Vec<Displaced> {
    let sidecar = Sidecar::new(reader, key);
    let mut displaced = sidecar.drafts().0.displaced().to_vec();
    displaced.sort_unstable();
    displaced.dedup();
    displaced
}

struct Sidecar<'a> {
    reader: &'a Reader<'a>,
    key: &'a OutboundKey,
    client: Client<'a>,
    sight: Sight,
    unknown: Unknown<'a>,
}

/// What a route configuration serves.
enum Frame {
    /// The HTTP services of an egress listener on a port.
    Port { egress: usize, port: u16 },
    /// One service on a sniffed port of its own.
    Host { egress: usize, service: Arc<Service>, port: u16 },
    /// Every HTTP port of the catch-all.
    Proxy { egress: usize },
}

/// Route configurations that listeners refer to.
type Frames = BTreeMap<Arc<str>, Frame>;

/// Route tables that apply to this client, by egress listener and port; made once for each.
struct Tables<'s> {
    sidecar: &'s Sidecar<'s>,
    by_port: BTreeMap<(usize, u16), Rc<TableIndex<'s>>>,
}

impl<'s> Tables<'s> {
    fn of(&mut self, egress: usize, port: u16) -> Rc<TableIndex<'s>> {
        let made = self.by_port.entry((egress, port)).or_insert_with(|| {
            let attachments = [Attachment::Mesh];
            let conditions = self.sidecar.conditions(port, &attachments);
            let tables = self.sidecar.sight.egress[egress].tables.iter();
            Rc::new(TableIndex::new(tables.filter(|table| conditions.table(table))))
        });
        made.clone()
    }
}

impl<'a> Sidecar<'a> {
    fn new(reader: &'a Reader<'a>, key: &'a OutboundKey) -> Self {
        let kind = match key.capture {
            CaptureMode::Redirect => ClusterClient::Redirected,
            CaptureMode::None { .. } => ClusterClient::Addressed,
        };
        let client = Client {
            namespace: &key.namespace,
            labels: &key.client_labels,
            locality: key.locality.as_ref(),
            knows_peers: key.knows_peers,
            kind,
        };
        let sight = Sight::of(reader, key);
        let unknown = Unknown::of(reader, &client, &sight.unknown);
        Self { reader, key, client, sight, unknown }
    }

    fn redirected(&self) -> bool {
        self.key.capture == CaptureMode::Redirect
    }

    // ---------------------------------------------------------------------------------------------
    // clusters

    fn clusters(&self, outline: &mut Outline) {
        let mut fixed = vec![FixedCluster::BlackHole];
        if self.redirected() {
            fixed.push(FixedCluster::Passthrough);
        }
        outline.extend(fixed.into_iter().map(|f| Entry::shared(ItemKey::Fixed(f))));
        for service in self.sight.services() {
            add_service(outline, self.reader, &self.client, service);
        }
        if let Unknown::Through(_, proxy) = self.unknown {
            add_unseen(outline, self.reader, &self.client, vec![proxy]);
        }
        let needed = collectors(self.reader, &self.key.telemetry, self.client.namespace);
        add_unseen(outline, self.reader, &self.client, needed);
        add_unseen(outline, self.reader, &self.client, authorizer::services(self.reader));
        let counters = rate_limit::services(self.reader, self.client.namespace);
        add_unseen(outline, self.reader, &self.client, counters);
    }

    // ---------------------------------------------------------------------------------------------
    // listeners

    fn listeners(&self, outline: &mut Outline) -> Frames {
        let (drafts, frames) = self.drafts();
        let mut listeners = drafts.finish();
        if self.redirected() {
            let mesh = self.reader.mesh();
            listeners.push(outbound_listener::virtual_outbound(mesh, &self.unknown));
        }
        let key = &self.key.telemetry;
        let told = telemetry(self.reader, key, self.client.namespace, CallSide::Client);
        for listener in &mut listeners {
            // What no chain takes is told where connections come from.
            told.tell(listener, listener.use_original_dst);
        }
        outline.extend(listeners.into_iter().map(|l| Entry::own(PlanItem::Listener(Box::new(l)))));
        frames
    }

    fn drafts(&self) -> (Drafts<'_>, Frames) {
        let unknown = self.redirected().then_some(&self.unknown);
        let mut drafts = Drafts::new(self.reader.mesh(), unknown);
        let mut frames = Frames::new();
        let own_ports = self.sight.own_ports();
        for (index, egress) in self.sight.egress.iter().enumerate() {
            for service in self.listened_for(egress) {
                for port in
                    service.ports.iter().filter(|p| self.wanted(egress, p.number, &own_ports))
                {
                    self.offer(&mut drafts, &mut frames, (index, egress), service, port);
                }
            }
            self.offer_proxy(&mut drafts, &mut frames, (index, egress));
            if leads_to_names(self.reader, self.client.namespace, &egress.tables) {
                drafts.resolve_names_everywhere();
            }
        }
        (drafts, frames)
    }

    /// Services that need a place of their own: another name of a service leads to that service's
    /// addresses, and on listeners that are shared it is told apart by its virtual host.
    fn listened_for<'e>(&'e self, egress: &'e Egress) -> impl Iterator<Item = &'e Arc<Service>> {
        let namespace = self.client.namespace;
        egress
            .services
            .iter()
            .filter(move |service| !stands_for_another(self.reader, service, namespace))
    }

    /// An own listener serves its port; the catch-all serves every other that the proxy does not
    /// use itself.
    fn wanted(&self, egress: &Egress, port: u16, own_ports: &BTreeSet<u16>) -> bool {
        match &egress.own {
            Some(own) => own.port.number == port,
            None => {
                !(own_ports.contains(&port) || self.redirected() && RESERVED_PORTS.contains(&port))
            }
        }
    }

    fn offer(
        &self,
        drafts: &mut Drafts<'_>,
        frames: &mut Frames,
        (index, egress): (usize, &Egress),
        service: &Arc<Service>,
        port: &ServicePort,
    ) {
        let protocol = egress.own.as_ref().map_or(port.protocol, |own| own.port.protocol);
        for place in self.places(egress, service, port, protocol) {
            let at = (place.address, port.number);
            let wish = Offer { at, bind: place.bind, service: &service.key, port_name: &port.name };
            if protocol.is_http() || protocol == Protocol::Auto {
                let (rds, frame) = self.frame_of(index, &place, service, port);
                if drafts.offer_http(&wish, &rds) {
                    frames.entry(rds).or_insert(frame);
                }
                if service.resolution == Resolution::Named {
                    drafts.resolve_names(at);
                }
            }
            if !protocol.is_http() {
                let chains = self.tcp_chains(egress, &place, service, port);
                drafts.offer_tcp(&wish, protocol, chains);
            }
        }
    }

    fn frame_of(
        &self,
        egress: usize,
        place: &Place,
        service: &Arc<Service>,
        port: &ServicePort,
    ) -> (Arc<str>, Frame) {
        if place.shared {
            return (port.number.to_string().into(), Frame::Port { egress, port: port.number });
        }
        let name = naming::host_port(service.key.host.as_str(), port.number);
        (name, Frame::Host { egress, service: service.clone(), port: port.number })
    }

    /// Where a service port is listened for.
    fn places(
        &self,
        egress: &Egress,
        service: &Service,
        port: &ServicePort,
        protocol: Protocol,
    ) -> Vec<Place> {
        if let Some(own) = &egress.own {
            return vec![self.own_place(own)];
        }
        if let CaptureMode::None { outbound, .. } = &self.key.capture {
            // Without an address of our own, binding 127.0.0.1 for bytes of any kind would take the
            // application's ports; Istio binds for HTTP only.
            let usable = outbound.is_some() || protocol.is_http();
            return if usable {
                vec![Place::shared(outbound.unwrap_or(LOOPBACK), true)]
            } else {
                Vec::new()
            };
        }
        if protocol.is_http() {
            return vec![Place::shared(ANY_ADDRESS, false)];
        }
        if service.headless {
            let addresses = self.reader.headless_addresses(&service.key, port.number);
            return addresses.iter().map(|&address| Place::own(address, false)).collect();
        }
        match self.allocated(service) {
            Some(address) => vec![Place::own(address.into(), false)],
            None => Place::of_addresses(&service.addresses),
        }
    }

    /// The address that clients are given for a service without one.
    fn allocated(&self, service: &Service) -> Option<Ipv4Addr> {
        let told = self.key.features.captures_dns && service.addresses.is_empty();
        service.allocated.filter(|_| told)
    }

    fn binds(&self, own: &OwnListener) -> bool {
        match own.capture {
            Capture::None => true,
            Capture::Iptables => false,
            Capture::Default => !self.redirected(),
        }
    }

    fn own_place(&self, own: &OwnListener) -> Place {
        let bind = self.binds(own);
        let fallback = match &self.key.capture {
            CaptureMode::None { outbound, .. } => outbound.unwrap_or(LOOPBACK),
            CaptureMode::Redirect if bind => LOOPBACK,
            CaptureMode::Redirect => ANY_ADDRESS,
        };
        Place::shared(own.bind.unwrap_or(fallback), bind)
    }

    fn tcp_chains(
        &self,
        egress: &Egress,
        place: &Place,
        service: &Arc<Service>,
        port: &ServicePort,
    ) -> Vec<super::FilterChainPlan> {
        let attachments = [Attachment::Mesh];
        let scope = TcpScope {
            reader: self.reader,
            client: &self.client,
            conditions: self.conditions(port.number, &attachments),
        };
        let target =
            TcpPort { service, port, prefixes: place.prefixes.clone(), shared: place.shared };
        let tables: Vec<&Arc<RouteTable>> = egress
            .l4_tables
            .iter()
            .filter(|table| table.hosts.iter().any(|host| host.contains(&service.key.host)))
            .collect();
        scope.service_chains(&target, &tables)
    }

    fn conditions<'c>(&'c self, port: u16, attachments: &'c [Attachment]) -> StaticMatch<'c> {
        StaticMatch {
            port,
            namespace: &self.key.namespace,
            labels: &self.key.client_labels,
            attachments,
        }
    }

    fn offer_proxy(
        &self,
        drafts: &mut Drafts<'_>,
        frames: &mut Frames,
        (index, egress): (usize, &Egress),
    ) {
        let port = self.key.features.http_proxy_port.or(self.reader.mesh().http_proxy_port);
        let Some(port) = port.filter(|_| egress.own.is_none()) else { return };
        let address = match &self.key.capture {
            CaptureMode::None { outbound: Some(address), .. } => *address,
            _ => LOOPBACK,
        };
        let name: Arc<str> = HTTP_PROXY.into();
        drafts.offer_http_proxy((address, port), &name);
        frames.insert(name, Frame::Proxy { egress: index });
    }

    // ---------------------------------------------------------------------------------------------
    // routes

    fn route_frame<'s>(
        &'s self,
        name: Arc<str>,
        frame: &Frame,
        tables: &mut Tables<'s>,
    ) -> RouteFrame {
        match frame {
            Frame::Port { egress, port } => {
                let claims = self.port_claims(*egress, *port, DomainForm::Names, tables);
                let redirected = self.redirected()
                    && !self.sight.egress[*egress].own.as_ref().is_some_and(|o| self.binds(o));
                route_frame(name, true, with_unknown(claims, self.unknown(redirected)))
            }
            Frame::Host { egress, service, port } => {
                let index = tables.of(*egress, *port);
                let claim = self.service_claim(service, *port, DomainForm::Any, &index);
                route_frame(name, true, vec![claim.key])
            }
            Frame::Proxy { egress } => {
                let ports = self.sight.egress[*egress].services.iter().flat_map(|s| &s.ports);
                let ports: BTreeSet<u16> =
                    ports.filter(|p| serves_http(p)).map(|p| p.number).collect();
                let mut claims = Vec::new();
                for port in ports {
                    claims.extend(self.port_claims(
                        *egress,
                        port,
                        DomainForm::NamesWithPort,
                        tables,
                    ));
                }
                route_frame(name, false, with_unknown(claims, self.unknown(false)))
            }
        }
    }

    /// Virtual hosts of a port: its HTTP services, and hosts that only route tables name.
    fn port_claims<'s>(
        &'s self,
        egress: usize,
        port: u16,
        form: DomainForm,
        tables: &mut Tables<'s>,
    ) -> Vec<Claim> {
        let index = tables.of(egress, port);
        let services = self.sight.egress[egress].services.iter();
        let services = services.filter(|s| s.port(port).is_some_and(serves_http));
        let mut claims: Vec<Claim> =
            services.map(|s| self.service_claim(s, port, form, &index)).collect();
        let known: BTreeSet<Hostname> =
            claims.iter().filter_map(|c| c.service_host().cloned()).collect();
        let mut routed: BTreeSet<&Hostname> = BTreeSet::new();
        for table in index.tables() {
            for host in routed_hosts(table, &known, port) {
                // The oldest table that names a host keeps it: sidecars do not merge tables whose
                // rules go as they are written.
                if routed.insert(host) {
                    claims.push(self.routed_claim(&index.joined(host, table), host, port, form));
                }
            }
        }
        claims
    }

    fn service_claim(
        &self,
        service: &Arc<Service>,
        port: u16,
        form: DomainForm,
        tables: &TableIndex<'_>,
    ) -> Claim {
        let target = resolve_alias(self.reader, service, &self.key.namespace).unwrap_or(service);
        let tables = tables.in_force(&target.key.host);
        let domain = &self.reader.mesh().domain;
        let allocated = self.allocated(service).is_some();
        let names = NameScope::of(domain, &service.key.host, &self.key.namespace, allocated);
        let key = VirtualHostKey {
            target: VirtualHostTarget::Service {
                service: service.key.clone(),
                local: names.local,
                allocated,
            },
            port,
            tables: tables.iter().map(|t| t.origin.id.clone()).collect(),
            client: self.facts([&target.key.host].into_iter().chain(alias_of(service)), &tables),
            domains: form,
            taken: Vec::new(),
        };
        Claim {
            key,
            name: naming::host_port(service.key.host.as_str(), port),
            domains: virtual_host::service_domains(service, &names, form, port),
        }
    }

    fn routed_claim(
        &self,
        tables: &[&Arc<RouteTable>],
        host: &Hostname,
        port: u16,
        form: DomainForm,
    ) -> Claim {
        let key = VirtualHostKey {
            target: VirtualHostTarget::Host { host: host.clone(), redirect: false },
            port,
            tables: tables.iter().map(|t| t.origin.id.clone()).collect(),
            client: self.facts([host], tables),
            domains: if form == DomainForm::Names { DomainForm::Exact } else { form },
            taken: Vec::new(),
        };
        Claim {
            name: naming::host_port(host.as_str(), port),
            domains: virtual_host::host_domains(host, form, port),
            key,
        }
    }

    /// `own`: hosts that the virtual host looks up besides those its tables name.
    fn facts<'h>(
        &self,
        own: impl IntoIterator<Item = &'h Hostname>,
        tables: &[&'h Arc<RouteTable>],
    ) -> Arc<ClientFacts> {
        let mut hosts: BTreeSet<&Hostname> = own.into_iter().collect();
        hosts.extend(tables.iter().flat_map(|t| destinations(t)).map(|d| &d.host));
        let tables: Vec<Arc<RouteTable>> = tables.iter().copied().cloned().collect();
        self.client.facts(self.reader, &hosts, &tables, Vec::new())
    }

    /// The virtual host for names that nobody knows. Called by address, a proxy cannot know where a
    /// request was going, so it refuses.
    fn unknown(&self, redirected: bool) -> VirtualHostKey {
        VirtualHostKey {
            target: match &self.unknown {
                Unknown::Through(cluster, _) => VirtualHostTarget::Through(cluster.clone()),
                Unknown::Passes if redirected => VirtualHostTarget::AllowAny,
                Unknown::Passes | Unknown::Refused => VirtualHostTarget::BlockAll,
            },
            port: 0,
            tables: Vec::<ObjectId>::new(),
            client: Arc::new(ClientFacts::default()),
            domains: DomainForm::Any,
            taken: Vec::new(),
        }
    }
}

/// The settled virtual hosts, and last the one for unknown names, unless a host already stands for
/// every name.
fn with_unknown(claims: Vec<Claim>, unknown: VirtualHostKey) -> Vec<VirtualHostKey> {
    let everything = claims.iter().any(|claim| claim.domains.iter().any(|domain| &**domain == "*"));
    let mut virtual_hosts = virtual_host::settle(claims);
    if !everything {
        virtual_hosts.push(unknown);
    }
    virtual_hosts
}

fn route_frame(
    name: Arc<str>,
    ignore_port_in_host: bool,
    virtual_hosts: Vec<VirtualHostKey>,
) -> RouteFrame {
    let virtual_hosts =
        virtual_hosts.into_iter().map(|key| Arc::new(ItemKey::VirtualHost(key))).collect();
    RouteFrame { name, ignore_port_in_host, virtual_hosts }
}

fn alias_of(service: &Service) -> Option<&Hostname> {
    match &service.resolution {
        Resolution::Alias(target) => Some(target),
        _ => None,
    }
}

fn serves_http(port: &ServicePort) -> bool {
    port.protocol.is_http() || port.protocol == Protocol::Auto
}

impl Claim {
    fn service_host(&self) -> Option<&Hostname> {
        match &self.key.target {
            VirtualHostTarget::Service { service, .. } => Some(&service.host),
            _ => None,
        }
    }
}

/// The hosts of a table that get a virtual host of their own on a port: those that are no service
/// there, when some other host of the table is one; on port 80, also when none is.
fn routed_hosts<'t>(
    table: &'t RouteTable,
    known: &'t BTreeSet<Hostname>,
    port: u16,
) -> impl Iterator<Item = &'t Hostname> {
    let is_service = |host: &Hostname| {
        known.contains(host)
            || (host.is_wildcard() && known.iter().any(|service| host.contains(service)))
    };
    let open = port == 80 || table.hosts.iter().any(is_service);
    table.hosts.iter().filter(move |host| open && !is_service(host))
}

/// Clusters and assignments of services that are told or asked by proxies whatever these see. Where
/// the client sees another service of that host, its clusters give way: who is asked whether a
/// request may pass is the mesh's to say, and no namespace's.
pub(crate) fn add_unseen(
    outline: &mut Outline,
    reader: &Reader<'_>,
    client: &Client<'_>,
    services: Vec<&Arc<Service>>,
) {
    for service in services {
        let entries = entries_of(reader, client, service);
        let names: BTreeSet<Arc<str>> =
            entries.iter().map(|(cluster, _)| cluster.resource_name()).collect();
        // An assignment has its cluster's name.
        for kind in [ResourceType::Cluster, ResourceType::Endpoint] {
            outline.retain(kind, |entry| !names.contains(&entry.resource_name()));
        }
        outline.add_clusters(entries);
    }
}

/// Clusters and assignments of a service. An alias of a service that the mesh knows has none of its
/// own.
pub(crate) fn add_service(
    outline: &mut Outline,
    reader: &Reader<'_>,
    client: &Client<'_>,
    service: &Arc<Service>,
) {
    outline.add_clusters(entries_of(reader, client, service));
}

fn entries_of(
    reader: &Reader<'_>,
    client: &Client<'_>,
    service: &Arc<Service>,
) -> Vec<(Entry, Option<Entry>)> {
    match stands_for_another(reader, service, client.namespace) {
        true => Vec::new(),
        false => client.service_entries(reader, service),
    }
}
