//! A cluster: how endpoints are found, chosen, connected to and judged. Immutable; what outlives a
//! configuration (connections, counters, ejections, the endpoint set) is bound to it in `upstream`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    endpoint::{DnsRefresh, Endpoint, EndpointSet},
    limits::{BufferLimit, HttpLimits},
    secret::UpstreamTls,
};

/// A compiled cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Envoy's cluster name, such as `outbound|80||reviews.default.svc.cluster.local`.
    pub name: Arc<str>,
    /// How endpoints are found.
    pub discovery: Discovery,
    /// How one of them is chosen.
    pub policy: LbPolicy,
    /// How priorities, localities and panic are treated.
    pub balance: BalanceSettings,
    /// How connections are made. Two configurations that differ here share no connection.
    pub connection: ConnectionSettings,
    /// Limits of load.
    pub limits: CircuitBreakers,
    /// When an endpoint is taken out because of its answers.
    pub outlier: Option<OutlierDetection>,
    /// ALPN per request protocol, from `filter_metadata["mesh"]`; applied if the connection manager
    /// has [`super::filter::HttpFilter::MeshAlpn`].
    pub mesh_alpn: Option<MeshAlpn>,
    /// Host names that the cluster stands for, from `filter_metadata["istio"].services`, for metric
    /// labels.
    pub services: Vec<ServiceLabel>,
}

/// The service that a cluster stands for, as metrics name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceLabel {
    /// `reviews.default.svc.cluster.local`.
    pub host: Arc<str>,
    /// `reviews`.
    pub name: Arc<str>,
    /// `default`.
    pub namespace: Arc<str>,
}

/// How a cluster's endpoints are found.
#[derive(Clone, PartialEq, Debug)]
pub enum Discovery {
    /// From EDS, under this name.
    Eds(Arc<str>),
    /// Written into the cluster.
    Static(Arc<EndpointSet>),
    /// Names written into the cluster, resolved again and again; all addresses are used.
    StrictDns(Arc<EndpointSet>, DnsRefresh),
    /// One name; each new connection goes to the first address of the newest answer.
    LogicalDns(Arc<EndpointSet>, DnsRefresh),
    /// The address that the client wanted.
    OriginalDst {
        /// Replaces the port.
        port: Option<u16>,
    },
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LbPolicy {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest active requests among `choices` random ones.
    LeastRequest {
        /// At least 2.
        choices: u32,
    },
    /// At random, by weight.
    Random,
    /// By hash on a ring of at least `minimum` and at most `maximum` points.
    RingHash {
        /// Fewest points.
        minimum: u64,
        /// Most points.
        maximum: u64,
    },
    /// By hash in a Maglev table.
    Maglev {
        /// Entries; a prime.
        table_size: u64,
    },
    /// The endpoint is the destination itself ([`Discovery::OriginalDst`]).
    ClusterProvided,
}

/// Priorities, localities and panic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BalanceSettings {
    /// Below this percentage of healthy endpoints all of them get traffic; 0 switches that off.
    /// Envoy's default is 50.
    pub panic_threshold: u32,
    /// How localities of one priority share the load.
    pub localities: OverLocalities,
}

/// How localities of one priority share the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverLocalities {
    /// Endpoints alone share it.
    Alike,
    /// A locality is chosen by weight before the endpoint.
    Weighted,
    /// As much as possible stays where the proxy is. Of the first priority alone, as with Envoys.
    Zones(ZoneSettings),
}

/// When zones matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneSettings {
    /// From this many endpoints on.
    pub min_endpoints: u64,
    /// For so many of 10,000 requests.
    pub routed_parts: u64,
    /// While at least this percentage of the proxy's replicas is healthy.
    pub panic_threshold: u32,
}

/// How connections are made: the part of a cluster whose change closes them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionSettings {
    /// Limit for connecting, the TLS handshake included.
    pub connect_timeout: Duration,
    /// How bytes are protected; the first entry whose match holds for the endpoint wins.
    pub transport_matches: Vec<TransportMatch>,
    /// Used when no entry matches.
    pub transport: Transport,
    /// What HTTP is spoken.
    pub protocol: UpstreamProtocol,
    /// HTTP settings.
    pub http: UpstreamHttp,
    /// How much a connection holds.
    pub buffer: BufferLimit,
    /// Source address of connections, such as 127.0.0.6.
    pub bind: Option<IpAddr>,
    /// TCP keep-alive.
    pub keepalive: Option<TcpKeepalive>,
}

impl ConnectionSettings {
    /// How to protect the bytes to this endpoint.
    pub fn transport_for(&self, endpoint: &Endpoint) -> &Transport {
        let matching = self.transport_matches.iter().find(|entry| entry.applies_to(endpoint));
        matching.map_or(&self.transport, |entry| &entry.transport)
    }
}

/// One entry of `transport_socket_matches`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TransportMatch {
    /// Such as `tlsMode-istio`.
    pub name: Arc<str>,
    /// All of these must be in the endpoint's metadata; empty matches every endpoint.
    pub criteria: Vec<(Arc<str>, Arc<str>)>,
    /// Used then.
    pub transport: Transport,
}

impl TransportMatch {
    fn applies_to(&self, endpoint: &Endpoint) -> bool {
        self.criteria.iter().all(|(key, value)| endpoint.socket_match.get(key) == Some(value))
    }
}

/// How bytes are protected.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// Not at all.
    Plaintext,
    /// TLS.
    Tls(Arc<UpstreamTls>),
    /// No bytes at all: the control plane wants them protected in a way that we have refused.
    Closed,
}

/// What HTTP is spoken to a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Whatever the downstream request used.
    Downstream,
}

