//! Headers that proxies add, and that a mesh can do without.

use ferromesh_integration::{
    process::until,
    workload::{LIMIT, send_to},
};

use crate::beside::Pair;

/// The mesh configuration with these headers.
fn mesh(headers: &str) -> String {
    format!(
        "apiVersion: mesh.istio.io/v1alpha1\nkind: MeshConfig\nmetadata: {{name: default}}\n\
         spec: {{defaultConfig: {{proxyHeaders: {headers}}}}}\n"
    )
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";

#[test]
fn proxies_add_the_headers_that_the_mesh_wants() {
    let pair = Pair::start(61);
    // Through the caller's side of the proxy and the other one; in the answer is what was asked.
    let call = |block: &str| send_to(&format!("{block}.4:80"), REQUEST).to_ascii_lowercase();
    let added = ["x-request-id:", "x-envoy-attempt-count: 1", "x-envoy-upstream-service-time:"];
    for (workload, block) in pair.each() {
        until(LIMIT, "the service is called", || call(block).starts_with("http/1.1 200"));
        let called = call(block);
        assert!(added.iter().all(|header| called.contains(header)), "{block}: {called}");
        let answer = workload.ask("/", "").to_ascii_lowercase();
        assert!(answer.contains("server: istio-envoy"), "{block}: {answer}");
    }
    let off = "attemptCount: {disabled: true}, requestId: {disabled: true}, \
               envoyDebugHeaders: {disabled: true}";
    pair.write("headers.yaml", &mesh(&format!("{{server: {{value: shop}}, {off}}}")));
    for (workload, block) in pair.each() {
        workload.until_answered("server: shop");
        until(LIMIT, "nothing is added", || {
            let called = call(block);
            called.starts_with("http/1.1 200") && added.iter().all(|name| !called.contains(name))
        });
    }
    pair.write("headers.yaml", &mesh("{server: {disabled: true}}"));
    for (workload, block) in pair.each() {
        let answer = || workload.ask("/", "").to_ascii_lowercase();
        until(LIMIT, "the application says nothing of itself", || !answer().contains("server:"));
        assert!(answer().starts_with("http/1.1 200"), "{block}");
    }
}
