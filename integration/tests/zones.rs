//! Balancing over zones (`zoneAwareLbSetting`): by Envoys and by our proxies in the same shares, as
//! told and by what comes before what.
#![cfg(feature = "e2e")]

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use ferromesh_integration::{
    plane::ControlPlane,
    process::{Process, until},
    workload::{LIMIT, proxy},
};

/// So many requests tell a share.
const MANY: usize = 4_000;
/// So many tell that it has changed.
const FEW: usize = 400;
/// Where servers are asked for, and listen.
const PORT: u16 = 8080;
/// The zones, and the last part of the address of the server in each.
const ZONES: [(&str, u8); 3] = [("a", 11), ("b", 12), ("c", 13)];

/// What one set of objects leads to.
struct Case {
    name: &'static str,
    /// The client's replicas in each zone, of which one is the client's own, in the first.
    peers: [u8; 3],
    /// The region of the last zone; of the others it is `eu`.
    last_region: &'static str,
    /// Of the service that is asked.
    annotations: &'static str,
    /// `spec` of the mesh's settings, as a flow mapping.
    mesh: &'static str,
    /// `loadBalancer` of the policy for the service; empty: there is none.
    policy: &'static str,
    /// Percent of requests by zone.
    expected: [usize; 3],
}

const PLAIN: Case = Case {
    name: "without a setting",
    peers: [1, 1, 1],
    last_region: "eu",
    annotations: "{}",
    mesh: "{}",
    policy: "",
    expected: [33, 33, 33],
};

const CASES: [Case; 10] = [
    PLAIN,
    Case {
        name: "a zone that can take its own",
        policy: "{zoneAwareLbSetting: {enabled: true, minClusterSize: 1}}",
        expected: [100, 0, 0],
        ..PLAIN
    },
    Case {
        name: "a zone that cannot",
        peers: [2, 1, 1],
        policy: "{zoneAwareLbSetting: {minClusterSize: 1}}",
        expected: [67, 17, 17],
        ..PLAIN
    },
    Case { name: "few endpoints", policy: "{zoneAwareLbSetting: {minClusterSize: 4}}", ..PLAIN },
    Case { name: "few by default", policy: "{zoneAwareLbSetting: {}}", ..PLAIN },
    Case {
        name: "for the mesh",
        peers: [2, 1, 1],
        mesh: "{zoneAwareLbSetting: {minClusterSize: 1}}",
        expected: [67, 17, 17],
        ..PLAIN
    },
    Case {
        name: "for the mesh, and off for the service",
        mesh: "{zoneAwareLbSetting: {minClusterSize: 1}}",
        policy: "{zoneAwareLbSetting: {enabled: false}}",
        ..PLAIN
    },
    Case {
        name: "for the mesh, and shares for the service",
        mesh: "{zoneAwareLbSetting: {minClusterSize: 1}}",
        policy: "{localityLbSetting: {distribute: [{from: eu/a/*, to: {eu/b/*: 100}}]}}",
        expected: [0, 100, 0],
        ..PLAIN
    },
    Case {
        name: "for the mesh, and the service prefers what is close",
        peers: [2, 1, 1],
        annotations: "{networking.istio.io/traffic-distribution: PreferClose}",
        mesh: "{zoneAwareLbSetting: {minClusterSize: 1}}",
        expected: [100, 0, 0],
        ..PLAIN
    },
    Case {
        name: "other regions only take over",
        peers: [2, 1, 1],
        last_region: "us",
        policy: "{zoneAwareLbSetting: {minClusterSize: 1}}",
        expected: [75, 25, 0],
        ..PLAIN
    },
];

