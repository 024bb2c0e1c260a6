//! The server side of a sidecar: chains, clusters and access rules of a workload's own ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    BalancingPlan, CaptureMode, ClusterPlan, Direction, Discovery, EndpointPlan, Entry,
    FilterChainPlan, FixedCluster, ForwardPlan, InboundKey, ItemKey, Limits, ListenerFilter,
    ListenerPlan, LocalityEndpoints, Outline, PlanItem, PlannedAddress, Provenance, RetryPlan,
    RouteActionPlan, RouteConfigPlan, RoutePlan, RouteTimeout, Traffic, UpstreamHttp,
    UpstreamProtocol, VirtualHostPlan,
    authz::Access,
    client::Client,
    cluster::{self, INBOUND_SOURCE},
    defaults::{self, ANY_ADDRESS, LOOPBACK},
    egress,
    gateway_servers::server_context,
    inbound_chain::{HTTP_SERVER_ALPN, PortChains, PortTls, Speech, inspects_http, inspects_tls},
    naming,
    rate_limit::limits_at,
    route::{forward_to, written_retry},
    stat_name::{Counted, stat_name},
    telemetry::telemetry,
    traffic::MergedPolicy,
};
use crate::{
    ir::{
        AppEndpoint, BackendPolicy, CallSide, Capture, ConnectionPool, HeaderOps, Health,
        IngressListener, Locality, MeshDefaults, PeerTls, PortNames, Protocol, RateLimit, Retry,
        RetryCondition, RetryPolicy, ServerTls, ServerTlsMode, Service, SidecarScope,
    },
    plan::ClusterClient,
    snapshot::Reader,
};

/// Plans the server side of a sidecar.
pub(crate) fn plan_inbound(reader: &Reader<'_>, key: &InboundKey) -> Outline {
    let workload = Inbound::new(reader, key);
    let mut outline = Outline::default();
    let cluster = |port| Entry::own(PlanItem::Cluster(Box::new(workload.cluster(port))));
    outline.extend(workload.ports.iter().map(cluster));
    let mut listeners = match &key.capture {
        CaptureMode::Redirect => {
            let passthrough = ItemKey::Fixed(FixedCluster::InboundPassthrough);
            outline.extend([Entry::shared(passthrough)]);
            let bound =
                workload.ports.iter().filter(|p| p.bind).map(|p| workload.bound_listener(p));
            bound.chain([workload.virtual_inbound()]).collect::<Vec<_>>()
        }
        CaptureMode::None { .. } => {
            workload.ports.iter().map(|p| workload.bound_listener(p)).collect()
        }
    };
    let told = telemetry(reader, &key.telemetry, &key.namespace, CallSide::Server);
    listeners.iter_mut().for_each(|listener| told.tell(listener, true));
    outline.extend(listeners.into_iter().map(|l| Entry::own(PlanItem::Listener(Box::new(l)))));
    outline
}

struct Inbound<'a> {
    reader: &'a Reader<'a>,
    key: &'a InboundKey,
    scope: Option<&'a Arc<SidecarScope>>,
    access: Access,
    limits: Vec<Arc<RateLimit>>,
    /// What objects that describe ports say is spoken there, the oldest of each port.
    spoken: BTreeMap<u16, Protocol>,
    ports: Vec<InboundPort<'a>>,
}

/// One port at which the workload takes traffic.
struct InboundPort<'a> {
    /// Container port, or the port of the Sidecar object's listener.
    number: u16,
    /// Service port, which names virtual hosts and decorators.
    service_port: u16,
    protocol: Protocol,
    /// Services that lead to it, oldest first; may be empty for ports that a Sidecar object
    /// declares.
    services: Vec<Arc<Service>>,
    /// Where the application takes it.
    endpoint: AppEndpoint,
    /// Limits that the Sidecar object gives.
    pool: Option<ConnectionPool>,
    /// What the services, or the Sidecar object, call it.
    names: BTreeSet<Arc<str>>,
    /// Opens a listener of its own although traffic is redirected.
    bind: bool,
    /// Address that the Sidecar object gives for it.
    address: Option<IpAddr>,
    /// TLS that the Sidecar object has terminated.
    tls: Option<&'a ServerTls>,
}

