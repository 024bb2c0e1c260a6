//! Gateways that pass the mesh's own mutual TLS on.

use std::collections::BTreeSet;

use ferromesh_proto::ResourceType;
use serde_json::{Value, json};

use super::universe::{nodes, upsert};
use crate::{
    compiler::{Change, Compiler},
    debug::to_json,
    dialect::Kind,
    ir::MeshDefaults,
};

fn pod(name: &str, ip: &str, tls: &str) -> Change {
    let labels = json!({"app": "cart", "version": name, "security.istio.io/tlsMode": tls});
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    let content = json!({
        "metadata": {"labels": labels},
        "spec": {"serviceAccountName": "cart"},
        "status": {"phase": "Running", "podIP": ip, "conditions": conditions},
    });
    upsert(Kind::POD, "shop", name, 0, content)
}

fn mesh() -> Vec<Change> {
    let service = json!({
        "selector": {"app": "cart"}, "clusterIP": "10.0.0.1",
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
    });
    let rule = json!({"host": "cart", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]});
    let outside = json!({
        "hosts": ["out.local"], "location": "MESH_EXTERNAL", "resolution": "DNS",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
    });
    let many = json!({
        "hosts": ["*.many.local"], "location": "MESH_INTERNAL", "resolution": "NONE",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
    });
    let server = json!({
        "port": {"number": 15443, "name": "tls", "protocol": "TLS"},
        "hosts": ["*.local"], "tls": {"mode": "AUTO_PASSTHROUGH"},
    });
    let gateway = json!({"selector": {"istio": "ingressgateway"}, "servers": [server]});
    vec![
        upsert(Kind::SERVICE, "shop", "cart", 0, json!({ "spec": service })),
        upsert(Kind::DESTINATION_RULE, "shop", "cart", 0, json!({ "spec": rule })),
        upsert(Kind::SERVICE_ENTRY, "shop", "out", 0, json!({ "spec": outside })),
        upsert(Kind::SERVICE_ENTRY, "shop", "many", 0, json!({ "spec": many })),
        upsert(Kind::GATEWAY, "edge", "relay", 0, json!({ "spec": gateway })),
        pod("v1", "10.1.0.1", "istio"),
        pod("v2", "10.1.0.2", "disabled"),
    ]
}

fn sent(compiler: &mut Compiler, kind: ResourceType, name: &str) -> Value {
    let node = nodes().into_iter().find(|node| &*node.workload.name == "edge").expect("a gateway");
    let class = compiler.classify(&node).expect("the universe's nodes have a class");
    let views: Vec<_> = class.views.iter().map(|key| compiler.view(key)).collect();
    let found = views.iter().find_map(|view| view.tables[kind.index()].get(name));
    to_json(kind, &found.unwrap_or_else(|| panic!("no {name}")).body).expect("readable")
}

#[test]
fn what_names_a_port_or_a_subset_goes_to_endpoints_that_take_mutual_tls() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(mesh());
    let listener = sent(&mut compiler, ResourceType::Listener, "0.0.0.0_15443");
    let chains = listener["filter_chains"].as_array().expect("a list");
    let names: Vec<&Value> =
        chains.iter().map(|chain| &chain["filter_chain_match"]["server_names"][0]).collect();
    let (whole, subset) = (
        "outbound_.80_._.cart.shop.svc.cluster.local",
        "outbound_.80_.v1_.cart.shop.svc.cluster.local",
    );
    assert_eq!(names, [whole, subset], "and nothing outside of the mesh");
    for (chain, name) in chains.iter().zip([whole, subset]) {
        assert_eq!(chain["filters"][0]["typed_config"]["cluster"], name);
        assert_eq!(chain["filter_chain_match"]["application_protocols"][0], "istio");
        assert!(chain["transport_socket"].is_null(), "it takes no TLS off");
        let cluster = sent(&mut compiler, ResourceType::Cluster, name);
        assert!(cluster["transport_socket_matches"].is_null(), "{cluster:#}");
        assert!(cluster["transport_socket"].is_null(), "and adds none");
        let assignment = sent(&mut compiler, ResourceType::Endpoint, name);
        let text = assignment.to_string();
        assert!(text.contains("10.1.0.1") && !text.contains("10.1.0.2"), "{text}");
    }
}

/// The names of the network filters of a listener's chains, each once.
fn filters(listener: &Value) -> BTreeSet<&str> {
    let chains = listener["filter_chains"].as_array().expect("a list").iter();
    let filters = chains.flat_map(|chain| chain["filters"].as_array().expect("a list"));
    filters.map(|filter| filter["name"].as_str().expect("a name")).collect()
}

#[test]
fn access_is_judged_where_the_mutual_tls_ends() {
    let server = |number: u16, mode: &str| {
        json!({
            "port": {"number": number, "name": format!("tls-{number}"), "protocol": "TLS"},
            "hosts": ["*.local"], "tls": {"mode": mode},
        })
    };
    let servers = [server(15443, "AUTO_PASSTHROUGH"), server(8443, "PASSTHROUGH")];
    let gateway = json!({"selector": {"istio": "ingressgateway"}, "servers": servers});
    let host = "cart.shop.svc.cluster.local";
    let rule = json!({
        "match": [{"sniHosts": [host]}],
        "route": [{"destination": {"host": host, "port": {"number": 80}}}],
    });
    let routes = json!({"hosts": [host], "gateways": ["edge/relay"], "tls": [rule]});
    let from = json!({"source": {"namespaces": ["shop"]}});
    let policy = json!({"rules": [{"from": [from]}]});
    let mut compiler = Compiler::new(MeshDefaults::default());
    let mut changes = mesh();
    changes.push(upsert(Kind::GATEWAY, "edge", "relay", 0, json!({ "spec": gateway })));
    changes.push(upsert(Kind::VIRTUAL_SERVICE, "shop", "cart", 0, json!({ "spec": routes })));
    changes.push(upsert(
        Kind::AUTHORIZATION_POLICY,
        "istio-system",
        "a",
        0,
        json!({ "spec": policy }),
    ));
    compiler.apply(changes);
    let proxy = "envoy.filters.network.tcp_proxy";
    let relay = sent(&mut compiler, ResourceType::Listener, "0.0.0.0_15443");
    assert_eq!(filters(&relay), BTreeSet::from([proxy]));
    let other = sent(&mut compiler, ResourceType::Listener, "0.0.0.0_8443");
    assert_eq!(filters(&other), BTreeSet::from(["envoy.filters.network.rbac", proxy]));
}
