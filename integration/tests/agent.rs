//! What the agent beside an Envoy owes to the machine it runs on.
#![cfg(feature = "e2e")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use ferromesh_integration::{
    paths,
    process::until,
    workload::{LIMIT, Workload, send_to},
};

#[test]
fn a_program_that_is_tied_ends_with_its_parent_however_that_ends() {
    let proxy = paths::program("ferromesh-proxy");
    let script = format!("{} tied $$ -- sleep 600 & echo $!; wait", proxy.display());
    let mut parent = Command::new("bash")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash starts");
    let mut line = String::new();
    BufReader::new(parent.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("its child's number");
    let child = Path::new("/proc").join(line.trim());
    let is_program =
        || std::fs::read_to_string(child.join("comm")).is_ok_and(|name| name.trim() == "sleep");
    until(Duration::from_secs(10), "the program started", is_program);
    parent.kill().expect("it runs");
    parent.wait().expect("it was killed");
    until(Duration::from_secs(10), "the program ended", || !is_program());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let script = format!(
        "{} tied $$ -- /nowhere/envoy; echo $?",
        paths::program("ferromesh-proxy").display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/envoy"), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "127");
}

/// Adds to that which the proxies of the workload start with.
fn addition(value: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: start, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: cart}}}}
  configPatches:
  - applyTo: BOOTSTRAP
    patch: {{operation: MERGE, value: {value}}}
"
    )
}

/// A listener that says where it comes from.
const GREETING: &str = r#"{static_resources: {listeners: [{
  name: added, address: {socket_address: {address: BLOCK.7, port_value: 9000}},
  filter_chains: [{filters: [{name: http, typed_config: {
    "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
    stat_prefix: added,
    route_config: {virtual_hosts: [{name: all, domains: ["*"],
      routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: added}}}]}]},
    http_filters: [{name: router, typed_config: {
      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}]}}"#;

#[test]
fn an_envoy_starts_with_what_is_added_to_its_bootstrap() {
    let workload = Workload::start_with("envoy", "127.91.1", &addition(GREETING));
    let greeting = send_to("127.91.1.7:9000", "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(greeting.starts_with("HTTP/1.1 200") && greeting.ends_with("added"), "{greeting}");
    assert!(!workload.is_refused("EnvoyFilter"));
}

#[test]
fn an_envoy_that_cannot_start_with_it_starts_without_and_says_why() {
    // A cluster of this kind says where its endpoints come from.
    let bad = addition("{static_resources: {clusters: [{name: a, type: EDS}]}}");
    let workload = Workload::start_with("envoy", "127.91.2", &bad);
    until(LIMIT, "it is told", || workload.is_refused("EnvoyFilter"));
    workload.until_status(200);
}

#[test]
fn our_proxy_says_that_it_has_no_such_bootstrap() {
    let workload = Workload::start_with("run", "127.91.3", &addition(GREETING));
    until(LIMIT, "it is told", || workload.is_refused("EnvoyFilter"));
    workload.until_status(200);
}
