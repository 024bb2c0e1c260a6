//! The node as discovery requests carry it.

use ferromesh_proto::{bootstrap::NodeSettings, discovery};

/// The node as discovery requests carry it.
pub fn discovery_node(node: &NodeSettings) -> discovery::Node {
    discovery::Node {
        id: node.id(),
        cluster: node.cluster(),
        metadata: Some(to_struct(&node.metadata())),
        locality: node.locality.clone(),
        user_agent_name: "ferromesh-proxy".to_owned(),
        user_agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        user_agent_build_version: None,
        client_features: Vec::new(),
    }
}

fn to_struct(object: &serde_json::Map<String, serde_json::Value>) -> prost_types::Struct {
    prost_types::Struct {
        fields: object.iter().map(|(key, value)| (key.clone(), to_value(value))).collect(),
    }
}

fn to_value(value: &serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(yes) => Kind::BoolValue(*yes),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(items) => {
            Kind::ListValue(prost_types::ListValue { values: items.iter().map(to_value).collect() })
        }
        serde_json::Value::Object(object) => Kind::StructValue(to_struct(object)),
    };
    prost_types::Value { kind: Some(kind) }
}
