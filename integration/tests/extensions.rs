//! Extensions of users in proxies on the control plane's stream: scripts and WebAssembly come, change
//! and go in a real Envoy, and what cannot be loaded or run is closed.
#![cfg(feature = "e2e")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use ferromesh_integration::{
    process::until,
    wasm_module,
    workload::{LIMIT, Workload, status},
};

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
    let site = Workload::start("envoy", "127.89.1");
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
    site.plane.write("image.yaml", SECRET_IMAGE);
    site.until_status(403);
    assert!(!site.proxy.output().contains("a.test"), "nothing of it is sent");
    site.remove("image.yaml");
    site.until_status(200);
}

#[test]
fn our_proxy_refuses_what_it_cannot_run_and_closes_what_it_guards() {
    let site = Workload::start("run", "127.89.2");
    site.plane.write("mark.yaml", script("one"));
    until(LIMIT, "the refusal", || site.is_refused("TrafficExtension"));
    assert_ne!(site.status(), 200, "a filter that may guard is not left out");
    site.remove("mark.yaml");
    site.until_status(200);
    site.plane.write("image.yaml", SECRET_IMAGE);
    site.until_status(403);
}

/// A registry without TLS: what it has, by path.
fn registry(address: &str) -> Arc<Mutex<BTreeMap<String, Vec<u8>>>> {
    let content: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
    let listener = TcpListener::bind(address).expect("an address");
    let served = content.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let path = first.split(' ').nth(1).unwrap_or_default();
            let found = served.lock().expect("no panic").get(path).cloned();
            let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
            let body = found.unwrap_or_default();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = (&stream).write_all(&[head.as_bytes(), &body].concat());
        }
    });
    content
}

/// SHA-256 in hexadecimal digits.
fn sha256(content: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a registry has of an image `m:v1` that is this module: by path.
fn image(module: &[u8]) -> [(String, Vec<u8>); 2] {
    let (digest, size) = (sha256(module), module.len());
    let manifest = format!(
        r#"{{"schemaVersion": 2, "layers": [{{"digest": "sha256:{digest}", "size": {size},
            "mediaType": "application/vnd.module.wasm.content.layer.v1+wasm"}}]}}"#
    );
    [
        (format!("/v2/m/blobs/sha256:{digest}"), module.to_vec()),
        ("/v2/m/manifests/v1".to_owned(), manifest.into_bytes()),
    ]
}

#[test]
fn a_module_in_an_image_is_pulled_and_what_cannot_be_is_closed_until_it_can() {
    const REGISTRY: &str = "127.89.4.9:5000";
    let content = registry(REGISTRY);
    let options = ["--insecure-registries", REGISTRY];
    let site = Workload::start_told("envoy", "127.89.4", "", &options);
    let plugin = |name: &str, more: &str| {
        format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\n\
             metadata: {{name: {name}, namespace: shop}}\n\
             spec: {{url: 'oci://{REGISTRY}/m:v1', phase: AUTHN{more}}}\n"
        )
    };
    // Nobody has it yet: everybody passes where the object says so, else nobody does.
    site.plane.write("image.yaml", plugin("open", ", failStrategy: FAIL_OPEN"));
    until(LIMIT, "the refusal of the image", || site.is_refused("WasmPlugin"));
    assert_eq!(site.status(), 200);
    site.remove("image.yaml");
    until(LIMIT, "no refusal", || !site.is_refused("WasmPlugin"));
    site.plane.write("image.yaml", plugin("tea", ""));
    site.until_status(403);
    assert!(site.is_refused("WasmPlugin"), "it is told");

    let tea = fs::read(wasm_module::write(site.plane.folder())).expect("a module");
    content.lock().expect("no panic").extend(image(&tea));
    // It is tried again by itself.
    site.until_status(418);
    until(LIMIT, "no refusal", || !site.is_refused("WasmPlugin"));
    site.remove("image.yaml");
    site.until_status(200);

    // The image is another one than the object says.
    let digest = "0".repeat(64);
    site.plane.write("image.yaml", plugin("other", &format!(", sha256: '{digest}'")));
    site.until_status(403);
    site.remove("image.yaml");
    site.until_status(200);

    // A registry that is not listed is not asked without TLS, nor on this machine.
    let elsewhere = plugin("elsewhere", "").replace(REGISTRY, "127.89.4.10:5000");
    site.plane.write("image.yaml", elsewhere);
    site.until_status(403);
    until(LIMIT, "the log says so", || {
        site.proxy.output().contains("registries are not called at")
    });
}

#[test]
fn our_proxy_counts_itself_and_closes_what_nobody_can_count() {
    let site = Workload::start("run", "127.89.3");
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

const SECRET_IMAGE: &str = "
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: image, namespace: shop}
spec: {url: 'oci://a.test/m:v1', imagePullSecret: registry}
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
