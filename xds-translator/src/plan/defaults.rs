//! Settings that every listener shares.

use std::{net::IpAddr, net::Ipv4Addr, time::Duration};

use super::{
    ChainMatch, FilterChainPlan, FixedCluster, HttpConnection, HttpRole, RouteSource, TcpProxyPlan,
    TerminalFilter,
};
use crate::ir::{Edge, MeshDefaults};

/// How long a TLS handshake may take on outbound and gateway chains.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(15);
/// Every address.
pub(crate) const ANY_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Where Istio binds what the application calls by address.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How long detection waits for a client to speak; a server that speaks first is delayed by this
/// much.
const DETECTION: Duration = Duration::from_secs(5);

/// `listener_filters_timeout`. Istio's 0 would stall a server that speaks first for ever
/// (ARCHITECTURE.md), so it means our own finite default.
pub(crate) fn detection_timeout(mesh: &MeshDefaults) -> Duration {
    if mesh.detection_timeout.is_zero() { DETECTION } else { mesh.detection_timeout }
}

/// An HTTP connection manager with the mesh's settings, which tells nothing of requests.
pub(crate) fn http(
    mesh: &MeshDefaults,
    stat_prefix: &str,
    routes: RouteSource,
    role: HttpRole,
) -> HttpConnection {
    HttpConnection {
        stat_prefix: stat_prefix.into(),
        routes,
        role,
        edge: Edge::default(),
        headers: mesh.headers.clone(),
        ask: None,
        tokens: None,
        access: Vec::new(),
        // Requests to peers say by ALPN what they carry; towards the own application there is no
        // TLS.
        alpn_override: !matches!(role, HttpRole::Inbound { .. }),
        normalization: mesh.path_normalization,
        access_logs: Vec::new(),
        metrics: None,
        tracing: None,
        rate_limits: Vec::new(),
        http_proxy: false,
        resolves_names: false,
    }
}

/// A TCP proxy to one cluster, under its name.
pub(crate) fn tcp(cluster: &str) -> TcpProxyPlan {
    TcpProxyPlan {
        stat_prefix: cluster.into(),
        clusters: vec![(cluster.into(), 1)],
        idle_timeout: None,
        max_duration: None,
        hash_source_ip: false,
        tunnel: None,
        resolves_sni: None,
        access_logs: Vec::new(),
        metrics: None,
    }
}

/// A chain that takes whatever its match lets in to a fixed cluster.
pub(crate) fn fixed_chain(
    name: &str,
    port: Option<u16>,
    cluster: &FixedCluster,
) -> FilterChainPlan {
    chain_to(name, port, cluster.resource_name())
}

/// A chain whose bytes go to a cluster.
pub(crate) fn chain_to(name: &str, port: Option<u16>, cluster: &str) -> FilterChainPlan {
    FilterChainPlan {
        name: name.into(),
        matches: ChainMatch { port, ..ChainMatch::default() },
        tls: None,
        connect_timeout: None,
        ask: None,
        access: Vec::new(),
        terminal: TerminalFilter::Tcp(tcp(cluster)),
    }
}
