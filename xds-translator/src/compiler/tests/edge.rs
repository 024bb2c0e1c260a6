//! What stands before gateways: of the mesh, and of one by its own annotation.

use ferromesh_proto::ResourceType;
use serde_json::json;

use super::universe::{nodes, upsert};
use crate::{
    compiler::{Change, Compiler},
    debug::to_json,
    dialect::Kind,
    ir::MeshDefaults,
};

fn gateway_pod(config: &str) -> Change {
    let labels = json!({"istio": "ingressgateway"});
    let annotations = match config {
        "" => json!({}),
        config => json!({"proxy.istio.io/config": config}),
    };
    let content = json!({
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"serviceAccountName": "edge"},
        "status": {"phase": "Running", "podIP": "10.99.0.8"},
    });
    upsert(Kind::POD, "istio-system", "edge", 0, content)
}

/// Trusted hops, and what becomes of the client's certificate.
fn seen(compiler: &mut Compiler) -> (u64, String) {
    let node = nodes().into_iter().find(|node| &*node.workload.name == "edge").expect("a gateway");
    let class = compiler.classify(&node).expect("the universe's nodes have a class");
    let views: Vec<_> = class.views.iter().map(|key| compiler.view(key)).collect();
    let kind = ResourceType::Listener;
    let found = views.iter().find_map(|view| view.tables[kind.index()].get("0.0.0.0_80"));
    let listener = to_json(kind, &found.expect("a listener").body).expect("readable");
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    let details = manager["forward_client_cert_details"].as_str().unwrap_or_default();
    (manager["xff_num_trusted_hops"].as_u64().unwrap_or_default(), details.to_owned())
}

#[test]
fn a_gateways_own_word_counts_before_that_of_the_mesh_and_is_followed() {
    let server =
        json!({"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]});
    let gateway = json!({"selector": {"istio": "ingressgateway"}, "servers": [server]});
    let topology = json!({"numTrustedProxies": 1, "forwardClientCertDetails": "SANITIZE"});
    let mesh = json!({"defaultConfig": {"gatewayTopology": topology}});
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![
        upsert(Kind::GATEWAY, "edge", "g", 0, json!({ "spec": gateway })),
        gateway_pod(""),
    ]);
    assert_eq!(seen(&mut compiler), (0, "SANITIZE_SET".to_owned()));
    compiler.apply(vec![upsert(Kind::MESH_CONFIG, "", "default", 0, json!({ "spec": mesh }))]);
    assert_eq!(seen(&mut compiler).0, 1);
    compiler.apply(vec![gateway_pod("gatewayTopology: {numTrustedProxies: 3}")]);
    assert_eq!(seen(&mut compiler).0, 3);
    for unreadable in ["gatewayTopology: {numTrustedProxies: many}", "a: b: c"] {
        compiler.apply(vec![gateway_pod(unreadable)]);
        assert_eq!(seen(&mut compiler).0, 1, "{unreadable}: as the mesh says");
        let said = compiler.diagnostics().flat_map(|(_, found)| found.iter());
        let said: Vec<String> = said.map(|d| d.field.to_string()).collect();
        assert!(said.iter().any(|field| field.contains("proxy.istio.io/config")), "{said:?}");
    }
}
