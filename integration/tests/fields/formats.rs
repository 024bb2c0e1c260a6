//! Commands of log formats: what the translator says of each beside what our proxy makes of it.

use std::{collections::BTreeSet, fs};

use ferromesh_dataplane::compile::Context;
use ferromesh_integration::paths;
use ferromesh_proto::{ResourceType, discovery::Node};
use ferromesh_xds_translator::{
    class::NodeIdentity,
    compiler::{Change, Compiler},
    diagnostic::Code,
    dialect::{Parsed, parse_file},
    ir::MeshDefaults,
};
use serde_json::json;

/// Where commands are named: every word there is tried.
const SOURCES: [&str; 2] =
    ["xds-translator/src/dialect/istio/rules/format.rs", "dataplane/src/compile/format.rs"];

/// Arguments of every form that some command takes.
const ARGUMENTS: [&str; 12] = [
    "",
    "(a)",
    "(a:b)",
    "(ROUTE:a)",
    "(A:B)",
    "(NQ)",
    "(ORIG)",
    "(NUMBER)",
    "(request.path)",
    "(%Y)",
    "(a):3",
    "({\"operators\":[\"PROTOCOL\"]})",
];

const NODE: &str = "sidecar~10.0.0.1~client-0.shop~shop.svc.cluster.local";

fn words() -> BTreeSet<String> {
    let text = |file: &str| fs::read_to_string(paths::project().join(file)).expect("a source");
    let of_word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let all: String = SOURCES.map(text).concat();
    let words = all.split(|c| !of_word(c)).filter(|word| word.len() > 2);
    words.map(str::to_owned).collect()
}

fn mesh(format: &str) -> Parsed {
    let mesh = json!({ "mesh": { "accessLogFile": "/dev/stdout", "accessLogFormat": format } });
    parse_file("mesh.yaml", mesh.to_string().as_bytes())
}

/// Whether our proxy takes every listener that carries the format.
fn is_taken(parsed: Parsed, format: &str) -> bool {
    let mut compiler = Compiler::new(MeshDefaults::default());
    let changes = parsed.objects.into_iter().map(|object| Change::Upsert(Box::new(object)));
    compiler.apply(changes.collect());
    let node = Node { id: NODE.to_owned(), ..Node::default() };
    let identity = NodeIdentity::parse(&node, None).expect("a good node id");
    let class = compiler.classify(&identity).expect("the node is served");
    let views: Vec<_> = class.views.iter().map(|key| compiler.view(key)).collect();
    let listeners =
        views.iter().flat_map(|view| view.tables[ResourceType::Listener.index()].values());
    let carries = |body: &[u8]| body.windows(format.len()).any(|part| part == format.as_bytes());
    let carrying: Vec<_> = listeners.filter(|listener| carries(&listener.body)).collect();
    assert!(!carrying.is_empty(), "{format} is in no listener");
    carrying.iter().all(|l| Context::default().listener(&l.name, 1, &l.body).is_ok())
}

#[test]
fn a_command_is_warned_of_if_and_only_if_our_proxy_refuses_it() {
    let (mut known, mut wrong) = (BTreeSet::new(), Vec::new());
    for word in words() {
        for arguments in ARGUMENTS {
            let format = format!("%{word}{arguments}%");
            let parsed = mesh(&format);
            if parsed.objects.is_empty() {
                continue;
            }
            known.insert(word.clone());
            let warned = parsed.diagnostics.iter().any(|d| d.code == Code::NotActedOn);
            if is_taken(parsed, &format) == warned {
                wrong.push(format!("{format}: warned of: {warned}, taken: {warned}"));
            }
        }
    }
    assert!(known.len() > 100, "only {} commands were tried", known.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
