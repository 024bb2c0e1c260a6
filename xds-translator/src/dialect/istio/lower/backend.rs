//! DestinationRules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::dialect::lowering::Lowering;
use crate::{
    dialect::istio::destination_rule::{
        self as dr, ClientTlsMode, DestinationRule, H2UpgradePolicy, PortTrafficPolicy,
        ProxyProtocolVersion, SimpleBalancer,
    },
    ir::{
        BackendPolicy, Balancing, ClientTls, ConnectionPool, HashKey, HashTable, LoadBalancer,
        LocalityPolicy, OutlierDetection, RetryBudget, Subset, TcpKeepalive, TlsMaterial,
        TrafficPolicy, Tunnel, Warmup, ZonePolicy,
    },
    snapshot::Item,
};

/// Envoy's defaults, which Istio writes out.
const RING_SIZE: u64 = 1024;
const MAGLEV_SIZE: u64 = 65_537;

impl Lowering<'_> {
    pub(in crate::dialect) fn destination_rule(&mut self, spec: &DestinationRule) -> Item {
        let mut names = BTreeSet::new();
        let subsets = spec.subsets.iter().enumerate().filter(|(_, s)| names.insert(s.name.clone()));
        let subsets = subsets.map(|(i, s)| Subset {
            at: format!("spec.subsets[{i}]").into(),
            name: s.name.clone(),
            labels: s.labels.clone(),
            traffic: s.traffic_policy.as_ref().map(traffic).unwrap_or_default(),
        });
        Item::Backend(Arc::new(BackendPolicy {
            origin: self.origin(),
            host: self.host(&spec.host),
            export_to: self.visibility(&spec.export_to, self.mesh.backend_export_to.as_ref()),
            workload_selector: spec
                .workload_selector
                .as_ref()
                .map(|s| s.match_labels.clone().into()),
            fills_in: false,
            traffic: spec.traffic_policy.as_ref().map(traffic).unwrap_or_default(),
            subsets: subsets.collect(),
        }))
    }
}

fn traffic(policy: &dr::TrafficPolicy) -> TrafficPolicy {
    let mut ports = BTreeMap::new();
    for settings in &policy.port_level_settings {
        // Istio stops at the first block of a port.
        if let Some(port) = &settings.port {
            ports.entry(port.number).or_insert_with(|| port_traffic(settings));
        }
    }
    TrafficPolicy {
        load_balancer: policy.load_balancer.as_ref().map(load_balancer),
        connection_pool: policy.connection_pool.as_ref().map(connection_pool),
        outlier: policy.outlier_detection.as_ref().map(outlier),
        tls: policy.tls.as_ref().map(client_tls),
        ports,
        retry_budget: policy.retry_budget.as_ref().map(|budget| RetryBudget {
            percent: percent(budget.percent, 20),
            minimum: budget.min_retry_concurrency.unwrap_or(3),
            window: None,
        }),
        proxy_protocol: policy.proxy_protocol.as_ref().map(|p| match p.version {
            ProxyProtocolVersion::V1 => 1,
            ProxyProtocolVersion::V2 => 2,
        }),
        tunnel: policy.tunnel.as_ref().map(tunnel),
    }
}

