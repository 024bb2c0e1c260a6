//! Requests through a real Envoy that runs, from a file, what the translator makes of a gateway's
//! objects: settings whose meaning a message alone does not show.
#![cfg(feature = "e2e")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use ferromesh_integration::{
    offline::{bootstrap, translate_for},
    paths,
    process::Process,
    token::Issuer,
};
use ferromesh_xds_translator::dialect::parse_files;
use serde_json::{Value, json};

const GATEWAY: &str = "router~10.98.9.1~gateway-0.istio-system~istio-system.svc.cluster.local";
const CLIENT: &str = "sidecar~10.98.9.2~client-0.shop~shop.svc.cluster.local";

/// A gateway with two applications behind it, which answer with what they were asked.
struct Site {
    _envoy: Process,
    _folder: tempfile::TempDir,
    address: String,
}

impl Site {
    /// `number` makes addresses of its own; in `objects`, `ONE` and `TWO` are the applications'
    /// ports, which listen at `127.88.NUMBER.2`.
    fn start(number: u8, objects: &str) -> Self {
        Self::start_as(GATEWAY, "FERROMESH_INBOUND_ADDRESS", number, objects)
    }

    /// The sidecar of a client, which calls without being redirected.
    fn start_client(number: u8, objects: &str) -> Self {
        Self::start_as(CLIENT, "FERROMESH_OUTBOUND_ADDRESS", number, objects)
    }

    /// `side` is what the node calls the address at which it is asked.
    fn start_as(node: &str, side: &str, number: u8, objects: &str) -> Self {
        let [one, two] = ["one", "two"].map(|name| application(number, name));
        let entry = |name: &str, port: u16| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
                 metadata: {{name: {name}, namespace: shop}}\n\
                 spec: {{hosts: [{name}.test], location: MESH_EXTERNAL, resolution: STATIC,\n  \
                 ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}],\n  \
                 endpoints: [{{address: 127.88.{number}.2}}]}}\n"
            )
        };
        let text = [entry("one", one), entry("two", two), objects.to_owned()].join("---\n");
        let parsed = parse_files([("objects.yaml", text.as_bytes())]);
        assert!(parsed.rejected.is_empty(), "{:#?}", parsed.diagnostics);
        let own = format!("127.88.{number}.1");
        let metadata = [("INTERCEPTION_MODE", "NONE"), (side, own.as_str())];
        let translation = translate_for(node, &metadata, parsed);
        assert_eq!(translation.dangling, [], "every name leads somewhere");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("envoy.json");
        fs::write(&file, bootstrap(translation).to_string()).expect("a file");
        let mut command = Command::new(paths::envoy());
        command.args([
            "--log-level",
            "warning",
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "-c",
        ]);
        command.arg(&file);
        let mut envoy = Process::start("envoy", folder.path(), command);
        let address = format!("{own}:80");
        envoy.until("listening", || TcpStream::connect(&address).is_ok());
        Self { _envoy: envoy, _folder: folder, address }
    }

    /// Status and text of the answer to a request for `host`.
    fn ask(&self, host: &str, path: &str, headers: &[&str]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("the gateway listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        let mut head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        headers.iter().for_each(|line| head += &format!("{line}\r\n"));
        stream.write_all(format!("{head}\r\n").as_bytes()).expect("the request goes out");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_default(), answer)
    }
}

/// Answers every request with its own head, and says who it is; on a port of its own.
fn application(number: u8, name: &'static str) -> u16 {
    let listener = TcpListener::bind(format!("127.88.{number}.2:0")).expect("an address");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, name));
        }
    });
    port
}

fn answer(mut stream: TcpStream, name: &str) {
    let (mut head, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut part) {
        head.extend_from_slice(&part[..read]);
        if head.ends_with(b"\r\n\r\n") {
            if String::from_utf8_lossy(&head).contains("upgrade: websocket") {
                return echo(stream);
            }
            let body = format!("application {name}\r\n{}", String::from_utf8_lossy(&head));
            let length = body.len();
            let line = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            if stream.write_all(line.as_bytes()).is_err() {
                return;
            }
            head.clear();
        }
    }
}

