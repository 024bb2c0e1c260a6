//! The bootstrap of a stock Envoy: the static configuration with which it finds the control plane,
//! proves itself and answers probes. A pure function from settings to JSON, shared by the agent and
//! by `ferromesh bootstrap`.
//!
//! Names of clusters and node metadata are Istio's, because people's dashboards and tools know
//! them.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde_json::{Map, Value, json};

use crate::{discovery::Locality, stats::STATS_CLUSTER};

/// What kind of proxy a node is, as the first part of its id says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyType {
    /// Beside one workload.
    Sidecar,
    /// A gateway.
    Router,
}

impl fmt::Display for ProxyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        })
    }
}

/// Who a proxy says it is. The control plane believes none of it on its TLS port beyond what the
/// certificate proves.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeSettings {
    /// Sidecar or gateway.
    pub proxy_type: ProxyType,
    /// The workload's address.
    pub address: IpAddr,
    /// The workload's (pod's) name.
    pub name: String,
    /// What metrics call it: the Deployment that it is one of; `None`: by its own name.
    pub workload: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels; sorted.
    pub labels: BTreeMap<String, String>,
    /// Which cluster it runs in; Istio's default is `Kubernetes`.
    pub cluster_id: String,
    /// The mesh's DNS domain, `cluster.local`.
    pub dns_domain: String,
    /// Where it runs, for locality-aware balancing.
    pub locality: Option<Locality>,
    /// Further metadata, such as `INTERCEPTION_MODE`; wins over what is derived from the fields
    /// above.
    pub metadata: Map<String, Value>,
}

impl NodeSettings {
    /// `TYPE~IP~NAME.NS~NS.svc.DOMAIN`.
    pub fn id(&self) -> String {
        let Self { proxy_type, address, name, namespace, dns_domain, .. } = self;
        format!("{proxy_type}~{address}~{name}.{namespace}~{namespace}.svc.{dns_domain}")
    }

    /// `APP.NS`, as Istio names an Envoy's own cluster; the name stands in where there is no label
    /// `app`.
    pub fn cluster(&self) -> String {
        format!("{}.{}", self.labels.get("app").unwrap_or(&self.name), self.namespace)
    }

    /// The metadata keys that a control plane of Istio's kind reads.
    pub fn metadata(&self) -> Map<String, Value> {
        let derived = json!({
            "NAME": self.name,
            "NAMESPACE": self.namespace,
            "SERVICE_ACCOUNT": self.service_account,
            "INSTANCE_IPS": self.address.to_string(),
            "LABELS": self.labels,
            "CLUSTER_ID": self.cluster_id,
        });
        let mut metadata = object(derived);
        let workload = self.workload.iter();
        metadata.extend(workload.map(|name| ("WORKLOAD_NAME".to_owned(), name.clone().into())));
        metadata.extend(self.metadata.clone());
        metadata
    }
}

/// An address that may be a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// An IP address (IPv6 without brackets) or a DNS name.
    pub host: String,
    /// A port.
    pub port: u16,
}

impl std::str::FromStr for HostPort {
    type Err = String;

    /// Reads `HOST:PORT`, `[IPV6]:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?}: expected HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let port = port.parse().map_err(|_| expected())?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() { Err(expected()) } else { Ok(Self { host: host.to_owned(), port }) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

/// How Envoy reaches the control plane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Discovery {
    /// Without TLS: the control plane believes the node id and serves no secrets.
    Plaintext(HostPort),
    /// With TLS and the workload's certificate from the agent's socket.
    MutualTls {
        /// The control plane's TLS port.
        address: HostPort,
        /// DNS name that its certificate must carry.
        server_name: String,
    },
    /// With TLS and a join token, for an Envoy without an agent: it has no certificate, so no
    /// mutual TLS in the mesh.
    Token {
        /// The control plane's TLS port.
        address: HostPort,
        /// DNS name that its certificate must carry.
        server_name: String,
        /// Roots that its certificate is checked against, as PEM.
        roots_pem: String,
        /// The join token; the rendered bootstrap is as secret as it is.
        token: String,
    },
}

