//! Outbound clusters: one per service port and subset, and the clusters with a fixed meaning.

use std::{sync::Arc, time::Duration};

use super::{
    BalancingPlan, ClusterClient, ClusterKey, ClusterPlan, Discovery, FixedCluster, Limits,
    OutlierPlan, OverLocalities, PlanItem, Provenance, Traffic, UpstreamHttp, UpstreamProtocol,
    UpstreamTransport,
    assignment::{self, Assigned},
    locality::Spread,
    mtls::{self, Backend},
    naming,
    stat_name::{Counted, stat_name},
    traffic::{MergedPolicy, whole_policies},
};
use crate::{
    ir::{
        Balancing, ConnectionPool, HashTable, LoadBalancer, MeshDefaults, OutlierDetection,
        Protocol, Resolution, RetryBudget, Service, ServicePort, TargetPort,
    },
    snapshot::Reader,
};

/// Connections to unknown destinations close after this much silence, because nobody else ever
/// closes them.
const PASSTHROUGH_IDLE: Duration = Duration::from_secs(300);
/// Connections that the proxy opens to its own application come from here, so that redirection
/// leaves them alone.
pub(crate) const INBOUND_SOURCE: std::net::IpAddr =
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 6));

/// Plans an outbound cluster; `None` when the service, the port or the subset is gone.
pub(crate) fn plan_cluster(reader: &Reader<'_>, key: &ClusterKey) -> Option<PlanItem> {
    let service = reader.service(&key.service)?;
    let port = service.port(key.port)?;
    let policies = whole_policies(reader, key);
    let merged = MergedPolicy::new(&policies);
    if !merged.has_subset(&key.subset) {
        return None;
    }
    let mesh = reader.mesh();
    let traffic = merged.traffic(mesh, key.port, &key.subset);
    let means = Means::of(service, &traffic.load_balancer, key.client);
    let protocol = match key.client {
        // What it passes on is TLS.
        ClusterClient::Relay => UpstreamProtocol::Http1,
        _ => upstream_protocol(mesh, port.protocol, &traffic.pool),
    };
    let backend = Backend {
        service,
        port,
        http: protocol,
        listed: !matches!(means, Means::OriginalDst | Means::Named),
        credentials: mtls::may_use_credentials(key.client, merged.selects_clients()),
    };
    let transport = mtls::upstream_transport(reader, key, &backend, &traffic);
    let spread = Spread::of(mesh, service, &traffic, key.locality.as_ref());
    let names = matches!(means, Means::Dns(_));
    let assigned = Assigned { key, service, merged: &merged, names };
    let plan = ClusterPlan {
        outlier: traffic.outlier.as_ref().map(|detection| OutlierPlan {
            always_one: may_leave_one_alone(reader, detection, means, &assigned),
            ..outlier(detection)
        }),
        mesh_alpn: mtls::mesh_alpn(&transport, port.protocol, protocol),
        discovery: discovery(reader, key, service, port, means, &merged),
        balancing: if matches!(means, Means::OriginalDst | Means::Named) {
            BalancingPlan::ClusterProvided
        } else {
            balancing(&traffic.load_balancer)
        },
        http: UpstreamHttp {
            error_statuses: error_statuses(&traffic),
            ..upstream_http(&traffic.pool, protocol)
        },
        transport,
        over_localities: over_localities(key, means, spread.as_ref()),
        provenance: provenance(&merged, service, &key.subset),
        alt_stat_name: stat_name(
            &mesh.stat_names.outbound,
            &Counted { service, port, subset: &key.subset },
        ),
        ..base(key.resource_name(), mesh, &traffic)
    };
    Some(PlanItem::Cluster(Box::new(plan)))
}

/// What every cluster has in common: limits, ejection, keepalive; everything else is the plainest
/// there is.
pub(crate) fn base(name: Arc<str>, mesh: &MeshDefaults, traffic: &Traffic) -> ClusterPlan {
    ClusterPlan {
        name,
        discovery: Discovery::Eds,
        connect_timeout: traffic.pool.connect_timeout.unwrap_or(mesh.connect_timeout),
        balancing: BalancingPlan::LeastRequest(None),
        limits: limits(&traffic.pool, traffic.retry_budget),
        outlier: traffic.outlier.as_ref().map(outlier),
        panic_percent: traffic.outlier.as_ref().and_then(|o| o.min_health_percent).unwrap_or(0),
        http: UpstreamHttp::default(),
        transport: UpstreamTransport::Plain,
        mesh_alpn: None,
        bind_source: None,
        tcp_keepalive: traffic.pool.tcp_keepalive.or(mesh.tcp_keepalive),
        over_localities: OverLocalities::Unsaid,
        provenance: Provenance::default(),
        original_dst_keep: false,
        proxy_protocol: traffic.proxy_protocol,
        alt_stat_name: None,
    }
}

