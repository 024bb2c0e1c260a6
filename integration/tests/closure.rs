//! Invariant 4 over the example corpus: whatever a proxy is sent refers only to what it is sent
//! too, except for names that a user wrote and nobody defined, of which a finding tells.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ferromesh_integration::paths;
use ferromesh_proto::{ResourceType, discovery::Node};
use ferromesh_xds_translator::{
    analyze::analyze_input,
    class::NodeIdentity,
    compiler::Change,
    diagnostic::Diagnostic,
    dialect::{Parsed, overlay, parse_file},
    ir::MeshDefaults,
    translate::translate,
};
use serde_json::Value;

/// A server and client, a client in another namespace, and the gateway.
const NODES: [&str; 4] = [
    "sidecar~10.244.0.11~productpage-v1-0.default~default.svc.cluster.local",
    "sidecar~10.244.0.31~reviews-v1-0.default~default.svc.cluster.local",
    "sidecar~10.244.7.7~stranger-0.nowhere~nowhere.svc.cluster.local",
    "router~10.244.9.1~istio-ingressgateway-0.istio-system~istio-system.svc.cluster.local",
];

fn parse(path: &Path) -> Parsed {
    parse_file(&path.display().to_string(), &fs::read(path).expect("a file of the corpus"))
}

/// Whether a finding tells of the host, subset or port that a cluster's name is made of.
fn is_told(cluster: &str, findings: &[Diagnostic]) -> bool {
    let parts: Vec<&str> = cluster.split('|').collect();
    let &[_, port, subset, host] = parts.as_slice() else { return false };
    let short = host.split('.').next().unwrap_or(host);
    findings.iter().any(|finding| {
        let text = finding.to_string();
        let names_host = text.contains(host) || text.contains(short);
        names_host
            || (!subset.is_empty() && text.contains(subset))
            || text.contains(&format!("port {port}"))
    })
}

/// As Istio does, a VirtualService's host has a route on port 80 although its service has other
/// ports only.
fn is_only_elsewhere(cluster: &str, clusters: &[Value]) -> bool {
    let parts: Vec<&str> = cluster.split('|').collect();
    let &[_, "80", _, host] = parts.as_slice() else { return false };
    let ports = clusters
        .iter()
        .filter_map(|c| c["name"].as_str()?.strip_suffix(&format!("||{host}")))
        .count();
    ports > 0 && !clusters.iter().any(|c| c["name"] == format!("outbound|80||{host}"))
}

#[test]
fn no_example_leaves_a_name_dangling_without_a_finding() {
    let corpus = paths::project().join("integration/corpus");
    let base = corpus.join("base.yaml");
    let seeds = fs::read_dir(corpus.join("seeds"))
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path());
    let mut seeds: Vec<PathBuf> =
        seeds.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    seeds.sort();
    assert!(seeds.len() > 30, "the corpus has {} seeds", seeds.len());
    let mut untold = Vec::new();
    for seed in std::iter::once(None).chain(seeds.iter().map(Some)) {
        let parsed = overlay(std::iter::once(&base).chain(seed).map(|path| parse(path)));
        let findings = analyze_input(&parsed, &MeshDefaults::default());
        let changes = || {
            parsed.objects.iter().map(|object| Change::Upsert(Box::new(object.clone()))).collect()
        };
        for node in NODES {
            let identity = Node { id: node.to_owned(), ..Node::default() };
            let identity = NodeIdentity::parse(&identity, None).expect("a good node id");
            let translation =
                translate(MeshDefaults::default(), changes(), &identity).expect("a translation");
            assert!(!translation.clusters.is_empty(), "{node} gets nothing");
            for dangling in &translation.dangling {
                let (kind, name) = &dangling.to;
                let written =
                    is_told(name, &findings) || is_only_elsewhere(name, &translation.clusters);
                let excused = *kind == ResourceType::Cluster && written;
                if !excused {
                    let input = seed.unwrap_or(&base).display();
                    untold.push(format!(
                        "{input}: {node}: {} names {kind:?} {name}",
                        dangling.from.1
                    ));
                }
            }
        }
    }
    assert!(untold.is_empty(), "{}", untold.join("\n"));
}
