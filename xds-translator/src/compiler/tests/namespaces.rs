//! Which namespaces are seen.

use serde_json::{Value, json};

use super::universe::upsert;
use crate::{
    compiler::{Change, Compiler},
    dialect::Kind,
    ir::{Distribution, Hostname, MeshDefaults, ServiceKey},
    snapshot::Reader,
};

fn mesh(selectors: Value) -> Change {
    let spec = json!({ "discoverySelectors": selectors });
    upsert(Kind::MESH_CONFIG, "", "istio", 0, json!({ "spec": spec }))
}

fn namespace(name: &str, labels: Value) -> Change {
    upsert(Kind::NAMESPACE, "", name, 0, json!({ "metadata": { "labels": labels } }))
}

fn service(namespace: &str) -> Change {
    let spec = json!({ "ports": [{ "name": "http", "port": 80 }] });
    upsert(Kind::SERVICE, namespace, "cart", 0, json!({ "spec": spec }))
}

/// The namespaces of those services that are seen.
fn seen(compiler: &Compiler) -> Vec<&'static str> {
    let reader = Reader::new(compiler.snapshot());
    let is_there = |namespace: &&'static str| {
        let host = Hostname::new(&format!("cart.{namespace}.svc.cluster.local"));
        reader.endpoints(&ServiceKey::kubernetes(host, (*namespace).into())).is_some()
    };
    ["shop", "bank", "istio-system"].into_iter().filter(is_there).collect()
}

#[test]
fn a_namespace_is_seen_by_its_labels_and_the_root_always() {
    let everything = ["shop", "bank", "istio-system"];
    let inside = || json!({ "matchLabels": { "mesh": "in" } });
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(everything.into_iter().map(service).collect());
    assert_eq!(seen(&compiler), everything);
    let by_name = json!({ "matchExpressions": [
        { "key": "kubernetes.io/metadata.name", "operator": "In", "values": ["bank"] },
    ]});
    let steps: [(Change, &[&str]); 8] = [
        (mesh(json!([inside()])), &["istio-system"]),
        (namespace("shop", json!({ "mesh": "in" })), &["shop", "istio-system"]),
        (namespace("bank", json!({ "mesh": "out" })), &["shop", "istio-system"]),
        (namespace("shop", json!({})), &["istio-system"]),
        (mesh(json!([inside(), by_name])), &["bank", "istio-system"]),
        (namespace("shop", json!({ "mesh": "in" })), &everything),
        (mesh(json!([{}])), &everything),
        (mesh(json!([])), &everything),
    ];
    for (change, expected) in steps {
        let said = format!("{change:?}");
        compiler.apply(vec![change]);
        assert_eq!(seen(&compiler), expected, "{said}");
        assert_eq!(seen(&compiler.rebuild()), expected, "{said}");
    }
}

#[test]
fn what_comes_while_it_is_not_seen_is_there_when_it_is() {
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![mesh(json!([{ "matchLabels": { "mesh": "in" } }])), service("shop")]);
    assert_eq!(seen(&compiler), [""; 0]);
    compiler.apply(vec![namespace("shop", json!({ "mesh": "in" }))]);
    assert_eq!(seen(&compiler), ["shop"]);
}

#[test]
fn services_prefer_what_their_namespace_does_unless_they_say_it() {
    let preferred = |compiler: &Compiler, namespace: &str| {
        let host = Hostname::new(&format!("cart.{namespace}.svc.cluster.local"));
        let key = ServiceKey::kubernetes(host, namespace.into());
        Reader::new(compiler.snapshot()).service(&key).and_then(|service| service.distribution)
    };
    let key = "networking.istio.io/traffic-distribution";
    let prefer = |word: &str| {
        let meta = json!({ "annotations": { key: word } });
        upsert(Kind::NAMESPACE, "", "shop", 0, json!({ "metadata": meta }))
    };
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![service("shop"), service("bank")]);
    for (change, expected) in [
        (prefer("PreferSameNode"), Some(Distribution::SameNode)),
        (prefer("preferclose"), Some(Distribution::SameZone)),
        (service("shop"), Some(Distribution::SameZone)),
        (prefer("nothing"), None),
        (prefer("PreferSameNode"), Some(Distribution::SameNode)),
    ] {
        compiler.apply(vec![change]);
        assert_eq!(preferred(&compiler, "shop"), expected);
        assert_eq!(preferred(&compiler, "bank"), None);
        assert_eq!(preferred(&compiler.rebuild(), "shop"), expected);
    }
    let spec = json!({
        "ports": [{ "name": "http", "port": 80 }], "trafficDistribution": "PreferSameZone",
    });
    compiler.apply(vec![upsert(Kind::SERVICE, "shop", "cart", 0, json!({ "spec": spec }))]);
    assert_eq!(preferred(&compiler, "shop"), Some(Distribution::SameZone));
}
