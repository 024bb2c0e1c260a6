//! `networking.istio.io DestinationRule`: fields only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;

use super::{shared::WorkloadSelector, virtual_service::PortSelector};
use crate::dialect::schema::{choice, object};

object! {
    /// How clients reach a host, and the host's subsets.
    DestinationRule {
        /// The host; a short name is completed with the object's namespace; `*` wildcards allowed.
        "host" host: Arc<str> [required],
        /// For every subset and port.
        "trafficPolicy" traffic_policy: Option<TrafficPolicy> [no_null],
        /// Named parts of the host's endpoints.
        "subsets" subsets: Vec<Subset>,
        /// Namespaces that may use it: `.`, `*` or names.
        "exportTo" export_to: Vec<Arc<str>> [no_null],
        /// Restricts it to these clients.
        "workloadSelector" workload_selector: Option<WorkloadSelector> [no_null],
    }
}

object! {
    /// A named part of a host's endpoints.
    Subset {
        /// Its name.
        "name" name: Arc<str> [required],
        /// Endpoints that carry these labels.
        "labels" labels: BTreeMap<Arc<str>, Arc<str>> [no_null],
        /// Blocks given here replace the same blocks above.
        "trafficPolicy" traffic_policy: Option<TrafficPolicy> [no_null],
    }
}

object! {
    /// Settings of a connection to a host.
    TrafficPolicy {
        /// Load balancing.
        "loadBalancer" load_balancer: Option<LoadBalancer>,
        /// Connection limits.
        "connectionPool" connection_pool: Option<ConnectionPool>,
        /// Ejection of failing endpoints.
        "outlierDetection" outlier_detection: Option<OutlierDetection>,
        /// TLS.
        "tls" tls: Option<ClientTls> [no_null],
        /// Blocks that replace the ones above for one port.
        "portLevelSettings" port_level_settings: Vec<PortTrafficPolicy> [no_null],
        /// Tunnel through a proxy.
        "tunnel" tunnel: Option<Tunnel> [no_null],
        /// Send the PROXY protocol header.
        "proxyProtocol" proxy_protocol: Option<ProxyProtocol>,
        /// Share of active requests that may be retries.
        "retryBudget" retry_budget: Option<RetryBudget>,
    }
}

object! {
    /// Settings for one port.
    PortTrafficPolicy {
        /// The port.
        "port" port: Option<PortSelector> [required],
        /// Load balancing.
        "loadBalancer" load_balancer: Option<LoadBalancer>,
        /// Connection limits.
        "connectionPool" connection_pool: Option<ConnectionPool>,
        /// Ejection of failing endpoints.
        "outlierDetection" outlier_detection: Option<OutlierDetection>,
        /// TLS.
        "tls" tls: Option<ClientTls> [no_null],
    }
}

object! {
    /// Load balancing.
    LoadBalancer {
        /// The algorithm.
        "simple" simple: Option<SimpleBalancer>,
        /// By a hash of the request.
        "consistentHash" consistent_hash: Option<ConsistentHash>,
        /// Locality-aware balancing.
        "localityLbSetting" locality_lb_setting: Option<LocalityLbSetting>,
        /// Deprecated: use `warmup`.
        "warmupDurationSecs" warmup_duration_secs: Option<Duration>,
        /// Slow start of new endpoints.
        "warmup" warmup: Option<Warmup>,
        /// Zone-aware balancing by Envoy.
        "zoneAwareLbSetting" zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// Balancing by what endpoints report; without a reader in Istio too.
        "backendUtilization" backend_utilization: Option<Value>
            [idle("Istio does not look at it either: endpoints report no load")],
    }
}

choice! {
    /// The algorithm.
    SimpleBalancer {
        /// Least request.
        Unspecified = "UNSPECIFIED",
        /// Deprecated: least request.
        LeastConn = "LEAST_CONN",
        /// At random.
        Random = "RANDOM",
        /// Where the client was going.
        Passthrough = "PASSTHROUGH",
        /// In turn.
        RoundRobin = "ROUND_ROBIN",
        /// The less busy of two drawn at random.
        LeastRequest = "LEAST_REQUEST",
    }
}

object! {
    /// Balancing by a hash; one key, one table.
    ConsistentHash {
        /// A request header.
        "httpHeaderName" http_header_name: Option<Arc<str>>,
        /// A cookie.
        "httpCookie" http_cookie: Option<HttpCookie>,
        /// The client's address.
        "useSourceIp" use_source_ip: Option<bool>,
        /// A query parameter.
        "httpQueryParameterName" http_query_parameter_name: Option<Arc<str>>,
        /// A ring.
        "ringHash" ring_hash: Option<RingHash>,
        /// A Maglev table.
        "maglev" maglev: Option<Maglev>,
        /// Deprecated: use `ringHash`.
        "minimumRingSize" minimum_ring_size: Option<u64>,
    }
}

