//! What `istioctl` and Kiali ask of a control plane, in the shapes of istiod's `/debug/*`: how far
//! proxies are, services, endpoints, objects, and what a proxy was sent in the form of Envoy's
//! `config_dump`. Secrets by name only. Spec: istio/istio `pilot/pkg/xds/debug.go`.

use std::sync::Arc;

use axum::{Json, extract::State};
use ferromesh_xds_translator::{
    dialect::Object,
    ir::{
        Endpoint, EndpointAddress, Health, Protocol, Resolution, Service, ServiceAddress,
        ServiceEndpoints, ServicePort, Visibility, topology::CLUSTER_NAME,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    api::Api,
    parameters::{NoParameters, Parameters},
    problem::Problem,
};
use crate::status::{ProxyStatus, Sync};

/// The type of proxies' dumps, and of what is in them.
const ADMIN: &str = "type.googleapis.com/envoy.admin.v3";
/// Groups of kinds that configure a mesh.
const GROUPS: [&str; 4] = ["istio.io", "ferromesh.io", "smi-spec.io", "linkerd.io"];

/// `GET /debug/syncz`
pub(super) async fn syncz(State(api): State<Arc<Api>>, _: Parameters<NoParameters>) -> Json<Value> {
    Json(api.proxies.list().iter().map(sync_status).collect())
}

/// What a proxy was sent and has accepted, each type by its version; empty: not sent.
fn sync_status(proxy: &ProxyStatus) -> Value {
    const TYPES: [(&str, &str); 5] = [
        ("cluster", "CDS"),
        ("listener", "LDS"),
        ("route", "RDS"),
        ("endpoint", "EDS"),
        ("extensionconfig", "ECDS"),
    ];
    let mut status = json!({
        "cluster_id": CLUSTER_NAME,
        "proxy": proxy.id.split('~').nth(2).unwrap_or(&proxy.id),
        "proxy_type": proxy.kind,
        "proxy_version": proxy.version,
        "istio_version": env!("CARGO_PKG_VERSION"),
    });
    for (name, short) in TYPES {
        let (sent, acked) = match proxy.sync.get(short) {
            None | Some(Sync::NotSent) => (String::new(), String::new()),
            Some(Sync::Synced { version }) => (version.to_string(), version.to_string()),
            Some(Sync::Stale { version } | Sync::Nack { version, .. }) => {
                (version.to_string(), String::new())
            }
        };
        status[format!("{name}_sent")] = json!(sent);
        status[format!("{name}_acked")] = json!(acked);
    }
    status
}

/// `GET /debug/registryz`
pub(super) async fn registryz(
    State(api): State<Arc<Api>>,
    _: Parameters<NoParameters>,
) -> Result<Json<Value>, Problem> {
    let snapshot = api.mesh.snapshot().await?;
    Ok(Json(snapshot.all_services().map(|(service, _)| registered(service)).collect()))
}

fn registered(service: &Service) -> Value {
    let addresses: Vec<String> = service.addresses.iter().map(address).collect();
    let export_to: Map<String, Value> = match &service.export_to {
        Visibility::Public => Map::from_iter([("*".to_owned(), json!({}))]),
        Visibility::Namespaces(names) => {
            names.iter().map(|name| (name.to_string(), json!({}))).collect()
        }
    };
    let ports = service.ports.iter().map(|port| {
        json!({
            "name": port.name, "port": port.number,
            "protocol": protocol(port.protocol),
        })
    });
    json!({
        "Attributes": {
            "ServiceRegistry": if service.kubernetes { "Kubernetes" } else { "External" },
            "Name": service.origin.id.name,
            "Namespace": service.key.namespace,
            "Labels": service.labels,
            "ExportTo": export_to,
            "LabelSelectors": service.selector.as_ref().map(|selector| &selector.labels),
        },
        "hostname": service.key.host.as_str(),
        "ports": ports.collect::<Vec<_>>(),
        "clusterVIPs": { "Addresses": { CLUSTER_NAME: addresses } },
        "defaultAddress": addresses.first(),
        "Resolution": resolution(service),
        "MeshExternal": service.external,
    })
}

fn address(address: &ServiceAddress) -> String {
    match address {
        ServiceAddress::Ip(address) => address.to_string(),
        ServiceAddress::Net(network) => network.to_string(),
    }
}

/// Istio's names of protocols.
fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Http2 => "HTTP2",
        Protocol::Grpc => "GRPC",
        Protocol::GrpcWeb => "GRPC-Web",
        Protocol::Https => "HTTPS",
        Protocol::Tls => "TLS",
        Protocol::Tcp => "TCP",
        Protocol::Mongo => "Mongo",
        Protocol::Redis => "Redis",
        Protocol::Mysql => "MySQL",
        Protocol::Auto => "UnsupportedProtocol",
    }
}

