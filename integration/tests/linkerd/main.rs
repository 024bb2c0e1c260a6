//! Linkerd's examples of the corpus, mended as the findings on them say, by traffic: through our
//! proxies and through Envoys.
//!
//! Two things of `EXPECT.md` no stock Envoy does, and our proxy runs what Envoys are sent: a budget
//! counts retries at a time, and not in a second, and a body beyond 64 KiB is tried again up to the
//! limit of Envoy's buffers. Routes of a profile have no metrics of their own.
#![cfg(feature = "e2e")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use ferromesh_integration::{
    namespace::{Bridge, Pod},
    paths,
    plane::ControlPlane,
    process::{Process, until},
    sidecar::{Sidecar, publish_root},
};
use serde_json::Value;

/// Services of `mesh.yaml`, by their addresses from 10.96.N.21 on.
const SERVICES: [&str; 10] = [
    "backend",
    "backend-v1",
    "backend-v2",
    "profiled",
    "orders",
    "my-service",
    "breaking",
    "annotated",
    "guarded",
    "limited",
];

/// Examples that need no mending, and those that are mended by these replacements.
const EXAMPLES: [(&str, &[(&str, &str)]); 5] = [
    ("s2-05-linkerd-httproute", &[("kind: Service\n", "kind: Service\n      group: core\n")]),
    (
        "s2-06-linkerd-serviceprofile",
        &[
            ("backend.production", "profiled.default"),
            ("minRetriesPerSecond: 10", "minRetriesPerSecond: 10\n    ttl: 10s"),
        ],
    ),
    (
        "s2-07-linkerd-authorizationpolicy",
        &[
            ("kind: Server\n", "kind: Server\n    group: policy.linkerd.io\n"),
            (
                "kind: MeshTLSAuthentication",
                "kind: MeshTLSAuthentication\n      group: policy.linkerd.io",
            ),
        ],
    ),
    (
        "s4-09-linkerd-serviceprofile",
        &[("myapp.production", "orders.default"), ("namespace: production", "namespace: default")],
    ),
    (
        "s0-10-linkerd-retry",
        &[
            ("apiVersion: v1\n", "apiVersion: linkerd.io/v1alpha2\n"),
            ("name: my-service\n", "name: my-service.default.svc.cluster.local\n"),
            (
                "    retries:\n      budget:\n        retryRatio",
                "    isRetryable: true\n  retryBudget:\n        retryRatio",
            ),
            (
                "        percentile: 0.9\n      initialDelayMs: 100\n      maxDelayMs: 1000",
                "        ttl: 10s",
            ),
        ],
    ),
];

const IDENTITY: &str = "
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {name: frontend-identity}
spec: {identities: [client.default.serviceaccount.identity.linkerd.cluster.local]}
";

const EGRESS: &str = "
apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: {name: closed}
spec: {trafficPolicy: Deny}
";

#[test]
fn the_examples_hold_through_our_proxies() {
    check(&Mesh::start(35, "run"));
}

#[test]
fn the_examples_hold_through_envoys() {
    check(&Mesh::start(36, "envoy"));
}

/// Fields are dropped in order: programs before the namespaces they run in.
struct Mesh {
    _processes: Vec<Process>,
    control: ControlPlane,
    client: Pod,
    stranger: Pod,
    outsider: Pod,
    third: u8,
    _servers: [Pod; 2],
    _bridge: Bridge,
}

