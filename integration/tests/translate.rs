//! What the translator makes of the example corpus, taken by a real Envoy: listeners, clusters,
//! routes and endpoints of a sidecar and of a gateway, for the base alone and with each seed.
#![cfg(feature = "e2e")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ferromesh_integration::paths;
use ferromesh_proto::discovery::Node;
use ferromesh_xds_translator::{
    class::NodeIdentity,
    compiler::Change,
    dialect::{Parsed, overlay, parse_files},
    ir::MeshDefaults,
    translate::{Translation, translate},
};
use serde_json::{Value, json};

const SIDECAR: &str = "sidecar~10.244.0.11~productpage-v1-0.default~default.svc.cluster.local";
const GATEWAY: &str =
    "router~10.244.9.1~istio-ingressgateway-0.istio-system~istio-system.svc.cluster.local";

#[test]
fn envoy_takes_what_a_sidecar_gets() {
    check(SIDECAR);
}

#[test]
fn envoy_takes_what_a_gateway_gets() {
    check(GATEWAY);
}

#[test]
fn envoy_takes_one_of_everything() {
    let addressed = [
        ("INTERCEPTION_MODE", "NONE"),
        ("FERROMESH_APP_ADDRESS", "127.0.0.2"),
        ("FERROMESH_INBOUND_ADDRESS", "127.0.0.3"),
        ("FERROMESH_OUTBOUND_ADDRESS", "127.0.0.4"),
    ];
    let sidecar = "sidecar~10.98.0.1~cart-0.shop~shop.svc.cluster.local";
    let gateway = "router~10.98.9.1~gateway-0.istio-system~istio-system.svc.cluster.local";
    for (node, metadata) in
        [(sidecar, &[][..]), (sidecar, &addressed), (gateway, &[]), (gateway, &addressed)]
    {
        let parsed =
            parse(&[("translate.yaml".to_owned(), include_bytes!("translate.yaml").to_vec())]);
        assert!(parsed.rejected.is_empty(), "{:#?}", parsed.diagnostics);
        let translation = translate_for(node, metadata, parsed);
        assert_eq!(translation.dangling, [], "{node} {metadata:?}");
        validate(&bootstrap(translation))
            .unwrap_or_else(|words| panic!("{node} {metadata:?}: {words}"));
    }
}

/// Patches of everything that can be changed, beside one of everything else.
#[test]
fn envoy_takes_what_patches_make() {
    let sidecar = "sidecar~10.98.0.1~cart-0.shop~shop.svc.cluster.local";
    let gateway = "router~10.98.9.1~gateway-0.istio-system~istio-system.svc.cluster.local";
    for (node, added) in [(sidecar, "lua-sidecar"), (gateway, "lua-gateway")] {
        let files = [
            ("translate.yaml".to_owned(), include_bytes!("translate.yaml").to_vec()),
            ("patches.yaml".to_owned(), include_bytes!("translate_patches.yaml").to_vec()),
        ];
        let parsed = parse(&files);
        assert!(parsed.rejected.is_empty(), "{:#?}", parsed.diagnostics);
        let bootstrap = bootstrap(translate_for(node, &[], parsed));
        let text = bootstrap.to_string();
        let mut marks =
            vec![added, "patched-cluster", "patched-table", "patched-host", "patched-route"];
        marks.extend((node == sidecar).then_some("patched-listener"));
        for mark in marks {
            assert!(text.contains(mark), "{node}: no {mark}");
        }
        validate(&bootstrap).unwrap_or_else(|words| panic!("{node}: {words}"));
    }
}

/// Has Envoy validate the node's configuration for every input; each that fails is named.
fn check(node: &str) {
    let mut refused = Vec::new();
    for (label, parsed) in inputs() {
        let translation = translate_for(node, &[], parsed);
        assert!(!translation.clusters.is_empty(), "{label}: {node} gets no clusters");
        if let Err(words) = validate(&bootstrap(translation)) {
            refused.push(format!("{label}: {words}"));
        }
    }
    assert!(refused.is_empty(), "{node}:\n{}", refused.join("\n"));
}

/// The base, the base with each seed, and the whole folder as one set.
fn inputs() -> Vec<(String, Parsed)> {
    let corpus = paths::project().join("integration/corpus");
    let base = read(&[corpus.join("base.yaml")]);
    let mut seeds: Vec<PathBuf> = fs::read_dir(corpus.join("seeds"))
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    seeds.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    seeds.sort();
    let all: Vec<PathBuf> =
        [corpus.join("base.yaml")].into_iter().chain(seeds.iter().cloned()).collect();
    let label = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let mut inputs =
        vec![("base".to_owned(), parse(&base)), ("everything".to_owned(), parse(&read(&all)))];
    inputs.extend(seeds.iter().map(|seed| {
        let seed_file = read(std::slice::from_ref(seed));
        (label(seed), overlay([parse(&base), parse(&seed_file)]))
    }));
    inputs
}