impl<'a> Inbound<'a> {
    fn new(reader: &'a Reader<'a>, key: &'a InboundKey) -> Self {
        let scope = key.scope.as_ref().and_then(|id| reader.scope(id));
        let mut inbound = Self {
            reader,
            key,
            scope,
            access: Access::of(reader, &key.namespace, &key.labels),
            limits: reader.rate_limits(&key.namespace, &key.labels, &[]),
            spoken: spoken(reader, key),
            ports: Vec::new(),
        };
        let declared = scope.map(|s| s.ingress.as_slice()).unwrap_or_default();
        inbound.ports = if declared.is_empty() {
            inbound.service_ports()
        } else {
            // Two listeners for one port cannot both be served; the first that is written is.
            let mut ports = BTreeMap::new();
            for listener in declared {
                ports
                    .entry(listener.port.number)
                    .or_insert_with(|| inbound.declared_port(listener));
            }
            ports.into_values().collect()
        };
        inbound
    }

    /// Ports by the services that lead to them; the oldest service of a port says what is spoken.
    fn service_ports(&self) -> Vec<InboundPort<'a>> {
        let mut by_port: BTreeMap<u16, Vec<(Arc<Service>, u16)>> = BTreeMap::new();
        for (service, service_port, container_port) in &self.key.ports {
            if let Some(service) = self.reader.service(service) {
                by_port.entry(*container_port).or_default().push((service.clone(), *service_port));
            }
        }
        let ports = by_port.into_iter().filter_map(|(number, mut leading)| {
            leading.sort_by(|a, b| (egress::age(&a.0), a.1).cmp(&(egress::age(&b.0), b.1)));
            let (first, service_port) = leading.first()?;
            let (service_port, declared) = (*service_port, first.port(*service_port)?.protocol);
            let protocol = self.spoken.get(&number).copied().unwrap_or(declared);
            let named = leading.iter().filter_map(|(service, port)| service.port(*port));
            let names = named.map(|port| port.name.clone()).collect();
            let mut services: Vec<Arc<Service>> =
                leading.into_iter().map(|(service, _)| service).collect();
            services.dedup_by(|a, b| a.key == b.key);
            Some(InboundPort {
                number,
                service_port,
                protocol,
                services,
                endpoint: AppEndpoint::Workload(number),
                pool: self.scope.and_then(|s| s.inbound_pool.clone()),
                names,
                bind: false,
                address: None,
                tls: None,
            })
        });
        ports.collect()
    }

    fn declared_port(&self, listener: &'a IngressListener) -> InboundPort<'a> {
        let number = listener.port.number;
        let leading = self.key.ports.iter().find(|(_, _, container)| *container == number);
        let service = leading.and_then(|(service, _, _)| self.reader.service(service).cloned());
        let pool =
            listener.pool.clone().or_else(|| self.scope.and_then(|s| s.inbound_pool.clone()));
        InboundPort {
            number,
            service_port: number,
            protocol: listener.port.protocol,
            services: service.into_iter().collect(),
            endpoint: listener.default_endpoint.clone().unwrap_or(AppEndpoint::Loopback(number)),
            pool,
            names: BTreeSet::from([listener.port.name.clone()]),
            bind: listener.capture == Capture::None,
            address: listener.bind,
            tls: listener.tls.as_ref().filter(|tls| tls.mode != ServerTlsMode::Passthrough),
        }
    }

    fn mode(&self, port: Option<u16>) -> PeerTls {
        self.reader.peer_tls(&self.key.namespace, &self.key.labels, port)
    }

    /// What a port speaks, and what TLS it takes. One with TLS of its own has that where the
    /// mesh's is off (Istio), and takes nothing but the mesh's where that is not: whoever asked
    /// for TLS has not asked for plaintext.
    fn spoken_at(&self, port: &InboundPort<'_>) -> (Speech, PortTls) {
        let (speech, mode) = (Speech::of(port.protocol), self.mode(Some(port.number)));
        let Some(tls) = port.tls else { return (speech, PortTls::Mesh(mode)) };
        let terminated = match port.protocol {
            Protocol::Https => Speech::Http,
            _ => Speech::Tcp,
        };
        let alpn: &[&str] = if terminated == Speech::Http { &HTTP_SERVER_ALPN } else { &[] };
        match server_context(self.reader.mesh(), tls, alpn) {
            Some(own) if mode == PeerTls::Disable => (terminated, PortTls::Own(Box::new(own))),
            _ => (speech, PortTls::Mesh(PeerTls::Strict)),
        }
    }

    // ---------------------------------------------------------------------------------------------
    // clusters

    fn cluster(&self, port: &InboundPort<'_>) -> ClusterPlan {
        let mesh = self.reader.mesh();
        let policies = self.policies(port);
        let traffic = self.traffic(port, &policies);
        let (discovery, bind_source) = self.app(port);
        let original = matches!(discovery, Discovery::OriginalDst { .. });
        let services = port.services.iter().map(|s| naming::service_metadata(s)).collect();
        ClusterPlan {
            discovery,
            balancing: if original {
                BalancingPlan::ClusterProvided
            } else {
                BalancingPlan::RoundRobin(None)
            },
            limits: Limits { retry_budget: None, ..cluster::limits(&traffic.pool, None) },
            http: inbound_http(port.protocol, &traffic.pool),
            bind_source,
            original_dst_keep: original,
            alt_stat_name: self.stat_name(port),
            provenance: Provenance {
                config: MergedPolicy::new(&policies).config_path(),
                services,
                ..Default::default()
            },
            ..cluster::base(naming::inbound_cluster(port.number), mesh, &traffic)
        }
    }

    fn stat_name(&self, port: &InboundPort<'_>) -> Option<Arc<str>> {
        let service = port.services.first()?;
        let counted = Counted { service, port: service.port(port.service_port)?, subset: "" };
        stat_name(&self.reader.mesh().stat_names.inbound, &counted)
    }

    /// The policies for the port's first service, as clients of its own namespace see them.
    fn policies(&self, port: &InboundPort<'_>) -> Vec<Arc<BackendPolicy>> {
        let client = Client {
            namespace: &self.key.namespace,
            labels: &self.key.labels,
            locality: None,
            knows_peers: false,
            kind: ClusterClient::Redirected,
        };
        let outlines =
            port.services.first().map(|s| client.policies(self.reader, s)).unwrap_or_default();
        outlines.iter().filter_map(|p| self.reader.backend_policy(&p.origin.id).cloned()).collect()
    }

    /// Only limits: ejection, balancing and protocol upgrades are about choosing among endpoints.
    fn traffic(&self, port: &InboundPort<'_>, policies: &[Arc<BackendPolicy>]) -> Traffic {
        let merged = MergedPolicy::new(policies);
        let top = merged.traffic(self.reader.mesh(), port.service_port, "");
        Traffic { pool: port.pool.clone().unwrap_or(top.pool), ..Traffic::default() }
    }

    /// Where the application is, and the source address of connections to it.
    fn app(&self, port: &InboundPort<'_>) -> (Discovery, Option<IpAddr>) {
        if let CaptureMode::None { application, .. } = &self.key.capture {
            let address = application.unwrap_or(LOOPBACK);
            let endpoint = match &port.endpoint {
                AppEndpoint::Workload(number) | AppEndpoint::Loopback(number) => {
                    PlannedAddress::Ip(address, *number)
                }
                AppEndpoint::Pipe(path) => PlannedAddress::Pipe(path.clone()),
            };
            return (fixed_endpoint(endpoint), None);
        }
        let passthrough = self.reader.mesh().inbound_passthrough;
        match &port.endpoint {
            AppEndpoint::Workload(number) if passthrough => {
                let port_override = (*number != port.number).then_some(*number);
                (Discovery::OriginalDst { port_override }, Some(INBOUND_SOURCE))
            }
            AppEndpoint::Workload(number) | AppEndpoint::Loopback(number) => {
                (fixed_endpoint(PlannedAddress::Ip(LOOPBACK, *number)), None)
            }
            AppEndpoint::Pipe(path) => (fixed_endpoint(PlannedAddress::Pipe(path.clone())), None),
        }
    }

    // ---------------------------------------------------------------------------------------------
    // listeners

    fn virtual_inbound(&self) -> ListenerPlan {
        let mesh = self.reader.mesh();
        let own = mesh.inbound_port;
        let mut chains = vec![defaults::fixed_chain(
            "virtualInbound-blackhole",
            Some(own),
            &FixedCluster::BlackHole,
        )];
        let unknown_mode = self.mode(None);
        let unknown = PortTls::Mesh(unknown_mode);
        chains.extend(self.unknown_ports().plan(Speech::Auto, &unknown));
        let mut off = Off { tls: vec![own], http: vec![own] };
        let mut wanted = (inspects_tls(&unknown), inspects_http(Speech::Auto, &unknown));
        for port in self.ports.iter().filter(|p| !p.bind) {
            let (speech, tls) = self.spoken_at(port);
            chains.extend(
                self.port_chains(port, Some(port.number), defaults::ANY_ADDRESS).plan(speech, &tls),
            );
            off.note(port.number, inspects_tls(&tls), inspects_http(speech, &tls));
            wanted = (wanted.0 || inspects_tls(&tls), wanted.1 || inspects_http(speech, &tls));
        }
        for port in self.singled_out(unknown_mode) {
            let tls = PortTls::Mesh(self.mode(Some(port)));
            let limits = limits_at(self.reader, &self.limits, Some(port));
            let speech = self.spoken.get(&port).map_or(Speech::Auto, |said| Speech::of(*said));
            let singled_out = PortChains { port: Some(port), limits, ..self.unknown_ports() };
            chains.extend(singled_out.plan(speech, &tls));
            off.note(port, inspects_tls(&tls), inspects_http(speech, &tls));
            wanted = (wanted.0 || inspects_tls(&tls), wanted.1 || inspects_http(speech, &tls));
        }
        let mut listener_filters = vec![ListenerFilter::OriginalDst];
        listener_filters.extend(off.filters(wanted));
        let named = self.ports.iter().filter(|p| !p.bind);
        ListenerPlan {
            listener_filters,
            port_names: named.map(|port| (port.number, port.names.clone())).collect(),
            accept_one: true,
            ..self.listener("virtualInbound".into(), ANY_ADDRESS, own, chains)
        }
    }

    /// Ports without chains of their own for which a policy says something else than for unknown
    /// ones: it speaks of the workload's ports, whether a service leads to them or not.
    fn singled_out(&self, unknown: PeerTls) -> Vec<u16> {
        let own_chains = |port: u16| {
            port == self.reader.mesh().inbound_port
                || self.ports.iter().any(|known| !known.bind && known.number == port)
        };
        let mut ports = self.reader.peer_tls_ports(&self.key.namespace, &self.key.labels);
        ports.retain(|port| self.mode(Some(*port)) != unknown);
        ports.extend(self.limits.iter().flat_map(|limit| limit.target.singled_out()));
        ports.extend(self.spoken.keys());
        ports.retain(|port| !own_chains(*port));
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// A listener that is really opened for one port.
    fn bound_listener(&self, port: &InboundPort<'_>) -> ListenerPlan {
        let address = port.address.unwrap_or_else(|| self.bind_address());
        let (speech, tls) = self.spoken_at(port);
        let chains = self.port_chains(port, None, address).plan(speech, &tls);
        let off = Off { tls: Vec::new(), http: Vec::new() };
        ListenerPlan {
            listener_filters: off.filters((inspects_tls(&tls), inspects_http(speech, &tls))),
            port_names: PortNames::from([(port.number, port.names.clone())]),
            ..self.listener(naming::listener(address, port.number), address, port.number, chains)
        }
    }

    fn bind_address(&self) -> IpAddr {
        let asked = match &self.key.capture {
            CaptureMode::None { inbound, .. } => *inbound,
            CaptureMode::Redirect => None,
        };
        asked.or(self.key.address).unwrap_or(ANY_ADDRESS)
    }

    fn listener(
        &self,
        name: Arc<str>,
        address: IpAddr,
        port: u16,
        chains: Vec<FilterChainPlan>,
    ) -> ListenerPlan {
        ListenerPlan {
            name,
            address,
            port,
            bind: true,
            use_original_dst: false,
            direction: Direction::Inbound,
            listener_filters: Vec::new(),
            filters_timeout: Some(defaults::detection_timeout(self.reader.mesh())),
            continue_on_timeout: true,
            chains,
            default_chain: None,
            accept_one: false,
            access_logs: Vec::new(),
            port_names: PortNames::new(),
        }
    }

    fn unknown_ports(&self) -> PortChains<'_> {
        let cluster = FixedCluster::InboundPassthrough.resource_name();
        PortChains {
            mesh: self.reader.mesh(),
            access: &self.access,
            limits: limits_at(self.reader, &self.limits, None),
            port: None,
            names: ("virtualInbound-catchall-http".into(), "virtualInbound".into()),
            stat_prefix: format!("{cluster};").into(),
            routes: inbound_routes(cluster.into(), 0, "", inbound_retry(self.reader.mesh())),
            proxy: defaults::tcp(cluster),
        }
    }

    fn port_chains(
        &self,
        port: &InboundPort<'_>,
        matched: Option<u16>,
        address: IpAddr,
    ) -> PortChains<'_> {
        let mesh = self.reader.mesh();
        let name = naming::listener(address, port.number);
        let cluster = naming::inbound_cluster(port.number);
        let host = port.services.first().map_or("", |s| s.key.host.as_str());
        let retried = !matches!(port.protocol, Protocol::Grpc | Protocol::GrpcWeb);
        let traffic = self.traffic(port, &self.policies(port));
        let mut proxy = defaults::tcp(&cluster);
        proxy.idle_timeout = traffic.pool.tcp_idle_timeout;
        PortChains {
            mesh,
            access: &self.access,
            limits: limits_at(self.reader, &self.limits, Some(port.number)),
            port: matched,
            names: (name.clone(), name.clone()),
            stat_prefix: format!("inbound_{name};").into(),
            routes: inbound_routes(
                cluster,
                port.service_port,
                host,
                inbound_retry(mesh).filter(|_| retried),
            ),
            proxy,
        }
    }
}

