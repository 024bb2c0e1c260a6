//! Of how many endpoints one may always be ejected.

use ferromesh_proto::ResourceType;
use serde_json::{Value, json};

use super::universe::upsert;
use crate::{
    compiler::{Change, Compiler},
    debug::to_json,
    dialect::Kind,
    ir::{Labels, MeshDefaults},
    plan::{CaptureMode, Features, OutboundKey, PatchesKey, TelemetryKey, ViewKey},
};

fn pod(name: &str, version: &str, ready: bool) -> Change {
    let number = name.len();
    let status = if ready { "True" } else { "False" };
    let content = json!({
        "metadata": {"labels": {"app": "cart", "version": version}},
        "spec": {"serviceAccountName": "cart"},
        "status": {"phase": "Running", "podIP": format!("10.1.0.{number}"), "conditions": [{"type": "Ready", "status": status}]},
    });
    upsert(Kind::POD, "shop", name, 0, content)
}

fn rule(outlier: Value) -> Change {
    let subsets = json!([{"name": "v1", "labels": {"version": "v1"}}]);
    let policy = json!({ "outlierDetection": outlier });
    let spec = json!({"host": "cart", "trafficPolicy": policy, "subsets": subsets});
    upsert(Kind::DESTINATION_RULE, "shop", "cart", 0, json!({ "spec": spec }))
}

/// Whether one may always be ejected, of the whole service and of its subset.
fn always_one(compiler: &mut Compiler) -> (bool, bool) {
    let view = compiler.view(&ViewKey::Outbound(OutboundKey {
        namespace: "shop".into(),
        scope: None,
        client_labels: Labels::new(),
        locality: None,
        knows_peers: false,
        capture: CaptureMode::Redirect,
        features: Features::default(),
        telemetry: TelemetryKey::default(),
        patches: PatchesKey::default(),
    }));
    let of = |subset: &str| {
        let name = format!("outbound|80|{subset}|cart.shop.svc.cluster.local");
        let cluster = view.tables[ResourceType::Cluster.index()].get(&name).expect("a cluster");
        let cluster = to_json(ResourceType::Cluster, &cluster.body).expect("readable");
        cluster["outlier_detection"]["always_eject_one_host"] == true
    };
    (of(""), of("v1"))
}

#[test]
fn the_only_endpoint_is_never_left_alone() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    let service = json!({"selector": {"app": "cart"}, "clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80}]});
    compiler.apply(vec![
        upsert(Kind::SERVICE, "shop", "cart", 0, json!({ "spec": service })),
        rule(json!({})),
    ]);
    assert_eq!(always_one(&mut compiler), (false, false), "there is none");
    for (change, expected) in [
        (pod("a", "v1", true), (false, false)),
        (pod("ab", "v2", false), (false, false)),
        (pod("ab", "v2", true), (true, false)),
        (pod("abc", "v1", true), (true, true)),
        // Who lets all go lets the only one go.
        (rule(json!({"maxEjectionPercent": 100})), (false, false)),
        (rule(json!({"maxEjectionPercent": 99})), (true, true)),
        (pod("a", "v1", false), (true, false)),
        (pod("ab", "v2", false), (false, false)),
    ] {
        compiler.apply(vec![change]);
        assert_eq!(always_one(&mut compiler), expected);
    }
}
