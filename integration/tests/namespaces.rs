//! The mesh as machines see it: pods in network namespaces, interception, applications that know
//! nothing of it. The same checks run with our proxy, with Envoy, and with one calling the other.
#![cfg(feature = "e2e")]

use std::{fs, path::Path, time::Duration};

use ferromesh_integration::{
    certificate::self_signed,
    namespace::{Bridge, Pod},
    paths,
    plane::ControlPlane,
    process::{Process, until},
    sidecar::{Sidecar, publish_root},
};
use serde_json::Value;

/// Name of the certificate of a server outside the mesh.
const OUTSIDE: &str = "outside";

/// Services of `namespaces_smi.yaml`, by their addresses.
const SPLIT: [&str; 7] =
    ["reviews", "reviews-v1", "reviews-v2", "myapp", "myapp-v1", "myapp-v2", "beta"];

/// Which proxy stands beside callers and callees.
#[derive(Clone, Copy)]
struct Proxies {
    callers: &'static str,
    callees: &'static str,
}

#[test]
fn redirected_traffic_through_our_proxy() {
    check(31, Proxies { callers: "run", callees: "run" });
}

#[test]
fn redirected_traffic_through_envoy() {
    check(32, Proxies { callers: "envoy", callees: "envoy" });
}

#[test]
fn redirected_traffic_from_envoy_to_our_proxy() {
    check(33, Proxies { callers: "envoy", callees: "run" });
}

#[test]
fn redirected_traffic_from_our_proxy_to_envoy() {
    check(34, Proxies { callers: "run", callees: "envoy" });
}

/// A mesh on a bridge of its own. Fields are dropped in order: programs before the namespaces they
/// run in.
struct Mesh {
    _processes: Vec<Process>,
    control_plane: Process,
    client: Pod,
    stranger: Pod,
    outsider: Pod,
    servers: [Pod; 2],
    site: Site,
    _bridge: Bridge,
}

/// Where a mesh keeps its files, and which addresses are its own.
struct Site {
    control: ControlPlane,
    third: u8,
}

impl Mesh {
    fn start(third: u8, proxies: Proxies) -> Self {
        let bridge = Bridge::new(third);
        let control = ControlPlane::new(format!("127.77.{third}.1"))
            .listening("xds-tls", format!("10.77.{third}.1:15012"));
        let site = Site { control, third };
        let control_plane = site.control_plane();

        let (echo, bytes) = (format!("10.96.{third}.1"), format!("10.96.{third}.2"));
        let outside = format!("10.96.{third}.3");
        let [joined, near, zoned] = [4, 5, 6].map(|last| format!("10.96.{third}.{last}"));
        let named = format!("10.77.{third}.15");
        let hosts = [
            ("echo", echo.as_str()),
            ("alias", echo.as_str()),
            ("bytes", bytes.as_str()),
            ("outside.example", outside.as_str()),
            ("other.example", outside.as_str()),
            ("joined.example", joined.as_str()),
            ("near", near.as_str()),
            ("zoned", zoned.as_str()),
            ("a.named.example", named.as_str()),
        ];
        let split: Vec<(&str, String)> =
            (11..).zip(SPLIT).map(|(last, name)| (name, format!("10.96.{third}.{last}"))).collect();
        let split = split.iter().map(|(name, address)| (*name, address.as_str()));
        let hosts: Vec<(&str, &str)> = hosts.into_iter().chain(split).collect();
        let pod = |name, last| Pod::new(&bridge, name, last, &hosts);
        let (client, stranger, outsider) =
            (pod("client", 11), pod("stranger", 14), pod("outsider", 15));
        let servers = [pod("echo-v1", 12), pod("echo-v2", 13)];
        let mut processes = Vec::new();
        for (server, version) in servers.iter().zip(["v1", "v2"]) {
            processes
                .push(site.application(server, &["serve", "0.0.0.0:9080", &server.name, version]));
            processes.push(site.application(server, &["tcp", "0.0.0.0:9000"]));
            processes.push(site.sidecar(
                server,
                &format!("echo-{version}"),
                "echo",
                proxies.callees,
            ));
        }
        processes.push(site.outside(&outsider));
        let plain = ["serve", "0.0.0.0:9080", "outsider", "v0"];
        processes.push(site.application(&outsider, &plain));
        processes.push(site.sidecar(&client, "client", "client", proxies.callers));
        processes.push(site.sidecar(&stranger, "stranger", "stranger", proxies.callers));
        Self {
            _processes: processes,
            control_plane,
            client,
            stranger,
            outsider,
            servers,
            site,
            _bridge: bridge,
        }
    }
}

