//! Goldens: YAML and a node in, everything that node gets as JSON out.
//!
//! A case is a directory of `golden/` with `input.yaml`, `node.json` (`{"id": …, "metadata": {…}}`)
//! and `xds.json`. `UPDATE_GOLDEN=1` writes the last one anew, to be read in review like code.

use std::{fs, path::Path};

use ferromesh_proto::{ResourceType, discovery};
use ferromesh_xds_translator::{
    class::NodeIdentity,
    closure,
    compiler::{Change, Compiler},
    debug, dialect,
    ir::MeshDefaults,
};
use prost_types::{Struct, Value as ProtoValue, value::Kind};
use serde_json::{Map, Value, json};

const KINDS: [(ResourceType, &str); 4] = [
    (ResourceType::Listener, "listeners"),
    (ResourceType::Route, "routes"),
    (ResourceType::Cluster, "clusters"),
    (ResourceType::Endpoint, "endpoints"),
];

#[test]
fn a_redirected_sidecar_sees_every_kind_of_service() {
    check("redirected-sidecar");
}

#[test]
fn an_addressed_sidecar_binds_what_the_application_calls() {
    check("addressed-sidecar");
}

#[test]
fn a_scope_gives_listeners_of_its_own() {
    check("scoped-sidecar");
}

#[test]
fn a_workload_enforces_its_policies_on_every_chain() {
    check("strict-workload");
}

#[test]
fn a_sidecar_terminates_what_is_not_of_the_mesh_and_adds_the_headers_that_are_chosen() {
    check("own-tls-sidecar");
}

#[test]
fn a_workload_checks_tokens_and_asks_before() {
    check("asking-workload");
}

#[test]
fn a_gateway_merges_servers_and_binds_routes() {
    check("gateway");
}

#[test]
fn a_sidecar_tells_of_its_calls_as_each_level_says() {
    check("observed-sidecar");
}

#[test]
fn patches_are_in_what_they_are_about() {
    check("patched-sidecar");
}

#[test]
fn a_workload_that_an_entry_names_sees_what_entries_come_to() {
    check("service-entries");
}

fn check(case: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case);
    let got = serde_json::to_string_pretty(&translate(&folder)).expect("JSON prints") + "\n";
    let read: Value = serde_json::from_str(&got).expect("JSON reads");
    let without = clients_without_versions(&read);
    assert!(
        without.is_empty(),
        "{case}: a TLS client of Envoy stops at TLS 1.2 unless told: {without:#?}"
    );
    let golden = folder.join("xds.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &got).expect("the golden can be written");
    }
    let want = fs::read_to_string(&golden).unwrap_or_default();
    let first = got.lines().zip(want.lines()).position(|(got, want)| got != want);
    let line = first.unwrap_or_else(|| got.lines().count().min(want.lines().count()));
    let around = |text: &str| {
        text.lines().skip(line.saturating_sub(6)).take(12).collect::<Vec<_>>().join("\n")
    };
    assert!(
        got == want,
        "{case}: line {} differs; got:\n{}\nwant:\n{}\n(UPDATE_GOLDEN=1 accepts it)",
        line + 1,
        around(&got),
        around(&want)
    );
}

fn translate(folder: &Path) -> Value {
    let input = fs::read(folder.join("input.yaml")).expect("the case has an input");
    let node = fs::read_to_string(folder.join("node.json")).expect("the case has a node");
    let parsed = dialect::parse_file("input.yaml", &input);
    assert!(parsed.rejected.is_empty(), "refused: {:?}", parsed.rejected);
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler
        .apply(parsed.objects.into_iter().map(|object| Change::Upsert(Box::new(object))).collect());
    let node = NodeIdentity::parse(&parse_node(&node), None).expect("the node is well formed");
    let class = compiler.classify(&node).expect("the node is served");
    let views: Vec<_> = class.views.iter().map(|key| compiler.view(key)).collect();
    let mut resources = Map::new();
    // What the input names and nobody defines stays dangling; anything else listed here is a
    // mistake of planning.
    let dangling =
        closure::check(&views).into_iter().map(|d| format!("{} -> {}", d.from.1, d.to.1));
    resources.insert("dangling".to_owned(), dangling.collect());
    for (kind, name) in KINDS {
        let bodies = views.iter().flat_map(|view| view.tables[kind.index()].values());
        let shown =
            bodies.map(|r| debug::to_json(kind, &r.body).expect("resources have a JSON form"));
        resources.insert(name.to_owned(), shown.collect());
    }
    Value::Object(resources)
}

/// TLS contexts of clients that leave the highest version to Envoy.
fn clients_without_versions(json: &Value) -> Vec<&Value> {
    let children: Vec<&Value> = match json {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    let client = json["@type"].as_str().is_some_and(|name| name.ends_with(".UpstreamTlsContext"));
    let told = |json: &Value| {
        let versions = &json["common_tls_context"]["tls_params"];
        versions["tls_minimum_protocol_version"] == "TLSv1_2"
            && versions["tls_maximum_protocol_version"] == "TLSv1_3"
    };
    let itself = (client && !told(json)).then_some(json);
    itself.into_iter().chain(children.into_iter().flat_map(clients_without_versions)).collect()
}

fn parse_node(text: &str) -> discovery::Node {
    let node: Value = serde_json::from_str(text).expect("node.json is JSON");
    let id = node["id"].as_str().expect("a node has an id").to_owned();
    let metadata = node.get("metadata").cloned().unwrap_or_else(|| json!({}));
    let Some(Kind::StructValue(metadata)) = proto_value(&metadata).kind else {
        panic!("metadata is an object")
    };
    discovery::Node { id, metadata: Some(metadata), ..Default::default() }
}

fn proto_value(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Object(fields) => {
            let fields =
                fields.iter().map(|(name, value)| (name.clone(), proto_value(value))).collect();
            Kind::StructValue(Struct { fields })
        }
        other => panic!("node metadata holds texts and objects only, got {other}"),
    };
    ProtoValue { kind: Some(kind) }
}