impl Mesh {
    fn start(third: u8, kind: &str) -> Self {
        let bridge = Bridge::new(third);
        let address = format!("10.77.{third}.1:15012");
        let control = ControlPlane::new(format!("127.77.{third}.1")).listening("xds-tls", &address);
        let own = |text: &str| {
            text.replace("10.77.0.", &format!("10.77.{third}."))
                .replace("10.96.0.", &format!("10.96.{third}."))
        };
        control.write("mesh.yaml", own(include_str!("mesh.yaml")));
        control.write("identity.yaml", IDENTITY);
        for (name, mended) in EXAMPLES {
            control.write(&format!("{name}.yaml"), example(name, mended));
        }
        let mut processes = vec![control.start()];
        publish_root(&control);

        let hosts: Vec<(&str, String)> = (21..)
            .zip(SERVICES)
            .map(|(last, name)| (name, format!("10.96.{third}.{last}")))
            .collect();
        let hosts: Vec<(&str, &str)> = hosts.iter().map(|(n, a)| (*n, a.as_str())).collect();
        let pod = |name, last| Pod::new(&bridge, name, last, &hosts);
        let (client, stranger, outsider) =
            (pod("client", 11), pod("stranger", 14), pod("outsider", 15));
        let servers = [pod("server-v1", 12), pod("server-v2", 13)];
        let sidecar = |pod: &Pod, name: &str, account: &str| {
            Sidecar { name, account, kind, options: &[] }.start(&control, &address, pod)
        };
        let mut application = |pod: &Pod, mode: &str, port: u16, version: &str| {
            let mut command = pod.command(&paths::program("fm-peer"));
            command.args([mode, &format!("0.0.0.0:{port}"), &pod.name, version]);
            let name = format!("{}-{port}", pod.name);
            processes.push(Process::start(&name, control.folder(), command));
        };
        for (server, version) in servers.iter().zip(["v1", "v2"]) {
            for port in [9080, 9081, 9082] {
                application(server, "serve", port, version);
            }
            application(server, if version == "v1" { "fail" } else { "serve" }, 9090, version);
        }
        application(&outsider, "serve", 9080, "v0");
        processes.push(sidecar(&servers[0], "server-v1", "server"));
        processes.push(sidecar(&servers[1], "server-v2", "server"));
        processes.push(sidecar(&client, "client", "client"));
        processes.push(sidecar(&stranger, "stranger", "stranger"));
        Self {
            _processes: processes,
            control,
            client,
            stranger,
            outsider,
            third,
            _servers: servers,
            _bridge: bridge,
        }
    }

    /// Status of the answer to a request, and how long that took; 0: there was none.
    fn ask(
        &self,
        pod: &Pod,
        method: &str,
        (host, path): (&str, &str),
        more: &str,
    ) -> (u16, Duration) {
        let last = 21 + SERVICES.iter().position(|name| *name == host).expect("a service");
        let port = if host.starts_with("backend-") { 8080 } else { 80 };
        let address = format!("10.96.{}.{last}:{port}", self.third);
        request(pod, &address, &format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}"))
    }

    /// Statuses of as many requests, one after the other.
    fn many(&self, method: &str, to: (&str, &str), count: usize) -> Vec<u16> {
        (0..count).map(|_| self.ask(&self.client, method, to, "").0).collect()
    }
}

/// An example of the corpus without what was wrong with it.
fn example(name: &str, mended: &[(&str, &str)]) -> String {
    let file = paths::project().join(format!("integration/corpus/seeds/{name}.yaml"));
    let text = fs::read_to_string(file).expect("the corpus");
    mended.iter().fold(text, |text, (wrong, right)| {
        assert!(text.contains(wrong), "{name} has no {wrong}");
        text.replace(wrong, right)
    })
}

fn request(pod: &Pod, address: &str, head: &str) -> (u16, Duration) {
    let begin = Instant::now();
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let text = format!("{head}content-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = pod.inside(ask).unwrap_or_default();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_default(), begin.elapsed())
}

/// What `fm-peer get` counted.
fn get(pod: &Pod, url: &str, count: usize) -> Value {
    let output = pod.exec(&paths::program("fm-peer"), &["get", url, &count.to_string()]);
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text} {}", String::from_utf8_lossy(&output.stderr)))
}

fn of(statuses: &[u16], wanted: u16) -> usize {
    statuses.iter().filter(|status| **status == wanted).count()
}

fn check(mesh: &Mesh) {
    until(Duration::from_secs(60), "the first request answered", || {
        mesh.ask(&mesh.client, "GET", ("guarded", "/"), "").0 == 200
    });
    thread::scope(|scope| {
        // These wait for limits of time.
        scope.spawn(|| check_timeouts(mesh));
        check_shares(mesh);
        check_retries(mesh);
        check_breaker(mesh);
        check_limit(mesh);
    });
    // Other listeners take the place of those that carry requests: what is long under way ends.
    check_access(mesh);
    check_egress(mesh);
}

#[allow(clippy::print_stdout, reason = "which rows hold is read")]
fn passed(row: &str) {
    println!("{row} → passed");
}

fn check_shares(mesh: &Mesh) {
    let counts = get(&mesh.client, "http://backend/", 4000);
    assert_eq!(counts["statuses"]["200"], 4000, "{counts}");
    let v2 = counts["versions"]["v2"].as_u64().unwrap_or_default();
    assert!((280..=520).contains(&v2), "v2 got {v2} of 4000, expected 10 % ± 3");
    passed("s2-05-linkerd-httproute.yaml#1");
}

