//! The objects of the mesh that is measured: services spread over namespaces, endpoints written
//! directly, and weighted routes for a tenth of the services.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// Namespaces of services and clients.
pub(crate) const NAMESPACES: usize = 50;
/// Endpoints of a service.
pub(crate) const ENDPOINTS: usize = 10;
/// The one port of every service, and so the name of the one route configuration.
pub(crate) const PORT: &str = "80";

/// A collection of the API, as its path has it.
#[derive(Clone, Copy)]
pub(crate) enum Collection {
    /// Services.
    Services,
    /// EndpointSlices.
    EndpointSlices,
    /// VirtualServices.
    VirtualServices,
}

impl Collection {
    /// The path of a namespace's objects.
    pub(crate) fn path(self, namespace: &str) -> String {
        let (group, plural) = match self {
            Self::Services => ("/api/v1", "services"),
            Self::EndpointSlices => ("/apis/discovery.k8s.io/v1", "endpointslices"),
            Self::VirtualServices => ("/apis/networking.istio.io/v1", "virtualservices"),
        };
        format!("{group}/namespaces/{namespace}/{plural}")
    }
}

/// The namespace that the service or client with this number lives in.
pub(crate) fn namespace(number: usize) -> String {
    format!("bench-{:02}", number % NAMESPACES)
}

/// Name of a service and of what belongs to it.
pub(crate) fn name(number: usize) -> String {
    format!("service-{number:05}")
}

fn host(number: usize) -> String {
    format!("{}.{}.svc.cluster.local", name(number), namespace(number))
}

/// Name of a service's cluster and assignment.
pub(crate) fn cluster(number: usize) -> String {
    format!("outbound|{PORT}||{}", host(number))
}

// kube-proxy passes over what another is said to care for: its work is not to be measured.
fn metadata(number: usize) -> Value {
    json!({
        "name": name(number),
        "namespace": namespace(number),
        "labels": {"service.kubernetes.io/service-proxy-name": "none", "kubernetes.io/service-name": name(number)},
    })
}

/// A Service without selector.
pub(crate) fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(number),
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

/// The first `count` endpoints of a service.
pub(crate) fn endpoints(number: usize, count: usize) -> Value {
    let first = u32::from(Ipv4Addr::new(10, 200, 0, 0))
        + u32::try_from(number * ENDPOINTS).expect("a small mesh");
    let address = |address: u32| json!({"addresses": [Ipv4Addr::from(address)], "conditions": {"ready": true}});
    (first..).take(count).map(address).collect()
}

/// The slice of all endpoints of a service.
pub(crate) fn slice(number: usize) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata(number),
        "addressType": "IPv4",
        "endpoints": endpoints(number, ENDPOINTS),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

/// What a VirtualService says: so much to the service itself, the rest to the next.
pub(crate) fn routes(number: usize, services: usize, weight: u32) -> Value {
    let destination = |number: usize, weight: u32| json!({"destination": {"host": host(number)}, "weight": weight});
    let next = (number + 1) % services;
    json!({"hosts": [host(number)], "http": [{"route": [destination(number, weight), destination(next, 100 - weight)]}]})
}

/// The VirtualService of a service.
pub(crate) fn virtual_service(number: usize, services: usize) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": metadata(number),
        "spec": routes(number, services, 90),
    })
}