/// Takes an upgrade, and sends back whatever comes.
fn echo(mut stream: TcpStream) {
    let head =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let mut part = [0; 4096];
    let mut sent = stream.write_all(head.as_bytes());
    while let (Ok(()), Ok(read @ 1..)) = (&sent, stream.read(&mut part)) {
        sent = stream.write_all(&part[..read]);
    }
}

const SERVER: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: istio-system}
spec:
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: REDIRECT}}]
---
";

#[test]
fn rules_that_continue_elsewhere_hold_within_those_that_lead_there() {
    let routes = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: edge}
spec:
  hosts: [shop.test]
  gateways: [istio-system/g]
  http:
  - match: [{uri: {prefix: /cart}, headers: {x-a: {exact: '1'}}}, {uri: {prefix: /cart}, headers: {x-b: {exact: '2'}}}]
    delegate: {name: part, namespace: shop}
    headers: {request: {set: {x-root: 'yes'}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: part, namespace: shop}
spec:
  http:
  - match: [{uri: {prefix: /cart/v2}}]
    rewrite: {uri: /second}
    route: [{destination: {host: two.test}}]
  - match: [{uri: {prefix: /elsewhere}}]
    route: [{destination: {host: two.test}}]
  - route: [{destination: {host: one.test}}]
";
    let site = Site::start(1, &[SERVER.replace("REDIRECT", "false"), routes.to_owned()].concat());
    let (status, text) = site.ask("shop.test", "/cart/v2/x", &["x-b: 2"]);
    assert_eq!(status, 200, "{text}");
    for part in ["application two", "GET /second/x ", "x-root: yes"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let (_, text) = site.ask("shop.test", "/cart/other", &["x-a: 1"]);
    assert!(text.contains("application one") && text.contains("GET /cart/other "), "{text}");
    for (path, headers) in
        [("/cart/v2", &[][..]), ("/cart", &["x-a: 2"]), ("/elsewhere", &["x-a: 1"])]
    {
        assert_eq!(site.ask("shop.test", path, headers).0, 404, "{path} {headers:?}");
    }
}

#[test]
fn a_redirect_behind_a_balancer_believes_the_proxies_that_are_trusted() {
    let routes = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec:
  hosts: [shop.test]
  gateways: [istio-system/g]
  http: [{route: [{destination: {host: one.test}}]}]
";
    let mesh = "---
apiVersion: mesh.istio.io/v1alpha1
kind: MeshConfig
metadata: {name: default}
spec: {defaultConfig: {gatewayTopology: {numTrustedProxies: 1}}}
";
    let secure = ["x-forwarded-proto: https", "x-forwarded-for: 192.0.2.7"];
    let server = SERVER.replace("REDIRECT", "true");
    for (number, settings, expected) in [(2, "", 301), (3, mesh, 200)] {
        let site = Site::start(number, &[&*server, routes, settings].concat());
        let (status, text) = site.ask("shop.test", "/", &secure);
        assert_eq!(status, expected, "{text}");
        assert_eq!(site.ask("shop.test", "/", &[]).0, 301, "without the balancer's word");
    }
}

#[test]
fn an_ingress_tells_paths_apart_by_segments() {
    let services = "
apiVersion: v1
kind: Service
metadata: {name: one, namespace: shop}
spec: {type: ExternalName, externalName: one.test, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: two, namespace: shop}
spec: {type: ExternalName, externalName: two.test, ports: [{name: http, port: 80}]}
---
";
    let ingress = "
apiVersion: v1
kind: Pod
metadata: {name: gateway-0, namespace: istio-system, labels: {istio: ingressgateway}}
spec: {serviceAccountName: gateway, containers: [{name: proxy}]}
status: {phase: Running, podIP: 10.98.9.1, podIPs: [{ip: 10.98.9.1}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: shop}
spec:
  ingressClassName: istio
  defaultBackend: {service: {name: one, port: {number: 80}}}
  rules:
  - host: shop.test
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}
      - {path: /a, pathType: Prefix, backend: {service: {name: two, port: {name: http}}}}
      - {path: /a/b, pathType: Exact, backend: {service: {name: one, port: {number: 80}}}}
";
    let site = Site::start(4, &[services, ingress].concat());
    for (host, path, expected) in [
        ("shop.test", "/", "one"),
        ("shop.test", "/ab", "one"),
        ("shop.test", "/a", "two"),
        ("shop.test", "/a/", "two"),
        ("shop.test", "/a/c", "two"),
        ("shop.test", "/a/b", "one"),
        ("shop.test", "/a/b/", "two"),
        ("other.test", "/a", "one"),
    ] {
        let (status, text) = site.ask(host, path, &[]);
        assert_eq!(status, 200, "{host}{path}: {text}");
        assert!(text.contains(&format!("application {expected}")), "{host}{path}: {text}");
    }
}

#[test]
fn a_websocket_crosses_a_connection_of_http2_between_two_envoys() {
    let routes = |to: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: shop, namespace: shop}}\n\
             spec: {{hosts: [shop.test], gateways: [istio-system/g],\n  \
             http: [{{route: [{{destination: {{host: {to}}}}}]}}]}}\n"
        )
    };
    let server = SERVER.replace("REDIRECT", "false");
    let callee = Site::start(5, &[&*server, &routes("one.test")].concat());
    let far = "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far, namespace: shop}