/// What objects that describe ports of the workload say is spoken there.
fn spoken(reader: &Reader<'_>, key: &InboundKey) -> BTreeMap<u16, Protocol> {
    let mut spoken = BTreeMap::new();
    for (port, numbers) in reader.workload_ports(&key.namespace, &key.labels) {
        let Some(protocol) = port.protocol else { continue };
        numbers.into_iter().for_each(|number| {
            spoken.entry(number).or_insert(protocol);
        });
    }
    spoken
}

/// HTTP/2 only where the port declares it: what peers speak among themselves says nothing about the
/// application.
fn inbound_http(protocol: Protocol, pool: &ConnectionPool) -> UpstreamHttp {
    let upstream = match protocol {
        p if p.is_http2() => UpstreamProtocol::Http2,
        Protocol::Auto => UpstreamProtocol::Downstream,
        _ => UpstreamProtocol::Http1,
    };
    cluster::upstream_http(pool, upstream)
}

fn fixed_endpoint(address: PlannedAddress) -> Discovery {
    let endpoint = EndpointPlan {
        address,
        health: Health::Healthy,
        weight: 1,
        mesh_tls: false,
        workload: None,
    };
    Discovery::Static(vec![LocalityEndpoints {
        locality: Locality::default(),
        priority: 0,
        weight: None,
        endpoints: vec![endpoint],
    }])
}

