//! Services that proxies ask whether a call may pass.

use ferromesh_proto::ResourceType;
use serde_json::{Value, json};

use super::universe::{nodes, upsert};
use crate::{
    compiler::{Change, Compiler},
    debug::to_json,
    dialect::Kind,
    ir::MeshDefaults,
};

const CLUSTER: &str = "outbound|9000||authz.authz.svc.cluster.local";

/// A mesh that asks a service of namespace `authz`, and an entry by which a namespace claims its
/// host for itself.
fn mesh(claimed_by: &str) -> Vec<Change> {
    let provider = json!({
        "name": "authz",
        "envoyExtAuthzGrpc": {"service": "authz.authz.svc.cluster.local", "port": 9000},
    });
    let ask = json!({"action": "CUSTOM", "provider": {"name": "authz"}, "rules": [{}]});
    let service = json!({
        "selector": {"app": "authz"}, "clusterIP": "10.0.0.7",
        "ports": [{"name": "grpc", "port": 9000}],
    });
    let pod = json!({
        "metadata": {"labels": {"app": "authz"}},
        "spec": {"serviceAccountName": "authz"},
        "status": {
            "phase": "Running", "podIP": "10.1.0.7",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    let claim = json!({
        "hosts": ["authz.authz.svc.cluster.local"], "exportTo": ["."],
        "location": "MESH_INTERNAL", "resolution": "STATIC",
        "ports": [{"number": 9000, "name": "grpc", "protocol": "GRPC"}],
        "endpoints": [{"address": "10.66.6.6"}],
    });
    let providers = json!({"spec": {"extensionProviders": [provider]}});
    vec![
        upsert(Kind::MESH_CONFIG, "", "default", 0, providers),
        upsert(Kind::AUTHORIZATION_POLICY, "istio-system", "ask", 0, json!({ "spec": ask })),
        upsert(Kind::SERVICE, "authz", "authz", 0, json!({ "spec": service })),
        upsert(Kind::POD, "authz", "authz", 0, pod),
        upsert(Kind::SERVICE_ENTRY, claimed_by, "claim", 0, json!({ "spec": claim })),
    ]
}

#[test]
fn no_namespace_says_who_is_asked_about_its_calls() {
    for (namespace, name) in [("shop", "pod0"), ("bank", "stranger"), ("istio-system", "edge")] {
        let claimants: &[&str] = match namespace {
            // What the root namespace says is what the mesh says.
            "istio-system" => &["shop"],
            _ => &["shop", "bank"],
        };
        for claimed_by in claimants {
            let mut compiler = Compiler::new(MeshDefaults::default());
            compiler.apply(mesh(claimed_by));
            let node = nodes().into_iter().find(|node| {
                *node.workload.name == *name && *node.workload.namespace == *namespace
            });
            let class = compiler.classify(&node.expect("a node")).expect("a class");
            let views: Vec<_> = class.views.iter().map(|key| compiler.view(key)).collect();
            let kind = ResourceType::Endpoint;
            let sent: Vec<Value> = views
                .iter()
                .filter_map(|view| view.tables[kind.index()].get(CLUSTER))
                .map(|resource| to_json(kind, &resource.body).expect("readable"))
                .collect();
            let [assignment] = &sent[..] else { panic!("one for {name}, got {}", sent.len()) };
            let text = assignment.to_string();
            let asked = text.contains("10.1.0.7") && !text.contains("10.66.6.6");
            assert!(asked, "{name}, {claimed_by}: {text}");
        }
    }
}
