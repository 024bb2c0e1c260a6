//! What the agent beside an Envoy owes to the machine it runs on.
#![cfg(feature = "e2e")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use ferromesh_integration::{
    paths,
    process::{Process, until},
    workload::{LIMIT, Workload, send_to},
};
use ferromesh_proto::bootstrap::{
    BootstrapSettings, Discovery, MoreStatistics, NodeSettings, ProxyType, Statistics, render,
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

/// An address that nobody has at the moment.
fn free_address() -> SocketAddr {
    let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    socket.local_addr().expect("it is bound")
}

/// What a server answers to `GET PATH`; empty where nobody answers.
fn get(address: SocketAddr, path: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        // Envoy takes no HTTP/1.0.
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

/// A running Envoy's statistics, as its bootstrap wants them.
fn statistics_of_an_envoy(more: MoreStatistics) -> String {
    let admin = free_address();
    let settings = BootstrapSettings {
        node: NodeSettings {
            proxy_type: ProxyType::Sidecar,
            address: [10, 0, 0, 7].into(),
            name: "cart-0".to_owned(),
            workload: None,
            namespace: "shop".to_owned(),
            service_account: "cart".to_owned(),
            labels: Default::default(),
            cluster_id: "Kubernetes".to_owned(),
            dns_domain: "cluster.local".to_owned(),
            locality: None,
            metadata: Default::default(),
        },
        // Nobody is there, and Envoy goes on asking.
        discovery: Discovery::Plaintext(free_address().into()),
        sds_socket: None,
        stats_socket: None,
        admin,
        agent: None,
        readiness: None,
        prometheus: Some(free_address()),
        statistics: Statistics::Small,
        more_statistics: more,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bootstrap.json");
    fs::write(&file, render(&settings)).expect("a file");
    let mut command = Command::new(paths::envoy());
    command.arg("-c").arg(&file).args(["--use-dynamic-base-id", "--concurrency", "1"]);
    let mut envoy = Process::start("envoy", folder.path(), command);
    envoy.until("Envoy answers", || get(admin, "/stats").contains("server.uptime"));
    get(admin, "/stats/prometheus")
}

#[test]
fn an_envoy_keeps_the_statistics_that_are_asked_for() {
    const ASKED: &str = "envoy_cluster_name=\"prometheus_stats\"";
    let without = statistics_of_an_envoy(MoreStatistics::default());
    assert!(without.contains("envoy_server_uptime") && !without.contains(ASKED), "{without}");
    let by_prefix = MoreStatistics {
        prefixes: vec!["cluster.prometheus_stats.".to_owned()],
        buckets: [("cluster".to_owned(), vec![7.0, 77.0])].into(),
        tags: vec!["tier".to_owned()],
        flush_interval: Some(Duration::from_secs(1)),
        ..MoreStatistics::default()
    };
    let with = statistics_of_an_envoy(by_prefix);
    assert!(with.contains(ASKED), "{with}");
    let by_suffix =
        MoreStatistics { suffixes: vec!["membership_total".to_owned()], ..Default::default() };
    let with = statistics_of_an_envoy(by_suffix);
    assert!(
        with.contains("envoy_cluster_membership_total{envoy_cluster_name=\"prometheus_stats\"}")
    );
    assert!(!with.contains("envoy_cluster_membership_healthy{envoy_cluster_name=\"prometheus"));
    let by_regex =
        MoreStatistics { regexes: vec![".*prometheus_s.*total".to_owned()], ..Default::default() };
    assert!(statistics_of_an_envoy(by_regex).contains(ASKED));
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
    // One that runs is what it was started as, and says so.
    let more = |text: &str| workload.plane.write("more.yaml", text.replace("BLOCK", "127.91.1"));
    more(&addition(&GREETING.replace("string: added", "string: changed")));
    until(LIMIT, "it is told", || workload.is_refused("EnvoyFilter"));
    assert!(workload.proxy.output().contains("has changed"), "the log says so");
    let greeting = send_to("127.91.1.7:9000", "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(greeting.ends_with("added"), "{greeting}");
    more(&addition(GREETING));
    until(LIMIT, "it is in force", || !workload.is_refused("EnvoyFilter"));
    workload.until_status(200);
    let listed = workload.plane.get("/api/v1/proxies").unwrap_or_default();
    assert_eq!(listed.matches("cart-0.shop").count(), 1, "an agent is no proxy: {listed}");
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