fn tunnel(tunnel: &dr::Tunnel) -> Tunnel {
    let host = match tunnel.target_host.parse() {
        Ok(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => tunnel.target_host.to_string(),
    };
    Tunnel {
        target: format!("{host}:{}", tunnel.target_port).into(),
        by_post: tunnel.protocol.eq_ignore_ascii_case("POST"),
    }
}

fn port_traffic(policy: &PortTrafficPolicy) -> TrafficPolicy {
    TrafficPolicy {
        load_balancer: policy.load_balancer.as_ref().map(load_balancer),
        connection_pool: policy.connection_pool.as_ref().map(connection_pool),
        outlier: policy.outlier_detection.as_ref().map(outlier),
        tls: policy.tls.as_ref().map(client_tls),
        ..TrafficPolicy::default()
    }
}

fn load_balancer(lb: &dr::LoadBalancer) -> LoadBalancer {
    let simple = match lb.simple {
        Some(SimpleBalancer::RoundRobin) => Balancing::RoundRobin,
        Some(SimpleBalancer::Random) => Balancing::Random,
        Some(SimpleBalancer::Passthrough) => Balancing::Passthrough,
        Some(
            SimpleBalancer::Unspecified | SimpleBalancer::LeastConn | SimpleBalancer::LeastRequest,
        )
        | None => Balancing::LeastRequest,
    };
    let old_warmup = lb.warmup_duration_secs.map(|window| Warmup {
        window,
        minimum_percent: 10,
        aggression_milli: 1000,
    });
    LoadBalancer {
        algorithm: lb.consistent_hash.as_ref().and_then(consistent_hash).unwrap_or(simple),
        warmup: lb.warmup.as_ref().and_then(warmup).or(old_warmup),
        locality: lb.locality_lb_setting.as_ref().map(locality_policy),
        zones: lb.zone_aware_lb_setting.as_ref().map(zone_policy),
    }
}

fn consistent_hash(hash: &dr::ConsistentHash) -> Option<Balancing> {
    let header = hash
        .http_header_name
        .as_ref()
        .map(|name| HashKey::Header(name.to_ascii_lowercase().into()));
    let cookie = hash.http_cookie.as_ref().map(|c| HashKey::Cookie {
        name: c.name.clone(),
        path: c.path.clone(),
        ttl: c.ttl,
        attributes: c.attributes.iter().map(|a| (a.name.clone(), a.value.clone())).collect(),
    });
    let parameter =
        hash.http_query_parameter_name.as_ref().map(|name| HashKey::QueryParameter(name.clone()));
    let source = (hash.use_source_ip == Some(true)).then_some(HashKey::SourceIp);
    let key = header.or(cookie).or(source).or(parameter)?;
    let table = match &hash.maglev {
        Some(maglev) => {
            HashTable::Maglev(maglev.table_size.filter(|s| *s > 0).unwrap_or(MAGLEV_SIZE))
        }
        None => {
            let ring = hash
                .ring_hash
                .as_ref()
                .and_then(|r| r.minimum_ring_size)
                .or(hash.minimum_ring_size);
            HashTable::Ring(ring.filter(|s| *s > 0).unwrap_or(RING_SIZE))
        }
    };
    Some(Balancing::ConsistentHash { key, table })
}

fn warmup(warmup: &dr::Warmup) -> Option<Warmup> {
    Some(Warmup {
        window: warmup.duration?,
        minimum_percent: percent(warmup.minimum_percent, 10),
        aggression_milli: scaled(warmup.aggression.unwrap_or(1.0), 1000.0, f64::from(u32::MAX)),
    })
}

fn percent(value: Option<f64>, default: u32) -> u32 {
    value.map_or(default, |v| scaled(v, 1.0, 100.0))
}

fn scaled(value: f64, factor: f64, most: f64) -> u32 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range of u32"
    )]
    let whole = (value * factor).round().clamp(0.0, most) as u32;
    whole
}

pub(in crate::dialect) fn locality_policy(setting: &dr::LocalityLbSetting) -> LocalityPolicy {
    let distribute = setting.distribute.iter();
    LocalityPolicy {
        enabled: setting.enabled,
        distribute: distribute
            .map(|d| (d.from.clone(), d.to.iter().map(|(k, v)| (k.clone(), *v)).collect()))
            .collect(),
        failover: setting.failover.iter().map(|f| (f.from.clone(), f.to.clone())).collect(),
        failover_priority: setting.failover_priority.clone(),
    }
}

pub(in crate::dialect) fn zone_policy(setting: &dr::ZoneAwareLbSetting) -> ZonePolicy {
    ZonePolicy {
        enabled: setting.enabled,
        min_endpoints: setting.min_cluster_size,
        failover: setting.failover.iter().map(|f| (f.from.clone(), f.to.clone())).collect(),
        failover_priority: setting.failover_priority.clone(),
    }
}