/// Plans a cluster with a fixed meaning.
pub(crate) fn plan_fixed(reader: &Reader<'_>, key: &FixedCluster) -> PlanItem {
    let mesh = reader.mesh();
    let plain = base(key.resource_name().into(), mesh, &Traffic::default());
    let passthrough = |bind_source| ClusterPlan {
        discovery: Discovery::OriginalDst { port_override: None },
        balancing: BalancingPlan::ClusterProvided,
        http: UpstreamHttp {
            protocol: UpstreamProtocol::Downstream,
            idle_timeout: Some(PASSTHROUGH_IDLE),
            ..UpstreamHttp::default()
        },
        bind_source,
        alt_stat_name: Some("PassthroughCluster;".into()),
        ..plain.clone()
    };
    PlanItem::Cluster(Box::new(match key {
        FixedCluster::BlackHole => ClusterPlan {
            discovery: Discovery::Static(Vec::new()),
            balancing: BalancingPlan::RoundRobin(None),
            limits: Limits { omit: true, ..Limits::default() },
            ..plain
        },
        FixedCluster::Passthrough => passthrough(None),
        FixedCluster::InboundPassthrough => passthrough(Some(INBOUND_SOURCE)),
    }))
}

/// How a cluster finds its endpoints, before anything is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Means {
    /// EDS.
    Listed,
    /// DNS; the flag: one address at a time.
    Dns(bool),
    /// DNS of the name that is asked for.
    Named,
    /// Where the client was going.
    OriginalDst,
}

impl Means {
    /// By the service, its load balancing, and whether the client can know the original destination
    /// at all.
    pub(crate) fn of(service: &Service, balancing: &LoadBalancer, client: ClusterClient) -> Self {
        let wants_original = match &service.resolution {
            Resolution::Dns { round_robin } => return Self::Dns(*round_robin),
            Resolution::Alias(_) => return Self::Dns(false),
            Resolution::Named => return Self::Named,
            Resolution::OriginalDst => true,
            Resolution::Static => balancing.algorithm == Balancing::Passthrough,
        };
        if wants_original && client == ClusterClient::Redirected {
            Self::OriginalDst
        } else {
            Self::Listed
        }
    }
}

fn discovery(
    reader: &Reader<'_>,
    key: &ClusterKey,
    service: &Service,
    port: &ServicePort,
    means: Means,
    merged: &MergedPolicy<'_>,
) -> Discovery {
    match means {
        Means::Listed => Discovery::Eds,
        Means::Named => Discovery::Named,
        Means::OriginalDst => Discovery::OriginalDst { port_override: target_override(port) },
        Means::Dns(logical) => {
            let assigned = Assigned { key, service, merged, names: true };
            let endpoints = match &service.resolution {
                Resolution::Alias(target) => assignment::alias_endpoints(target, port.number),
                _ => assignment::localities(reader, &assigned),
            };
            // Envoy refuses LOGICAL_DNS with more than one name.
            let logical =
                logical && endpoints.iter().map(|l| l.endpoints.len()).sum::<usize>() == 1;
            Discovery::Dns { logical, endpoints, refresh: reader.mesh().dns_refresh_rate }
        }
    }
}

/// Original destinations carry the service's port; a different target port replaces it.
fn target_override(port: &ServicePort) -> Option<u16> {
    match port.target {
        TargetPort::Number(number) if number != port.number => Some(number),
        _ => None,
    }
}

/// The HTTP version towards the backend: what the port declares, else what the policy asks for,
/// else what the client speaks where that is only known per connection.
pub(crate) fn upstream_protocol(
    mesh: &MeshDefaults,
    protocol: Protocol,
    pool: &ConnectionPool,
) -> UpstreamProtocol {
    let upgraded = pool.h2_upgrade.unwrap_or(mesh.h2_upgrade && protocol.is_http());
    if protocol.is_http2() || upgraded {
        UpstreamProtocol::Http2
    } else if pool.use_client_protocol || protocol == Protocol::Auto {
        UpstreamProtocol::Downstream
    } else {
        UpstreamProtocol::Http1
    }
}