impl Site {
    fn file(&self, name: &str) -> String {
        self.control.file(name)
    }

    fn control_plane(&self) -> Process {
        let third = self.third;
        let name = ["-subj", "/CN=outside", "-addext", "subjectAltName=DNS:outside.example"];
        // It signs itself and nobody else, or it could be no server's.
        let about: Vec<&str> =
            name.into_iter().chain(["-addext", "basicConstraints=critical,CA:FALSE"]).collect();
        self_signed(self.control.folder(), OUTSIDE, &about);
        let text = include_str!("namespaces.yaml").replace("10.77.0.", &format!("10.77.{third}."));
        let split = include_str!("namespaces_smi.yaml");
        let corpus = ["s0-12-linkerd-canary", "s4-10-linkerd-trafficsplit"].map(|seed| {
            let seed = paths::project().join(format!("integration/corpus/seeds/{seed}.yaml"));
            let text = fs::read_to_string(seed).expect("the corpus");
            text.replace("namespace: production", "namespace: default")
        });
        let text = [text, split.to_owned(), corpus.join("---\n")].join("---\n");
        let text = text.replace("OUTSIDE.crt", &self.file(&format!("{OUTSIDE}.crt")));
        self.control.write("mesh.yaml", text.replace("10.96.0.", &format!("10.96.{third}.")));
        let process = self.control.start();
        publish_root(&self.control);
        process
    }

    /// A server outside the mesh that takes TLS 1.3 and nothing else.
    fn outside(&self, pod: &Pod) -> Process {
        let mut command = pod.command(Path::new("openssl"));
        command.args(["s_server", "-accept", "9443", "-tls1_3", "-www", "-quiet"]);
        command.args([
            "-cert",
            &self.file(&format!("{OUTSIDE}.crt")),
            "-key",
            &self.file(&format!("{OUTSIDE}.key")),
        ]);
        Process::start("outside", self.control.folder(), command)
    }

    fn application(&self, pod: &Pod, arguments: &[&str]) -> Process {
        let mut command = pod.command(&paths::program("fm-peer"));
        command.args(arguments);
        Process::start(&format!("{}-{}", pod.name, arguments[0]), self.control.folder(), command)
    }

    fn sidecar(&self, pod: &Pod, name: &str, account: &str, kind: &str) -> Process {
        let probes = r#"{"/app-health/app/readyz": {"httpGet": {"path": "/probe", "port": 9080}},
            "/app-health/app/livez": {"tcpSocket": {"port": 9}}}"#;
        let options = ["--agent-address", "0.0.0.0:15020", "--app-probes", probes];
        let sidecar = Sidecar { name, account, kind, options: &options };
        sidecar.start(&self.control, &format!("10.77.{}.1:15012", self.third), pod)
    }
}

/// What `fm-peer get` counted.
fn get(pod: &Pod, url: &str, count: usize, headers: &[&str]) -> Value {
    let count = count.to_string();
    let mut arguments = vec!["get", url, &count];
    arguments.extend(headers);
    let output = pod.exec(&paths::program("fm-peer"), &arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text} {}", String::from_utf8_lossy(&output.stderr)))
}

fn status(counts: &Value, status: &str) -> u64 {
    counts["statuses"][status].as_u64().unwrap_or_default()
}

