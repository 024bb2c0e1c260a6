//! Groups of machines, which come and go by themselves.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::Serialize;

use super::{Connection, Discovery, Labels, Locality, MeshTls, Origin, Workload, WorkloadId};

/// What every machine of a group is like.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct WorkloadGroup {
    /// The object; its name is what machines name.
    pub origin: Origin,
    /// Labels of each.
    pub labels: Labels,
    /// The account that each has to prove.
    pub service_account: Arc<str>,
    /// Whether the proxy of each takes mutual TLS.
    pub mesh_tls: MeshTls,
    /// Where each is.
    pub locality: Locality,
    /// Port numbers by the names of services' ports.
    pub ports: BTreeMap<Arc<str>, u16>,
    /// Load-balancing weight; `None` means 1.
    pub weight: Option<u32>,
    /// The network of each; empty for the mesh's own.
    pub network: Arc<str>,
    /// Whether each is asked how it is, so that it takes no traffic before it said that it is well.
    pub probed: bool,
}

/// What a connected proxy says of its machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// The group that it wants to be of, in the namespace of its identity.
    pub group: Arc<str>,
    /// Whether the machine is well; `None`: nothing was said of that yet.
    pub healthy: Option<bool>,
}

impl WorkloadGroup {
    /// The workload that a connected proxy is by this group; `None`: it proves another account, and
    /// is nobody by it.
    pub fn workload(&self, connection: &Connection, member: &Member) -> Option<Workload> {
        let Connection { identity, address } = connection;
        let id = &self.origin.id;
        let own = *id.namespace == *identity.namespace()
            && *self.service_account == *identity.service_account();
        let name: Arc<str> = format!("{}-{}", id.name, word(*address)).into();
        own.then(|| Workload {
            id: WorkloadId { namespace: id.namespace.clone(), name },
            origin: self.origin.clone(),
            addresses: vec![*address],
            host: None,
            labels: self.labels.clone(),
            service_account: self.service_account.clone(),
            mesh_tls: self.mesh_tls,
            locality: self.locality.clone(),
            discovery: Discovery::Selectors,
            named_ports: self.ports.clone(),
            container_ports: Vec::new(),
            weight: self.weight,
            network: self.network.clone(),
            node: "".into(),
            workload_name: id.name.clone(),
            ready: member.healthy.unwrap_or(!self.probed),
            registered: true,
            host_network: false,
            edge: None,
        })
    }
}

/// An address as part of a name.
fn word(address: IpAddr) -> String {
    address.to_string().replace(':', "-")
}