fn read(paths: &[PathBuf]) -> Vec<(String, Vec<u8>)> {
    paths
        .iter()
        .map(|path| (path.display().to_string(), fs::read(path).expect("a file of the corpus")))
        .collect()
}

fn parse(files: &[(String, Vec<u8>)]) -> Parsed {
    parse_files(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())))
}

fn translate_for(node: &str, metadata: &[(&str, &str)], parsed: Parsed) -> Translation {
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
    let metadata = Some(prost_types::Struct { fields });
    let node = Node { id: node.to_owned(), metadata, ..Default::default() };
    let node = NodeIdentity::parse(&node, None).expect("a good node id");
    let changes =
        parsed.objects.into_iter().map(|object| Change::Upsert(Box::new(object))).collect();
    translate(MeshDefaults::default(), changes, &node).expect("a translation")
}

/// A static bootstrap of everything; routes and endpoints are put where Envoy would ask for them,
/// so that it checks them too.
fn bootstrap(translation: Translation) -> Value {
    let by_name = |resources: Vec<Value>, key: &str| -> BTreeMap<String, Value> {
        resources.into_iter().map(|r| (r[key].as_str().expect("a name").to_owned(), r)).collect()
    };
    let routes = by_name(translation.routes, "name");
    let endpoints = by_name(translation.endpoints, "cluster_name");
    let mut listeners = Value::Array(translation.listeners);
    inline_routes(&mut listeners, &routes);
    let mut clusters = translation.clusters;
    clusters.iter_mut().for_each(|cluster| inline_endpoints(cluster, &endpoints));
    clusters.extend(["xds-grpc", "sds-grpc"].map(grpc_cluster));
    json!({
        "node": {"id": "validate", "cluster": "validate"},
        "dynamic_resources": {"ads_config": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
        }},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

fn inline_routes(json: &mut Value, routes: &BTreeMap<String, Value>) {
    match json {
        Value::Object(fields) => {
            if let Some(rds) = fields.remove("rds") {
                let name = rds["route_config_name"].as_str().expect("a name");
                let routes = routes
                    .get(name)
                    .unwrap_or_else(|| panic!("route configuration {name} is not there"));
                fields.insert("route_config".to_owned(), routes.clone());
            }
            fields.values_mut().for_each(|value| inline_routes(value, routes));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| inline_routes(item, routes)),
        _ => {}
    }
}

fn inline_endpoints(cluster: &mut Value, endpoints: &BTreeMap<String, Value>) {
    let Some(eds) = cluster.as_object_mut().and_then(|fields| fields.remove("eds_cluster_config"))
    else {
        return;
    };
    let name = eds["service_name"].as_str().expect("a name");
    cluster["type"] = "STATIC".into();
    cluster["load_assignment"] =
        endpoints.get(name).unwrap_or_else(|| panic!("assignment {name} is not there")).clone();
}

fn grpc_cluster(name: &str) -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": {OPTIONS: {
            "@type": format!("type.googleapis.com/{OPTIONS}"),
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
    })
}

/// `Err` holds Envoy's words when it refuses the configuration, or warns about a deprecated field.
fn validate(bootstrap: &Value) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("envoy.json");
    fs::write(&path, bootstrap.to_string()).expect("a file");
    let output = Command::new(paths::envoy())
        .args(["--mode", "validate", "--log-level", "warning", "--base-id-path"])
        .arg(folder.path().join("base-id"))
        .arg("--use-dynamic-base-id")
        .arg("-c")
        .arg(&path)
        .output()
        .expect("Envoy runs");
    let words = String::from_utf8_lossy(&output.stderr);
    // A limit on a route needs the older field: the newer one switches `timeout` off.
    let allowed = |line: &&str| !line.contains("RouteAction.max_grpc_timeout");
    let deprecated = words.lines().filter(|line| line.contains("deprecated")).find(allowed);
    match (output.status.success(), deprecated) {
        (true, None) => Ok(()),
        (true, Some(line)) => Err(line.to_owned()),
        (false, _) => Err(words.lines().last().unwrap_or("Envoy failed without a word").to_owned()),
    }
}
