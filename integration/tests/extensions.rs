//! Extensions of users in proxies on the control plane's stream: scripts and WebAssembly come, change
//! and go in a real Envoy, and what cannot be loaded or run is closed.
#![cfg(feature = "e2e")]

use std::path::Path;

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
    site.plane.write("image.yaml", IMAGE);
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
    site.plane.write("image.yaml", IMAGE);
    site.until_status(403);
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