/// Half of the endpoints answers 503.
fn check_retries(mesh: &Mesh) {
    // Of two endpoints with a request under way at one of them (other checks wait for answers
    // meanwhile), the least loaded of two draws is that one a quarter of the times, so that from a
    // quarter to three quarters fail. Another attempt draws six times for another endpoint.
    let retried = |service: &str, path: &str| {
        let statuses = mesh.many("POST", (service, path), 150);
        assert!(of(&statuses, 200) >= 102, "POST {service}{path}: {statuses:?}");
    };
    let once = |service: &str, path: &str| {
        let statuses = mesh.many("GET", (service, path), 150);
        let failed = of(&statuses, 503);
        assert!((8..=142).contains(&failed), "GET {service}{path}: {statuses:?}");
    };
    retried("my-service", "/api/x");
    once("my-service", "/api/x");
    passed("s0-10-linkerd-retry.yaml#1");
    retried("orders", "/api/orders");
    once("orders", "/api/users");
    passed("s4-09-linkerd-serviceprofile.yaml#1, retries");
    once("profiled", "/api/data");
    passed("s2-06-linkerd-serviceprofile.yaml#1, one attempt; it comes before an HTTPRoute");
    retried("annotated", "/");
}

fn check_timeouts(mesh: &Mesh) {
    let table = [
        ("GET", ("profiled", "/api/data"), 3.0),
        ("GET", ("orders", "/api/users"), 5.0),
        ("POST", ("orders", "/api/orders"), 10.0),
        ("GET", ("annotated", "/"), 1.0),
    ];
    thread::scope(|scope| {
        for (method, to, limit) in table {
            scope.spawn(move || {
                let (status, took) = mesh.ask(&mesh.client, method, to, "x-delay: 14000\r\n");
                let took = took.as_secs_f64();
                assert_eq!(status, 504, "{method} {to:?} after {took} s");
                assert!((limit - 0.05..limit + 1.5).contains(&took), "{to:?}: {took} s");
            });
        }
        // No route, no limit.
        scope.spawn(move || {
            let (status, took) =
                mesh.ask(&mesh.client, "POST", ("profiled", "/api/data"), "x-delay: 3500\r\n");
            assert!(matches!(status, 200 | 503) && took > Duration::from_millis(3400), "{status}");
        });
    });
    passed("s2-06-linkerd-serviceprofile.yaml#1 and s4-09-linkerd-serviceprofile.yaml#1, timeouts");
}

fn check_breaker(mesh: &Mesh) {
    let first = mesh.many("GET", ("breaking", "/api/x"), 60);
    assert!(of(&first, 503) >= 5, "{first:?}");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        let then = mesh.many("GET", ("breaking", "/api/x"), 50);
        assert_eq!(of(&then, 200), 50, "the failing endpoint is out for 30 s: {then:?}");
    }
    passed("s0-08-linkerd-circuit-breaker.yaml#1");
}

fn check_access(mesh: &Mesh) {
    let asked = |pod: &Pod| mesh.ask(pod, "GET", ("guarded", "/"), "").0;
    let plaintext = || {
        let address = format!("10.77.{}.12:9081", mesh.third);
        request(&mesh.outsider, &address, "GET / HTTP/1.1\r\nhost: guarded\r\n").0
    };
    assert_eq!((asked(&mesh.client), asked(&mesh.stranger), plaintext()), (200, 403, 403));
    fs::remove_file(mesh.control.path("config/identity.yaml")).expect("removed");
    until(Duration::from_secs(30), "nobody passes without the identities", || {
        asked(&mesh.client) == 403
    });
    assert_eq!((asked(&mesh.stranger), plaintext()), (403, 403));
    mesh.control.write("identity.yaml", IDENTITY);
    until(Duration::from_secs(30), "the identities are back", || asked(&mesh.client) == 200);
    passed("s2-07-linkerd-authorizationpolicy.yaml#1");
}

fn check_limit(mesh: &Mesh) {
    let statuses = mesh.many("GET", ("limited", "/"), 40);
    let (taken, refused) = (of(&statuses, 200), of(&statuses, 429));
    assert!(taken >= 5 && refused >= 10 && taken + refused == 40, "{statuses:?}");
}

/// What the mesh does not know can be reached until an EgressNetwork says otherwise.
fn check_egress(mesh: &Mesh) {
    let address = format!("10.77.{}.15:9080", mesh.third);
    let status = || request(&mesh.client, &address, "GET / HTTP/1.1\r\nhost: outside\r\n").0;
    assert_eq!(status(), 200, "traffic leaves the mesh");
    mesh.control.write("egress.yaml", EGRESS);
    until(Duration::from_secs(30), "traffic stays in the mesh", || status() != 200);
    assert_eq!(mesh.ask(&mesh.client, "GET", ("backend", "/"), "").0, 200, "within the mesh");
}
