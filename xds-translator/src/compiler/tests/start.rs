//! What proxies are started with, as objects say it.

use crate::{
    compiler::{Change, Compiler},
    dialect::parse_file,
    ir::{Labels, MeshDefaults, ProxyStart, StatisticNames},
};

fn start(text: &str) -> ProxyStart {
    let parsed = parse_file("mesh.yaml", text.as_bytes());
    assert!(parsed.diagnostics.is_empty(), "{:#?}", parsed.diagnostics);
    let mut compiler = Compiler::new(MeshDefaults::default());
    let changes = parsed.objects.into_iter().map(|object| Change::Upsert(Box::new(object)));
    compiler.apply(changes.collect());
    compiler.snapshot().proxy_start("shop", &Labels::new())
}

#[test]
fn the_mesh_says_which_statistics_an_envoy_keeps() {
    let said = start(
        "
apiVersion: mesh.istio.io/v1alpha1
kind: MeshConfig
metadata: {name: default}
spec:
  defaultConfig:
    extraStatTags: [tier]
    proxyStatsMatcher:
      inclusionPrefixes: [cluster.outbound]
      inclusionSuffixes: [rq_time]
      inclusionRegexps: ['listener.*']
",
    );
    let names = StatisticNames {
        prefixes: vec!["cluster.outbound".into()],
        suffixes: vec!["rq_time".into()],
        regexes: vec!["listener.*".into()],
    };
    assert_eq!(said.statistics, Some(names));
    assert_eq!(said.statistic_tags, Some(vec!["tier".into()]));
}