spec:
  hosts: [far.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.88.5.1}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: far, namespace: shop}
spec: {host: far.test, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
";
    let caller = Site::start(6, &[&*server, &routes("far.test"), far].concat());
    for site in [&callee, &caller] {
        let mut stream = TcpStream::connect(&site.address).expect("the gateway listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        let head = "GET /chat HTTP/1.1\r\nhost: shop.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("the request goes out");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.starts_with("HTTP/1.1 101"), "{text}");
        stream.write_all(b"hello").expect("bytes go out");
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).expect("bytes come back");
        assert_eq!(&echoed, b"hello");
    }
}

#[test]
fn mutual_tls_is_passed_on_by_the_name_that_it_sends() {
    let listener = TcpListener::bind("127.88.7.2:0").expect("an address");
    let port = listener.local_addr().expect("an address").port();
    let (heard, hellos) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut part = vec![0; 4096];
            let read = stream.read(&mut part).unwrap_or_default();
            part.truncate(read);
            let _ = heard.send(part);
        }
    });
    // Without certificates of its own the gateway would wait for them.
    let own = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {name: cart, namespace: shop}\n\
         spec: {host: cart.local, trafficPolicy: {tls: {mode: DISABLE}}}\n---\n";
    let objects = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: cart, namespace: shop}}\n\
         spec: {{hosts: [cart.local], location: MESH_INTERNAL, resolution: STATIC,\n  \
         ports: [{{number: 9000, name: tcp, protocol: TCP, targetPort: {port}}}],\n  \
         endpoints: [{{address: 127.88.7.2, serviceAccount: cart}}]}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: Gateway\n\
         metadata: {{name: relay, namespace: istio-system}}\n\
         spec: {{servers: [{{port: {{number: 80, name: tls, protocol: TLS}}, hosts: ['*.local'],\n  \
         tls: {{mode: AUTO_PASSTHROUGH}}}}]}}\n"
    );
    let site = Site::start(7, &[own, &objects].concat());
    let call = |name: &str, alpn: &str| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &site.address, "-servername", name, "-alpn", alpn]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("openssl runs")
    };
    let name = "outbound_.9000_._.cart.local";
    for (unknown, alpn) in [("outbound_.9001_._.cart.local", "istio"), (name, "h2")] {
        call(unknown, alpn);
        let heard = hellos.recv_timeout(Duration::from_millis(500));
        assert!(heard.is_err(), "{unknown} {alpn} came through");
    }
    call(name, "istio");
    let hello = hellos.recv_timeout(Duration::from_secs(20)).expect("the call came through");
    let text = String::from_utf8_lossy(&hello).into_owned();
    assert_eq!(hello.first(), Some(&22), "a record of a TLS handshake, as it was sent");
    assert!(text.contains(name), "{text}");
}

