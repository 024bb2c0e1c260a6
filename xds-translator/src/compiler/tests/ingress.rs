//! Ingresses: which are served, and what becomes of their paths.

use ferromesh_proto::ResourceType;
use serde_json::{Value, json};

use super::universe::{nodes, upsert};
use crate::{
    compiler::{Change, Compiler},
    debug::to_json,
    dialect::Kind,
    ir::MeshDefaults,
};

fn service() -> Change {
    let ports = json!([{"name": "http", "port": 80}, {"name": "admin", "port": 9000}]);
    let spec = json!({"clusterIP": "10.0.0.1", "ports": ports});
    upsert(Kind::SERVICE, "shop", "cart", 0, json!({ "spec": spec }))
}

fn ingress(name: &str, spec: Value) -> Change {
    upsert(Kind::INGRESS, "shop", name, 0, json!({ "spec": spec }))
}

fn to(port: Value) -> Value {
    json!({"service": {"name": "cart", "port": port}})
}

fn path(path: &str, how: &str, port: Value) -> Value {
    json!({"path": path, "pathType": how, "backend": to(port)})
}

fn settings(mode: &str) -> Change {
    let spec = json!({"ingressControllerMode": mode, "ingressClass": "edge"});
    upsert(Kind::MESH_CONFIG, "", "default", 0, json!({ "spec": spec }))
}

/// A resource table of the gateway, as JSON.
fn sent(compiler: &mut Compiler, kind: ResourceType) -> Vec<Value> {
    let node = nodes().into_iter().find(|node| &*node.workload.name == "edge").expect("a gateway");
    let class = compiler.classify(&node).expect("the universe's nodes have a class");
    let views: Vec<_> = class.views.iter().map(|key| compiler.view(key)).collect();
    let bodies = views.iter().flat_map(|view| view.tables[kind.index()].values());
    bodies.map(|resource| to_json(kind, &resource.body).expect("readable")).collect()
}

/// `HOST MATCH CLUSTER` of every route that leads somewhere, of port 80.
fn routes(compiler: &mut Compiler) -> Vec<String> {
    let tables = sent(compiler, ResourceType::Route);
    let plain = tables.iter().filter(|table| table["name"] == "http.80");
    let hosts = plain.flat_map(|table| table["virtual_hosts"].as_array().expect("a list"));
    let routes = hosts.flat_map(|host| {
        let routes = host["routes"].as_array().into_iter().flatten();
        routes.map(|route| (host["domains"][0].as_str().expect("a domain"), route))
    });
    let lines = routes.map(|(domain, route)| {
        let matched = route["match"].as_object().expect("a match");
        let asked = ["path", "path_separated_prefix", "prefix"];
        let asked = asked.iter().find_map(|key| Some(format!("{key} {}", matched.get(*key)?)));
        let cluster = route["route"]["cluster"].as_str().unwrap_or_default();
        let port = cluster.split('|').nth(1).unwrap_or_default();
        format!("{domain} {} {port}", asked.unwrap_or_default().replace('"', ""))
    });
    lines.collect()
}

#[test]
fn the_closest_host_counts_and_of_its_paths_the_most_specific() {
    let number = |port: u16| json!({ "number": port });
    let paths = json!([
        path("/a", "Prefix", number(80)),
        path("/a", "Exact", json!({"name": "admin"})),
        path("/a/b", "Prefix", number(9000)),
        path("/w*", "ImplementationSpecific", number(80)),
    ]);
    let rules = json!([
        {"host": "*.a.test", "http": {"paths": [path("/", "Prefix", number(9000))]}},
        {"host": "b.a.test", "http": {"paths": paths}},
    ]);
    let spec =
        json!({"ingressClassName": "istio", "rules": rules, "defaultBackend": to(number(80))});
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![service(), ingress("one", spec)]);
    assert_eq!(
        routes(&mut compiler),
        [
            "*.a.test prefix / 9000",
            "* prefix / 80",
            "b.a.test path /a 9000",
            "b.a.test path_separated_prefix /a/b 9000",
            "b.a.test path_separated_prefix /a 80",
            "b.a.test prefix /w 80",
        ]
    );
}

#[test]
fn several_ingresses_for_a_host_are_read_as_one() {
    let one = |name: &str, text: &str| {
        let rule = json!({"host": "a.test", "http": {"paths": [path(text, "Prefix", json!({"number": 80}))]}});
        ingress(name, json!({"ingressClassName": "istio", "rules": [rule]}))
    };
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![service(), one("one", "/a"), one("two", "/a/b")]);
    let expected = ["a.test path_separated_prefix /a/b 80", "a.test path_separated_prefix /a 80"];
    assert_eq!(routes(&mut compiler), expected);
}

#[test]
fn a_certificate_opens_a_server_for_its_hosts() {
    let rule =
        json!({"host": "a.test", "http": {"paths": [path("/", "Prefix", json!({"number": 80}))]}});
    let tls = json!([{"hosts": ["a.test"], "secretName": "a-cert"}, {"hosts": ["b.test"]}]);
    let spec = json!({"ingressClassName": "istio", "rules": [rule], "tls": tls});
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(vec![service(), ingress("one", spec)]);
    let listeners = sent(&mut compiler, ResourceType::Listener);
    let secure = listeners.iter().find(|l| l["name"] == "0.0.0.0_443").expect("a listener");
    let chains = secure["filter_chains"].as_array().expect("a list");
    assert_eq!(chains.len(), 1, "{chains:#?}");
    assert_eq!(chains[0]["filter_chain_match"]["server_names"], json!(["a.test"]));
    let asked = chains[0].to_string();
    assert!(asked.contains("kubernetes://a-cert"), "{asked}");
}

#[test]
fn the_class_decides_who_serves_it() {
    let of_class = |class: Value| {
        let rule = json!({"http": {"paths": [path("/", "Prefix", json!({"number": 80}))]}});
        let mut spec = json!({ "rules": [rule] });
        if !class.is_null() {
            spec["ingressClassName"] = class;
        }
        spec
    };
    for (mode, class, served) in [
        ("STRICT", json!("edge"), true),
        ("STRICT", json!("other"), false),
        ("STRICT", Value::Null, false),
        ("DEFAULT", json!("edge"), true),
        ("DEFAULT", json!("other"), false),
        ("DEFAULT", Value::Null, true),
        ("OFF", json!("edge"), false),
    ] {
        let mut compiler = Compiler::new(MeshDefaults::default());
        let spec = of_class(class.clone());
        compiler.apply(vec![settings(mode), service(), ingress("one", spec)]);
        assert_eq!(!routes(&mut compiler).is_empty(), served, "{mode} {class}");
    }
    // The annotation is older, and counts where it is.
    let mut compiler = Compiler::new(MeshDefaults::default());
    let annotations = json!({"kubernetes.io/ingress.class": "istio"});
    let content = json!({"metadata": {"annotations": annotations}, "spec": of_class(Value::Null)});
    compiler.apply(vec![service(), upsert(Kind::INGRESS, "shop", "one", 0, content)]);
    assert!(!routes(&mut compiler).is_empty());
}