impl Discovery {
    fn address(&self) -> &HostPort {
        match self {
            Self::Plaintext(address)
            | Self::MutualTls { address, .. }
            | Self::Token { address, .. } => address,
        }
    }
}

/// Which statistics Envoy keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Statistics {
    /// Listeners, connection managers, the server and its xDS: memory does not grow with the mesh.
    Small,
    /// Everything, clusters too.
    All,
}

/// What is asked of Envoy's statistics beyond that, in the words of Istio's `ProxyConfig` and
/// annotations.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct MoreStatistics {
    /// Beginnings of names that are kept too; `{pod_ip}` is the proxy's address.
    pub prefixes: Vec<String>,
    /// Ends of names that are kept too.
    pub suffixes: Vec<String>,
    /// Regular expressions for names that are kept too.
    pub regexes: Vec<String>,
    /// Tags that are taken out of names in which they stand as `TAG.=.VALUE;.`: letters, digits and
    /// `_`.
    pub tags: Vec<String>,
    /// Bounds of histograms by the beginning of their names; rising.
    pub buckets: BTreeMap<String, Vec<f64>>,
    /// How often they are flushed; `None`: Envoy's default.
    pub flush_interval: Option<Duration>,
}

/// Everything that a bootstrap depends on.
#[derive(Clone, PartialEq, Debug)]
pub struct BootstrapSettings {
    /// Who the proxy is.
    pub node: NodeSettings,
    /// How it reaches the control plane.
    pub discovery: Discovery,
    /// The agent's SDS socket; without it the cluster `sds-grpc` is left out.
    pub sds_socket: Option<PathBuf>,
    /// The agent's socket for log entries that it makes metrics of; needs `agent`, which then
    /// answers scrapes; without it the cluster [`STATS_CLUSTER`] is left out.
    pub stats_socket: Option<PathBuf>,
    /// Envoy's own admin interface; keep it on loopback.
    pub admin: SocketAddr,
    /// The agent's health endpoint, to which the readiness listener forwards.
    pub agent: Option<SocketAddr>,
    /// Where to answer readiness probes (Istio: port 15021); needs `agent`.
    pub readiness: Option<SocketAddr>,
    /// Where to serve `/stats/prometheus` (Istio: port 15090).
    pub prometheus: Option<SocketAddr>,
    /// Which statistics to keep.
    pub statistics: Statistics,
    /// What else is wanted of them.
    pub more_statistics: MoreStatistics,
}

/// The largest number of connections that a proxy of either kind accepts at a time; those to ports of
/// its own do not count.
pub const MAX_CONNECTIONS: u32 = 50_000;

/// Time for the head of a request to a listener of the proxy's own, and between two requests: whoever
/// reaches the pod may ask there.
const OWN_HEAD_TIME: &str = "15s";

/// The cluster of a proxy's own replicas, by how which lie over zones it balances over those of
/// others. Nothing is ever sent to it.
pub const LOCAL_CLUSTER: &str = "local_cluster";

/// How long an Envoy waits for its replicas, before it asks for anything else: a control plane of
/// another kind may not know of them.
const LOCAL_CLUSTER_TIME: &str = "5s";

/// Renders a bootstrap as JSON, which Envoy reads from a file that ends in `.json`.
pub fn render(settings: &BootstrapSettings) -> String {
    let mut bootstrap = json!({
        "node": {
            "id": settings.node.id(),
            "cluster": settings.node.cluster(),
            "metadata": settings.node.metadata(),
        },
        "admin": { "address": socket_address(&settings.admin.into()) },
        "stats_config": stats_config(settings),
        "layered_runtime": { "layers": [{ "name": "static", "static_layer": {
            // Istio's limits for expressions that users write.
            "re2.max_program_size.error_level": 32768,
        } }] },
        "overload_manager": { "resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": MAX_CONNECTIONS,
            },
        }] },
        "cluster_manager": { "local_cluster_name": LOCAL_CLUSTER },
        "dynamic_resources": dynamic_resources(&settings.discovery),
        "static_resources": { "clusters": clusters(settings), "listeners": listeners(settings) },
    });
    if let Some(Locality { region, zone, sub_zone }) = &settings.node.locality {
        bootstrap["node"]["locality"] =
            json!({ "region": region, "zone": zone, "sub_zone": sub_zone });
    }
    if let Some(interval) = settings.more_statistics.flush_interval {
        bootstrap["stats_flush_interval"] = json!(format!("{}s", interval.as_secs_f64()));
    }
    format!("{bootstrap:#}\n")
}

