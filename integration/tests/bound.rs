//! A sidecar's listener that is captured, then really opened by a Sidecar object, and captured
//! again, for an Envoy and for our proxy: each form carries requests, nothing is left listening, and
//! the proxy stays the same process.
#![cfg(feature = "e2e")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    thread,
    time::Duration,
};

use ferromesh_integration::{
    namespace::{Bridge, Pod},
    plane::ControlPlane,
    process::until,
    sidecar::{PodProxy, publish_root, until_ready},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A service without an address: its captured listener is the wildcard's, as the opened one is.
const MESH: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client-0, namespace: shop, labels: {app: client}}
spec: {serviceAccountName: client}
status: {phase: Running, podIP: CLIENT, conditions: [{type: Ready, status: \"True\"}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: shop}
spec:
  hosts: [web.test]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  location: MESH_EXTERNAL
  resolution: STATIC
  endpoints: [{address: SERVER}]
";

const OPENED: &str = "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: opened, namespace: shop}
spec:
  egress:
  - {port: {number: 80, name: http, protocol: HTTP}, bind: 0.0.0.0, captureMode: NONE, hosts: ['./web.test']}
";

fn serve(pod: &Pod) {
    let listener = pod.inside(|| TcpListener::bind(("0.0.0.0", 8080)).expect("a free port"));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = BufReader::new(&stream).lines().map_while(Result::ok);
            head.take_while(|line| !line.is_empty()).for_each(drop);
            let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

/// The status of a request for the service to an address, from the pod; `refused`: nobody
/// listens.
fn status(pod: &Pod, address: &str) -> String {
    let url = format!("http://{address}/");
    let arguments =
        ["-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "-H", "host: web.test", &url];
    let output = pod.exec(Path::new("curl"), &arguments);
    // 7: the connection was refused. Every other failure is told apart from it.
    match output.status.code() {
        Some(0) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Some(7) => "refused".into(),
        code => format!("curl {code:?}"),
    }
}

fn check(third: u8, kind: &str) {
    let bridge = Bridge::new(third);
    let client = Pod::new(&bridge, "client", 11, &[]);
    let server = Pod::new(&bridge, "server", 12, &[]);
    serve(&server);
    let address = format!("10.77.{third}.1:15012");
    let control =
        ControlPlane::new(format!("127.77.{third}.1")).listening("xds-tls", address.clone());
    let (own, other) = (client.address.to_string(), server.address.to_string());
    let mesh = MESH.replace("CLIENT", &own).replace("SERVER", &other);
    control.write("mesh.yaml", mesh);
    let _plane = control.start();
    publish_root(&control);
    client.redirect(&[]);
    let proxy = PodProxy {
        kind,
        role: "sidecar",
        namespace: "shop",
        account: "client",
        name: "client-0",
        options: &[],
    };
    let mut proxy = proxy.start(&control, &address, &client);
    until_ready(&mut proxy, &client);
    // Nobody is at this address: only a captured request comes anywhere.
    let captured = format!("10.77.{third}.99");
    for round in 0..2 {
        until(PATIENCE, "captured", || status(&client, &captured) == "200");
        until(PATIENCE, "closed", || status(&client, "127.0.0.1") == "refused");
        control.write("opened.yaml", OPENED);
        until(PATIENCE, "opened", || status(&client, "127.0.0.1") == "200");
        assert_eq!(status(&client, "127.0.0.1"), "200", "round {round}");
        fs::remove_file(control.path("config/opened.yaml")).expect("a file");
    }
    until(PATIENCE, "captured", || status(&client, &captured) == "200");
    until(PATIENCE, "closed", || status(&client, "127.0.0.1") == "refused");
    let log = fs::read_to_string(control.path("client-0-proxy.log")).expect("a log");
    assert!(!log.contains("Envoy ended"), "{log}");
}

#[test]
fn an_envoys_listener_is_opened_and_closed_while_it_runs() {
    check(62, "envoy");
}

#[test]
fn our_proxys_listener_is_opened_and_closed_while_it_runs() {
    check(63, "run");
}