object! {
    /// A cookie that is hashed, and made when it is absent.
    HttpCookie {
        /// Its name.
        "name" name: Arc<str> [required],
        /// Its path.
        "path" path: Arc<str>,
        /// Its lifetime.
        "ttl" ttl: Option<Duration>,
        /// Further attributes of a made cookie.
        "attributes" attributes: Vec<CookieAttribute>,
    }
}

object! {
    /// An attribute of a cookie.
    CookieAttribute {
        /// Name.
        "name" name: Arc<str> [required],
        /// Value; empty: the name alone.
        "value" value: Arc<str>,
    }
}

object! {
    /// A hash ring.
    RingHash {
        /// Least number of entries.
        "minimumRingSize" minimum_ring_size: Option<u64>,
    }
}

object! {
    /// A Maglev table.
    Maglev {
        /// Its size, a prime.
        "tableSize" table_size: Option<u64>,
    }
}

object! {
    /// Slow start of new endpoints.
    Warmup {
        /// How long an endpoint warms.
        "duration" duration: Option<Duration> [required],
        /// Share at the start, in percent (10).
        "minimumPercent" minimum_percent: Option<f64>,
        /// Curve (1.0).
        "aggression" aggression: Option<f64>,
    }
}

object! {
    /// Locality-aware balancing; one of `distribute`, `failover`, `failoverPriority`.
    LocalityLbSetting {
        /// Shares by origin.
        "distribute" distribute: Vec<Distribute>,
        /// Regions to fail over to.
        "failover" failover: Vec<Failover>,
        /// Labels that are compared in order.
        "failoverPriority" failover_priority: Vec<Arc<str>>,
        /// Off when false.
        "enabled" enabled: Option<bool>,
    }
}

object! {
    /// Shares of traffic from one locality.
    Distribute {
        /// `region/zone/sub-zone`, `*` allowed.
        "from" from: Arc<str>,
        /// Locality → percent, 100 in sum.
        "to" to: BTreeMap<Arc<str>, u32>,
    }
}

object! {
    /// Failover between regions.
    Failover {
        /// From this region.
        "from" from: Arc<str>,
        /// To this region.
        "to" to: Arc<str>,
    }
}

object! {
    /// Zone-aware balancing by Envoy.
    ZoneAwareLbSetting {
        /// Off when false.
        "enabled" enabled: Option<bool>,
        /// Least number of endpoints.
        "minClusterSize" min_cluster_size: Option<u64>,
        /// Regions to fail over to.
        "failover" failover: Vec<Failover>,
        /// Labels that are compared in order.
        "failoverPriority" failover_priority: Vec<Arc<str>>,
    }
}

object! {
    /// Connection limits.
    ConnectionPool {
        /// For connections.
        "tcp" tcp: Option<TcpPool>,
        /// For requests.
        "http" http: Option<HttpPool>,
    }
}

object! {
    /// Limits of connections.
    TcpPool {
        /// Most connections.
        "maxConnections" max_connections: Option<u32>,
        /// Limit for connecting (10 s).
        "connectTimeout" connect_timeout: Option<Duration>,
        /// TCP keepalive.
        "tcpKeepalive" tcp_keepalive: Option<TcpKeepalive>,
        /// How long a connection may live.
        "maxConnectionDuration" max_connection_duration: Option<Duration>,
        /// How long a connection may be idle.
        "idleTimeout" idle_timeout: Option<Duration>,
    }
}

object! {
    /// TCP keepalive; absent fields are the system's.
    TcpKeepalive {
        /// Unanswered probes until the connection is dead.
        "probes" probes: Option<u32>,
        /// Idle time before the first probe.
        "time" time: Option<Duration>,
        /// Time between probes.
        "interval" interval: Option<Duration>,
    }
}

object! {
    /// Limits of requests.
    HttpPool {
        /// Most requests that wait for a connection.
        "http1MaxPendingRequests" http1_max_pending_requests: Option<u32>,
        /// Most active requests.
        "http2MaxRequests" http2_max_requests: Option<u32>,
        /// Most requests on one connection.
        "maxRequestsPerConnection" max_requests_per_connection: Option<u32>,
        /// Most retries at a time.
        "maxRetries" max_retries: Option<u32>,
        /// How long a connection may be idle.
        "idleTimeout" idle_timeout: Option<Duration>,
        /// Whether HTTP/1.1 becomes HTTP/2.
        "h2UpgradePolicy" h2_upgrade_policy: Option<H2UpgradePolicy>,
        /// Speak upstream what the client speaks.
        "useClientProtocol" use_client_protocol: Option<bool>,
        /// Most streams on one HTTP/2 connection.
        "maxConcurrentStreams" max_concurrent_streams: Option<u32>,
        /// HTTP/2 PING keepalive.
        "http2KeepAlive" http2_keep_alive: Option<Http2KeepAlive>,
    }
}