/// Retries towards the application: the mesh's, else those of requests that did not reach it.
pub(super) fn inbound_retry(mesh: &MeshDefaults) -> Option<RetryPlan> {
    let built_in = RetryPolicy {
        attempts: 2,
        conditions: Some(vec![RetryCondition::ResetBeforeRequest]),
        statuses: Vec::new(),
        remote_localities: false,
        ignore_previous_hosts: None,
        backoff: None,
    };
    let policy = match &mesh.inbound_retry {
        Retry::Off => return None,
        Retry::Policy(policy) => policy,
        Retry::MeshDefault => &built_in,
    };
    let per_try_timeout = mesh.inbound_try_timeout;
    // There is one endpoint, which must be allowed again.
    Some(RetryPlan { per_try_timeout, avoid_previous_hosts: false, ..written_retry(policy, true) })
}

/// The route configuration of an inbound port: everything goes to the application.
fn inbound_routes(
    cluster: Arc<str>,
    service_port: u16,
    host: &str,
    retry: Option<RetryPlan>,
) -> RouteConfigPlan {
    let forward =
        ForwardPlan { timeout: RouteTimeout::Inbound, retry, ..forward_to(cluster.clone()) };
    let route = RoutePlan {
        name: "default".into(),
        matches: None,
        action: RouteActionPlan::Forward(Box::new(forward)),
        headers: HeaderOps::default(),
        fault: None,
        cors: None,
        config: None,
        operation: format!("{host}:{service_port}/*").into(),
    };
    RouteConfigPlan {
        name: cluster,
        ignore_port_in_host: false,
        virtual_hosts: vec![VirtualHostPlan {
            name: format!("inbound|http|{service_port}").into(),
            domains: vec!["*".into()],
            routes: vec![route],
            require_tls: false,
            attempt_count: false,
        }],
    }
}

/// Ports for which an inspector is off, because no chain of theirs needs it.
struct Off {
    tls: Vec<u16>,
    http: Vec<u16>,
}

impl Off {
    fn note(&mut self, port: u16, tls: bool, http: bool) {
        if !tls {
            self.tls.push(port);
        }
        if !http {
            self.http.push(port);
        }
    }

    /// The inspectors that some chain needs.
    fn filters(mut self, (tls, http): (bool, bool)) -> Vec<ListenerFilter> {
        self.tls.sort_unstable();
        self.http.sort_unstable();
        let tls = tls.then_some(ListenerFilter::TlsInspector(self.tls));
        let http = http.then_some(ListenerFilter::HttpInspector(self.http));
        tls.into_iter().chain(http).collect()
    }
}
