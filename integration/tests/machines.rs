//! Machines of a WorkloadGroup: what an agent tells of the machine that it runs on, and what the
//! control plane makes of it, for our proxy and for an Envoy.
#![cfg(feature = "e2e")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ferromesh_integration::{
    paths,
    plane::{ControlPlane, Stream, acknowledged, curl, subscribe},
    process::Process,
};
use ferromesh_proto::ResourceType;
use prost::Message;
use tokio::time::timeout;

const VMS: &str = "outbound|80||vms.default.svc.cluster.local";
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a machine stays that is gone.
const GRACE: Duration = Duration::from_secs(10);

const OBJECTS: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vms, namespace: default}
spec:
  metadata: {labels: {app: vms}}
  template: {serviceAccount: vm, ports: {http: 9090}}
  probe: {exec: {command: [test, -e, well]}}
---
apiVersion: v1
kind: Service
metadata: {name: vms, namespace: default}
spec: {clusterIP: 10.96.0.77, selector: {app: vms}, ports: [{name: http, port: 80}]}
";

/// Answers every request; for ever.
fn serve_application(address: &str) {
    let listener = TcpListener::bind(address).expect("an address of our own");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 7\r\n\r\nmachine",
            );
        }
    });
}

/// A proxy on addresses of `network`, of a machine that is well while the file is there.
fn start_proxy(kind: &str, plane: &ControlPlane, network: &str, well: &Path) -> Process {
    let token = plane.path(&format!("token-{kind}"));
    fs::write(&token, plane.join_token("default", "vm")).expect("a file");
    let at = |last: u8| format!("{network}.{last}");
    let probe = format!(
        r#"{{"exec": {{"command": ["test", "-e", "{}"]}}, "periodSeconds": 1, "failureThreshold": 1}}"#,
        well.display()
    );
    let mut command = Command::new(paths::program("ferromesh-proxy"));
    command.arg(kind);
    command.args(["--control-plane", &plane.address(15012)]);
    command.arg("--root-cert").arg(plane.path("data/root-cert.pem"));
    command.arg("--token-file").arg(&token);
    command.args(["--namespace", "default", "--service-account", "vm", "--name", kind]);
    command.args(["--group", "vms", "--health-probe", &probe]);
    command.args(["--ip", &at(2), "--interception", "none", "--app-address", &at(4)]);
    command.args(["--inbound-address", &at(2), "--outbound-address", &at(3)]);
    command.args(["--admin-address", &format!("{}:15000", at(5))]);
    command.args(["--status-address", &format!("{}:15021", at(5))]);
    command.args(["--metrics-address", &format!("{}:15090", at(5))]);
    command.args(["--concurrency", "1", "--drain-time", "0s"]);
    command.arg("--work-dir").arg(plane.path(&format!("work-{kind}")));
    if kind == "envoy" {
        command.arg("--envoy-path").arg(paths::envoy());
        command.args(["--", "--use-dynamic-base-id"]);
    }
    Process::start(kind, plane.folder(), command)
}

/// Waits until the machines' assignment holds an address, or holds it no more.
async fn until_assigned(stream: &mut Stream, address: &str, wanted: bool) {
    let told = timeout(PATIENCE, async {
        loop {
            let bytes = acknowledged(stream).await.encode_to_vec();
            let holds = bytes.windows(address.len()).any(|part| part == address.as_bytes());
            if holds == wanted {
                return;
            }
        }
    });
    assert!(told.await.is_ok(), "{address}: never {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_serves_while_its_agent_says_that_it_is_well() {
    let plane = ControlPlane::new("127.80.40.1");
    plane.write("vms.yaml", OBJECTS);
    let _process = plane.start();
    let mut watcher = subscribe(&plane.host, "client", ResourceType::Endpoint, &[VMS]).await;
    for (kind, network) in [("run", "127.80.41"), ("envoy", "127.80.42")] {
        serve_application(&format!("{network}.4:9090"));
        let well = plane.path(&format!("well-{kind}"));
        let address = format!("{network}.2");
        let mut proxy = start_proxy(kind, &plane, network, &well);
        // Its inbound side comes although it is not well yet: it is a workload.
        let answers = || curl(&format!("http://{address}:9090/")).is_some_and(|a| a == "machine");
        proxy.until("the machine's inbound side", answers);
        fs::write(&well, "").expect("a file");
        until_assigned(&mut watcher, &address, true).await;
        fs::remove_file(&well).expect("it was there");
        until_assigned(&mut watcher, &address, false).await;
        fs::write(&well, "").expect("a file");
        until_assigned(&mut watcher, &address, true).await;
        // The machine is gone before its process is waited for.
        let gone = Instant::now();
        drop(proxy);
        until_assigned(&mut watcher, &address, false).await;
        assert!(gone.elapsed() >= GRACE, "{kind}: {:?}", gone.elapsed());
    }
}
