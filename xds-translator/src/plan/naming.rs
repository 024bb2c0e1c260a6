//! Names that users, dashboards and patches depend on.
//!
//! Spelled in one place, so that a cluster and whoever refers to it cannot disagree.

use std::{net::IpAddr, sync::Arc};

use super::{ClusterClient, ClusterKey, FixedCluster};
use crate::ir::{ObjectId, Service};

/// The tags of a span that say what workload it is of.
pub(crate) const TAG_REVISION: &str = "istio.canonical_revision";
/// Likewise: its service.
pub(crate) const TAG_SERVICE: &str = "istio.canonical_service";
/// Likewise: its mesh.
pub(crate) const TAG_MESH: &str = "istio.mesh_id";
/// Likewise: its namespace.
pub(crate) const TAG_NAMESPACE: &str = "istio.namespace";
/// Likewise: its cluster.
pub(crate) const TAG_CLUSTER: &str = "istio.cluster_id";
/// The tags of a span that say what access policies would have done that are only tried out, and
/// where the filter that tries them leaves it.
pub(crate) const TRIED_OUT_TAGS: [(&str, &str); 4] = [
    (
        "istio.authorization.dry_run.allow_policy.name",
        "istio_dry_run_allow_shadow_effective_policy_id",
    ),
    ("istio.authorization.dry_run.allow_policy.result", "istio_dry_run_allow_shadow_engine_result"),
    (
        "istio.authorization.dry_run.deny_policy.name",
        "istio_dry_run_deny_shadow_effective_policy_id",
    ),
    ("istio.authorization.dry_run.deny_policy.result", "istio_dry_run_deny_shadow_engine_result"),
];

/// `outbound|PORT|SUBSET|HOST`.
pub(crate) fn outbound_cluster(port: u16, subset: &str, host: &str) -> Arc<str> {
    format!("outbound|{port}|{subset}|{host}").into()
}

/// Host and port of an [`outbound_cluster`]; `None` for every other.
pub(crate) fn outbound_target(cluster: &str) -> Option<(&str, u16)> {
    let mut parts = cluster.strip_prefix("outbound|")?.splitn(3, '|');
    let (port, _subset, host) = (parts.next()?, parts.next()?, parts.next()?);
    Some((host, port.parse().ok()?))
}

/// `ns[NAMESPACE]-policy[NAME]-rule[`, which is followed by the number of the rule and `]`; of kinds
/// that share names with the one that is called so, their own word instead of `policy`.
pub(crate) fn access_policy(id: &ObjectId) -> String {
    let word = match id.kind.kebab() {
        "authorization-policy" => "policy",
        other => other,
    };
    format!("ns[{}]-{word}[{}]-rule[", id.namespace, id.name)
}

/// `istio-ext-authz-AUTHORIZER-`, which the names of rules begin with that ask it.
pub(crate) fn asking(authorizer: &str) -> String {
    format!("istio-ext-authz-{authorizer}-")
}

/// `inbound|PORT||`, by container port.
pub(crate) fn inbound_cluster(port: u16) -> Arc<str> {
    format!("inbound|{port}||").into()
}

/// The SNI that the mesh's own TLS sends: `outbound_.PORT_.SUBSET_.HOST`.
pub(crate) fn mesh_sni(port: u16, subset: &str, host: &str) -> Arc<str> {
    format!("outbound_.{port}_.{subset}_.{host}").into()
}

/// `HOST:PORT`, which names virtual hosts and the route configurations of sniffed ports.
pub(crate) fn host_port(host: &str, port: u16) -> Arc<str> {
    format!("{host}:{port}").into()
}

/// `ADDRESS_PORT`, which names listeners.
pub(crate) fn listener(address: IpAddr, port: u16) -> Arc<str> {
    format!("{address}_{port}").into()
}

impl ClusterKey {
    /// The resource's name.
    pub fn resource_name(&self) -> Arc<str> {
        let name = match self.client {
            ClusterClient::Relay => mesh_sni,
            _ => outbound_cluster,
        };
        name(self.port, &self.subset, self.service.host.as_str())
    }
}

impl FixedCluster {
    /// The resource's name.
    pub const fn resource_name(&self) -> &'static str {
        match self {
            Self::BlackHole => "BlackHoleCluster",
            Self::Passthrough => "PassthroughCluster",
            Self::InboundPassthrough => "InboundPassthroughCluster",
        }
    }
}
/// Host, name and namespace, as metadata lists services. A ServiceEntry's host is its name.
pub(crate) fn service_metadata(service: &Service) -> (Arc<str>, Arc<str>, Arc<str>) {
    let host = service.key.host.shared();
    let name = if service.kubernetes { service.origin.id.name.clone() } else { host.clone() };
    (host, name, service.key.namespace.clone())
}
