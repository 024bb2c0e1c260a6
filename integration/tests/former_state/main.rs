//! The data directory of a former version is taken over as it is, and goes on from there.
//!
//! `b09fafd.tar.gz` is what the control plane of that commit left: an object that was written twice, one
//! that was deleted, a policy and a Secret by REST, a certificate that a proxy got, then SIGTERM. A
//! later format gets an archive of its own beside it, and a line in `docs/upgrading.md`.
#![cfg(feature = "e2e")]

use std::{fs, path::Path, process::Command};

use ferromesh_integration::plane::ControlPlane;
use nix::sys::signal::Signal;
use serde_json::json;

const CART: &str = "/api/v1/objects/serviceentries/default/cart";

/// Puts the data of a former version where the control plane looks for it.
fn unpack(archive: &str, plane: &ControlPlane) {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/former_state").join(archive);
    let mut command = Command::new("tar");
    command.args(["--extract", "--gzip", "--no-same-owner", "--file"]).arg(archive);
    let output = command.arg("--directory").arg(plane.folder()).output().expect("tar runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn has_everything(plane: &ControlPlane) {
    let found = plane.ask("GET", CART, &[], None).await;
    assert_eq!(found.status, 200, "{}", found.text);
    assert_eq!(found.body["object"]["spec"]["hosts"], json!(["second.example.com"]));
    let gone = plane.ask("GET", "/api/v1/objects/serviceentries/default/gone", &[], None).await;
    assert_eq!(gone.status, 404, "{}", gone.text);
    let policy = "/api/v1/objects/authorizationpolicies.security.istio.io/default/closed";
    assert_eq!(plane.ask("GET", policy, &[], None).await.status, 200);
    let secrets = plane.ask("GET", "/api/v1/objects?kind=Secret", &[], None).await;
    assert_eq!(secrets.body["items"][0]["name"], "web", "{}", secrets.text);
}

#[tokio::test]
async fn what_b09fafd_left_is_taken_over() {
    let plane = ControlPlane::new("127.80.79.1");
    unpack("b09fafd.tar.gz", &plane);
    let (roots, token) = (plane.roots(), plane.admin_token());
    let process = plane.start();
    has_everything(&plane).await;
    let new = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": { "name": "new", "namespace": "default" },
        "spec": {
            "hosts": ["new.example.com"], "resolution": "DNS",
            "ports": [{ "number": 80, "name": "http", "protocol": "HTTP" }],
        },
    });
    let stored = plane.ask_as_admin("POST", "/api/v1/objects", Some(&new)).await;
    assert_eq!(stored.status, 201, "{}", stored.text);
    process.signal(Signal::SIGTERM);
    drop(process);
    // It is a directory of this version from then on, whose parts prove each other.
    assert!(["witness", "acknowledged"].iter().all(|part| plane.path("data").join(part).exists()));
    assert!(fs::metadata(plane.path("data/accept-state")).is_err());
    let _process = plane.start();
    has_everything(&plane).await;
    let found = plane.ask("GET", "/api/v1/objects/serviceentries/default/new", &[], None).await;
    assert_eq!(found.status, 200, "{}", found.text);
    assert_eq!((plane.roots(), plane.admin_token()), (roots, token));
}