/// Istio's numbers of resolutions.
fn resolution(service: &Service) -> u8 {
    match &service.resolution {
        Resolution::Static => 0,
        Resolution::Dns { round_robin: false } => 1,
        Resolution::OriginalDst => 2,
        Resolution::Dns { round_robin: true } => 3,
        Resolution::Alias(_) => 4,
        Resolution::Named => 5,
    }
}

/// `GET /debug/endpointz`
pub(super) async fn endpointz(
    State(api): State<Arc<Api>>,
    _: Parameters<NoParameters>,
) -> Result<Json<Value>, Problem> {
    let snapshot = api.mesh.snapshot().await?;
    let served = snapshot.all_services().filter_map(|(service, all)| Some((service, all?)));
    Ok(Json(served.flat_map(|(service, all)| endpoints(service, all)).collect()))
}

fn endpoints(service: &Service, all: &ServiceEndpoints) -> Vec<Value> {
    let of_port = |port: &ServicePort| {
        let found = all.ports.get(&port.number)?;
        let host = service.key.host.as_str();
        let shown: Vec<Value> = found.iter().map(|e| endpoint(&port.name, e)).collect();
        Some(json!({ "svc": format!("{host}:{}", port.name), "ep": shown }))
    };
    service.ports.iter().filter_map(of_port).collect()
}

fn endpoint(port_name: &str, endpoint: &Endpoint) -> Value {
    let (address, port) = match &endpoint.address {
        EndpointAddress::Ip(address, port) => (address.to_string(), *port),
        EndpointAddress::Host(host, port) => (host.to_string(), *port),
        EndpointAddress::Pipe(path) => (path.to_string(), 0),
    };
    let place = &endpoint.locality;
    let locality = [&place.region, &place.zone, &place.sub_zone];
    let locality = locality.map(|part| part.to_string()).join("/");
    json!({
        "Address": address,
        "EndpointPort": port,
        "ServicePortName": port_name,
        "Labels": endpoint.labels,
        "ServiceAccount": endpoint.identity,
        "Network": endpoint.network,
        "Locality": { "Label": locality.trim_end_matches('/'), "ClusterID": CLUSTER_NAME },
        "LbWeight": endpoint.weight,
        "WorkloadName": endpoint.workload_name,
        "Namespace": endpoint.workload.as_ref().map(|workload| &workload.namespace),
        "NodeName": endpoint.node,
        "HealthStatus": u8::from(endpoint.health != Health::Healthy),
    })
}

/// `GET /debug/clusterz`
pub(super) async fn clusterz(
    State(api): State<Arc<Api>>,
    _: Parameters<NoParameters>,
) -> Json<Value> {
    let state = if api.mesh.is_synced() { "synced" } else { "syncing" };
    Json(json!([{ "id": CLUSTER_NAME, "secretName": "", "syncStatus": state }]))
}

/// `GET /debug/configz`
pub(super) async fn configz(
    State(api): State<Arc<Api>>,
    _: Parameters<NoParameters>,
) -> Result<Json<Value>, Problem> {
    let mut objects = api.mesh.objects().await?;
    objects.retain(|(_, object)| configures(object));
    objects.sort_by(|(_, one), (_, other)| one.id.cmp(&other.id));
    Ok(Json(objects.iter().map(|(_, object)| object.to_json()).collect()))
}

/// Whether an object is of a mesh's kinds: Secrets and whatever else a cluster has is not shown.
fn configures(object: &Object) -> bool {
    let group = object.id.kind.group();
    GROUPS.iter().any(|ours| group.ends_with(ours))
}

