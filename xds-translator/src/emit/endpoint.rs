//! Endpoints, in EDS and inside clusters.

use super::{
    any::uint32,
    metadata,
    pb::{core, endpoint},
};
use crate::{
    ir::{Health, Locality},
    plan::{AssignmentPlan, EndpointPlan, LocalityEndpoints, PlannedAddress},
};

/// An EDS resource.
pub(super) fn assignment(plan: &AssignmentPlan) -> endpoint::ClusterLoadAssignment {
    load_assignment(&plan.cluster, &plan.localities)
}

/// The endpoints of the cluster `name`.
pub(super) fn load_assignment(
    name: &str,
    localities: &[LocalityEndpoints],
) -> endpoint::ClusterLoadAssignment {
    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: localities.iter().map(locality_endpoints).collect(),
        ..Default::default()
    }
}

fn locality_endpoints(plan: &LocalityEndpoints) -> endpoint::LocalityLbEndpoints {
    endpoint::LocalityLbEndpoints {
        locality: Some(locality(&plan.locality)),
        lb_endpoints: plan.endpoints.iter().map(lb_endpoint).collect(),
        load_balancing_weight: plan.weight.and_then(uint32),
        priority: plan.priority,
        ..Default::default()
    }
}

fn locality(plan: &Locality) -> core::Locality {
    core::Locality {
        region: plan.region.to_string(),
        zone: plan.zone.to_string(),
        sub_zone: plan.sub_zone.to_string(),
    }
}

fn lb_endpoint(plan: &EndpointPlan) -> endpoint::LbEndpoint {
    let health = match plan.health {
        Health::Healthy => core::HealthStatus::Healthy,
        Health::Unhealthy => core::HealthStatus::Unhealthy,
    };
    let host =
        endpoint::Endpoint { address: Some(planned_address(&plan.address)), ..Default::default() };
    endpoint::LbEndpoint {
        health_status: health as i32,
        metadata: metadata::endpoint(plan),
        load_balancing_weight: uint32(plan.weight),
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)),
    }
}

fn planned_address(plan: &PlannedAddress) -> core::Address {
    match plan {
        PlannedAddress::Ip(ip, port) => address(ip.to_string(), *port),
        PlannedAddress::Host(name, port) => address(name.to_string(), *port),
        PlannedAddress::Pipe(path) => {
            let pipe = core::Pipe { path: path.to_string(), ..Default::default() };
            core::Address { address: Some(core::address::Address::Pipe(pipe)) }
        }
    }
}

/// An address with its port.
pub(super) fn address(host: String, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(socket_address(host, port))),
    }
}

/// A TCP address with its port.
pub(super) fn socket_address(host: String, port: u16) -> core::SocketAddress {
    core::SocketAddress {
        address: host,
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        emit::tests::{self, assignment},
        plan::{AssignmentPlan, PlanItem},
    };

    #[test]
    fn endpoints_carry_what_chooses_their_socket() {
        tests::check(
            &PlanItem::Assignment(assignment()),
            &[
                ("/endpoints/0/locality", r#"{"region":"r","zone":"z"}"#),
                ("/endpoints/0/load_balancing_weight", "4"),
                (
                    "/endpoints/0/lb_endpoints/0",
                    r#"{"endpoint":{"address":{"socket_address":{"address":"10.0.0.1","port_value":9080}}},
                        "health_status":"HEALTHY","load_balancing_weight":2,
                        "metadata":{"filter_metadata":{"envoy.transport_socket_match":{"tlsMode":"istio"},
                            "istio":{"workload":"reviews-v1-0;default;reviews;v1;Kubernetes"}}}}"#,
                ),
                ("/endpoints/0/lb_endpoints/1/health_status", r#""UNHEALTHY""#),
                (
                    "/endpoints/0/lb_endpoints/1/metadata/filter_metadata",
                    r#"{"istio":{"workload":"reviews-v1-0;default;reviews;v1;Kubernetes"}}"#,
                ),
                ("/endpoints/1/priority", "1"),
                ("/endpoints/1/lb_endpoints/1/endpoint/address/pipe/path", r#""/run/app.sock""#),
            ],
        );
    }

    #[test]
    fn no_endpoints_are_an_empty_assignment() {
        let empty = AssignmentPlan { cluster: "a".into(), localities: Vec::new() };
        tests::check(&PlanItem::Assignment(empty), &[("", r#"{"cluster_name":"a"}"#)]);
    }
}
