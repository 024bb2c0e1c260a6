//! Endpoints of a cluster as EDS or the cluster itself lists them: plain values without counters or
//! health checks.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

/// Everything that a cluster can be sent to. Immutable; replaced as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointSet {
    /// Groups of endpoints, sorted by priority (0 first), else in the order that they were sent in.
    pub localities: Vec<LocalityEndpoints>,
    /// Percentage that scales the share of a priority: 140 by default (Envoy's
    /// `overprovisioning_factor`).
    pub overprovisioning_factor: u32,
}

/// Endpoints of one locality and priority.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Locality,
    /// 0 is preferred.
    pub priority: u32,
    /// Share among localities of one priority, if locality-weighted balancing is on.
    pub weight: u32,
    /// May be empty.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// Region, zone and sub-zone; each may be empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Sub-zone.
    pub sub_zone: Arc<str>,
}

/// One address to send to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: EndpointAddress,
    /// Share among its siblings; at least 1.
    pub weight: u32,
    /// What the control plane says about it.
    pub health: HealthStatus,
    /// `filter_metadata["envoy.transport_socket_match"]`, string values only, such as
    /// `tlsMode: istio`.
    pub socket_match: BTreeMap<Arc<str>, Arc<str>>,
    /// `filter_metadata["istio"].workload`:
    /// `name;namespace;canonical-name;canonical-revision;cluster`.
    pub workload: Option<Arc<str>>,
    /// Host name, for `auto_host_rewrite` and `auto_host_sni`.
    pub hostname: Option<Arc<str>>,
}

impl Endpoint {
    /// The endpoint's host name: what configuration says, else the name that is resolved.
    pub fn host_name(&self) -> Option<&str> {
        match (&self.hostname, &self.address) {
            (Some(name), _) => Some(name),
            (None, EndpointAddress::Name { host, .. }) => Some(host),
            (None, EndpointAddress::Socket(_)) => None,
        }
    }
}

/// Where an endpoint listens.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum EndpointAddress {
    /// An IP address.
    Socket(SocketAddr),
    /// A name that a strict DNS cluster resolves.
    Name {
        /// Host name.
        host: Arc<str>,
        /// Port.
        port: u16,
    },
}

/// Health as EDS reports it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum HealthStatus {
    /// Gets traffic (also when EDS says nothing).
    #[default]
    Healthy,
    /// Gets traffic only if too few others are healthy.
    Degraded,
    /// Gets none.
    Unhealthy,
    /// Gets no new requests; connections in use go on.
    Draining,
}

/// How often and how strict DNS names of a cluster are resolved.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DnsRefresh {
    /// Time between two look-ups.
    pub interval: Duration,
    /// An answer that says how long it holds is asked for again just then.
    pub respect_ttl: bool,
    /// Which address families count.
    pub family: DnsFamily,
}

/// Address families that a look-up uses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DnsFamily {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// IPv6, then IPv4 if there is none.
    Auto,
    /// IPv4, then IPv6 if there is none.
    V4Preferred,
    /// Both.
    All,
}

/// Who runs behind an endpoint, for metric labels: the parts of Istio's `istio.workload` endpoint
/// metadata.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Workload {
    /// The workload's name, such as `reviews-v1`; may be empty.
    pub name: Arc<str>,
    /// Its namespace; may be empty.
    pub namespace: Arc<str>,
    /// The canonical service it belongs to; may be empty.
    pub canonical_service: Arc<str>,
    /// The canonical revision; may be empty.
    pub canonical_revision: Arc<str>,
    /// The Kubernetes cluster it runs in; may be empty.
    pub kube_cluster: Arc<str>,
}

impl Workload {
    /// Reads Istio's `name;namespace;canonical service;canonical revision;cluster`; missing parts
    /// stay empty.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(Arc::from);
        let mut next = || parts.next().unwrap_or_default();
        Self {
            name: next(),
            namespace: next(),
            canonical_service: next(),
            canonical_revision: next(),
            kube_cluster: next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istio_workload_metadata_may_lack_parts() {
        let workload = Workload::parse("reviews-v1;default;reviews;v1;Kubernetes");
        assert_eq!((&*workload.name, &*workload.kube_cluster), ("reviews-v1", "Kubernetes"));
        assert_eq!(&*Workload::parse("a;b").canonical_service, "");
    }
}
