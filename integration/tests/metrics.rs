//! Istio's metrics of one call, as Prometheus fetches them from both of its proxies: label by label
//! the same from a stock Envoy with our agent and from our own proxy, with the labels that a
//! Telemetry changes.
#![cfg(feature = "e2e")]

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use ferromesh_integration::{
    plane::{ControlPlane, curl},
    process::{Process, until},
    workload::{LIMIT, proxy},
};

/// The application's port.
const PORT: u16 = 9080;
/// What a caller may try to fill memory with: more than any table of series takes.
const VALUES: usize = 1_200;

/// A caller and a server of `shop`, who speak mutual TLS. `BLOCK` is a network.
const MESH: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Pod
metadata:
  name: cart-7d4b9c-x2x8z
  namespace: shop
  labels: {app: cart, version: v1, pod-template-hash: 7d4b9c, security.istio.io/tlsMode: istio}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: cart-7d4b9c, uid: a, controller: true}]
spec: {serviceAccountName: cart, containers: [{name: app, ports: [{containerPort: 9080}]}]}
status: {phase: Running, podIP: BLOCK.12, podIPs: [{ip: BLOCK.12}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-0
  namespace: shop
  labels: {app: web, security.istio.io/tlsMode: istio}
  ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: b, controller: true}]
spec: {serviceAccountName: web, containers: [{name: app}]}
status: {phase: Running, podIP: BLOCK.22, podIPs: [{ip: BLOCK.22}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: cart}
  ports: [{name: http, port: 80, targetPort: 9080}, {name: tcp, port: 9000, targetPort: 9000}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec:
  metrics:
  - providers: [{name: prometheus}]
    overrides:
    - match: {metric: REQUEST_COUNT}
      tagOverrides:
        method: {operation: UPSERT, value: request.method}
        user: {operation: UPSERT, value: \"'x-user' in request.headers ? request.headers['x-user'] : 'nobody'\"}
        source_version: {operation: REMOVE}
    - match: {metric: REQUEST_SIZE, mode: CLIENT}
      disabled: true
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: cart, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  metrics:
  - overrides:
    - match: {metric: REQUEST_COUNT, mode: SERVER}
      tagOverrides:
        request_path: {operation: UPSERT, value: request.url_path}
        user: {operation: REMOVE}
";

/// What both kinds of proxies say of `GET /items?all=1` with `x-user: anna`, at the client's side
/// and at the server's; what is empty is not there.
const TABLE: &[(&str, &str, &str)] = &[
    ("reporter", "source", "destination"),
    ("source_workload", "web", "unknown"),
    ("source_workload_namespace", "shop", "shop"),
    ("source_principal", WEB, WEB),
    ("source_app", "web", "unknown"),
    ("source_version", "", ""),
    ("source_cluster", "Kubernetes", "unknown"),
    ("source_canonical_service", "web", "unknown"),
    ("source_canonical_revision", "latest", "unknown"),
    ("destination_workload", "cart", "cart"),
    ("destination_workload_namespace", "shop", "shop"),
    ("destination_principal", CART, CART),
    ("destination_app", "cart", "cart"),
    ("destination_version", "v1", "v1"),
    ("destination_cluster", "Kubernetes", "Kubernetes"),
    ("destination_canonical_service", "cart", "cart"),
    ("destination_canonical_revision", "v1", "v1"),
    ("destination_service", HOST, HOST),
    ("destination_service_name", "cart", "cart"),
    ("destination_service_namespace", "shop", "shop"),
    ("request_protocol", "http", "http"),
    ("response_code", "200", "200"),
    ("response_flags", "-", "-"),
    ("connection_security_policy", "unknown", "mutual_tls"),
    ("method", "GET", "GET"),
    ("user", "anna", ""),
    ("request_path", "", "/items"),
];

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const HOST: &str = "cart.shop.svc.cluster.local";

/// Two workloads behind proxies of a kind. Fields are dropped in order: files last.
struct Site {
    _proxies: [Process; 2],
    _server: Process,
    _plane: ControlPlane,
    block: String,
}

impl Site {
    /// `kind`: `envoy` or `run`, ours. `block`: of loopback addresses.
    fn start(kind: &str, block: &str) -> Self {
        application(&format!("{block}.13:{PORT}"), answer);
        application(&format!("{block}.13:9000"), echo);
        let plane = ControlPlane::new(format!("{block}.1"));
        plane.write("mesh.yaml", MESH.replace("BLOCK", block));
        let server = plane.start();
        let cart = start(kind, block, &plane, ("cart", "cart-7d4b9c-x2x8z", "v1", 10));
        let web = start(kind, block, &plane, ("web", "web-0", "", 20));
        let site =
            Self { _proxies: [cart, web], _server: server, _plane: plane, block: block.to_owned() };
        until(LIMIT, "an answer", || site.ask("/ready", "") == 200);
        site
    }

    /// The status of an answer to the caller's application, by its proxy; 0 without one.
    fn ask(&self, path: &str, headers: &str) -> u16 {
        let head = format!("GET {path} HTTP/1.1\r\nhost: cart.shop\r\nconnection: close\r\n");
        let answer = exchange(&format!("{}.24:80", self.block), &format!("{head}{headers}\r\n"));
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// What a proxy's metrics are, as they are fetched; `last`: of its addresses, the first.
    fn metrics(&self, last: u8) -> String {
        curl(&format!("http://{}.{}:15090/stats/prometheus", self.block, last + 5))
            .unwrap_or_default()
    }

    /// The series of a metric whose labels have this part.
    fn series(&self, last: u8, metric: &str, part: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let text = self.metrics(last);
        let lines = text.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
        let lines = lines.filter(|line| line.contains(part));
        lines.map(series).collect()
    }
}

/// The labels of a sample, and its value.
fn series(line: &str) -> (BTreeMap<String, String>, f64) {
    let (labels, value) = line.rsplit_once("} ").expect("a sample");
    let pairs = labels.strip_suffix('"').expect("a value").split("\",").map(|pair| {
        let (name, value) = pair.split_once("=\"").expect("a label");
        (name.to_owned(), value.to_owned())
    });
    (pairs.collect(), value.parse().expect("a number"))
}

/// Starts a proxy with the name that an injector would give its workload.
fn start(
    kind: &str,
    block: &str,
    plane: &ControlPlane,
    (app, name, version, first): (&str, &str, &str, u8),
) -> Process {
    let mut command = proxy(kind, app, plane, (block, first));
    command.args(["--name", name, "--workload", app, "--label", &format!("app={app}")]);
    command.args(["--concurrency", "2"]);
    if !version.is_empty() {
        command.args(["--label", &format!("version={version}")]);
    }
    let mut started = Process::start(app, plane.folder(), command);
    let ready = format!("http://{block}.{}:15021/healthz/ready", first + 5);
    started.until("ready", || curl(&ready).is_some());
    started
}

/// Serves each connection to an address on a thread of its own.
fn application(address: &str, serve: fn(TcpStream)) {
    let listener = TcpListener::bind(address).expect("an address");
    thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| drop(thread::spawn(move || serve(stream))));
    });
}

/// Answers one request after the other, none of which has a body.
fn answer(mut stream: TcpStream) {
    let (mut read, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(more @ 1..) = stream.read(&mut part) {
        read.extend_from_slice(&part[..more]);
        while let Some(end) = read.windows(4).position(|end| end == b"\r\n\r\n") {
            read.drain(..end + 4);
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").is_err() {
                return;
            }
        }
    }
}

/// Sends back what comes, until its end.
fn echo(mut stream: TcpStream) {
    let Ok(mut back) = stream.try_clone() else { return };
    let _ = std::io::copy(&mut stream, &mut back);
}

/// What is answered to these bytes until the connection ends.
fn exchange(address: &str, bytes: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let mut answer = String::new();
    let _ = stream.write_all(bytes.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
    answer
}

fn check(kind: &str, block: &str) {
    let site = Site::start(kind, block);
    assert_eq!(site.ask("/items?all=1", "x-user: anna\r\n"), 200);
    let (web, cart) = (20, 10);
    for (side, first, part) in
        [("source", web, "user=\"anna\""), ("destination", cart, "request_path=\"/items\"")]
    {
        let found = || site.series(first, "istio_requests_total", part);
        until(LIMIT, &format!("the metric at the {side}"), || !found().is_empty());
        let found = found();
        let [(labels, count)] = &found[..] else { panic!("{found:#?}") };
        assert!((*count - 1.0).abs() < f64::EPSILON, "{found:#?}");
        let expected: BTreeMap<String, String> = TABLE
            .iter()
            .map(|(label, source, destination)| {
                (label, if side == "source" { source } else { destination })
            })
            .filter(|(_, value)| !value.is_empty())
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .chain([("grpc_response_status".to_owned(), String::new())])
            .collect();
        assert_eq!(labels, &expected, "{kind}, {side}");
    }
    // Of bytes only the server tells, where nothing is changed.
    for (first, metric, there) in [
        (web, "istio_request_bytes_count", false),
        (cart, "istio_request_bytes_count", true),
        (web, "istio_response_bytes_count", true),
        (web, "istio_request_duration_milliseconds_count", true),
    ] {
        let found = site.series(first, metric, "response_code=\"200\"");
        assert_eq!(!found.is_empty(), there, "{kind}: {metric}: {found:#?}");
        let changed = found.iter().any(|(labels, _)| labels.contains_key("method"));
        assert!(!changed, "{kind}: {metric}: {found:#?}");
    }
    check_bytes(&site, kind, [web, cart]);
    check_flood(&site, kind, web);
}

/// Connections that carry bytes.
fn check_bytes(site: &Site, kind: &str, [web, cart]: [u8; 2]) {
    let mut stream = TcpStream::connect(format!("{}.24:9000", site.block)).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let mut back = [0; 5];
    stream.write_all(b"bytes").and_then(|()| stream.read_exact(&mut back)).expect("an echo");
    assert_eq!(&back, b"bytes");
    drop(stream);
    for (first, side) in [(web, "source"), (cart, "destination")] {
        let part = "request_protocol=\"tcp\"";
        let carried = |metric: &str| {
            let found = site.series(first, metric, part);
            let found = found.iter().filter(|(labels, _)| labels["response_flags"] == "-");
            found.map(|(_, count)| *count).sum::<f64>()
        };
        let closed = || carried("istio_tcp_connections_closed_total");
        until(LIMIT, &format!("the connection at the {side} of {kind}"), || closed() >= 1.0);
        assert!(carried("istio_tcp_connections_opened_total") >= closed());
        for metric in ["istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total"] {
            assert!((carried(metric) - 5.0).abs() < f64::EPSILON, "{kind}, {side}: {metric}");
        }
        let labels = &site.series(first, "istio_tcp_sent_bytes_total", part)[0].0;
        assert_eq!(labels["destination_service"], HOST);
        assert_eq!((&*labels["source_principal"], &*labels["destination_principal"]), (WEB, CART));
    }
}

/// A caller who chooses another value for each request.
fn check_flood(site: &Site, kind: &str, web: u8) {
    let mut stream = TcpStream::connect(format!("{}.24:80", site.block)).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let mut part = [0; 65536];
    for value in 0..VALUES {
        let head = format!("GET /flood HTTP/1.1\r\nhost: cart.shop\r\nx-user: {value}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            let more = stream.read(&mut part).expect("an answer");
            answer.extend_from_slice(&part[..more]);
        }
    }
    let all = || site.series(web, "istio_requests_total", "user=");
    let counted = || all().iter().map(|(_, count)| *count).sum::<f64>();
    let expected = VALUES as f64;
    until(LIMIT, &format!("all requests at {kind}"), || counted() >= expected);
    let series = all();
    let rest = series.iter().filter(|(labels, _)| labels["user"] == "overflow");
    let rest: f64 = rest.map(|(_, count)| *count).sum();
    assert!(series.len() < VALUES, "{kind}: {} series", series.len());
    assert!(rest > 0.0, "{kind}: nothing is put together");
}

#[test]
fn an_envoy_with_its_agent_says_what_istios_metrics_say() {
    check("envoy", "127.93.1");
}

#[test]
fn our_proxy_says_what_istios_metrics_say() {
    check("run", "127.94.1");
}
