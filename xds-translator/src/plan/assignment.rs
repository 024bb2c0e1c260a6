//! Endpoints of a cluster: filtered by subset, grouped by locality, marked for mutual TLS.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    AssignmentPlan, ClusterClient, ClusterKey, EndpointPlan, LocalityEndpoints, PlanItem,
    PlannedAddress,
    locality::{self, ClientPlace, Spread},
    traffic::{MergedPolicy, whole_policies},
};
use crate::{
    ir::{
        Endpoint, EndpointAddress, Health, Hostname, Locality, PeerTls, Service,
        canonical_revision, canonical_service, topology,
    },
    snapshot::Reader,
};

/// The cluster whose endpoints are planned.
pub(crate) struct Assigned<'a> {
    pub(crate) key: &'a ClusterKey,
    pub(crate) service: &'a Service,
    pub(crate) merged: &'a MergedPolicy<'a>,
    /// Whether endpoints may be names: not in EDS, where Envoy would refuse all of them.
    pub(crate) names: bool,
}

/// Plans an assignment; `None` when the service, the port or the subset is gone. Without endpoints
/// it is empty, which a client must be told, or it waits for ever.
pub(crate) fn plan_assignment(reader: &Reader<'_>, key: &ClusterKey) -> Option<PlanItem> {
    let service = reader.service(&key.service)?;
    service.port(key.port)?;
    let policies = whole_policies(reader, key);
    let merged = MergedPolicy::new(&policies);
    if !merged.has_subset(&key.subset) {
        return None;
    }
    let localities = localities(reader, &Assigned { key, service, merged: &merged, names: false });
    Some(PlanItem::Assignment(AssignmentPlan { cluster: key.resource_name(), localities }))
}

/// Whether more than one endpoint of a cluster can take requests.
pub(crate) fn has_several(reader: &Reader<'_>, assigned: &Assigned<'_>) -> bool {
    members(reader, assigned).filter(|e| e.health == Health::Healthy).nth(1).is_some()
}

/// The endpoints of a cluster, healthy or not, whose proxies are not away.
fn members<'a>(
    reader: &'a Reader<'a>,
    assigned: &'a Assigned<'a>,
) -> impl Iterator<Item = &'a Endpoint> {
    let (key, service) = (assigned.key, assigned.service);
    let subset = assigned.merged.subset(&key.subset);
    let endpoints = reader.endpoints(&key.service);
    let endpoints = endpoints.and_then(|all| all.ports.get(&key.port)).into_iter().flatten();
    endpoints.filter(move |endpoint| {
        !reader.is_away(endpoint)
            && (assigned.names || !matches!(endpoint.address, EndpointAddress::Host(..)))
            && (key.client != ClusterClient::Relay || speaks_mesh_tls(reader, service, endpoint))
            && subset.is_none_or(|s| s.selects(|label| endpoint.label(label)))
    })
}

/// The endpoints of a cluster, by priority and locality.
pub(crate) fn localities(reader: &Reader<'_>, assigned: &Assigned<'_>) -> Vec<LocalityEndpoints> {
    let (key, service) = (assigned.key, assigned.service);
    let traffic = assigned.merged.traffic(reader.mesh(), key.port, &key.subset);
    // With a panic threshold, unhealthy endpoints would count towards it although nobody may use
    // them.
    let healthy_only =
        traffic.outlier.as_ref().and_then(|o| o.min_health_percent).is_some_and(|p| p > 0);
    let mut groups: BTreeMap<Locality, Vec<Endpoint>> = BTreeMap::new();
    for endpoint in members(reader, assigned) {
        if !healthy_only || endpoint.health == Health::Healthy {
            groups.entry(endpoint.locality.clone()).or_default().push(endpoint.clone());
        }
    }
    let client = ClientPlace { locality: key.locality.as_ref(), labels: &key.client_labels };
    let arranged = match Spread::of(reader.mesh(), service, &traffic, client.locality) {
        Some(spread) => spread.arrange(&client, groups),
        None => {
            groups.into_iter().map(|(locality, endpoints)| (locality, 0, None, endpoints)).collect()
        }
    };
    arranged
        .into_iter()
        .map(|group| locality::spell(group, |e| plan_endpoint(reader, service, &e)))
        .collect()
}

/// The one endpoint of an alias whose target the mesh does not know.
pub(crate) fn alias_endpoints(target: &Hostname, port: u16) -> Vec<LocalityEndpoints> {
    let endpoint = EndpointPlan {
        address: PlannedAddress::Host(target.shared(), port),
        health: Health::Healthy,
        weight: 1,
        mesh_tls: false,
        workload: None,
    };
    vec![LocalityEndpoints {
        locality: Locality::default(),
        priority: 0,
        weight: Some(1),
        endpoints: vec![endpoint],
    }]
}

fn plan_endpoint(reader: &Reader<'_>, service: &Service, endpoint: &Endpoint) -> EndpointPlan {
    EndpointPlan {
        mesh_tls: speaks_mesh_tls(reader, service, endpoint),
        workload: endpoint
            .workload
            .as_ref()
            .map(|id| workload_metadata(&id.name, &id.namespace, endpoint)),
        ..bare(endpoint.clone())
    }
}

/// An endpoint that is counted, and never called.
pub(crate) fn bare(endpoint: Endpoint) -> EndpointPlan {
    EndpointPlan {
        address: match endpoint.address {
            EndpointAddress::Ip(address, port) => PlannedAddress::Ip(address, port),
            EndpointAddress::Host(host, port) => PlannedAddress::Host(host.shared(), port),
            EndpointAddress::Pipe(path) => PlannedAddress::Pipe(path),
        },
        health: endpoint.health,
        weight: endpoint.weight.max(1),
        mesh_tls: false,
        workload: None,
    }
}

fn speaks_mesh_tls(reader: &Reader<'_>, service: &Service, endpoint: &Endpoint) -> bool {
    !service.external
        && reader.has_mesh_proxy(endpoint)
        && takes_mesh_tls(reader, service, endpoint)
}

/// A workload whose policy is DISABLE is called in plaintext; clients learn that from the endpoint
/// alone.
fn takes_mesh_tls(reader: &Reader<'_>, service: &Service, endpoint: &Endpoint) -> bool {
    let port = match &endpoint.address {
        EndpointAddress::Ip(_, port) | EndpointAddress::Host(_, port) => Some(*port),
        EndpointAddress::Pipe(_) => None,
    };
    let namespace = endpoint.workload.as_ref().map_or(&service.key.namespace, |id| &id.namespace);
    reader.peer_tls(namespace, &endpoint.labels, port) != PeerTls::Disable
}

/// `name;namespace;canonical service;canonical revision;cluster`, which telemetry reads.
fn workload_metadata(pod: &str, namespace: &str, endpoint: &Endpoint) -> Arc<str> {
    let name = if endpoint.workload_name.is_empty() { pod } else { &endpoint.workload_name };
    let service = canonical_service(&endpoint.labels).unwrap_or(name);
    let revision = canonical_revision(&endpoint.labels);
    let revision = revision.filter(|&r| r != "latest").unwrap_or_default();
    let cluster = topology::CLUSTER_NAME;
    format!("{name};{namespace};{service};{revision};{cluster}").into()
}