choice! {
    /// Whether HTTP/1.1 becomes HTTP/2.
    H2UpgradePolicy {
        /// As the mesh says.
        Default = "DEFAULT",
        /// No.
        DoNotUpgrade = "DO_NOT_UPGRADE",
        /// Yes.
        Upgrade = "UPGRADE",
    }
}

object! {
    /// HTTP/2 PING keepalive.
    Http2KeepAlive {
        /// Time between pings.
        "interval" interval: Option<Duration>,
        /// Limit for the answer.
        "timeout" timeout: Option<Duration>,
    }
}

object! {
    /// Ejection of failing endpoints.
    OutlierDetection {
        /// Deprecated and without effect.
        "consecutiveErrors" consecutive_errors: Option<i32>,
        /// Count local failures apart.
        "splitExternalLocalOriginErrors" split_external_local_origin_errors: Option<bool>,
        /// Local failures in a row.
        "consecutiveLocalOriginFailures" consecutive_local_origin_failures: Option<u32>,
        /// 502, 503 and 504 in a row; 0 switches it off.
        "consecutiveGatewayErrors" consecutive_gateway_errors: Option<u32>,
        /// 5xx in a row (5); 0 switches it off.
        "consecutive5xxErrors" consecutive_5xx_errors: Option<u32>,
        /// Time between sweeps (10 s).
        "interval" interval: Option<Duration>,
        /// Shortest ejection (30 s).
        "baseEjectionTime" base_ejection_time: Option<Duration>,
        /// Most endpoints ejected, in percent (10).
        "maxEjectionPercent" max_ejection_percent: Option<i32>,
        /// Panic threshold, in percent (0).
        "minHealthPercent" min_health_percent: Option<i32>,
        /// Status codes that count as errors.
        "outlierDetectionHttpErrorCodes" http_error_codes: Vec<u32>,
    }
}

object! { no_null;
    /// TLS to a host.
    ClientTls {
        /// What is spoken.
        "mode" mode: Option<ClientTlsMode>,
        /// Path of the client certificate on the proxy's disk.
        "clientCertificate" client_certificate: Arc<str>,
        /// Path of its key.
        "privateKey" private_key: Arc<str>,
        /// Path of the CA bundle; absent: the system's roots.
        "caCertificates" ca_certificates: Arc<str>,
        /// Secret with the above (gateways, or with a `workloadSelector`).
        "credentialName" credential_name: Arc<str>,
        /// Names that the server's certificate must carry.
        "subjectAltNames" subject_alt_names: Vec<Arc<str>>,
        /// SNI.
        "sni" sni: Arc<str>,
        /// Do not verify the server.
        "insecureSkipVerify" insecure_skip_verify: Option<bool>,
        /// Path of the lists of revoked certificates, one of each CA.
        "caCrl" ca_crl: Arc<str>,
    }
}

choice! {
    /// What is spoken to a host.
    ClientTlsMode {
        /// Plaintext.
        Disable = "DISABLE",
        /// TLS.
        Simple = "SIMPLE",
        /// TLS with a client certificate.
        Mutual = "MUTUAL",
        /// The mesh's own mutual TLS.
        IstioMutual = "ISTIO_MUTUAL",
    }
}

object! {
    /// A tunnel through a proxy.
    Tunnel {
        /// CONNECT (default) or POST.
        "protocol" protocol: Arc<str>,
        /// Host to connect to.
        "targetHost" target_host: Arc<str> [required],
        /// Port to connect to.
        "targetPort" target_port: u16 [required],
    }
}

object! {
    /// The PROXY protocol.
    ProxyProtocol {
        /// Its version.
        "version" version: ProxyProtocolVersion,
    }
}

choice! {
    /// Version of the PROXY protocol.
    ProxyProtocolVersion {
        /// 1, text.
        V1 = "V1",
        /// 2, binary.
        V2 = "V2",
    }
}

object! {
    /// Share of active requests that may be retries.
    RetryBudget {
        /// In percent (20).
        "percent" percent: Option<f64>,
        /// Retries that are always allowed at a time (3).
        "minRetryConcurrency" min_retry_concurrency: Option<u32>,
        /// Over how long requests are counted; without a reader in Istio too.
        "budgetInterval" budget_interval: Option<Duration>
            [idle("Istio does not look at it either: requests that are under way count")],
    }
}
