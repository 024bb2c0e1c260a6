//! What the tests of limits ask of a control plane, and the objects that they give it.

use std::time::{Duration, Instant};

use ferromesh_integration::plane::{Answer, ControlPlane};
use serde_json::{Value, json};

/// Stores a host of the given name; its cluster is [`cluster_of`].
pub(crate) async fn put_host(plane: &ControlPlane, name: &str) -> Answer {
    let path = format!("/api/v1/objects/serviceentries/default/{name}");
    plane.ask_as_admin("PUT", &path, Some(&host(name))).await
}

/// Waits until the diagnostics contain every text, and returns them as text.
pub(crate) async fn until_said(plane: &ControlPlane, texts: &[&str]) -> String {
    let begin = Instant::now();
    loop {
        let answer = plane.ask("GET", "/api/v1/diagnostics", &[], None).await;
        let missing = texts.iter().find(|text| !answer.text.contains(**text));
        let Some(missing) = missing else { return answer.text };
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "nothing was said of {missing}: {}",
            answer.text
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A host outside the mesh as a ServiceEntry.
pub(crate) fn host(name: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "hosts": [format!("{name}.example.com")], "location": "MESH_EXTERNAL", "resolution": "DNS",
            "ports": [{ "number": 80, "name": "http", "protocol": "HTTP" }],
        },
    })
}

/// The cluster of a host of [`host`].
pub(crate) fn cluster_of(name: &str) -> String {
    format!("outbound|80||{name}.example.com")
}

/// A Kubernetes Service as YAML.
pub(crate) fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n"
    )
}

/// The cluster of a service of [`service`].
pub(crate) fn service_cluster(name: &str) -> String {
    format!("outbound|80||{name}.default.svc.cluster.local")
}