fn dynamic_resources(discovery: &Discovery) -> Value {
    let mut service = json!({ "envoy_grpc": { "cluster_name": "xds-grpc" }, "timeout": "5s" });
    if let Discovery::Token { token, .. } = discovery {
        service["initial_metadata"] =
            json!([{ "key": "authorization", "value": format!("Bearer {token}") }]);
    }
    let ads = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    json!({
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            // A node description weighs 60 KB: once per stream is enough.
            "set_node_on_first_message_only": true,
            "grpc_services": [service],
        },
        "cds_config": ads,
        "lds_config": ads,
    })
}

fn clusters(settings: &BootstrapSettings) -> Vec<Value> {
    let mut clusters = vec![xds_cluster(&settings.discovery), local_cluster()];
    if let Some(socket) = &settings.sds_socket {
        let address = json!({ "pipe": { "path": socket } });
        clusters.push(http2(cluster("sds-grpc", "STATIC", &address)));
    }
    if let Some(socket) = &settings.stats_socket {
        let address = json!({ "pipe": { "path": socket } });
        clusters.push(http2(cluster(STATS_CLUSTER, "STATIC", &address)));
    }
    if let Some(agent) = settings.agent {
        clusters.push(cluster("agent", "STATIC", &socket_address(&agent.into())));
    }
    if settings.prometheus.is_some() {
        clusters.push(cluster(
            "prometheus_stats",
            "STATIC",
            &socket_address(&settings.admin.into()),
        ));
    }
    clusters
}

fn local_cluster() -> Value {
    json!({
        "name": LOCAL_CLUSTER,
        "type": "EDS",
        "eds_cluster_config": { "eds_config": {
            "ads": {},
            "resource_api_version": "V3",
            "initial_fetch_timeout": LOCAL_CLUSTER_TIME,
        } },
    })
}

fn xds_cluster(discovery: &Discovery) -> Value {
    let address = discovery.address();
    let kind = if address.host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let mut xds = http2(cluster("xds-grpc", kind, &socket_address(address)));
    let limit = json!({ "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000 });
    let thresholds: Vec<Value> = ["DEFAULT", "HIGH"]
        .into_iter()
        .map(|priority| {
            let mut threshold = limit.clone();
            threshold["priority"] = priority.into();
            threshold
        })
        .collect();
    xds["circuit_breakers"] = json!({ "thresholds": thresholds });
    // A control plane that vanished without a word is noticed within half a minute.
    xds["upstream_connection_options"] = json!({ "tcp_keepalive": { "keepalive_probes": 3, "keepalive_time": 10, "keepalive_interval": 5 } });
    if let Some(context) = tls_context(discovery) {
        xds["transport_socket"] =
            json!({ "name": "envoy.transport_sockets.tls", "typed_config": context });
    }
    xds
}

fn tls_context(discovery: &Discovery) -> Option<Value> {
    let (server_name, common) = match discovery {
        Discovery::Plaintext(_) => return None,
        Discovery::MutualTls { server_name, .. } => (
            server_name,
            json!({
                "tls_certificate_sds_secret_configs": [sds_secret("default")],
                "combined_validation_context": {
                    "default_validation_context": { "match_typed_subject_alt_names": [dns_name(server_name)] },
                    "validation_context_sds_secret_config": sds_secret("ROOTCA"),
                },
            }),
        ),
        Discovery::Token { server_name, roots_pem, .. } => (
            server_name,
            json!({
                "validation_context": {
                    "trusted_ca": { "inline_string": roots_pem },
                    "match_typed_subject_alt_names": [dns_name(server_name)],
                },
            }),
        ),
    };
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": server_name,
        "common_tls_context": common,
    });
    context["common_tls_context"]["alpn_protocols"] = json!(["h2"]);
    context["common_tls_context"]["tls_params"] = json!({ "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3" });
    Some(context)
}

