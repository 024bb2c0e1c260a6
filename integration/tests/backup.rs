//! A backup of a control plane that runs and is written to, put back into an empty folder: another
//! process goes on with the same store, authority, tokens and proxies.
#![cfg(feature = "e2e")]

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use ferromesh_integration::{
    paths,
    plane::{ControlPlane, program},
    process::Process,
};
use serde_json::{Value, json};

const OBJECTS: &str = "/api/v1/objects/serviceentries/default";

fn entry(number: u64) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": { "name": format!("entry-{number}"), "namespace": "default" },
        "spec": {
            "hosts": [format!("{number}.example.com")], "resolution": "DNS",
            "ports": [{ "number": 80, "name": "http", "protocol": "HTTP" }],
        },
    })
}

/// Stores one object after the other; how many were acknowledged is counted.
async fn write(plane: &ControlPlane, acknowledged: &AtomicU64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let number = acknowledged.load(Ordering::Relaxed);
        let path = format!("{OBJECTS}/entry-{number}");
        let answer = plane.ask_as_admin("PUT", &path, Some(&entry(number))).await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether `ferromesh backup` or `restore` ended well, and all that it said.
fn copy(word: &str, file: &Path, data: &Path, passphrase: &Path) -> (bool, String) {
    let mut command = program();
    command.arg(word).arg(file).arg("--data-dir").arg(data);
    command.arg("--passphrase-file").arg(passphrase);
    let output = command.output().expect("it runs");
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    (output.status.success(), said.concat())
}

/// What is cut off or changed in one bit is put back nowhere, and neither is something else.
fn damaged(backup: &Path, folder: &Path, passphrase: &Path) {
    let (bytes, file) = (fs::read(backup).expect("the backup"), folder.with_extension("backup"));
    let mut flipped = bytes.clone();
    let middle = bytes.len() / 2;
    flipped[middle] ^= 1;
    for (bad, why) in [
        (&flipped[..], "damaged"),
        (&bytes[..middle], "damaged"),
        (&bytes[..20], "it is no backup"),
        (b"something else", "it is no backup"),
    ] {
        fs::write(&file, bad).expect("a file");
        let (restored, said) = copy("restore", &file, folder, passphrase);
        assert!(!restored && said.contains(why), "{said}");
        assert!(!folder.exists(), "nothing is left behind");
    }
}

/// A proxy that joins with the token of this file.
fn join(plane: &ControlPlane, token: &Path) -> Process {
    let mut command = Command::new(paths::program("ferromesh-proxy"));
    command.args(["run", "--control-plane", &plane.address(15012)]);
    command.arg("--root-cert").arg(plane.path("data/root-cert.pem"));
    command.arg("--token-file").arg(token);
    command.args(["--service-account", "cart", "--name", "cart-1"]);
    command.args(["--interception", "none", "--app-address", "127.80.60.4"]);
    command.args(["--inbound-address", "127.80.60.2", "--outbound-address", "127.80.60.3"]);
    command.args(["--admin-address", "127.80.60.5:15000"]);
    command.args(["--status-address", "127.80.60.5:15021"]);
    command.args(["--metrics-address", "127.80.60.5:15090"]);
    command.args(["--concurrency", "1", "--drain-time", "0s"]);
    Process::start("cart", plane.folder(), command)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_running_control_plane_keeps_goes_on_elsewhere() {
    let from = Arc::new(ControlPlane::new("127.80.58.1"));
    let process = from.start();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "web", "namespace": "default" },
        "type": "Opaque", "stringData": { "password": "correct horse battery" },
    });
    let stored = from.ask_as_admin("PUT", "/api/v1/objects/secrets/default/web", Some(&secret));
    assert!(matches!(stored.await.status, 200 | 201));
    let token = from.path("cart.token");
    fs::write(&token, from.join_token("default", "cart")).expect("a file");

    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = {
        let (from, acknowledged, stop) = (from.clone(), acknowledged.clone(), stop.clone());
        tokio::spawn(async move { write(&from, &acknowledged, &stop).await })
    };
    while acknowledged.load(Ordering::Relaxed) < 20 {
        tokio::task::yield_now().await;
    }
    let (passphrase, backup) = (from.path("passphrase"), from.path("mesh.backup"));
    fs::write(&passphrase, "a rather long passphrase\n").expect("a file");
    let before = acknowledged.load(Ordering::Relaxed);
    let data = from.path("data");
    let (made, said) = copy("backup", &backup, &data, &passphrase);
    assert!(made, "{said}");
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("every write was acknowledged");

    // Nothing can be read in it, and it is not written over.
    let bytes = fs::read(&backup).expect("the backup");
    for hidden in [from.admin_token().as_bytes(), &b"example.com"[..], b"authority.sealed"] {
        assert!(!bytes.windows(hidden.len()).any(|window| window == hidden));
    }
    assert!(!copy("backup", &backup, &data, &passphrase).0, "it was written over");

    let to = ControlPlane::new("127.80.59.1");
    let data = to.path("data");
    let other = from.path("other");
    fs::write(&other, "some other passphrase").expect("a file");
    let (restored, said) = copy("restore", &backup, &data, &other);
    assert!(!restored && said.contains("the passphrase is another"), "{said}");
    assert!(!data.exists(), "nothing is left behind");
    fs::write(&other, "short").expect("a file");
    let (restored, said) = copy("restore", &backup, &data, &other);
    assert!(!restored && said.contains("at least 12 characters"), "{said}");
    let (restored, said) = copy("restore", &backup, &from.path("data"), &passphrase);
    assert!(!restored && said.contains("in use by another process"), "{said}");
    let (restored, said) = copy("restore", &backup, &data, &passphrase);
    assert!(restored && said.contains("revoke again"), "{said}");
    let (restored, said) = copy("restore", &backup, &data, &passphrase);
    assert!(!restored && said.contains("is not empty"), "{said}");
    damaged(&backup, &to.path("damaged"), &passphrase);

    // Its own is gone for good.
    let (roots, admin) = (from.roots(), from.admin_token());
    drop(process);
    let _process = to.start();
    assert_eq!((to.roots(), to.admin_token()), (roots, admin));
    for number in 0..before {
        let answer = to.ask("GET", &format!("{OBJECTS}/entry-{number}"), &[], None).await;
        assert_eq!(answer.status, 200, "entry-{number} of {before} was acknowledged before");
    }
    let mut new = entry(0);
    new["metadata"]["name"] = "entry-new".into();
    new["spec"]["hosts"] = json!(["new.example.com"]);
    let answer = to.ask_as_admin("POST", "/api/v1/objects", Some(&new)).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let secrets = to.ask("GET", "/api/v1/objects?kind=Secret", &[], None).await;
    assert_eq!(secrets.body["items"][0]["name"], "web", "{}", secrets.text);
    // A token of the one is good for the other, over TLS by its old root.
    let mut proxy = join(&to, &token);
    proxy.until("it has an identity", || {
        let certificates = to.get("/api/v1/certificates").unwrap_or_default();
        certificates.contains("/ns/default/sa/cart")
    });
}