/// Objects of a gateway that checks tokens: by a claim to the first application, without another
/// to the second.
fn token_objects(jwks: &str) -> String {
    let routes = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: edge}
spec:
  hosts: [shop.test]
  gateways: [istio-system/g]
  http:
  - match: [{headers: {'@request.auth.claims[realm][groups]': {exact: staff}}}]
    route: [{destination: {host: one.test}}]
  - match: [{uri: {prefix: /inside}, withoutHeaders: {'@request.auth.claims.origin': {prefix: out}}}]
    route: [{destination: {host: two.test}}]
  - directResponse: {status: 404}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: login, namespace: istio-system}
spec:
  jwtRules:
  - issuer: https://login.test
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{header: x-user, claim: sub}, {header: x-level, claim: realm.level}]
    jwks: ";
    [&SERVER.replace("REDIRECT", "false"), routes, "'", jwks, "'\n"].concat()
}

#[test]
fn a_gateway_routes_by_claims_and_hands_on_what_was_asked_for() {
    let issuer = Issuer::new("key");
    let site = Site::start(41, &token_objects(&issuer.jwks()));
    let claims = |more: Value| {
        let mut claims =
            json!({"iss": "https://login.test", "sub": "alice", "exp": 4_102_444_800_u64});
        let more = more.as_object().cloned().unwrap_or_default();
        claims.as_object_mut().expect("claims").extend(more);
        claims
    };
    let bearer = |token: &str| format!("authorization: Bearer {token}");
    let token = |more: Value| bearer(&issuer.sign(&claims(more)));
    let staff = token(json!({"realm": {"groups": ["admin", "staff"], "level": 3}}));
    let alone = token(json!({"realm": {"groups": "staff"}}));
    let guest = token(json!({"realm": {"groups": ["guest"]}, "origin": "outside"}));
    let ask = |path: &str, lines: &[&str]| site.ask("shop.test", path, lines);
    let reached = |path: &str, token: &str, name: &str| {
        let (status, text) = ask(path, &[token]);
        assert!(status == 200 && text.contains(&format!("application {name}")), "{path}: {text}");
    };
    reached("/", &staff, "one");
    reached("/inside", &alone, "one");
    reached("/inside", "x-other: 1", "two");
    assert_eq!(ask("/inside", &[&guest]).0, 404);
    assert_eq!(ask("/", &[]).0, 404, "who has no token is let in, and routed so");
    let old = token(json!({"exp": 1_000_000_000}));
    let forged = bearer(&Issuer::new("key").sign(&claims(json!({}))));
    for refused in [&old, &forged, &bearer("no.token.at-all")] {
        assert_eq!(ask("/", &[refused]).0, 401, "{refused}");
    }
    let seen = ask("/", &[&staff, "x-user: mallory"]).1.to_ascii_lowercase();
    assert!(seen.contains("x-user: alice") && !seen.contains("mallory"), "{seen}");
    assert!(seen.contains("x-level: 3") && seen.contains("x-payload: ey"), "{seen}");
    assert!(!seen.contains("authorization"), "{seen}");
}

#[test]
fn what_nobody_knows_goes_through_the_egress_proxy_and_nowhere_without_it() {
    let through = |host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\n\
             metadata: {{name: default, namespace: shop}}\n\
             spec: {{outboundTrafficPolicy: {{mode: ALLOW_ANY, egressProxy: {{host: {host}, port: {{number: 80}}}}}}}}\n"
        )
    };
    let client = Site::start_client(13, &through("two.test"));
    let (status, text) = client.ask("one.test", "/", &[]);
    assert!(status == 200 && text.contains("application one"), "{text}");
    let (status, text) = client.ask("elsewhere.test", "/", &[]);
    assert!(status == 200 && text.contains("application two"), "{text}");
    assert!(text.contains("host: elsewhere.test"), "{text}");

    let client = Site::start_client(14, &through("gone.test"));
    assert_eq!(client.ask("one.test", "/", &[]).0, 200);
    assert_eq!(client.ask("elsewhere.test", "/", &[]).0, 502);
}