impl Case {
    /// Its objects; `BLOCK` is the network.
    fn objects(&self) -> String {
        let Self { annotations, mesh, policy, .. } = self;
        let region = |zone: usize| if zone == 2 { self.last_region } else { "eu" };
        let mut text = format!(
            "{{apiVersion: mesh.istio.io/v1alpha1, kind: MeshConfig, metadata: {{name: default}}, spec: {mesh}}}
---
apiVersion: v1
kind: Service
metadata: {{name: client, namespace: shop}}
spec: {{clusterIP: 10.96.0.1, selector: {{app: client}}, ports: [{{name: http, port: 90}}]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: web, namespace: shop, annotations: {annotations}}}
spec:
  hosts: [web.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{name: http, number: {PORT}, protocol: HTTP}}]
  endpoints:
"
        );
        for (at, (zone, last)) in ZONES.into_iter().enumerate() {
            let place = format!("{}/{zone}", region(at));
            writeln!(text, "  - {{address: BLOCK.{last}, locality: {place}}}").expect("a text");
        }
        let zones = self.peers.iter().enumerate();
        let peers = zones.flat_map(|(at, count)| (0..*count).map(move |_| at));
        for (index, at) in peers.enumerate() {
            // The first is the client.
            let address =
                if index == 0 { "BLOCK.2".into() } else { format!("BLOCK.{}", 20 + index) };
            let place = format!("{}.{}", region(at), ZONES[at].0);
            write!(
                text,
                "---
apiVersion: v1
kind: Pod
metadata: {{name: client-{index}, namespace: shop, labels: {{app: client, istio-locality: {place}}}}}
spec: {{serviceAccountName: client, containers: [{{name: app}}]}}
status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}], conditions: [{{type: Ready, status: 'True'}}]}}
"
            )
            .expect("a text");
        }
        if !policy.is_empty() {
            write!(
                text,
                "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: shop}}
spec: {{host: web.test, trafficPolicy: {{loadBalancer: {policy}}}}}
"
            )
            .expect("a text");
        }
        text
    }
}

/// A server that answers every request with the name of its zone.
fn serve(listener: TcpListener, zone: &'static str) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, zone));
        }
    });
}

fn answer(mut stream: TcpStream, zone: &str) {
    let mut lines = BufReader::new(stream.try_clone().expect("a stream"));
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
        if line == "\r\n" {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{zone}", zone.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
        line.clear();
    }
}

/// How many of these requests each zone answers.
fn count(address: &str, requests: usize) -> [usize; 3] {
    let mut counts = [0; 3];
    let Ok(mut stream) = TcpStream::connect(address) else { return counts };
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let mut answers = BufReader::new(stream.try_clone().expect("a stream"));
    for _ in 0..requests {
        let request = format!("GET / HTTP/1.1\r\nhost: web.test:{PORT}\r\n\r\n");
        if stream.write_all(request.as_bytes()).is_err() {
            break;
        }
        let Some(body) = read_answer(&mut answers) else { break };
        if let Some(at) = ZONES.iter().position(|(zone, _)| *zone == body) {
            counts[at] += 1;
        }
    }
    counts
}

/// The body of an answer; `None` where there is none.
fn read_answer(answers: &mut impl BufRead) -> Option<String> {
    let (mut line, mut length) = (String::new(), 0);
    while answers.read_line(&mut line).ok()? > 0 && line != "\r\n" {
        let name = line.to_ascii_lowercase();
        if let Some(text) = name.strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

/// Whether each zone has about its share: within so many percent of all.
fn is_about(counts: [usize; 3], expected: [usize; 3], tolerance: usize) -> bool {
    let all: usize = counts.iter().sum();
    let near = |(count, share): (&usize, &usize)| {
        (count * 100).abs_diff(share * all) <= tolerance * all.max(1)
    };
    all > 0 && counts.iter().zip(&expected).all(near)
}

/// What a proxy of a kind does with every case.
fn check(kind: &str, block: &str) {
    for (zone, last) in ZONES {
        serve(TcpListener::bind((format!("{block}.{last}"), PORT)).expect("an address"), zone);
    }
    let plane = ControlPlane::new(format!("{block}.1"));
    let write = |case: &Case| plane.write("mesh.yaml", case.objects().replace("BLOCK", block));
    write(&PLAIN);
    let _server = plane.start();
    let mut command = proxy(kind, "client", &plane, (block, 0));
    command.args(["--name", "client-0", "--locality", "eu/a", "--concurrency", "1"]);
    let mut proxy = Process::start("proxy", plane.folder(), command);
    let outbound = format!("{block}.4:{PORT}");
    proxy.until("serving", || TcpStream::connect(&outbound).is_ok());
    for case in &CASES {
        let what = format!("{kind}, {}", case.name);
        write(case);
        until(LIMIT, &what, || is_about(count(&outbound, FEW), case.expected, 8));
        let counts = count(&outbound, MANY);
        println!("{what}: {counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), MANY, "{what}: no request fails");
        assert!(is_about(counts, case.expected, 4), "{what}: {counts:?}, not {:?}", case.expected);
    }
}

#[test]
fn an_envoy_keeps_in_its_zone_what_that_can_take() {
    check("envoy", "127.95.1");
}

#[test]
fn our_proxy_shares_as_an_envoy_does() {
    check("run", "127.95.2");
}
