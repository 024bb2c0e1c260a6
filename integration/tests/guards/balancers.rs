//! The PROXY protocol at an Envoy and at our proxy beside it: whom a gateway takes a client for, and
//! what endpoints are told.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use ferromesh_integration::{
    process::until,
    workload::{LIMIT, Workload, status},
};

use crate::beside::Pair;

/// A gateway behind a balancer. `BLOCK` is a network, `PORT` the application's.
const GATEWAY: &str = "
apiVersion: mesh.istio.io/v1alpha1
kind: MeshConfig
metadata: {name: default}
spec: {defaultConfig: {gatewayTopology: {proxyProtocol: {}}}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {app: cart}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: app, namespace: shop}
spec:
  hosts: [app.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: PORT}]
  endpoints: [{address: BLOCK.6}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app, namespace: shop}
spec:
  hosts: [app.test]
  gateways: [edge]
  http: [{route: [{destination: {host: app.test}}]}]
";

/// Hosts that are told in either version. `SERVER` is who is told.
const TOLD: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: NAME, namespace: shop}
spec:
  hosts: [NAME.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: SERVER}]
  endpoints: [{address: BLOCK.6}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: NAME, namespace: shop}
spec: {host: NAME.test, trafficPolicy: {proxyProtocol: {version: VERSION}}}
---
";

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n";

/// Answers each connection with all that came until the end of a request's head, by its digits.
fn echo(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("an address");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    port
}

fn answer(mut stream: TcpStream) {
    let (mut read, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(more @ 1..) = stream.read(&mut part) {
        read.extend_from_slice(&part[..more]);
        if read.windows(4).any(|word| word == b"GET ") && read.ends_with(b"\r\n\r\n") {
            let body = read.escape_ascii().to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
            read.clear();
        }
    }
}

/// What these bytes are answered; nothing where the connection is closed.
fn sent(address: &str, bytes: &[u8]) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// What a balancer may write before a request, and what nobody can go by.
fn headers() -> Vec<Vec<u8>> {
    let binary = |command: u8, family: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).expect("it is short").to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, content].concat()
    };
    let v4 = [192, 0, 2, 1, 192, 0, 2, 9, 0xdc, 4, 1, 0xbb];
    let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1, 0, 7, 0, 80]].concat();
    let lines = [
        "PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n",
        "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN 192.0.2.1 192.0.2.9 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.9 56324\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.9 56324 443\r\n",
        "PROXY TCP4 ::1 ::1 1 1\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.9 65536 443\r\n",
        "PROXY TCP4 0.0.0.0 192.0.2.9 1 443\r\n",
        "PROXY TCP4 192.0.2.1 224.0.0.1 1 443\r\n",
        "PROXY TCP4 255.255.255.255 192.0.2.9 1 443\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.9 1 443\r\n",
        "PROXY nonsense\r\n",
        "",
    ];
    let lines = lines.map(|line| line.as_bytes().to_vec());
    let binaries = [
        binary(0x21, 0x11, &v4),
        binary(0x21, 0x12, &v4),
        binary(0x21, 0x21, &v6),
        binary(0x21, 0x11, &[&v4[..], &[4, 0, 2, 7, 7]].concat()),
        binary(0x20, 0, &[]),
        binary(0x20, 0x11, &v4),
        binary(0x21, 0, &[]),
        binary(0x21, 0x31, &[1; 216]),
        binary(0x22, 0x11, &v4),
        binary(0x11, 0x11, &v4),
        binary(0x21, 0x11, &v4[..11]),
        binary(0x21, 0x11, &[0; 12]),
    ];
    [lines.to_vec(), binaries.to_vec()].concat()
}

#[test]
fn a_gateway_takes_a_client_for_whom_its_balancer_says() {
    let told = [("envoy", "127.90.66"), ("run", "127.90.67")].map(|(kind, block)| {
        let port = echo(&format!("{block}.6"));
        let objects = GATEWAY.replace("BLOCK", block).replace("PORT", &port.to_string());
        let gateway = Workload::start_gateway(kind, block, &objects);
        let ask = |header: &[u8]| {
            let answer = sent(&gateway.address, &[header, REQUEST.as_bytes()].concat());
            let answer = answer.replace(block, "BLOCK");
            let client = answer.split("x-forwarded-for: ").nth(1).unwrap_or_default();
            let client = client.split("\\r").next().unwrap_or_default();
            // Of who calls from the machine itself, proxies tell addresses of their own.
            let named = ["192.0.2.1", "2001:db8::1"].contains(&client);
            (status(&answer), Some(client.to_owned()).filter(|_| named))
        };
        until(LIMIT, "a client that is known", || ask(&headers()[0]).0 == 200);
        headers().iter().map(|header| ask(header)).collect::<Vec<_>>()
    });
    let [envoy, ours] = told;
    for ((envoy, ours), header) in envoy.iter().zip(&ours).zip(headers()) {
        assert_eq!(envoy, ours, "{}", header.escape_ascii());
    }
    assert_eq!(ours[0], (200, Some("192.0.2.1".to_owned())));
    assert_eq!(ours[1], (200, Some("2001:db8::1".to_owned())));
    assert_eq!(ours[2..5], [(200, None), (200, None), (0, None)]);
}

#[test]
fn endpoints_are_told_whose_a_connection_is() {
    let pair = Pair::start(68);
    let told = pair.blocks().each_ref().map(|block| {
        let server = echo(&format!("{block}.6")).to_string();
        let objects = ["V1", "V2"].map(|version| {
            let name = version.to_ascii_lowercase();
            let text = TOLD.replace("NAME", &name).replace("VERSION", version);
            text.replace("SERVER", &server).replace("BLOCK", block)
        });
        (block, objects.concat())
    });
    for ((workload, _), (_, objects)) in pair.each().zip(&told) {
        workload.plane.write("told.yaml", objects);
    }
    let answers = told.map(|(block, _)| {
        ["v1.test", "v2.test"].map(|host| {
            until(LIMIT, "the host is served", || pair.called(block, host) == 200);
            let mut stream = TcpStream::connect(format!("{block}.4:80")).expect("it listens");
            stream.set_read_timeout(Some(LIMIT)).expect("a limit");
            let own = stream.local_addr().expect("an address");
            let request = REQUEST.replace("app.test", host);
            stream.write_all(request.as_bytes()).expect("the request goes out");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            let header = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
            let header = header.split("GET ").next().unwrap_or_default();
            let port = own.port().to_be_bytes().escape_ascii().to_string();
            let header = header.replace(&own.port().to_string(), "CLIENT").replace(&port, "CLIENT");
            let last = block.rsplit('.').next().and_then(|last| last.parse().ok()).unwrap_or(0u8);
            let octets = [127u8, 90, last].escape_ascii().to_string();
            header.replace(block.as_str(), "BLOCK").replace(&octets, "BLOCK")
        })
    });
    let [envoy, ours] = answers;
    assert_eq!(envoy, ours);
    assert_eq!(ours[0], "PROXY TCP4 127.0.0.1 BLOCK.4 CLIENT 80\\r\\n");
    assert!(ours[1].starts_with("\\r\\n\\r\\n\\x00\\r\\nQUIT\\n!\\x11\\x00\\x0c"), "{}", ours[1]);
}
