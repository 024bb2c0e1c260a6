//! Small configurations and a proxy that runs them on a thread of its own.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::sync::watch;

use crate::{
    http::serve::tests::manager,
    identity::Identity,
    listen::spawn_worker,
    runtime::{
        Cluster, FilterChain, HttpConnectionManager, Listener, RouteConfig, RouteSource,
        RuntimeConfig, TcpProxy, Terminal,
        access_log::{AccessLog, LogFilter, LogFormat, LogLines, LogSink, LogTarget},
        action::{Action, Forward, HostRewrite, PathRewrite},
        cluster::{
            BalanceSettings, CircuitBreakers, ConnectionSettings, Discovery, LbPolicy,
            OverLocalities, RetryLimit, Transport, UpstreamHttp, UpstreamProtocol,
        },
        endpoint::{
            Endpoint, EndpointAddress, EndpointSet, HealthStatus, LocalityEndpoints, Workload,
        },
        filter::FilterOverrides,
        filter_chain::{FilterChainMatch, FilterChainMatcher},
        format::FormatOp,
        limits::HttpLimits,
        listener::{Inspection, TrafficDirection},
        matcher::Share,
        path::PathMatcher,
        route::{Route, RouteMatch, VirtualHost},
        target::ClusterChoice,
    },
    telemetry::Node,
    upstream::{LiveCluster, StateRegistry},
    worker::{ActiveConfig, BindFailure, Phase, Shared},
};

/// A free address on loopback that stays ours: a bound socket that does not listen keeps others
/// away, and SO_REUSEPORT lets the proxy listen beside it.
pub(super) struct Reserved {
    pub(super) address: SocketAddr,
    _socket: Socket,
}

pub(super) fn reserve() -> Reserved {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    Reserved { address, _socket: socket }
}

/// A running proxy with one worker; stopped when dropped.
pub(super) struct Proxy {
    pub(super) shared: Arc<Shared>,
    pub(super) address: SocketAddr,
    pub(super) identity: watch::Sender<Option<Arc<Identity>>>,
    generation: u64,
    worker: Option<JoinHandle<std::io::Result<()>>>,
    _reserved: Reserved,
}

impl Proxy {
    /// Starts without configuration; its listeners are to use `address`.
    pub(super) fn start(identity: Option<Arc<Identity>>) -> Self {
        Self::draining_for(Duration::from_secs(5), identity)
    }

    /// The same with this drain time.
    pub(super) fn draining_for(drain_time: Duration, identity: Option<Arc<Identity>>) -> Self {
        let reserved = reserve();
        let (sender, receiver) = watch::channel(identity);
        let node = Node {
            workload: Workload::parse("client-v1;default;client;v1;Kubernetes"),
            ..Node::default()
        };
        let shared =
            Shared::new(Arc::<StateRegistry>::default(), receiver, node, drain_time).unwrap();
        let worker = spawn_worker(0, Arc::clone(&shared)).unwrap();
        Self {
            shared,
            address: reserved.address,
            identity: sender,
            generation: 0,
            worker: Some(worker),
            _reserved: reserved,
        }
    }

    /// Puts a configuration in force and waits until its sockets are open.
    pub(super) async fn configure(
        &mut self,
        listeners: Vec<Listener>,
        clusters: Vec<Cluster>,
    ) -> Vec<BindFailure> {
        self.generation += 1;
        let listeners = listeners.into_iter().map(Arc::new).collect();
        let runtime = RuntimeConfig::new(self.generation, listeners, []);
        let clusters = clusters.into_iter().map(|spec| Arc::new(self.live(spec)));
        self.shared.publish(ActiveConfig::new(runtime, clusters));
        self.shared.applied(self.generation).await
    }

    /// A cluster with this proxy's state of it.
    fn live(&self, spec: Cluster) -> LiveCluster {
        let live = LiveCluster::bind(&self.shared.registry, spec);
        if let Discovery::Static(endpoints) = &live.discovery {
            live.state.publish(endpoints);
        }
        live
    }

    /// A cluster of these endpoints.
    pub(super) fn cluster(&self, name: &str, endpoints: &[SocketAddr]) -> Cluster {
        Cluster {
            name: name.into(),
            discovery: Discovery::Static(Arc::new(endpoint_set(endpoints))),
            policy: LbPolicy::RoundRobin,
            balance: BalanceSettings { panic_threshold: 0, localities: OverLocalities::Alike },
            connection: connection(),
            limits: CircuitBreakers {
                retries: RetryLimit::Count(100),
                ..CircuitBreakers::default()
            },
            outlier: None,
            mesh_alpn: None,
            services: vec![],
        }
    }

    /// A proxy of one listener for HTTP with these virtual hosts, and clusters.
    pub(super) async fn http(hosts: Vec<VirtualHost>, clusters: &[(&str, &[SocketAddr])]) -> Self {
        let mut proxy = Self::start(None);
        let clusters =
            clusters.iter().map(|(name, endpoints)| proxy.cluster(name, endpoints)).collect();
        let listener = proxy.listener(http_chain(with_routes(hosts)));
        let failures = proxy.configure(vec![listener], clusters).await;
        assert_eq!(failures, []);
        proxy
    }

    /// A listener on this proxy's address with one chain for everything.
    pub(super) fn listener(&self, chain: FilterChain) -> Listener {
        listener(self.address, vec![(FilterChainMatch::default(), chain)])
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.enter(Phase::Stopped);
        if let Some(worker) = self.worker.take() {
            let ended = worker.join();
            assert!(std::thread::panicking() || ended.is_ok(), "the worker has panicked");
        }
    }
}