/// Whose configuration is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfProxy {
    /// `NAME.NAMESPACE`, or a node id.
    #[serde(rename = "proxyID")]
    proxy: String,
}

/// `GET /debug/config_dump?proxyID=NAME.NAMESPACE`
pub(super) async fn config_dump(
    State(api): State<Arc<Api>>,
    Parameters(of): Parameters<OfProxy>,
) -> Result<Json<Value>, Problem> {
    let proxy = api
        .proxies
        .find(&of.proxy)
        .ok_or_else(|| Problem::not_found(format!("no proxy {:?} is connected", of.proxy)))?;
    let mut views = Vec::new();
    for key in proxy.view_keys() {
        views.push(api.mesh.lease(&key).await?.current());
    }
    Ok(Json(as_envoy_dumps(proxy.dump(&views))))
}

/// What a proxy was sent, by sections, in the form of Envoy's admin interface.
fn as_envoy_dumps(mut sections: Value) -> Value {
    let mut list = |section: &str, of: &str| -> Vec<Value> {
        let taken = sections.get_mut(section).map(Value::take).unwrap_or_default();
        let typed = |mut resource: Value| {
            if let Value::Object(fields) = &mut resource {
                fields.insert("@type".to_owned(), json!(format!("type.googleapis.com/{of}")));
            }
            resource
        };
        let Value::Array(resources) = taken else { return Vec::new() };
        resources.into_iter().map(typed).collect()
    };
    let each = |field: &str, resources: Vec<Value>| -> Vec<Value> {
        resources.into_iter().map(|resource| json!({ field: resource })).collect()
    };
    let clusters = each("cluster", list("clusters", "envoy.config.cluster.v3.Cluster"));
    let routes = each("route_config", list("routes", "envoy.config.route.v3.RouteConfiguration"));
    let assignments = "envoy.config.endpoint.v3.ClusterLoadAssignment";
    let endpoints = each("endpoint_config", list("endpoints", assignments));
    let extensions = "envoy.config.core.v3.TypedExtensionConfig";
    let extensions = each("ecds_filter", list("extensions", extensions));
    let listeners = list("listeners", "envoy.config.listener.v3.Listener").into_iter();
    let listeners = listeners
        .map(|l| json!({ "name": l["name"], "active_state": { "listener": l } }))
        .collect::<Vec<_>>();
    let secrets = each("name", list("secrets", ""));
    json!({ "configs": [
        { "@type": format!("{ADMIN}.ClustersConfigDump"), "dynamic_active_clusters": clusters },
        { "@type": format!("{ADMIN}.EndpointsConfigDump"), "dynamic_endpoint_configs": endpoints },
        { "@type": format!("{ADMIN}.ListenersConfigDump"), "dynamic_listeners": listeners },
        { "@type": format!("{ADMIN}.RoutesConfigDump"), "dynamic_route_configs": routes },
        { "@type": format!("{ADMIN}.EcdsConfigDump"), "ecds_filters": extensions },
        { "@type": format!("{ADMIN}.SecretsConfigDump"), "dynamic_active_secrets": secrets },
    ] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_has_the_form_of_envoys_admin_interface_and_secrets_names_only() {
        let sections = json!({
            "clusters": [{ "name": "a" }], "listeners": [{ "name": "l" }], "routes": [],
            "endpoints": [{ "clusterName": "a" }], "secrets": ["kubernetes://web-cert"],
        });
        let dump = as_envoy_dumps(sections);
        let configs = dump["configs"].as_array().expect("a list");
        let cluster = &configs[0]["dynamic_active_clusters"][0]["cluster"];
        assert_eq!(cluster["name"], "a");
        assert_eq!(cluster["@type"], "type.googleapis.com/envoy.config.cluster.v3.Cluster");
        assert_eq!(configs[2]["dynamic_listeners"][0]["active_state"]["listener"]["name"], "l");
        let secrets = &configs[5]["dynamic_active_secrets"];
        assert_eq!(*secrets, json!([{ "name": "kubernetes://web-cert" }]));
    }
}
