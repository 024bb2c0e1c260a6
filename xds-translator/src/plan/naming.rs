//! Names that users, dashboards and patches depend on.
//!
//! Spelled in one place, so that a cluster and whoever refers to it cannot disagree.

use std::{net::IpAddr, sync::Arc};

use super::{ClusterClient, ClusterKey, FixedCluster};
use crate::ir::ObjectId;

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

/// `ns[NAMESPACE]-policy[NAME]-rule[`, which is followed by the number of the rule and `]`.
pub(crate) fn access_policy(id: &ObjectId) -> String {
    format!("ns[{}]-policy[{}]-rule[", id.namespace, id.name)
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