pub(super) fn endpoint_set(addresses: &[SocketAddr]) -> EndpointSet {
    let endpoint = |address: &SocketAddr| {
        Arc::new(Endpoint {
            address: EndpointAddress::Socket(*address),
            weight: 1,
            health: HealthStatus::Healthy,
            socket_match: Default::default(),
            workload: Some("server-v1;shop;server;v1;Kubernetes".into()),
            hostname: None,
        })
    };
    let endpoints = addresses.iter().map(endpoint).collect();
    let locality =
        LocalityEndpoints { locality: Default::default(), priority: 0, weight: 1, endpoints };
    EndpointSet { localities: vec![locality], overprovisioning_factor: 140 }
}

pub(super) fn connection() -> ConnectionSettings {
    ConnectionSettings {
        connect_timeout: Duration::from_secs(5),
        transport_matches: vec![],
        transport: Transport::Plaintext,
        protocol: UpstreamProtocol::Downstream,
        http: UpstreamHttp {
            idle_timeout: None,
            trims_idle: true,
            max_requests_per_connection: None,
            limits: HttpLimits::default(),
            h2_keepalive: None,
            upgrades_http2: false,
            names: Default::default(),
        },
        buffer: Default::default(),
        bind: None,
        keepalive: None,
    }
}

pub(super) fn inspection() -> Inspection {
    Inspection {
        original_dst: false,
        tls: None,
        http: None,
        timeout: None,
        continue_on_timeout: true,
    }
}

pub(super) fn listener(
    address: SocketAddr,
    chains: Vec<(FilterChainMatch, FilterChain)>,
) -> Listener {
    let (matches, chains): (Vec<_>, Vec<_>) = chains.into_iter().unzip();
    Listener {
        name: format!("{address}").into(),
        addresses: vec![address],
        bind_to_port: true,
        use_original_dst: false,
        direction: TrafficDirection::Outbound,
        inspect: inspection(),
        chains: chains.into_iter().map(Arc::new).collect(),
        matcher: FilterChainMatcher::build(&matches).unwrap(),
        default_chain: None,
        access_logs: vec![],
        buffer: Default::default(),
        version: 1,
    }
}

pub(super) fn chain(terminal: Terminal) -> FilterChain {
    FilterChain { name: "chain".into(), tls: None, handshake_timeout: None, rbac: vec![], terminal }
}

pub(super) fn http_chain(manager: HttpConnectionManager) -> FilterChain {
    chain(Terminal::Http(Arc::new(manager)))
}

pub(super) fn with_routes(hosts: Vec<VirtualHost>) -> HttpConnectionManager {
    let routes = RouteConfig::new("routes".into(), false, hosts).unwrap();
    HttpConnectionManager { routes: RouteSource::Inline(Arc::new(routes)), ..manager() }
}

pub(super) fn tcp_chain(cluster: &str) -> FilterChain {
    chain(Terminal::Tcp(Arc::new(TcpProxy {
        stat_prefix: cluster.into(),
        cluster: ClusterChoice::One(cluster.into()),
        idle_timeout: None,
        max_duration: None,
        max_connect_attempts: 1,
        hash_source_ip: false,
        access_logs: vec![],
        metrics: None,
    })))
}

/// A virtual host for every name.
pub(super) fn host(routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes,
        require_tls: false,
        headers: Default::default(),
        retry: None,
        attempt_count_in_request: true,
        attempt_count_in_response: false,
        overrides: FilterOverrides::default(),
        rate_limits: vec![],
        body_limit: None,
    }
}

pub(super) fn route(prefix: &str, action: Action) -> Route {
    Route {
        name: "route".into(),
        matching: RouteMatch {
            path: PathMatcher::Prefix { path: prefix.into(), case_sensitive: true },
            headers: vec![],
            query: vec![],
            metadata: vec![],
            grpc: false,
            share: Share::ALL,
        },
        action,
        headers: Default::default(),
        overrides: FilterOverrides::default(),
        operation: None,
        body_limit: None,
    }
}

pub(super) fn forward(cluster: ClusterChoice) -> Forward {
    Forward {
        cluster,
        cluster_not_found_status: 503,
        timeout: None,
        max_grpc_timeout: None,
        idle_timeout: None,
        path_rewrite: PathRewrite::Keep,
        host_rewrite: HostRewrite::Keep,
        append_forwarded_host: false,
        retry: None,
        hash: vec![],
        mirrors: vec![],
        rate_limits: vec![],
        include_host_rate_limits: false,
        upgrades: vec![],
    }
}

/// A route that sends everything to one cluster, changed by `change`.
pub(super) fn to(cluster: &str, change: impl FnOnce(&mut Forward)) -> VirtualHost {
    let mut action = forward(ClusterChoice::One(cluster.into()));
    change(&mut action);
    host(vec![route("/", Action::Forward(Box::new(action)))])
}

/// A log of everything in a file.
pub(super) fn log_to(path: &Path, format: impl IntoIterator<Item = FormatOp>) -> AccessLog {
    let format = LogFormat::Text(format.into_iter().collect());
    let lines = LogLines { sink: LogSink::File(path.into()), format, omits_empty: false };
    AccessLog { target: LogTarget::Lines(lines), filter: LogFilter::All }
}

/// Nobody listens here.
pub(super) fn dead_address() -> Reserved {
    reserve()
}

pub(super) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
