//! What the translator makes of objects, as a file for an Envoy that knows no control plane.

use std::collections::BTreeMap;

use ferromesh_proto::discovery::Node;
use ferromesh_xds_translator::{
    class::NodeIdentity,
    compiler::Change,
    dialect::Parsed,
    ir::MeshDefaults,
    translate::{Translation, translate},
};
use serde_json::{Value, json};

/// What a node is sent for some objects.
///
/// # Panics
/// The node is malformed, or gets nothing.
pub fn translate_for(node: &str, metadata: &[(&str, &str)], parsed: Parsed) -> Translation {
    translate_changes(node, metadata, changes(parsed))
}

/// The objects of parsed files as changes, in their order.
pub fn changes(parsed: Parsed) -> Vec<Change> {
    parsed.objects.into_iter().map(|object| Change::Upsert(Box::new(object))).collect()
}

/// What a node is sent after some changes.
///
/// # Panics
/// As [`translate_for`].
pub fn translate_changes(
    node: &str,
    metadata: &[(&str, &str)],
    changes: Vec<Change>,
) -> Translation {
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
    let metadata = Some(prost_types::Struct { fields });
    let node = Node { id: node.to_owned(), metadata, ..Default::default() };
    let node = NodeIdentity::parse(&node, None).expect("a good node id");
    translate(MeshDefaults::default(), changes, &node).expect("a translation")
}

/// A static bootstrap of everything; routes, endpoints and configurations of filters are put where
/// Envoy would ask for them, so that it checks them too.
///
/// # Panics
/// What a resource refers to is not there.
pub fn bootstrap(translation: Translation) -> Value {
    let by_name = |resources: Vec<Value>, key: &str| -> BTreeMap<String, Value> {
        resources.into_iter().map(|r| (r[key].as_str().expect("a name").to_owned(), r)).collect()
    };
    let routes = by_name(translation.routes, "name");
    let endpoints = by_name(translation.endpoints, "cluster_name");
    let mut listeners = Value::Array(translation.listeners);
    inline_routes(&mut listeners, &routes);
    let extensions = translation.others.get("extensions").cloned().unwrap_or_default();
    inline_extensions(&mut listeners, &by_name(extensions, "name"));
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

fn inline_extensions(json: &mut Value, extensions: &BTreeMap<String, Value>) {
    match json {
        Value::Object(fields) => {
            if fields.remove("config_discovery").is_some() {
                let name = fields["name"].as_str().expect("a name");
                let extension = extensions
                    .get(name)
                    .unwrap_or_else(|| panic!("extension configuration {name} is not there"));
                let config = extension["typed_config"].clone();
                fields.insert("typed_config".to_owned(), config);
            }
            fields.values_mut().for_each(|value| inline_extensions(value, extensions));
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| inline_extensions(item, extensions));
        }
        _ => {}
    }
}

/// Puts a text in the place of every one that equals `text`, wherever it stands.
pub fn replace(json: &mut Value, text: &str, by: &str) {
    match json {
        Value::String(own) if own == text => *own = by.to_owned(),
        Value::Object(fields) => fields.values_mut().for_each(|value| replace(value, text, by)),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, text, by)),
        _ => {}
    }
}

/// Gives a workload's own certificate, `default` in what is translated, another name: one Envoy may
/// stand for many workloads.
pub fn rename_secret(json: &mut Value, name: &str) {
    match json {
        Value::Object(fields) => {
            if fields.contains_key("sds_config") && fields.get("name") == Some(&json!("default")) {
                fields.insert("name".to_owned(), name.into());
            }
            fields.values_mut().for_each(|value| rename_secret(value, name));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_secret(item, name)),
        _ => {}
    }
}

/// Removes fields of these names wherever they stand: without its `sds_config` a secret comes from
/// the bootstrap.
pub fn remove_fields(json: &mut Value, names: &[&str]) {
    match json {
        Value::Object(fields) => {
            fields.retain(|name, _| !names.contains(&name.as_str()));
            fields.values_mut().for_each(|value| remove_fields(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| remove_fields(item, names)),
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