/// HTTP settings of upstream connections.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UpstreamHttp {
    /// Closes a connection that carried nothing for so long; `None` never.
    pub idle_timeout: Option<Duration>,
    /// Nothing says for how long, so that the pool may close sooner what a burst has opened.
    pub trims_idle: bool,
    /// Closes a connection after so many requests; `None` never.
    pub max_requests_per_connection: Option<u32>,
    /// How much a server may send back.
    pub limits: HttpLimits,
    /// Interval and time limit of HTTP/2 pings.
    pub h2_keepalive: Option<(Duration, Duration)>,
    /// Asks for upgrades over HTTP/2, too (RFC 8441); else they fail there.
    pub upgrades_http2: bool,
    /// What the server is called.
    pub names: AutomaticNames,
}

/// What a connection over TLS takes from the request that it is opened for (Envoy's
/// `UpstreamHttpProtocolOptions`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct AutomaticNames {
    /// Sends the request's host as server name, rather than the transport's own (`auto_sni`).
    pub server_name: bool,
    /// The server's certificate must be for the request's host (`auto_san_validation`).
    pub validation: bool,
    /// A header that is asked before the host (`override_auto_sni_header`).
    pub header: Option<Arc<str>>,
}

/// TCP keep-alive; `None` leaves the system's value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TcpKeepalive {
    /// Unanswered probes until the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// ALPN to offer, by the protocol of the request that the connection is for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct MeshAlpn {
    /// For HTTP/1.0 and HTTP/1.1; empty means no override.
    pub h1: Vec<Arc<str>>,
    /// For HTTP/2; empty means no override.
    pub h2: Vec<Arc<str>>,
}

/// Limits of load; `u32::MAX` means none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CircuitBreakers {
    /// Connections.
    pub max_connections: u32,
    /// Requests that wait for a connection.
    pub max_pending_requests: u32,
    /// Requests under way.
    pub max_requests: u32,
    /// Retries under way.
    pub retries: RetryLimit,
}

/// How many retries of a cluster may be under way at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryLimit {
    /// So many; `u32::MAX` means no limit.
    Count(u32),
    /// A share of the requests that are under way (Envoy's `RetryBudget`).
    Budget {
        /// In millionths.
        share: u32,
        /// Whatever the share comes to.
        minimum: u32,
    },
}

impl RetryLimit {
    /// The limit while so many requests are under way.
    pub fn among(self, requests: u32) -> u32 {
        match self {
            Self::Count(most) => most,
            Self::Budget { share, minimum } => {
                let part = u64::from(requests) * u64::from(share) / 1_000_000;
                u32::try_from(part).unwrap_or(u32::MAX).max(minimum)
            }
        }
    }
}

impl Default for CircuitBreakers {
    fn default() -> Self {
        // Envoy's own defaults when a cluster names no thresholds.
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            retries: RetryLimit::Count(3),
        }
    }
}

/// When an endpoint is taken out because of its answers (Envoy's `OutlierDetection`); 0 switches a
/// detector off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutlierDetection {
    /// 5xx answers in a row.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 in a row.
    pub consecutive_gateway_failure: u32,
    /// Failures to connect in a row, counted apart if `split_local_origin`.
    pub consecutive_local_origin_failure: u32,
    /// Counts failures to connect apart from answers.
    pub split_local_origin: bool,
    /// Time between sweeps, at which ejections are judged and ended.
    pub interval: Duration,
    /// First ejection's length; the n-th lasts n times as long.
    pub base_ejection_time: Duration,
    /// Longest ejection.
    pub max_ejection_time: Duration,
    /// Largest share of endpoints, in percent, that may be out at once.
    pub max_ejection_percent: u32,
    /// One may be out whatever its share is.
    pub always_one: bool,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::endpoint::*, *};

    fn endpoint(metadata: &[(&str, &str)]) -> Endpoint {
        Endpoint {
            address: EndpointAddress::Socket(([127, 0, 0, 1], 1).into()),
            weight: 1,
            health: HealthStatus::Healthy,
            socket_match: metadata
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect::<BTreeMap<_, _>>(),
            workload: None,
            hostname: None,
        }
    }

    #[test]
    fn an_endpoints_metadata_chooses_the_transport() {
        let tls = Transport::Tls(Arc::new(UpstreamTls {
            certificate: None,
            validation: None,
            sni: None,
            sni_from_endpoint: false,
            match_server_name: false,
            alpn: vec![],
            versions: super::super::secret::TlsVersions { tls12: true, tls13: true },
        }));
        let settings = ConnectionSettings {
            connect_timeout: Duration::from_secs(1),
            transport_matches: vec![TransportMatch {
                name: "tlsMode-istio".into(),
                criteria: vec![("tlsMode".into(), "istio".into())],
                transport: tls.clone(),
            }],
            transport: Transport::Plaintext,
            protocol: UpstreamProtocol::Http1,
            http: UpstreamHttp {
                idle_timeout: None,
                trims_idle: false,
                max_requests_per_connection: None,
                limits: HttpLimits::default(),
                h2_keepalive: None,
                upgrades_http2: false,
                names: AutomaticNames::default(),
            },
            buffer: BufferLimit::default(),
            bind: None,
            keepalive: None,
        };
        assert_eq!(settings.transport_for(&endpoint(&[("tlsMode", "istio"), ("a", "b")])), &tls);
        assert_eq!(
            settings.transport_for(&endpoint(&[("tlsMode", "disabled")])),
            &Transport::Plaintext
        );
        assert_eq!(settings.transport_for(&endpoint(&[])), &Transport::Plaintext);
    }
}
