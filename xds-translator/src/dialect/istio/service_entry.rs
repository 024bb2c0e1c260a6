//! `networking.istio.io ServiceEntry` and `WorkloadEntry`: fields only.

use std::{collections::BTreeMap, sync::Arc};

use super::shared::{LabelSelector, Port};
use crate::dialect::schema::{choice, object};

object! {
    /// Hosts that are not Kubernetes services.
    ServiceEntry {
        /// The hosts.
        "hosts" hosts: Vec<Arc<str>> [required],
        /// Their virtual addresses or networks.
        "addresses" addresses: Vec<Arc<str>> [no_null],
        /// Their ports.
        "ports" ports: Vec<Port>,
        /// Inside or outside the mesh.
        "location" location: Location [no_null],
        /// How endpoints are found.
        "resolution" resolution: Resolution,
        /// Endpoints.
        "endpoints" endpoints: Vec<WorkloadEntry>,
        /// Selects pods and WorkloadEntries of the namespace as endpoints.
        "workloadSelector" workload_selector: Option<LabelSelector> [no_null],
        /// Namespaces that may use it: `.`, `*` or names.
        "exportTo" export_to: Vec<Arc<str>> [no_null],
        /// Names that the servers' certificates must carry.
        "subjectAltNames" subject_alt_names: Vec<Arc<str>> [no_null],
    }
}

choice! {
    /// Inside or outside the mesh.
    Location {
        /// Outside: no automatic mutual TLS.
        MeshExternal = "MESH_EXTERNAL",
        /// Inside.
        MeshInternal = "MESH_INTERNAL",
    }
}

choice! {
    /// How endpoints are found.
    Resolution {
        /// Wherever the client was going.
        None = "NONE",
        /// The endpoints given.
        Static = "STATIC",
        /// DNS, every address.
        Dns = "DNS",
        /// DNS, one address at a time.
        DnsRoundRobin = "DNS_ROUND_ROBIN",
        /// DNS of the name the client asks for; wildcard hosts only.
        DynamicDns = "DYNAMIC_DNS",
    }
}

object! {
    /// A workload that is not a pod.
    WorkloadEntry {
        /// Address, DNS name or `unix:///path`.
        "address" address: Arc<str>,
        /// Port numbers at the workload, by port name.
        "ports" ports: BTreeMap<Arc<str>, u16>,
        /// Its labels.
        "labels" labels: BTreeMap<Arc<str>, Arc<str>> [no_null],
        /// Its network.
        "network" network: Arc<str>,
        /// `region/zone/sub-zone`.
        "locality" locality: Arc<str>,
        /// Load-balancing weight.
        "weight" weight: Option<u32>,
        /// Its service account.
        "serviceAccount" service_account: Arc<str> [no_null],
    }
}
