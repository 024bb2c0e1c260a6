//! Helm merges lists by name against what is live: upgrades, a rollback and an upgrade after it over
//! random values leave in the cluster what was rendered. Without images: no pod has to run for it.

use std::fs;

use ferromesh_integration::{
    kube_cluster::KubeCluster,
    mesh::{Mesh, ROOT, chart},
};
use ferromesh_xds_translator::yaml;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;

use super::names::Random;

/// How many random values each chart is upgraded to.
const UPGRADES: u64 = 5;

#[test]
fn upgrades_and_rollbacks_leave_what_was_rendered() {
    let mesh = Mesh { cluster: KubeCluster::up() };
    let file = mesh.cluster.folder().join("values.json");
    let file = file.to_str().expect("a path");
    for name in ["ferromesh", "gateway"] {
        let chart = chart(name);
        let upgrade = |seed: u64| {
            let mut random = Random(StdRng::seed_from_u64(seed));
            let values = match name {
                "gateway" => random.upgraded_gateway(),
                _ => random.upgraded_control_plane(),
            };
            fs::write(file, values.to_string()).expect("a file");
            let place = ["--namespace", ROOT, "--create-namespace", "--values", file];
            mesh.helm(&[&["upgrade", "--install", name, &chart][..], &place].concat());
            stands(&mesh, name, &format!("values {seed}: {values}"));
        };
        (0..UPGRADES).for_each(upgrade);
        mesh.helm(&["rollback", name, "2", "--namespace", ROOT]);
        stands(&mesh, name, "rolled back");
        upgrade(UPGRADES);
        upgrade(0);
    }
}

/// Asserts that the live workload says what the release's manifest does, each name once.
fn stands(mesh: &Mesh, name: &str, what: &str) {
    let manifest = mesh.helm(&["get", "manifest", name, "--namespace", ROOT]);
    let rendered = yaml::split(&manifest)
        .iter()
        .filter_map(|document| Some(yaml::parse(document.text).expect("YAML")?.to_json()))
        .find(|object| object["kind"] == "Deployment")
        .expect("a Deployment");
    let place = ["--namespace", ROOT, "--output", "json"];
    let live = mesh.cluster.kubectl(&[&["get", "deployment", name][..], &place].concat());
    let live: Value = serde_json::from_str(&live).expect("JSON");
    for pointer in [
        "/spec/template/spec/containers/0/env",
        "/spec/template/spec/volumes",
        "/spec/template/spec/imagePullSecrets",
    ] {
        let named = |object: &Value| -> Vec<(String, Value)> {
            let list = object.pointer(pointer).and_then(Value::as_array).cloned();
            let mut items: Vec<(String, Value)> = list
                .unwrap_or_default()
                .iter()
                .map(|item| (item["name"].to_string(), item["value"].clone()))
                .collect();
            items.sort_by(|one, other| one.0.cmp(&other.0));
            items
        };
        assert_eq!(named(&live), named(&rendered), "{name} {pointer}: {what}");
    }
    for pointer in [
        "/metadata/labels",
        "/spec/template/metadata/labels",
        "/spec/template/metadata/annotations",
    ] {
        assert_eq!(live.pointer(pointer), rendered.pointer(pointer), "{name} {pointer}: {what}");
    }
}
