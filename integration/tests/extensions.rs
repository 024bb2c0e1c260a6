//! Extensions of users in proxies on the control plane's stream: scripts and WebAssembly come, change
//! and go in a real Envoy, and what cannot be loaded or run is closed.
#![cfg(feature = "e2e")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use ferromesh_integration::{
    paths,
    plane::ControlPlane,
    process::{Process, until},
    wasm_module,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A workload `cart` of `shop`, called without TLS. `BLOCK` is a network, `PORT` the application's.
const MESH: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, labels: {app: cart}}
spec: {serviceAccountName: cart, containers: [{name: app, ports: [{containerPort: PORT}]}]}
status: {phase: Running, podIP: BLOCK.2, podIPs: [{ip: BLOCK.2}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{name: http, port: 80, targetPort: PORT}]}
";

/// Control plane, proxy and application. Fields are dropped in order: files last.
struct Site {
    proxy: Process,
    _server: Process,
    plane: ControlPlane,
    address: String,
}

impl Site {
    /// `kind`: `envoy` or `run`, ours. `block`: of loopback addresses.
    fn start(kind: &str, block: &str) -> Self {
        let port = application(&format!("{block}.3"));
        let plane = ControlPlane::new(format!("{block}.1"));
        plane.write("mesh.yaml", MESH.replace("BLOCK", block).replace("PORT", &port.to_string()));
        let server = plane.start();
        let mut proxy = Process::start("proxy", plane.folder(), command(kind, block, &plane));
        let address = format!("{block}.2:{port}");
        proxy.until("serving", || TcpStream::connect(&address).is_ok());
        let site = Self { proxy, _server: server, plane, address };
        site.until_status(200);
        site
    }

    /// An answer; empty if there is none.
    fn ask(&self, path: &str, headers: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(&self.address) else { return String::new() };
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: cart\r\n{headers}connection: close\r\n\r\n");
        let mut answer = String::new();
        let asked = stream.write_all(head.as_bytes());
        let _ = asked.and_then(|()| stream.read_to_string(&mut answer));
        answer
    }

    fn status(&self) -> u16 {
        status(&self.ask("/", ""))
    }

    /// Waits until an answer has this in it.
    fn until_answered(&self, expected: &str) {
        until(LIMIT, expected, || self.ask("/", "").contains(expected));
    }

    fn until_status(&self, expected: u16) {
        until(LIMIT, &format!("an answer of {expected}"), || self.status() == expected);
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.plane.path("config").join(file)).expect("removed");
    }

    /// Whether a refusal by the proxy is told on an object of this kind.
    fn is_refused(&self, kind: &str) -> bool {
        let text = self.plane.get("/api/v1/diagnostics").unwrap_or_default();
        let found: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut all = found["items"].as_array().into_iter().flatten();
        all.any(|d| d["object"]["kind"] == kind && d["code"] == "FM0401")
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// Starts a proxy that proves who it is.
fn command(kind: &str, block: &str, plane: &ControlPlane) -> Command {
    let work = plane.path("work");
    fs::create_dir(&work).expect("a directory");
    let token = plane.path("cart.token");
    fs::write(&token, plane.join_token("shop", "cart")).expect("a file");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("a mode");
    let mut command = Command::new(paths::program("ferromesh-proxy"));
    command.arg(kind);
    let mut flag = |name: &str, value: String| {
        command.args([format!("--{name}"), value]);
    };
    flag("control-plane", plane.address(15012));
    flag("root-cert", plane.file("data/root-cert.pem"));
    flag("token-file", token.display().to_string());
    flag("work-dir", work.display().to_string());
    for (name, value) in [
        ("namespace", "shop"),
        ("service-account", "cart"),
        ("name", "cart-0"),
        ("type", "sidecar"),
        ("interception", "none"),
        ("concurrency", "1"),
        ("drain-time", "1s"),
    ] {
        flag(name, value.to_owned());
    }
    for (name, host) in
        [("ip", 2), ("app-address", 3), ("inbound-address", 2), ("outbound-address", 4)]
    {
        flag(name, format!("{block}.{host}"));
    }
    for (name, port) in [("admin", 15000), ("status", 15021), ("metrics", 15090)] {
        flag(&format!("{name}-address"), format!("{block}.5:{port}"));
    }
    if kind == "envoy" {
        flag("envoy-path", paths::envoy().display().to_string());
    }
    command
}

/// Answers every request with 200, on a port of its own.
fn application(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("an address");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut head, mut part) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = stream.read(&mut part) {
                    head.extend_from_slice(&part[..read]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    port
}

/// A TrafficExtension that marks answers.
fn script(mark: &str) -> String {
    format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\n\
         metadata: {{name: mark, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: cart}}}}\n  match: [{{mode: SERVER}}]\n  \
         lua:\n    inlineCode: |\n      function envoy_on_response(h)\n        \
         h:headers():add(\"x-mark\", \"{mark}\")\n      end\n"
    )
}

