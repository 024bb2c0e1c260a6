//! Keys lead to the same endpoints from an Envoy and from our proxy, by ring and by table.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use ferromesh_integration::{
    process::until,
    workload::{LIMIT, send_to, status},
};

use crate::beside::Pair;

/// The first block of loopback addresses.
const BLOCK: u8 = 63;
/// Where the endpoints are, from this address on.
const ENDPOINTS: &str = "127.90.65";
const PORT: u16 = 9080;
const KEYS: usize = 300;
/// Of seven endpoints.
const WEIGHTS: [u32; 7] = [1, 2, 3, 5, 8, 13, 100];

/// Hosts, and how each of them balances; what a patch says of the last comes on top.
const BALANCERS: [(&str, &str); 5] = [
    ("ring.test", "{httpHeaderName: x-key, ringHash: {minimumRingSize: 1024}}"),
    ("odd.test", "{httpHeaderName: x-key, ringHash: {minimumRingSize: 777}}"),
    ("table.test", "{httpHeaderName: x-key, maglev: {tableSize: 65537}}"),
    ("small.test", "{httpHeaderName: x-key, maglev: {tableSize: 97}}"),
    ("murmur.test", "{httpHeaderName: x-key, ringHash: {minimumRingSize: 1024}}"),
];

const MURMUR: &str = "
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: murmur, namespace: shop}
spec:
  configPatches:
  - applyTo: CLUSTER
    match: {context: SIDECAR_OUTBOUND, cluster: {service: murmur.test}}
    patch:
      operation: MERGE
      value: {ring_hash_lb_config: {hash_function: MURMUR_HASH_2}}
";

fn mesh() -> String {
    let mut text = String::new();
    for (host, balancer) in BALANCERS {
        let name = host.trim_end_matches(".test");
        let endpoint = |(number, weight): (usize, &u32)| {
            format!("{{address: {ENDPOINTS}.{}, weight: {weight}}}", number + 1)
        };
        let endpoints: Vec<_> = WEIGHTS.iter().enumerate().map(endpoint).collect();
        write!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  hosts: [{host}]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
             ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {PORT}}}]\n  \
             endpoints: [{}]\n\
             ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: {name}, namespace: shop}}\n\
             spec: {{host: {host}, trafficPolicy: {{loadBalancer: {{consistentHash: {balancer}}}}}}}\n",
            endpoints.join(", ")
        )
        .expect("text takes text");
    }
    text + MURMUR
}

/// Answers every connection's first request with the endpoint's number.
fn endpoint(number: usize) {
    let listener = TcpListener::bind(format!("{ENDPOINTS}.{number}:{PORT}")).expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, number));
        }
    });
}

fn answer(mut stream: TcpStream, number: usize) {
    let (mut read, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(more @ 1..) = stream.read(&mut part) {
        read.extend_from_slice(&part[..more]);
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Who answers a request with these lines.
fn asked(block: &str, host: &str, lines: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n{lines}connection: close\r\n\r\n");
    let answer = send_to(&format!("{block}.4:80"), &request);
    assert_eq!(status(&answer), 200, "{block} {host}: {answer}");
    answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
}

#[test]
fn a_key_leads_to_the_same_endpoint_from_either_proxy() {
    (1..=WEIGHTS.len()).for_each(endpoint);
    let pair = Pair::start(BLOCK);
    pair.write("hashing.yaml", &mesh());
    for block in pair.blocks() {
        for (host, _) in BALANCERS {
            until(LIMIT, "every host is served", || pair.called(block, host) == 200);
        }
    }
    for (host, _) in BALANCERS {
        let mut shares: BTreeMap<String, usize> = BTreeMap::new();
        for key in 0..KEYS {
            // Of a header that is there twice, all lines count.
            let lines = match key % 10 {
                0 => format!("x-key: z{key}\r\nx-key: a{key}\r\n"),
                _ => format!("x-key: key-{key}\r\n"),
            };
            let [envoy, ours] = pair.blocks().each_ref().map(|block| asked(block, host, &lines));
            assert_eq!(envoy, ours, "{host}: {lines}");
            *shares.entry(ours).or_default() += 1;
        }
        assert!(shares.len() >= 5, "{host}: keys are spread: {shares:?}");
    }
}
