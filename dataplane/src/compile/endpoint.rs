//! EDS assignments, and endpoints written into clusters.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::{
    check_name,
    field::{At, Invalid, each, host_and_port, metadata_strings, number, required},
};
use crate::runtime::endpoint::{
    Endpoint, EndpointAddress, EndpointSet, HealthStatus, Locality, LocalityEndpoints,
};
use envoy_types::pb::envoy::config::{
    core::v3::HealthStatus as WireHealth,
    endpoint::v3::{
        ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
    },
};

const DEFAULT_OVERPROVISIONING: u32 = 140;

/// Compiles an EDS resource, whose endpoints must be addresses.
pub(super) fn compile(name: &str, message: &ClusterLoadAssignment) -> Result<EndpointSet, Invalid> {
    check_name(name, &message.cluster_name)
        .map_err(|error| Invalid::new(error.reason).at("cluster_name"))?;
    let set = assignment(message)?;
    let mut all = set.localities.iter().flat_map(|locality| &locality.endpoints);
    match all.find(|endpoint| matches!(endpoint.address, EndpointAddress::Name { .. })) {
        Some(endpoint) => {
            Err(Invalid::new(format!("expected an IP address, got {:?}", endpoint.address))
                .at("endpoints"))
        }
        None => Ok(set),
    }
}

/// Compiles endpoints that are addresses or names.
pub(super) fn assignment(message: &ClusterLoadAssignment) -> Result<EndpointSet, Invalid> {
    let factor = message.policy.as_ref().and_then(|policy| policy.overprovisioning_factor.as_ref());
    let mut localities = each("endpoints", &message.endpoints, locality)?;
    localities.sort_by_key(|locality| locality.priority);
    Ok(EndpointSet {
        localities,
        overprovisioning_factor: number(factor, DEFAULT_OVERPROVISIONING),
    })
}

/// Metadata by which a cluster chooses how an endpoint is reached.
type SocketMatch = BTreeMap<Arc<str>, Arc<str>>;

/// How each address is to be reached.
pub(super) fn socket_matches(
    message: &ClusterLoadAssignment,
) -> Result<BTreeMap<SocketAddr, SocketMatch>, Invalid> {
    let endpoints = each(
        "endpoints",
        message.endpoints.iter().flat_map(|locality| &locality.lb_endpoints),
        endpoint,
    )?;
    let addressed = endpoints.iter().filter_map(|endpoint| match endpoint.address {
        EndpointAddress::Socket(address) => Some((address, endpoint.socket_match.clone())),
        EndpointAddress::Name { .. } => None,
    });
    Ok(addressed.collect())
}

fn locality(message: &LocalityLbEndpoints) -> Result<LocalityEndpoints, Invalid> {
    let place = message.locality.as_ref();
    let part = |text: Option<&String>| Arc::from(text.map(String::as_str).unwrap_or_default());
    Ok(LocalityEndpoints {
        locality: Locality {
            region: part(place.map(|place| &place.region)),
            zone: part(place.map(|place| &place.zone)),
            sub_zone: part(place.map(|place| &place.sub_zone)),
        },
        priority: message.priority,
        weight: number(message.load_balancing_weight.as_ref(), 1),
        endpoints: each("lb_endpoints", &message.lb_endpoints, endpoint)?,
    })
}

fn endpoint(message: &LbEndpoint) -> Result<Arc<Endpoint>, Invalid> {
    let Some(HostIdentifier::Endpoint(host)) = &message.host_identifier else {
        return Err(Invalid::new("expected an endpoint with an address").at("endpoint"));
    };
    let address = required("endpoint.address", host.address.as_ref())?;
    let (name, port) = host_and_port(address).at("endpoint.address")?;
    let metadata = message.metadata.as_ref();
    let workload = metadata_strings(metadata, "istio").find(|(key, _)| *key == "workload");
    Ok(Arc::new(Endpoint {
        address: match name.parse::<std::net::IpAddr>() {
            Ok(ip) => EndpointAddress::Socket((ip, port).into()),
            Err(_) => EndpointAddress::Name { host: name.into(), port },
        },
        weight: number(message.load_balancing_weight.as_ref(), 1).max(1),
        health: health(message.health_status),
        socket_match: metadata_strings(metadata, "envoy.transport_socket_match")
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
        workload: workload.map(|(_, value)| value.into()),
        hostname: Some(host.hostname.as_str()).filter(|name| !name.is_empty()).map(Into::into),
    }))
}

fn health(status: i32) -> HealthStatus {
    match WireHealth::try_from(status) {
        Ok(WireHealth::Unknown | WireHealth::Healthy) => HealthStatus::Healthy,
        Ok(WireHealth::Degraded) => HealthStatus::Degraded,
        Ok(WireHealth::Draining) => HealthStatus::Draining,
        Ok(WireHealth::Unhealthy | WireHealth::Timeout) | Err(_) => HealthStatus::Unhealthy,
    }
}
