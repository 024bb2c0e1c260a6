//! Every resource that the translator makes of the example corpus and of its goldens, each once; and
//! a few that set nearly everything that the proxy reads (`whole.json`).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ferromesh_integration::paths;
use ferromesh_proto::{ResourceType, discovery::Node};
use ferromesh_xds_translator::{
    class::NodeIdentity,
    compiler::{Change, Compiler},
    descriptors,
    dialect::{Kind as ObjectKind, overlay, parse_file},
    ir::MeshDefaults,
};
use prost_reflect::DynamicMessage;
use prost_types::{Struct, Value as ProtoValue, value::Kind};
use serde_json::Value;

use super::{Files, leaf};

/// A server and client, a client in another namespace, and the gateway of the corpus.
const NODES: [&str; 4] = [
    "sidecar~10.244.0.11~productpage-v1-0.default~default.svc.cluster.local",
    "sidecar~10.244.0.31~reviews-v1-0.default~default.svc.cluster.local",
    "sidecar~10.244.7.7~stranger-0.nowhere~nowhere.svc.cluster.local",
    "router~10.244.9.1~istio-ingressgateway-0.istio-system~istio-system.svc.cluster.local",
];

/// The resources of `whole.json`, with their types and names.
pub(crate) fn whole(files: &Files) -> impl Iterator<Item = (ResourceType, String, DynamicMessage)> {
    const KINDS: [(&str, ResourceType, &str); 5] = [
        ("clusters", ResourceType::Cluster, "name"),
        ("listeners", ResourceType::Listener, "name"),
        ("routes", ResourceType::Route, "name"),
        ("endpoints", ResourceType::Endpoint, "cluster_name"),
        ("secrets", ResourceType::Secret, "name"),
    ];
    let read = |(list, kind, name): (&str, ResourceType, &str)| {
        let path = paths::project().join("integration/tests/fields/whole.json");
        let text = fs::read_to_string(path).expect("it lies beside this file");
        let json: Value = serde_json::from_str(&text).expect("it is JSON");
        let items = json[list].as_array().expect("a list").clone();
        let name = name.to_owned();
        items.into_iter().map(move |item| {
            let name = item[&name].as_str().expect("a name").to_owned();
            (kind, name, item)
        })
    };
    KINDS.into_iter().flat_map(read).map(|(kind, name, item)| {
        let descriptor = descriptors::pool().get_message_by_name(type_name(kind));
        let descriptor = descriptor.expect("the API has the message");
        let message = DynamicMessage::deserialize(descriptor, item)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        (kind, name, leaf::with_texts(&message, &|text| files.instead_of(text)))
    })
}

/// A resource, with files that this machine has.
pub(crate) fn decode(files: &Files, kind: ResourceType, body: &[u8]) -> DynamicMessage {
    let message = leaf::decode(descriptors::pool(), type_name(kind), body);
    leaf::with_texts(&message, &|text| files.instead_of(text))
}

fn type_name(kind: ResourceType) -> &'static str {
    kind.type_url().rsplit('/').next().unwrap_or_default()
}

/// Bodies by type and name; different ones of the same name are all kept.
pub(crate) type Resources = BTreeMap<(ResourceType, String), Vec<Vec<u8>>>;

/// All of them.
pub(crate) fn all() -> Resources {
    let corpus = paths::project().join("integration/corpus");
    let base = corpus.join("base.yaml");
    let mut resources = Resources::new();
    let nodes = NODES.map(|id| Node { id: id.to_owned(), ..Node::default() });
    for seed in
        yaml_files(&corpus.join("seeds")).into_iter().chain(yaml_files(&corpus.join("fields")))
    {
        add(&mut resources, &[base.clone(), seed], &nodes);
    }
    let goldens = paths::project().join("xds-translator/tests/golden");
    for case in entries(&goldens).into_iter().filter(|path| path.is_dir()) {
        add(&mut resources, &[case.join("input.yaml")], &[golden_node(&case.join("node.json"))]);
    }
    resources
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    found.sort();
    found
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    entries(folder)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect()
}

fn add(resources: &mut Resources, files: &[PathBuf], nodes: &[Node]) {
    let parse = |path: &PathBuf| {
        parse_file(&path.display().to_string(), &fs::read(path).expect("a file of the corpus"))
    };
    let parsed = overlay(files.iter().map(parse));
    let mut compiler = Compiler::new(MeshDefaults::default());
    // What patches hold is their authors' word, and may be for other proxies than ours.
    let own =
        parsed.objects.into_iter().filter(|object| object.id.kind != ObjectKind::ENVOY_FILTER);
    compiler.apply(own.map(|object| Change::Upsert(Box::new(object))).collect());
    for node in nodes {
        let identity = NodeIdentity::parse(node, None).expect("a good node id");
        let class = compiler.classify(&identity).expect("the node is served");
        for view in class.views.iter().map(|key| compiler.view(key)).collect::<Vec<_>>() {
            for kind in ResourceType::ALL {
                for resource in view.tables[kind.index()].values() {
                    let bodies = resources.entry((kind, resource.name.to_string())).or_default();
                    if !bodies.iter().any(|body| **body == *resource.body) {
                        bodies.push(resource.body.to_vec());
                    }
                }
            }
        }
    }
}

fn golden_node(path: &Path) -> Node {
    let json: Value =
        serde_json::from_slice(&fs::read(path).expect("a node")).expect("a node is JSON");
    let Some(Kind::StructValue(metadata)) = proto_value(&json["metadata"]).kind else {
        return Node { id: json["id"].as_str().expect("an id").to_owned(), ..Node::default() };
    };
    Node {
        id: json["id"].as_str().expect("an id").to_owned(),
        metadata: Some(metadata),
        ..Node::default()
    }
}

fn proto_value(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Object(fields) => {
            let fields =
                fields.iter().map(|(name, value)| (name.clone(), proto_value(value))).collect();
            Kind::StructValue(Struct { fields })
        }
        _ => Kind::NullValue(0),
    };
    ProtoValue { kind: Some(kind) }
}