fn dns_name(exact: &str) -> Value {
    json!({ "san_type": "DNS", "matcher": { "exact": exact } })
}

fn sds_secret(name: &str) -> Value {
    json!({ "name": name, "sds_config": {
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds-grpc" } }],
        },
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
    } })
}

fn cluster(name: &str, kind: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "type": kind,
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}

fn http2(mut cluster: Value) -> Value {
    cluster["typed_extension_protocol_options"] = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} },
    } });
    cluster
}

/// What the agent answers for Envoy's own metrics and those that it makes of its log.
pub const SCRAPE_PATH: &str = "/stats/proxy";

fn listeners(settings: &BootstrapSettings) -> Vec<Value> {
    let by_agent = settings.stats_socket.is_some() && settings.agent.is_some();
    let metrics = match by_agent {
        true => json!({ "cluster": "agent", "prefix_rewrite": SCRAPE_PATH }),
        false => json!({ "cluster": "prometheus_stats" }),
    };
    let prometheus = settings
        .prometheus
        .map(|address| listener("prometheus", address, "/stats/prometheus", &metrics));
    let agent = json!({ "cluster": "agent" });
    let readiness = settings
        .agent
        .and(settings.readiness)
        .map(|address| listener("readiness", address, "/healthz/ready", &agent));
    prometheus.into_iter().chain(readiness).collect()
}

fn listener(name: &str, address: SocketAddr, path: &str, route: &Value) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "request_headers_timeout": OWN_HEAD_TIME,
        "common_http_protocol_options": { "idle_timeout": OWN_HEAD_TIME },
        "stream_idle_timeout": OWN_HEAD_TIME,
        "route_config": { "virtual_hosts": [{
            "name": name,
            "domains": ["*"],
            "routes": [{ "match": { "path": path }, "route": route }],
        }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    json!({
        "name": name,
        "address": socket_address(&address.into()),
        // A flood of application connections must not fail the probes.
        "ignore_global_conn_limit": true,
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }] }],
    })
}

fn stats_config(settings: &BootstrapSettings) -> Value {
    let more = &settings.more_statistics;
    let mut config = json!({ "use_all_default_tags": true });
    if settings.statistics == Statistics::Small {
        let patterns = kept(&settings.node.address.to_string(), more);
        config["stats_matcher"] = json!({ "inclusion_list": { "patterns": patterns } });
    }
    if !more.tags.is_empty() {
        let tag = |name| json!({ "tag_name": name, "regex": format!(r"({name}\.=\.(.*?);\.)") });
        config["stats_tags"] = more.tags.iter().map(tag).collect();
    }
    if !more.buckets.is_empty() {
        let of = |(prefix, bounds)| json!({ "match": { "prefix": prefix }, "buckets": bounds });
        config["histogram_bucket_settings"] = more.buckets.iter().map(of).collect();
    }
    config
}

/// Patterns of the names that are kept.
fn kept(address: &str, more: &MoreStatistics) -> Vec<Value> {
    let kept = [
        "cluster_manager.",
        "listener_manager.",
        "listener.",
        "http.",
        "server.",
        "cluster.xds-grpc.",
        "sds.",
    ];
    let own = |text: &String| text.replace("{pod_ip}", address);
    let always = kept.iter().map(|prefix| json!({ "prefix": prefix }));
    let prefixes = more.prefixes.iter().map(|prefix| json!({ "prefix": own(prefix) }));
    let suffixes = more.suffixes.iter().map(|suffix| json!({ "suffix": own(suffix) }));
    let regexes = more.regexes.iter().map(|regex| json!({ "safe_regex": { "regex": regex } }));
    always.chain(prefixes).chain(suffixes).chain(regexes).collect()
}

