//! What the translator makes of the example corpus, taken by a real Envoy: listeners, clusters,
//! routes and endpoints of a sidecar and of a gateway, for the base alone and with each seed.
#![cfg(feature = "e2e")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ferromesh_integration::{
    offline::{bootstrap, translate_for},
    paths,
};
use ferromesh_xds_translator::dialect::{Parsed, overlay, parse_files};
use serde_json::Value;

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

/// Spans in every form, one after the other: a listener has one tracer.
#[test]
fn envoy_takes_every_tracer() {
    let node = "sidecar~10.98.0.1~cart-0.shop~shop.svc.cluster.local";
    for provider in ["otlp-grpc", "otlp-http", "zipkin", "datadog", "skywalking"] {
        let telemetry = format!(
            "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\n\
             metadata: {{name: shop, namespace: shop}}\n\
             spec: {{tracing: [{{providers: [{{name: {provider}}}]}}]}}\n"
        );
        let files = [
            ("translate.yaml".to_owned(), include_bytes!("translate.yaml").to_vec()),
            ("telemetry.yaml".to_owned(), telemetry.into_bytes()),
        ];
        let parsed = parse(&files);
        assert!(parsed.rejected.is_empty(), "{:#?}", parsed.diagnostics);
        let translation = translate_for(node, &[], parsed);
        assert_eq!(translation.dangling, [], "{provider}");
        let bootstrap = bootstrap(translation);
        assert!(bootstrap.to_string().contains("envoy.tracers."), "{provider}");
        validate(&bootstrap).unwrap_or_else(|words| panic!("{provider}: {words}"));
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
        let mut marks = vec![
            added,
            "patched-cluster",
            "patched-table",
            "patched-host",
            "patched-route",
            "-- asked",
            "-- script",
            "fetched.wasm",
            "bytes.wasm",
        ];
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