/// A WasmPlugin with this module.
fn plugin(module: &Path, strategy: &str) -> String {
    format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\n\
         metadata: {{name: tea, namespace: shop}}\n\
         spec: {{url: 'file://{}', phase: AUTHN, failStrategy: {strategy}}}\n",
        module.display()
    )
}

#[test]
fn extensions_come_change_and_go_on_the_stream() {
    let site = Site::start("envoy", "127.89.1");
    site.plane.write("mark.yaml", script("one"));
    site.until_answered("x-mark: one");
    site.plane.write("mark.yaml", script("two"));
    site.until_answered("x-mark: two");
    assert!(!site.ask("/", "").contains("x-mark: one"), "the former script still runs");
    site.remove("mark.yaml");
    until(LIMIT, "no mark", || site.status() == 200 && !site.ask("/", "").contains("x-mark"));

    // As an EnvoyFilter has it: the filter, and what it asks for.
    site.plane.write("patch.yaml", PATCH);
    site.until_answered("x-patch: yes");
    site.remove("patch.yaml");
    until(LIMIT, "no mark", || site.status() == 200 && !site.ask("/", "").contains("x-patch"));

    let tea = wasm_module::write(site.plane.folder());
    site.plane.write("tea.yaml", plugin(&tea, "FAIL_CLOSE"));
    site.until_status(418);
    site.remove("tea.yaml");
    site.until_status(200);

    // A module that is not there: by its strategy everybody passes or nobody does.
    let missing = site.plane.path("missing.wasm");
    // By other names: while a listener is drained that had the filter, Envoy keeps what it asked
    // for, refuses the listener with the filter, and goes on with the one before.
    site.plane.write("tea.yaml", plugin(&missing, "FAIL_OPEN").replace("name: ", "name: open-"));
    until(LIMIT, "the refusal of the module", || site.is_refused("WasmPlugin"));
    assert_eq!(site.status(), 200);
    site.remove("tea.yaml");
    until(LIMIT, "no refusal", || !site.is_refused("WasmPlugin"));
    site.plane.write("none.yaml", plugin(&missing, "FAIL_CLOSE").replace("name: ", "name: no-"));
    site.until_status(403);
    site.remove("none.yaml");
    site.until_status(200);

    // What is refused on first sight closes what it would guard.
    site.plane.write("image.yaml", IMAGE);
    site.until_status(403);
    assert!(!site.proxy.output().contains("a.test"), "nothing of it is sent");
    site.remove("image.yaml");
    site.until_status(200);
}

#[test]
fn our_proxy_refuses_what_it_cannot_run_and_closes_what_it_guards() {
    let site = Site::start("run", "127.89.2");
    site.plane.write("mark.yaml", script("one"));
    until(LIMIT, "the refusal", || site.is_refused("TrafficExtension"));
    assert_ne!(site.status(), 200, "a filter that may guard is not left out");
    site.remove("mark.yaml");
    site.until_status(200);
    site.plane.write("image.yaml", IMAGE);
    site.until_status(403);
}

#[test]
fn our_proxy_counts_itself_and_refuses_to_ask_others() {
    let site = Site::start("run", "127.89.3");
    let limit = |spec: &str| {
        format!(
            "apiVersion: policy.ferromesh.io/v1alpha1\nkind: RateLimit\n\
             metadata: {{name: cart, namespace: shop}}\nspec: {{{spec}}}\n"
        )
    };
    let by = "[{source: HEADER, name: x-plan, value: free}]";
    site.plane.write(
        "limit.yaml",
        limit(&format!(
            "local: {{requests: 1000, interval: 600s, alike: [{{by: {by}, requests: 2, interval: 600s}}]}}, \
             answer: {{status: 503, headers: {{x-why: limited}}}}"
        )),
    );
    let free = || site.ask("/", "x-plan: free\r\n");
    until(LIMIT, "a limit", || status(&free()) == 503);
    assert!(free().contains("x-why: limited"), "{}", free());
    assert_eq!(site.status(), 200, "others are not counted by it");
    site.remove("limit.yaml");
    until(LIMIT, "no limit", || (0..4).all(|_| status(&free()) == 200));
    site.plane.write(
        "limit.yaml",
        limit(
            "global: {service: cart, port: 81, domain: d, descriptors: [{by: [{source: PATH}]}]}",
        ),
    );
    // Nobody counts: whom it is for is refused by a limit that our proxy knows.
    site.until_status(429);
}

const IMAGE: &str = "
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: image, namespace: shop}
spec: {url: 'oci://a.test/m:v1'}
";

const PATCH: &str = r#"
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: patch, namespace: shop}
spec:
  configPatches:
  - applyTo: EXTENSION_CONFIG
    patch:
      operation: ADD
      value:
        name: patch
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code:
            inline_string: |
              function envoy_on_response(h)
                h:headers():add("x-patch", "yes")
              end
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_INBOUND
      listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}
    patch:
      operation: INSERT_FIRST
      value:
        name: patch
        config_discovery:
          config_source: {ads: {}, resource_api_version: V3}
          type_urls: [type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua]
"#;
