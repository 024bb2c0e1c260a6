//! `ferromesh translate`: exactly what a proxy would get, without a running mesh.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};
use ferromesh_proto::discovery::Node;
use ferromesh_xds_translator::{
    analyze::analyze_input, class::NodeIdentity, compiler::Change, dialect::Kind, ir::MeshDefaults,
    translate::translate,
};
use prost_types::{ListValue, Struct, Value as ProtoValue, value::Kind as ProtoKind};
use serde_json::Value;

use super::{inputs, print, print_error};
use crate::secret;

/// `ferromesh translate`.
#[derive(Args, Debug)]
#[command(after_help = "What cannot be used is reported on standard error; what is valid is translated.

Example:
  ferromesh translate -f ./mesh --node 'sidecar~10.0.0.7~cart-1.shop~shop.svc.cluster.local'")]
pub(crate) struct Translate {
    /// Files or folders of YAML or JSON; `-` is standard input
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// The proxy: TYPE~IP~NAME.NAMESPACE~DOMAIN
    #[arg(long, value_name = "ID")]
    node: String,
    /// File with the node's metadata, as JSON
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
enum Form {
    #[default]
    Json,
    Yaml,
}

/// Prints the translation, and the findings on standard error.
///
/// # Errors
/// A file cannot be read, the node id is malformed, or nothing could be translated.
pub(crate) fn run(command: &Translate) -> anyhow::Result<ExitCode> {
    let parsed = inputs::read(&command.files)?;
    for finding in analyze_input(&parsed, &MeshDefaults::default()) {
        print_error(&finding.to_string());
    }
    let node = node(command)?;
    let mut changes = Vec::new();
    for object in parsed.objects {
        if object.id.kind == Kind::Secret {
            match secret::split(&object) {
                Ok(Some(material)) => changes.push(Change::Credential {
                    namespace: object.id.namespace.clone(),
                    name: object.id.name.clone(),
                    fact: Some(material.fact),
                }),
                Ok(None) => {}
                Err(finding) => print_error(&finding.to_string()),
            }
        } else {
            changes.push(Change::Upsert(Box::new(object)));
        }
    }
    if changes.is_empty() {
        anyhow::bail!("nothing to translate: no file holds a valid object");
    }
    let value = serde_json::to_value(translate(MeshDefaults::default(), changes, &node)?)?;
    match command.output {
        Form::Json => print(&serde_json::to_string_pretty(&value)?),
        Form::Yaml => print(yaml(&value).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

fn node(command: &Translate) -> anyhow::Result<NodeIdentity> {
    let metadata = match &command.metadata {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let value: Value =
                serde_json::from_str(&text).with_context(|| format!("{}: expected a JSON object", path.display()))?;
            value.as_object().map(structure)
        }
        None => None,
    };
    let node = Node { id: command.node.clone(), metadata, ..Node::default() };
    NodeIdentity::parse(&node, None).with_context(|| format!("--node {:?}", command.node))
}

fn structure(object: &serde_json::Map<String, Value>) -> Struct {
    Struct { fields: object.iter().map(|(key, value)| (key.clone(), proto(value))).collect() }
}

fn proto(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => ProtoKind::NullValue(0),
        Value::Bool(b) => ProtoKind::BoolValue(*b),
        Value::Number(n) => ProtoKind::NumberValue(n.as_f64().unwrap_or_default()),
        Value::String(s) => ProtoKind::StringValue(s.clone()),
        Value::Array(items) => ProtoKind::ListValue(ListValue { values: items.iter().map(proto).collect() }),
        Value::Object(object) => ProtoKind::StructValue(structure(object)),
    };
    ProtoValue { kind: Some(kind) }
}

/// Block YAML whose scalars are JSON, which YAML contains: nothing needs guessing about quotes.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

fn write(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, value) in object {
                text.push_str(&format!("{indent}{}:", Value::String(key.clone())));
                below(value, depth, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push_str(&format!("{indent}-"));
                below(item, depth, text);
            }
        }
        scalar => text.push_str(&format!("{indent}{scalar}\n")),
    }
}

fn below(value: &Value, depth: usize, text: &mut String) {
    let nested =
        matches!(value, Value::Object(o) if !o.is_empty()) || matches!(value, Value::Array(a) if !a.is_empty());
    if nested {
        text.push('\n');
        write(value, depth + 1, text);
    } else {
        text.push_str(&format!(" {value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_holds_what_json_holds() {
        let value = json!({ "a": [{ "b": "x: y", "c": [] }, 1], "d": {}, "e": null });
        let expected = "\"a\":\n  -\n    \"b\": \"x: y\"\n    \"c\": []\n  - 1\n\"d\": {}\n\"e\": null\n";
        assert_eq!(yaml(&value), expected);
    }
}