pub(crate) fn upstream_http(pool: &ConnectionPool, protocol: UpstreamProtocol) -> UpstreamHttp {
    UpstreamHttp {
        protocol,
        idle_timeout: pool.http_idle_timeout.or(pool.tcp_idle_timeout),
        max_requests_per_connection: pool.max_requests_per_connection,
        max_connection_duration: pool.max_connection_duration,
        max_concurrent_streams: pool.max_concurrent_streams,
        h2_keepalive: pool.h2_keepalive,
        error_statuses: Vec::new(),
    }
}

fn error_statuses(traffic: &Traffic) -> Vec<u16> {
    traffic.outlier.as_ref().map(|outlier| outlier.error_statuses.clone()).unwrap_or_default()
}

pub(crate) fn limits(pool: &ConnectionPool, retry_budget: Option<RetryBudget>) -> Limits {
    Limits {
        max_connections: pool.max_connections,
        max_pending_requests: pool.max_pending_requests,
        max_requests: pool.max_requests,
        max_retries: pool.max_retries,
        retry_budget,
        omit: false,
    }
}

fn balancing(balancer: &LoadBalancer) -> BalancingPlan {
    match &balancer.algorithm {
        // Without redirection there is no original destination, so Passthrough falls back to the
        // default.
        Balancing::LeastRequest | Balancing::Passthrough => {
            BalancingPlan::LeastRequest(balancer.warmup)
        }
        Balancing::RoundRobin => BalancingPlan::RoundRobin(balancer.warmup),
        Balancing::Random => BalancingPlan::Random,
        Balancing::ConsistentHash { table: HashTable::Ring(size), .. } => {
            BalancingPlan::RingHash(*size)
        }
        Balancing::ConsistentHash { table: HashTable::Maglev(size), .. } => {
            BalancingPlan::Maglev(*size)
        }
    }
}

/// Weights are for endpoints that are listed. Where the client knows its peers, Envoy balances over
/// zones whatever is not told otherwise.
fn over_localities(key: &ClusterKey, means: Means, spread: Option<&Spread>) -> OverLocalities {
    let said = spread.map(Spread::over_localities).unwrap_or_default();
    match (means, said) {
        (Means::OriginalDst | Means::Named, _) => OverLocalities::Unsaid,
        (Means::Dns(_), OverLocalities::Weighted) | (_, OverLocalities::Unsaid) => {
            if key.knows_peers { OverLocalities::Alike } else { OverLocalities::Unsaid }
        }
        (Means::Listed | Means::Dns(_), said) => said,
    }
}

fn outlier(detection: &OutlierDetection) -> OutlierPlan {
    OutlierPlan {
        consecutive_5xx: detection.consecutive_5xx,
        consecutive_gateway: detection.consecutive_gateway,
        consecutive_local_origin: detection.consecutive_local_origin,
        split_local_origin: detection.split_external_local_origin,
        interval: detection.interval,
        base_ejection: detection.base_ejection,
        max_ejection_percent: detection.max_ejection_percent,
        always_one: false,
    }
}

/// Of an endpoint that fails one may always be left alone, whatever its share is, while another
/// can take its place. The only one never is by this: with Istio's panic threshold of 0, all its
/// requests would be refused unasked.
fn may_leave_one_alone(
    reader: &Reader<'_>,
    outlier: &OutlierDetection,
    means: Means,
    assigned: &Assigned<'_>,
) -> bool {
    // Where a share of 100 lets the only one go, it is what the user asked for.
    let by_share = outlier.max_ejection_percent.is_some_and(|percent| percent >= 100);
    let known = matches!(means, Means::Listed | Means::Dns(_));
    known && !by_share && assignment::has_several(reader, assigned)
}

fn provenance(merged: &MergedPolicy<'_>, service: &Service, subset: &Arc<str>) -> Provenance {
    Provenance {
        config: merged.config_path(),
        services: vec![naming::service_metadata(service)],
        subset: (!subset.is_empty()).then(|| subset.clone()),
        external: service.external,
    }
}