/// Names and scopes of other objects than the service's own. `echo` is behind a Sidecar object of
/// the root namespace in every check, since clients of every namespace have no other.
fn check_what_is_configured_elsewhere(mesh: &Mesh) {
    let alias = get(&mesh.client, "http://alias/identity", 1, &[]);
    assert_eq!(
        status(&alias, "200"),
        1,
        "an ExternalName without ports is the service that it names: {alias}"
    );
    let header = alias["last"]["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default();
    assert!(
        header.contains("URI=spiffe://cluster.local/ns/default/sa/client"),
        "the callee saw {header:?}"
    );
    assert_eq!(
        status(&get(&mesh.client, "http://alias/secret/1", 1, &[]), "403"),
        1,
        "its policies by another name"
    );
    let outside = get(&mesh.client, "http://outside.example/", 1, &[]);
    assert_eq!(status(&outside, "200"), 1, "TLS 1.3 to a server outside the mesh: {outside}");
    let other = get(&mesh.client, "http://other.example/", 1, &[]);
    assert_eq!(status(&other, "200"), 1, "a given SNI is no name that is demanded: {other}");
    for url in ["http://joined.example/", "http://joined.example:81/"] {
        let joined = get(&mesh.client, url, 1, &[]);
        assert_eq!(status(&joined, "200"), 1, "a port of each of two entries, {url}: {joined}");
    }
    let near = get(&mesh.client, "http://near/", 100, &[]);
    assert_eq!(near["versions"]["v1"], 100, "the pod of the client's zone: {near}");
    let zoned = get(&mesh.client, "http://zoned/", 100, &[]);
    assert_eq!(zoned["versions"]["v2"], 100, "the subset of the other zone: {zoned}");
}

/// Names below a wildcard, resolved by the client's proxy: what the application resolved them to is
/// nobody's address.
fn check_named_hosts(mesh: &Mesh, third: u8) {
    mesh.site.control.write("named.yaml", include_str!("namespaces_named.yaml"));
    let nobody = format!("a.named.example:9080:10.96.{third}.9");
    let arguments =
        ["-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", &nobody];
    let arguments = [&arguments[..], &["http://a.named.example:9080/"]].concat();
    until(Duration::from_secs(60), "a name that was asked for is resolved", || {
        mesh.client.exec(Path::new("curl"), &arguments).stdout == b"200"
    });
    let echo = get(&mesh.client, "http://echo/", 20, &[]);
    assert_eq!(status(&echo, "200"), 20, "what has addresses is not resolved: {echo}");
    fs::remove_file(mesh.site.file("config/named.yaml")).expect("removed");
}

/// Of ports that no service names, the ones that PeerAuthentication names follow it.
fn check_plaintext_by_port(mesh: &Mesh, third: u8) {
    let plaintext =
        |port: u16| get(&mesh.outsider, &format!("http://10.77.{third}.12:{port}/"), 1, &[]);
    for port in [9080, 9099] {
        let answer = plaintext(port);
        let answered = answer["statuses"].as_object().is_some_and(|statuses| !statuses.is_empty());
        assert!(!answered, "STRICT answered plaintext on port {port}: {answer}");
    }
    assert_eq!(
        status(&plaintext(9098), "403"),
        1,
        "PERMISSIVE lets plaintext come as far as the policies"
    );
    let declared = plaintext(9097);
    let answered = declared["statuses"].as_object().is_some_and(|statuses| !statuses.is_empty());
    assert!(!answered, "an entry with the workload's address declares bytes: {declared}");
}

/// A policy whose group is misspelt stays in force, while the rest of its file is acted on.
fn check_a_slip_of_the_pen(mesh: &Mesh) {
    let file = mesh.site.file("config/mesh.yaml");
    let text = fs::read_to_string(&file).expect("the configuration");
    let policy = |api: &str| {
        format!(
            "apiVersion: {api}/v1\nkind: AuthorizationPolicy\nmetadata: {{name: echo-secret}}\n"
        )
    };
    let slipped = text.replace(&policy("security.istio.io"), &policy("security.example.com"));
    assert_ne!(text, slipped);
    let account = |name: &str| format!("cluster.local/ns/default/sa/{name}");
    let (one, both) =
        (account("client"), format!("{}, {}", account("client"), account("stranger")));
    fs::write(&file, slipped.replace(&one, &both)).expect("the configuration");
    until(Duration::from_secs(60), "the rest of the file in force at both servers", || {
        status(&get(&mesh.stranger, "http://echo/", 100, &[]), "200") == 100
    });
    let secret = get(&mesh.client, "http://echo/secret/1", 100, &[]);
    assert_eq!(status(&secret, "403"), 100, "a slip of the pen opened what DENY closed: {secret}");
}

/// SMI's TrafficSplit and HTTPRouteGroup.
fn check_splits(mesh: &Mesh) {
    let versions = |path: &str, count: usize, headers: &[&str]| {
        let counts = get(&mesh.client, &format!("http://{path}"), count, headers);
        assert_eq!(status(&counts, "200"), count as u64, "{path}: {counts}");
        ["v1", "v2"].map(|version| counts["versions"][version].as_u64().unwrap_or_default())
    };
    for service in ["reviews", "myapp"] {
        let [_, v2] = versions(&format!("{service}/"), 4000, &[]);
        assert!((280..=520).contains(&v2), "{service}: v2 got {v2} of 4000, expected 10 % ± 3");
        let [v1, _] = versions(&format!("{service}-v1/"), 100, &[]);
        assert_eq!(v1, 100, "{service}-v1 itself");
    }
    assert_eq!(versions("beta/", 100, &[]), [100, 0], "what no condition matches");
    assert_eq!(versions("beta/beta/x", 100, &[]), [0, 100], "by the beginning of the path");
    assert_eq!(versions("beta/", 100, &["x-tester=yes"]), [0, 100], "by header");
    assert_eq!(versions("beta/", 100, &["x-tester=no"]), [100, 0], "by another header");
}

/// What EnvoyFilters put into the callees' proxies comes, and goes with the objects.
fn check_filters(mesh: &Mesh, proxies: Proxies) {
    let limit = include_str!("namespaces_filters.yaml");
    let text = match proxies.callees {
        "envoy" => [limit, include_str!("namespaces_lua.yaml")].join("---\n"),
        _ => limit.to_owned(),
    };
    let second = |count| get(&mesh.client, "http://echo/filters", count, &["end-user=jason"]);
    let seen = |header: &str| second(1)["last"]["headers"][header] != Value::Null;
    assert_eq!(status(&second(20), "200"), 20, "without filters");
    assert!(!seen("x-mark") && !seen("x-lua"));
    mesh.site.control.write("filters.yaml", text);
    let first = |count| get(&mesh.client, "http://echo/old/filters", count, &[]);
    until(Duration::from_secs(60), "the filters in force at both servers", || {
        let marked = first(1)["last"]["headers"]["x-mark"] == "patched";
        marked && status(&second(5), "429") == 5
    });
    let limited = second(20);
    assert_eq!(status(&limited, "429"), 20, "four requests an hour are let in: {limited}");
    let other = first(20);
    assert_eq!(status(&other, "200"), 20, "the filter is for v2 alone: {other}");
    if proxies.callees == "envoy" {
        assert_eq!(first(1)["last"]["headers"]["x-lua"], "seen", "Lua runs before the router");
    }
    fs::remove_file(mesh.site.file("config/filters.yaml")).expect("removed");
    until(Duration::from_secs(60), "the filters gone with the objects", || {
        let marked = first(1)["last"]["headers"]["x-mark"] == "patched";
        !marked && status(&second(20), "200") == 20
    });
    assert!(!seen("x-mark") && !seen("x-lua"));
    if proxies.callees == "run" {
        check_a_filter_that_is_refused(mesh);
    }
}

/// Our proxy runs no Lua, and says so; who is to blame is the EnvoyFilter.
fn check_a_filter_that_is_refused(mesh: &Mesh) {
    mesh.site.control.write("filters.yaml", include_str!("namespaces_lua.yaml"));
    let blamed = || {
        let text = mesh.site.control.get("/api/v1/diagnostics").unwrap_or_default();
        let found: Value = serde_json::from_str(&text).unwrap_or_default();
        found["items"].as_array().into_iter().flatten().any(|d| {
            let refused = d["message"].as_str().is_some_and(|m| m.contains("http.lua"));
            d["object"]["kind"] == "EnvoyFilter" && d["code"] == "FM0401" && refused
        })
    };
    until(Duration::from_secs(60), "the refusal on the EnvoyFilter", blamed);
    fs::remove_file(mesh.site.file("config/filters.yaml")).expect("removed");
    until(Duration::from_secs(60), "the refusal gone with the object", || {
        let answer = get(&mesh.client, "http://echo/old/filters", 1, &[]);
        status(&answer, "200") == 1 && !blamed()
    });
}

fn check(third: u8, proxies: Proxies) {
    let mut mesh = Mesh::start(third, proxies);
    until(Duration::from_secs(60), "the first request answered", || {
        status(&get(&mesh.client, "http://echo/", 1, &[]), "200") == 1
    });

    let canary = get(&mesh.client, "http://echo/canary", 4000, &[]);
    assert_eq!(status(&canary, "200"), 4000, "{canary}");
    let v2 = canary["versions"]["v2"].as_u64().unwrap_or_default();
    assert!((280..=520).contains(&v2), "v2 got {v2} of 4000, expected 10 % ± 3");

    let jason = get(&mesh.client, "http://echo/header", 100, &["end-user=jason"]);
    assert_eq!(jason["versions"]["v2"], 100, "{jason}");

    let rewritten = get(&mesh.client, "http://echo/old/path", 1, &[]);
    assert_eq!(rewritten["last"]["path"], "/new/path", "{rewritten}");

    let identity = get(&mesh.client, "http://echo/identity", 1, &[]);
    let header = identity["last"]["headers"]["x-forwarded-client-cert"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        header.contains("URI=spiffe://cluster.local/ns/default/sa/client"),
        "the callee saw {header:?}"
    );

    assert_eq!(
        status(&get(&mesh.client, "http://echo/delay/3000", 1, &[]), "504"),
        1,
        "the timeout of 1 s did not end the request"
    );
    assert_eq!(
        status(&get(&mesh.client, "http://echo/secret/1", 1, &[]), "403"),
        1,
        "DENY by path"
    );
    assert_eq!(
        status(&get(&mesh.stranger, "http://echo/", 1, &[]), "403"),
        1,
        "ALLOW by principal"
    );

    check_what_is_configured_elsewhere(&mesh);
    check_splits(&mesh);
    check_plaintext_by_port(&mesh, third);
    if proxies.callers == "envoy" {
        check_named_hosts(&mesh, third);
    }
    check_filters(&mesh, proxies);

    // The kubelet has no certificate: the agent asks for it, beside the proxy.
    for (probe, expected) in [("readyz", "200"), ("livez", "500"), ("startupz", "404")] {
        let answer = get(
            &mesh.outsider,
            &format!("http://10.77.{third}.12:15020/app-health/app/{probe}"),
            1,
            &[],
        );
        assert_eq!(status(&answer, expected), 1, "{probe}: {answer}");
    }

    let bytes = mesh.client.exec(
        Path::new("bash"),
        &["-c", "exec 3<>/dev/tcp/bytes/9000; echo hello mesh >&3; head -n1 <&3"],
    );
    assert_eq!(String::from_utf8_lossy(&bytes.stdout).trim(), "hello mesh", "TCP through the mesh");

    let scrape = mesh.servers[0]
        .exec(Path::new("curl"), &["-sf", "-m", "30", "http://127.0.0.1:15020/stats/prometheus"]);
    let metrics = String::from_utf8_lossy(&scrape.stdout).into_owned();
    if proxies.callees == "envoy" {
        for series in ["envoy_server_live", "istio_agent_cert_expiry_seconds"] {
            assert!(metrics.contains(series), "no {series}:\n{metrics}");
        }
    }
    let counted = metrics.lines().any(|line| {
        line.starts_with("istio_requests_total{")
            && [
                "reporter=\"destination\"",
                "connection_security_policy=\"mutual_tls\"",
                "response_code=\"200\"",
                "ns/default/sa/client",
            ]
            .iter()
            .all(|label| line.contains(label))
    });
    assert!(counted, "no istio_requests_total of mutual TLS from the client:\n{metrics}");
    check_a_slip_of_the_pen(&mesh);
    assert!(mesh.control_plane.ended(Duration::ZERO).is_none(), "the control plane ended");
}
