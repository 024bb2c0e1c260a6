//! A proxy's own replicas, as the endpoints of a cluster that its bootstrap knows: by how they lie
//! over zones it balances over the zones of others (Envoy: `local_cluster_name`).

use std::{collections::BTreeMap, sync::Arc};

use ferromesh_proto::bootstrap::LOCAL_CLUSTER;

use super::{AssignmentPlan, Entry, Kinship, Outline, PeersKey, PlanItem, assignment, locality};
use crate::{
    ir::{Endpoint, EndpointAddress, Labels, Locality, topology},
    snapshot::Reader,
};

/// Labels by which controllers tell the pods of one template from those of another: while one
/// replaces the other, neither lies as evenly as both do.
const TEMPLATE_HASHES: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];

impl Kinship {
    /// By what the replicas of a workload are found: its labels, what metrics call it, and its name.
    pub(crate) fn of(labels: &Labels, controller: &Arc<str>, name: &str) -> Self {
        let chosen = |chosen: &dyn Fn(&str) -> bool| -> Labels {
            let of = labels.iter().filter(|(key, _)| chosen(key));
            of.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        if **controller == *name {
            Self::Labels(chosen(&|key| !is_place(key)))
        } else {
            Self::Controller(controller.clone(), chosen(&|key| TEMPLATE_HASHES.contains(&key)))
        }
    }
}

/// Whether a label says where something runs.
fn is_place(key: &str) -> bool {
    topology::ALL.contains(&key) || topology::LOCALITY.contains(&key)
}

/// Plans the assignment of [`LOCAL_CLUSTER`], which may be empty.
pub(crate) fn plan_peers(reader: &Reader<'_>, key: &PeersKey) -> Outline {
    let mut groups: BTreeMap<Locality, Vec<Endpoint>> = BTreeMap::new();
    let endpoints = reader.endpoints(&key.service);
    let endpoints = endpoints.and_then(|all| all.ports.get(&key.port)).into_iter().flatten();
    for endpoint in endpoints.filter(|e| is_peer(key, e) && !reader.is_away(e)) {
        groups.entry(endpoint.locality.clone()).or_default().push(endpoint.clone());
    }
    let groups = groups.into_iter().map(|(locality, peers)| (locality, 0, None, peers));
    let localities = groups.map(|group| locality::spell(group, assignment::bare)).collect();
    let mut outline = Outline::default();
    let plan = AssignmentPlan { cluster: LOCAL_CLUSTER.into(), localities };
    outline.extend([Entry::own(PlanItem::Assignment(plan))]);
    outline
}

fn is_peer(key: &PeersKey, endpoint: &Endpoint) -> bool {
    let Some(workload) = &endpoint.workload else { return false };
    let near = key.region.is_empty() || endpoint.locality.region == key.region;
    near && matches!(endpoint.address, EndpointAddress::Ip(..))
        && Kinship::of(&endpoint.labels, &endpoint.workload_name, &workload.name) == key.kinship
}