pub(in crate::dialect) fn connection_pool(pool: &dr::ConnectionPool) -> ConnectionPool {
    let tcp = pool.tcp.clone().unwrap_or_default();
    let http = pool.http.clone().unwrap_or_default();
    // Zero stands for "nothing said" in Istio's numbers.
    let some = |n: Option<u32>| n.filter(|n| *n > 0);
    ConnectionPool {
        max_connections: some(tcp.max_connections),
        connect_timeout: tcp.connect_timeout.filter(|t| !t.is_zero()),
        tcp_keepalive: tcp.tcp_keepalive.as_ref().map(keepalive),
        max_connection_duration: tcp.max_connection_duration,
        tcp_idle_timeout: tcp.idle_timeout,
        max_pending_requests: some(http.http1_max_pending_requests),
        max_requests: some(http.http2_max_requests),
        max_requests_per_connection: some(http.max_requests_per_connection),
        max_retries: some(http.max_retries),
        http_idle_timeout: http.idle_timeout,
        h2_upgrade: match http.h2_upgrade_policy {
            Some(H2UpgradePolicy::Upgrade) => Some(true),
            Some(H2UpgradePolicy::DoNotUpgrade) => Some(false),
            Some(H2UpgradePolicy::Default) | None => None,
        },
        use_client_protocol: http.use_client_protocol == Some(true),
        max_concurrent_streams: some(http.max_concurrent_streams),
        h2_keepalive: http.http2_keep_alive.as_ref().and_then(|k| Some((k.interval?, k.timeout?))),
        http_block: pool.http.is_some(),
    }
}

pub(in crate::dialect) fn keepalive(keepalive: &dr::TcpKeepalive) -> TcpKeepalive {
    TcpKeepalive { probes: keepalive.probes, time: keepalive.time, interval: keepalive.interval }
}

pub(in crate::dialect) fn outlier(outlier: &dr::OutlierDetection) -> OutlierDetection {
    let percent = |p: Option<i32>| p.and_then(|p| u32::try_from(p).ok()).map(|p| p.min(100));
    OutlierDetection {
        consecutive_5xx: outlier.consecutive_5xx_errors,
        consecutive_gateway: outlier.consecutive_gateway_errors,
        consecutive_local_origin: outlier.consecutive_local_origin_failures,
        split_external_local_origin: outlier.split_external_local_origin_errors == Some(true),
        interval: outlier.interval,
        base_ejection: outlier.base_ejection_time,
        max_ejection_percent: percent(outlier.max_ejection_percent).filter(|p| *p > 0),
        error_statuses: error_statuses(&outlier.http_error_codes),
        min_health_percent: percent(outlier.min_health_percent),
    }
}

/// Each once, in order.
fn error_statuses(codes: &[u32]) -> Vec<u16> {
    let statuses: BTreeSet<u16> = codes.iter().filter_map(|c| u16::try_from(*c).ok()).collect();
    statuses.into_iter().collect()
}

fn client_tls(tls: &dr::ClientTls) -> ClientTls {
    let material = || TlsMaterial {
        certificate_file: tls.client_certificate.clone(),
        key_file: tls.private_key.clone(),
        ca_file: tls.ca_certificates.clone(),
        crl_file: tls.ca_crl.clone(),
        credential: tls.credential_name.clone(),
        sni: tls.sni.clone(),
        subject_alt_names: tls.subject_alt_names.clone(),
        skip_verify: tls.insecure_skip_verify == Some(true),
    };
    match tls.mode.unwrap_or_default() {
        ClientTlsMode::Disable => ClientTls::Disable,
        ClientTlsMode::Simple => ClientTls::Simple(material()),
        ClientTlsMode::Mutual => ClientTls::Mutual(material()),
        ClientTlsMode::IstioMutual => ClientTls::Mesh {
            sni: tls.sni.clone(),
            subject_alt_names: tls.subject_alt_names.clone(),
        },
    }
}
