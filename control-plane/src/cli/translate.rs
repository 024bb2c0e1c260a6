//! `ferromesh translate`: exactly what a proxy would get, without a running mesh.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};
use ferromesh_proto::discovery::Node;
use ferromesh_xds_translator::{
    analyze::analyze_input, class::NodeIdentity, ir::MeshDefaults, translate::translate,
};
use prost_types::{ListValue, Struct, Value as ProtoValue, value::Kind as ProtoKind};
use serde_json::Value;

use super::{
    changes, inputs,
    print::{print, print_error},
    yaml,
};

/// `ferromesh translate`.
#[derive(Args, Debug)]
#[command(
    after_help = "What cannot be used is reported on standard error; what is valid is translated.

Example:
  ferromesh translate -f ./mesh --node 'sidecar~10.0.0.7~cart-1.shop~shop.svc.cluster.local'"
)]
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
    let changes = changes::of(parsed);
    if changes.is_empty() {
        anyhow::bail!("nothing to translate: no file holds a valid object");
    }
    let value = serde_json::to_value(translate(MeshDefaults::default(), changes, &node)?)?;
    match command.output {
        Form::Json => print(&serde_json::to_string_pretty(&value)?),
        Form::Yaml => print(yaml::block(&value).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

fn node(command: &Translate) -> anyhow::Result<NodeIdentity> {
    let metadata = match &command.metadata {
        Some(path) => {
            let text = inputs::text(path)?;
            let value: Value = serde_json::from_str(&text)
                .with_context(|| format!("{}: expected a JSON object", path.display()))?;
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
        Value::Array(items) => {
            ProtoKind::ListValue(ListValue { values: items.iter().map(proto).collect() })
        }
        Value::Object(object) => ProtoKind::StructValue(structure(object)),
    };
    ProtoValue { kind: Some(kind) }
}
