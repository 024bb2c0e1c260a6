//! Outside Kubernetes, a proxy that is connected with its proven identity is why its workload is
//! called by mutual TLS, without a label: by requests, for our proxy and for an Envoy; also while
//! it is gone for a moment, and over a restart of the control plane. One that stays away takes its
//! workload's endpoint along, until it is back.
#![cfg(feature = "e2e")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use ferromesh_integration::{
    paths,
    plane::{ControlPlane, Stream, acknowledged, subscribe},
    process::{Process, until},
};
use ferromesh_proto::ResourceType;
use prost::Message;
use serde_json::Value;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
";

/// A pod as somebody would write it by hand, with further labels, and its service.
fn workload(name: &str, labels: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-1, namespace: default, labels: {{app: {name}{labels}}}}}\n\
         spec: {{serviceAccountName: {name}}}\n\
         status: {{phase: Running, podIP: {}.2, conditions: [{{type: Ready, status: \"True\"}}]}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 9080}}]}}\n",
        network(name)
    )
}

/// Addresses of a workload: `.2` is the proxy's towards others, `.3` its towards the application,
/// which is at `.4`; its own endpoints are at `.5`.
fn network(name: &str) -> String {
    let third = match name {
        "web" => 45,
        "ours" => 46,
        "envoys" => 47,
        "caller" => 54,
        "away" => 55,
        "stays" => 56,
        _ => 57,
    };
    format!("127.80.{third}")
}

/// What an application was sent; answers every request with `application`.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn serve(address: &str) -> Self {
        let heard = Self::default();
        let listener = TcpListener::bind(address).expect("an address of our own");
        let told = heard.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut bytes = [0; 4096];
                let length = stream.read(&mut bytes).unwrap_or(0);
                told.0.lock().expect("no panic").extend(&bytes[..length]);
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 11\r\n\r\napplication",
                );
            }
        });
        heard
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("no panic").clone()
    }
}

fn start_proxy(kind: &str, name: &str, plane: &ControlPlane) -> Process {
    let token = plane.path(&format!("{name}.token"));
    fs::write(&token, plane.join_token("default", name)).expect("a file");
    let at = |last: u8| format!("{}.{last}", network(name));
    let mut command = Command::new(paths::program("ferromesh-proxy"));
    command.args([kind, "--control-plane", &plane.address(15012)]);
    command.arg("--root-cert").arg(plane.path("data/root-cert.pem"));
    command.arg("--token-file").arg(&token);
    command.args(["--service-account", name, "--name", &format!("{name}-1")]);
    command.args(["--interception", "none", "--app-address", &at(4)]);
    command.args(["--inbound-address", &at(2), "--outbound-address", &at(3)]);
    command.args(["--admin-address", &format!("{}:15000", at(5))]);
    command.args(["--status-address", &format!("{}:15021", at(5))]);
    command.args(["--metrics-address", &format!("{}:15090", at(5))]);
    command.args(["--concurrency", "1", "--drain-time", "0s"]);
    command.arg("--work-dir").arg(plane.path(&format!("work-{name}")));
    if kind == "envoy" {
        command.arg("--envoy-path").arg(paths::envoy());
        command.args(["--", "--use-dynamic-base-id"]);
    }
    Process::start(name, plane.folder(), command)
}

/// The status that a request of `web` to a service gets, or that one in the clear gets which goes
/// past its proxy.
fn status(url: &str, host: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}"]);
    let output = command.args(["-H", &format!("host: {host}"), url]).output();
    String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned()
}

fn through_web(host: &str) -> String {
    status(&format!("http://{}.3:9080/", network("web")), host)
}

/// Findings about proxies of workloads, in words.
fn findings(plane: &ControlPlane) -> Vec<String> {
    let said = plane.get("/api/v1/diagnostics").unwrap_or_default();
    let said: Value = serde_json::from_str(&said).unwrap_or_default();
    let items = said["items"].as_array().cloned().unwrap_or_default();
    let ours = items.iter().filter(|item| item["code"] == "FM0402");
    ours.map(|item| format!("{}: {}", item["object"]["name"], item["message"])).collect()
}

fn until_found(plane: &ControlPlane, what: &str) {
    until(PATIENCE, what, || findings(plane).iter().any(|finding| finding.contains(what)));
}

