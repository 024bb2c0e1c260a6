//! What a change would do is told alike by files and by a control plane that serves the same, and
//! nothing of it is stored.

use std::{fs, path::Path, process::Command};

use ferromesh_xds_translator::dialect::parse_file;
use http::Method;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::agreement::Checkers;

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: stock, namespace: bank}
spec: {clusterIP: 10.96.7.1, selector: {app: stock}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: stock-next, namespace: bank}
spec: {clusterIP: 10.96.7.2, selector: {app: next}, ports: [{name: http, port: 80}]}
";

const CANARY: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: stock, namespace: bank}
spec:
  hosts: [stock]
  http:
  - route:
    - {destination: {host: stock}, weight: 75}
    - {destination: {host: stock-next}, weight: 25}
";

/// Exit code, standard output as JSON, and what it says beside that, of `ferromesh plan`.
async fn plan(arguments: Vec<String>) -> (Option<i32>, Value, String) {
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferromesh"));
        command.args(["plan", "-o", "json"]).args(arguments).output().expect("it runs")
    };
    let output = spawn_blocking(run).await.expect("no panic");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

fn arguments(words: &[&str], paths: &[(&str, &Path)]) -> Vec<String> {
    let named =
        paths.iter().flat_map(|(option, path)| [(*option).to_owned(), path.display().to_string()]);
    words.iter().map(|word| (*word).to_owned()).chain(named).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_foreseen_alike_by_files_and_by_a_control_plane() {
    let checkers = Checkers::open().await;
    let server = format!("http://{}", checkers.plane.control.addresses.http);
    let folder = tempfile::tempdir().expect("a directory");
    let [mesh, canary, token, broken] =
        ["mesh.yaml", "canary.yaml", "token", "broken.yaml"].map(|name| folder.path().join(name));
    for (path, text) in [
        (&mesh, MESH),
        (&canary, CANARY),
        (&token, &checkers.plane.admin_token()),
        (&broken, &CANARY.replace("weight: 25", "weight: -25")),
    ] {
        fs::write(path, text).expect("a file");
    }
    for object in parse_file("mesh.yaml", MESH.as_bytes()).objects {
        let object = object.to_json();
        let path = format!("{server}/api/v1/objects");
        let (status, words) = checkers.ask(Method::POST, &path, &object).await;
        assert_eq!(status, 201, "{words}");
    }
    let offline = plan(arguments(&[], &[("--current", &mesh), ("-f", &canary)])).await;
    let at_server = ["--server", &server];
    let with_token = |paths: &[(&str, &Path)]| {
        arguments(&at_server, &[paths, &[("--admin-token-file", token.as_path())]].concat())
    };
    let online = plan(with_token(&[("-f", &canary)])).await;
    assert_eq!(offline.0, Some(2), "{}", offline.2);
    let resources = |told: &Value| told["effects"][0]["resources"].clone();
    assert_eq!((online.0, resources(&online.1)), (Some(2), resources(&offline.1)), "{}", online.2);
    // The control plane has a sidecar beside those of the files, which is told along with them.
    let proxies = &online.1["effects"][0]["proxies"];
    assert_eq!(proxies, &json!(["sidecar in bank", "sidecar shop/cart-0"]), "{}", online.1);
    let share = &online.1["effects"][0]["resources"][0]["routes"][0]["shares"];
    let shares: Vec<_> = share.as_array().expect("shares").iter().map(|s| &s["after"]).collect();
    assert_eq!(shares, [&json!(25.0), &json!(75.0)], "{}", online.1);
    let (_, stored) = checkers
        .ask(
            Method::GET,
            &format!("{server}/api/v1/objects?kind=virtualservices&namespace=bank"),
            &json!({}),
        )
        .await;
    assert!(stored.contains("[]"), "nothing was stored: {stored}");

    let unchanged = plan(with_token(&[("-f", &mesh)])).await;
    assert_eq!((unchanged.0, &unchanged.1["effects"]), (Some(0), &json!([])), "{}", unchanged.2);
    for (paths, word) in [(with_token(&[("-f", &broken)]), "weight"), (gone(&with_token), "gone")] {
        let refused = plan(paths).await;
        assert_eq!(refused.0, Some(1), "{}", refused.1);
        assert!(refused.2.contains(word), "{}", refused.2);
    }
}

fn gone(with_token: &impl Fn(&[(&str, &Path)]) -> Vec<String>) -> Vec<String> {
    with_token(&[("--delete", Path::new("service/bank/gone"))])
}