fn socket_address(address: &HostPort) -> Value {
    json!({ "socket_address": { "address": address.host, "port_value": address.port } })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeSettings {
        NodeSettings {
            proxy_type: ProxyType::Sidecar,
            address: IpAddr::from([10, 0, 0, 7]),
            name: "cart-0".into(),
            workload: Some("cart".into()),
            namespace: "shop".into(),
            service_account: "cart".into(),
            labels: [("app".to_owned(), "cart".to_owned())].into(),
            cluster_id: "Kubernetes".into(),
            dns_domain: "cluster.local".into(),
            locality: Some(Locality {
                region: "eu".into(),
                zone: "a".into(),
                sub_zone: String::new(),
            }),
            metadata: object(json!({ "INTERCEPTION_MODE": "NONE", "NAME": "cart-zero" })),
        }
    }

    fn settings(discovery: Discovery) -> BootstrapSettings {
        BootstrapSettings {
            node: node(),
            discovery,
            sds_socket: Some("/run/mesh/sds".into()),
            stats_socket: None,
            admin: ([127, 0, 0, 1], 15000).into(),
            agent: Some(([127, 0, 0, 1], 15020).into()),
            readiness: Some(([0, 0, 0, 0], 15021).into()),
            prometheus: Some(([0, 0, 0, 0], 15090).into()),
            statistics: Statistics::Small,
            more_statistics: MoreStatistics::default(),
        }
    }

    fn rendered(discovery: Discovery) -> Value {
        serde_json::from_str(&render(&settings(discovery))).unwrap()
    }

    fn tls_port() -> HostPort {
        "ferromesh.local:15012".parse().unwrap()
    }

    #[test]
    fn a_node_is_named_as_istio_names_it() {
        assert_eq!(node().id(), "sidecar~10.0.0.7~cart-0.shop~shop.svc.cluster.local");
        assert_eq!(node().cluster(), "cart.shop");
        let metadata = node().metadata();
        assert_eq!(metadata["INSTANCE_IPS"], "10.0.0.7");
        assert_eq!(metadata["WORKLOAD_NAME"], "cart");
        assert_eq!(metadata["NAME"], "cart-zero", "given metadata wins");
    }

    #[test]
    fn the_control_plane_is_reached_as_configured() {
        let plain = rendered(Discovery::Plaintext("127.0.0.1:15010".parse().unwrap()));
        let xds = &plain["static_resources"]["clusters"][0];
        assert_eq!(
            (&xds["name"], &xds["type"], &xds["transport_socket"]),
            (&json!("xds-grpc"), &json!("STATIC"), &Value::Null)
        );

        let mutual = rendered(Discovery::MutualTls {
            address: tls_port(),
            server_name: "ferromesh.local".into(),
        });
        let xds = &mutual["static_resources"]["clusters"][0];
        assert_eq!(xds["type"], "STRICT_DNS");
        let tls = &xds["transport_socket"]["typed_config"];
        assert_eq!(tls["sni"], "ferromesh.local");
        let common = &tls["common_tls_context"];
        assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "default");
        assert_eq!(
            common["combined_validation_context"]["validation_context_sds_secret_config"]["name"],
            "ROOTCA"
        );
    }

    #[test]
    fn a_token_stands_in_the_metadata_and_nowhere_else() {
        let discovery = Discovery::Token {
            address: tls_port(),
            server_name: "ferromesh.local".into(),
            roots_pem: "ROOTS".into(),
            token: "hush".into(),
        };
        let text = render(&settings(discovery.clone()));
        assert_eq!(text.matches("hush").count(), 1);
        let metadata = &rendered(discovery)["dynamic_resources"]["ads_config"]["grpc_services"][0]
            ["initial_metadata"][0];
        assert_eq!(metadata["value"], "Bearer hush");
    }

    #[test]
    fn only_configured_listeners_exist() {
        let mut bare = settings(Discovery::Plaintext("127.0.0.1:15010".parse().unwrap()));
        (bare.agent, bare.prometheus, bare.sds_socket) = (None, None, None);
        let value: Value = serde_json::from_str(&render(&bare)).unwrap();
        assert_eq!(value["static_resources"]["listeners"], json!([]));
        let clusters = value["static_resources"]["clusters"].as_array().unwrap();
        let names: Vec<_> = clusters.iter().map(|cluster| &cluster["name"]).collect();
        assert_eq!(names, ["xds-grpc", LOCAL_CLUSTER]);
        assert_eq!(value["cluster_manager"]["local_cluster_name"], LOCAL_CLUSTER);
    }

    #[test]
    fn nobody_holds_a_listener_of_the_proxys_own_by_half_a_request() {
        let value = rendered(Discovery::Plaintext("127.0.0.1:15010".parse().unwrap()));
        let listeners = value["static_resources"]["listeners"].as_array().unwrap();
        assert_eq!(listeners.len(), 2);
        for listener in listeners {
            let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
            let idle = &manager["common_http_protocol_options"]["idle_timeout"];
            for time in [&manager["request_headers_timeout"], &manager["stream_idle_timeout"], idle]
            {
                assert_eq!(time, OWN_HEAD_TIME, "{listener:#}");
            }
        }
    }

    #[test]
    fn an_agent_that_makes_metrics_answers_scrapes() {
        let plain = settings(Discovery::Plaintext("127.0.0.1:15010".parse().unwrap()));
        let path = "/run/mesh/stats";
        let by_agent = BootstrapSettings { stats_socket: Some(path.into()), ..plain.clone() };
        for (settings, told, scraped) in [
            (plain, None, json!({ "cluster": "prometheus_stats" })),
            (by_agent, Some(path), json!({ "cluster": "agent", "prefix_rewrite": SCRAPE_PATH })),
        ] {
            let value: Value = serde_json::from_str(&render(&settings)).unwrap();
            let resources = &value["static_resources"];
            let clusters = resources["clusters"].as_array().unwrap();
            let stats = clusters.iter().find(|cluster| cluster["name"] == STATS_CLUSTER);
            let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/pipe/path";
            let found = stats.and_then(|cluster| cluster.pointer(endpoint)?.as_str());
            assert_eq!(found, told);
            let route = "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/\
                         routes/0/route";
            assert_eq!(resources["listeners"][0].pointer(route), Some(&scraped));
        }
    }

    #[test]
    fn statistics_that_are_asked_for_are_kept_beside_the_others() {
        let mut asked = settings(Discovery::Plaintext("127.0.0.1:15010".parse().unwrap()));
        asked.more_statistics = MoreStatistics {
            prefixes: vec!["http.{pod_ip}_".into()],
            suffixes: vec!["_rq_time".into()],
            regexes: vec!["a.*b".into()],
            tags: vec!["tier".into()],
            buckets: [("istio".to_owned(), vec![1.0, 5.0])].into(),
            flush_interval: Some(Duration::from_millis(2_500)),
        };
        let value: Value = serde_json::from_str(&render(&asked)).unwrap();
        assert_eq!(value["stats_flush_interval"], "2.5s");
        let config = &value["stats_config"];
        let patterns = config["stats_matcher"]["inclusion_list"]["patterns"].as_array().unwrap();
        let more = [
            json!({ "prefix": "http.10.0.0.7_" }),
            json!({ "suffix": "_rq_time" }),
            json!({ "safe_regex": { "regex": "a.*b" } }),
        ];
        assert!(patterns.ends_with(&more), "{patterns:?}");
        assert_eq!(
            config["stats_tags"],
            json!([{ "tag_name": "tier", "regex": r"(tier\.=\.(.*?);\.)" }])
        );
        assert_eq!(
            config["histogram_bucket_settings"],
            json!([{ "match": { "prefix": "istio" }, "buckets": [1.0, 5.0] }])
        );
        asked.statistics = Statistics::All;
        let value: Value = serde_json::from_str(&render(&asked)).unwrap();
        assert_eq!(value["stats_config"]["stats_matcher"], Value::Null);
    }

    #[test]
    fn addresses_read_back() {
        for text in ["127.0.0.1:15010", "[::1]:15010", "ferromesh.local:15012"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for bad in ["", "host", ":1", "host:port", "host:99999"] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }
}