#[test]
fn a_connected_proxy_is_why_its_workload_is_called_by_mutual_tls() {
    let plane = ControlPlane::new("127.80.44.1");
    plane.write("policy.yaml", STRICT);
    for name in ["web", "ours", "envoys"] {
        plane.write(&format!("{name}.yaml"), workload(name, ""));
    }
    let control = plane.start();
    until_found(&plane, "\"ours-1\": \"a PeerAuthentication asks for mutual TLS");
    let applications =
        ["ours", "envoys"].map(|name| Heard::serve(&format!("{}.4:9080", network(name))));
    let _web = start_proxy("run", "web", &plane);
    let ours = start_proxy("run", "ours", &plane);
    let _envoys = start_proxy("envoy", "envoys", &plane);
    for host in ["ours", "envoys"] {
        until(PATIENCE, &format!("{host} answers"), || through_web(host) == "200");
        // It is mutual TLS, since nothing else is taken.
        let direct = status(&format!("http://{}.2:9080/", network(host)), host);
        assert_eq!(direct, "000", "{host} in the clear");
    }
    assert!(applications.iter().all(|heard| !heard.bytes().is_empty()));
    assert_eq!(findings(&plane), [] as [String; 0]);

    // Somebody else at the address of a proxy that is gone hears no request, neither then nor when
    // the control plane has started anew and knows of no stream of it.
    drop(ours);
    let stranger = Heard::serve(&format!("{}.2:9080", network("ours")));
    until_found(&plane, "\"ours-1\": \"callers speak mutual TLS with it, and no proxy of it is");
    assert_eq!(through_web("ours"), "503");
    drop(control);
    let _control = plane.start();
    until(PATIENCE, "the Envoy is back", || findings(&plane).len() == 1);
    assert_eq!(through_web("ours"), "503");
    let heard = stranger.bytes();
    assert!(!heard.is_empty(), "it was called");
    assert!(!heard.windows(4).any(|part| part == b"GET "), "in the clear");

    // What is written beats who is there, and a contradiction is told.
    plane.write("envoys.yaml", workload("envoys", ", security.istio.io/tlsMode: disabled"));
    until_found(&plane, "\"envoys-1\": \"its label keeps callers from mutual TLS");
    until(PATIENCE, "callers speak plaintext", || through_web("envoys") == "503");
    plane.write("envoys.yaml", workload("envoys", ""));
    until(PATIENCE, "callers speak mutual TLS", || through_web("envoys") == "200");
}

/// Each answers as one service, `pool`, of which nothing is tried again.
const POOL: &str = "
apiVersion: v1
kind: Service
metadata: {name: pool, namespace: default}
spec: {selector: {pool: 'yes'}, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pool, namespace: default}
spec:
  hosts: [pool]
  http: [{route: [{destination: {host: pool}}], retries: {attempts: 0}}]
";
const GRACE: Duration = Duration::from_secs(4);

/// Waits until the assignment of `pool` holds these addresses, and no others of its workloads.
async fn until_assigned(stream: &mut Stream, wanted: &[&str]) {
    let told = timeout(PATIENCE, async {
        loop {
            let bytes = acknowledged(stream).await.encode_to_vec();
            let holds = |name: &&str| {
                let address = format!("{}.2", network(name));
                bytes.windows(address.len()).any(|part| part == address.as_bytes())
            };
            let assigned = ["away", "stays", "never"].into_iter().filter(holds);
            if assigned.eq(wanted.iter().copied()) {
                return;
            }
        }
    });
    assert!(told.await.is_ok(), "never {wanted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_of_a_proxy_that_is_gone_leaves_and_comes_back() {
    let plane = ControlPlane::new("127.80.48.1").with("--proxy-grace", "4s");
    plane.write("pool.yaml", POOL);
    plane.write("caller.yaml", workload("caller", ""));
    for name in ["away", "stays"] {
        plane.write(&format!("{name}.yaml"), workload(name, ", pool: 'yes'"));
    }
    let _control = plane.start();
    let cluster = "outbound|9080||pool.default.svc.cluster.local";
    let mut watcher = subscribe(&plane.host, "watcher", ResourceType::Endpoint, &[cluster]).await;
    until_assigned(&mut watcher, &["away", "stays"]).await;
    for name in ["away", "stays"] {
        drop(Heard::serve(&format!("{}.4:9080", network(name))));
    }
    let _caller = start_proxy("run", "caller", &plane);
    let through = || status(&format!("http://{}.3:9080/", network("caller")), "pool");
    for kind in ["run", "envoy"] {
        let away = start_proxy(kind, "away", &plane);
        let other = if kind == "run" { "envoy" } else { "run" };
        let _stays = start_proxy(other, "stays", &plane);
        until(PATIENCE, "both answer", || {
            findings(&plane).is_empty() && (0..4).all(|_| through() == "200")
        });
        // One that has no proxy, and never had one, is nobody's to take away.
        plane.write("never.yaml", workload("never", ", pool: 'yes'"));
        until_assigned(&mut watcher, &["away", "stays", "never"]).await;
        fs::remove_file(plane.path("config/never.yaml")).expect("it was there");
        until_assigned(&mut watcher, &["away", "stays"]).await;

        let gone = Instant::now();
        drop(away);
        until_assigned(&mut watcher, &["stays"]).await;
        assert!(gone.elapsed() >= GRACE, "{kind}: {:?}", gone.elapsed());
        until_found(&plane, "\"away-1\": \"its proxy is gone, and nobody is sent to it");
        until(PATIENCE, "the caller knows", || (0..8).all(|_| through() == "200"));
        assert!((0..32).all(|_| through() == "200"), "{kind}: nobody is sent to who is away");

        let _back = start_proxy(kind, "away", &plane);
        until_assigned(&mut watcher, &["away", "stays"]).await;
        until(PATIENCE, "both answer again", || (0..8).all(|_| through() == "200"));
    }
}
