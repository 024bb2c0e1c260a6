//! Expressions of metrics' labels: what the translator says of each beside what our proxy makes of it.

use std::{collections::BTreeSet, fs};

use ferromesh_dataplane::compile::Context;
use ferromesh_integration::paths;
use ferromesh_proto::{ResourceType, discovery::Node, stats};
use ferromesh_xds_translator::{
    class::NodeIdentity,
    compiler::{Change, Compiler},
    diagnostic::Code,
    dialect::{Parsed, parse_file},
    ir::MeshDefaults,
};
use prost_types::{Struct, Value, value::Kind};
use serde_json::json;

/// Where the translator names what our proxy knows: every pair of words with a point between them is
/// tried.
const SAID: &str = "xds-translator/src/dialect/istio/rules/own_cel.rs";
/// Where our proxy does, and the function that does: every word is tried behind every root.
const KNOWN: (&str, &str) = ("dataplane/src/compile/cel.rs", "fn known(");

/// Expressions of every form; `$` is an attribute.
const FORMS: [&str; 27] = [
    "$",
    "string($)",
    "has($) ? $ : 'unknown'",
    "$ + ' ' + $",
    "$ == 'a' || $ != \"b\" && !false",
    "($ >= 400) ? 'a' : 'b'",
    "$.startsWith('/a')",
    "$.size() > 3",
    "size($) < 3",
    "$.matches('a')",
    "$.contains('a') ? 1 : 2",
    "$ * 2",
    "$ - 1",
    "$ % 2",
    "int($)",
    "$ in ['a']",
    "$ == 1.5",
    "$ == 1u",
    "$['a']",
    "'a' in $",
    "$.a",
    "[$]",
    "{'a': $}",
    "dyn($)",
    "bytes($) == b'a'",
    "'a'.matches($)",
    "$.getHours('UTC')",
];
/// Those in which a word is tried that the translator does not name.
const FEW: usize = 3;

/// What attributes begin with.
const ROOTS: [&str; 8] =
    ["request", "response", "connection", "source", "destination", "upstream", "metadata", "xds"];

/// Attributes that Envoys have and no source here names.
const OTHERS: [&str; 7] = [
    "request.time",
    "request.total_size",
    "response.flags",
    "response.trailers",
    "connection.id",
    "filter_state",
    "xds.cluster_metadata",
];

const NODE: &str = "sidecar~10.0.0.1~client-0.shop~shop.svc.cluster.local";

fn text(file: &str) -> String {
    fs::read_to_string(paths::project().join(file)).expect("a source")
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c == '_' || c == '.'))
}

/// Attributes that the translator says our proxy knows, and others.
fn said() -> BTreeSet<String> {
    let text = text(SAID);
    let pairs = words(&text).filter(|word| {
        let parts: Vec<_> = word.split('.').collect();
        matches!(parts[..], [first, second] if ROOTS.contains(&first) && !second.is_empty())
    });
    pairs.map(str::to_owned).chain(OTHERS.map(str::to_owned)).collect()
}

/// What else our proxy may know: what it knows of anything, behind everything.
fn possible() -> BTreeSet<String> {
    let text = text(KNOWN.0);
    let (_, body) = text.split_once(KNOWN.1).expect("a function");
    let body = body.split("\n}\n").next().unwrap_or_default();
    let known: BTreeSet<_> = words(body).filter(|word| !word.is_empty()).collect();
    assert!(known.contains("route_name"), "{known:?}");
    ROOTS.iter().flat_map(|root| known.iter().map(move |name| format!("{root}.{name}"))).collect()
}

fn telemetry(expression: &str) -> Parsed {
    let object = json!({
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": { "name": "mesh", "namespace": "istio-system" },
        "spec": { "metrics": [{ "overrides": [{ "tagOverrides": {
            "a": { "operation": "UPSERT", "value": expression },
        } }] }] },
    });
    parse_file("mesh.yaml", object.to_string().as_bytes())
}

/// Whether our proxy takes every listener.
fn is_taken(parsed: Parsed) -> bool {
    let mut compiler = Compiler::new(MeshDefaults::default());
    let changes = parsed.objects.into_iter().map(|object| Change::Upsert(Box::new(object)));
    compiler.apply(changes.collect());
    let maker = Value { kind: Some(Kind::StringValue(stats::METRICS_BY_PROXY.to_owned())) };
    let metadata = Struct { fields: [(stats::METRICS_MAKER.to_owned(), maker)].into() };
    let node = Node { id: NODE.to_owned(), metadata: Some(metadata), ..Node::default() };
    let identity = NodeIdentity::parse(&node, None).expect("a good node id");
    let class = compiler.classify(&identity).expect("the node is served");
    let views: Vec<_> = class.views.iter().map(|key| compiler.view(key)).collect();
    let listeners =
        views.iter().flat_map(|view| view.tables[ResourceType::Listener.index()].values());
    let told: Vec<_> = listeners
        .filter(|listener| {
            let name = stats::CONFIG_TYPE.as_bytes();
            listener.body.windows(name.len()).any(|part| part == name)
        })
        .collect();
    assert!(!told.is_empty(), "no listener says it");
    told.iter().all(|l| Context::default().listener(&l.name, 1, &l.body).is_ok())
}

#[test]
fn an_expression_is_warned_of_if_and_only_if_our_proxy_refuses_it() {
    let (mut taken, mut refused, mut wrong) = (0, 0, Vec::new());
    let said = said();
    let others = possible().into_iter().filter(|name| !said.contains(name));
    let others: Vec<_> = others.map(|name| (name, FEW)).collect();
    for (attribute, forms) in said.iter().map(|name| (name.clone(), FORMS.len())).chain(others) {
        for form in &FORMS[..forms] {
            let expression = form.replace('$', &attribute);
            let parsed = telemetry(&expression);
            if parsed.objects.is_empty() {
                continue;
            }
            let warned = parsed.diagnostics.iter().any(|d| d.code == Code::NotActedOn);
            let takes = is_taken(parsed);
            taken += usize::from(takes);
            refused += usize::from(!takes);
            if takes == warned {
                wrong.push(format!("{expression}: warned of: {warned}, taken: {takes}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(taken > 200 && refused > 200, "{taken} taken, {refused} refused");
}
