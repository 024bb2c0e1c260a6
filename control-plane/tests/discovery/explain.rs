//! What becomes of a request is told alike by files and by a control plane that serves the same.

use std::{fs, path::Path, process::Command};

use ferromesh_xds_translator::dialect::parse_file;
use http::Method;
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::agreement::Checkers;

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: stock, namespace: bank}
spec: {clusterIP: 10.96.7.1, selector: {app: stock}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: stock, namespace: bank}
spec:
  hosts: [stock]
  http:
  - {name: moved, match: [{uri: {prefix: /old}}], redirect: {uri: /new}}
  - {name: rest, route: [{destination: {host: stock}}]}
";

/// Exit code, standard output, and what it says beside that, of `ferromesh explain`.
async fn explain(words: &[&str], paths: &[(&str, &Path)]) -> (Option<i32>, String, String) {
    let paths =
        paths.iter().flat_map(|(option, path)| [(*option).to_owned(), path.display().to_string()]);
    let arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).chain(paths).collect();
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferromesh"));
        command.arg("explain").args(arguments).output().expect("it runs")
    };
    let output = spawn_blocking(run).await.expect("no panic");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_explained_alike_by_files_and_by_a_control_plane() {
    let checkers = Checkers::open().await;
    let server = format!("http://{}", checkers.plane.control.addresses.http);
    let folder = tempfile::tempdir().expect("a directory");
    let [mesh, token] = ["mesh.yaml", "token"].map(|name| folder.path().join(name));
    fs::write(&mesh, MESH).expect("a file");
    fs::write(&token, checkers.plane.admin_token()).expect("a file");
    for object in parse_file("mesh.yaml", MESH.as_bytes()).objects {
        let path = format!("{server}/api/v1/objects");
        let (status, words) = checkers.ask(Method::POST, &path, &object.to_json()).await;
        assert_eq!(status, 201, "{words}");
    }
    let files: [(&str, &Path); 1] = [("-f", &mesh)];
    let at_server: [(&str, &Path); 2] =
        [("--server", Path::new(&server)), ("--admin-token-file", &token)];
    let route = |told: &str| {
        let told: Value = serde_json::from_str(told).expect("JSON");
        let steps = told["client"]["steps"].as_array().expect("steps").clone();
        let route = steps.into_iter().find(|step| step["stage"] == "route").expect("a route");
        let by = route["decidedBy"][0].clone();
        (route["name"].clone(), by["object"].clone(), by["field"].clone(), told["outcome"].clone())
    };
    for (url, code, outcome) in
        [("http://stock/old/x", 4, "answered"), ("http://stock/", 3, "failed")]
    {
        let words = ["-o", "json", "--from", "teller.bank", "GET", url];
        let offline = explain(&words, &files).await;
        assert_eq!(offline.0, Some(code), "{}{}", offline.1, offline.2);
        let online = explain(&words, &at_server).await;
        assert_eq!(online.0, Some(code), "{}{}", online.1, online.2);
        assert_eq!(route(&online.1), route(&offline.1));
        assert_eq!(route(&online.1).3, outcome);
    }
    let (_, text, _) = explain(&["--from", "teller.bank", "GET", "http://stock/old"], &files).await;
    let by = format!("decided by VirtualService bank/stock, {}:13 spec.http[0]", mesh.display());
    assert!(text.contains(&by) && text.contains("=> 301, a redirect to"), "{text}");
    for words in [
        &["--from", "teller.bank", "GET", "stock"][..],
        &["--from", "a/b/c", "GET", "http://stock/"],
        &["--gateway", "edge", "GET", "http://stock/"],
        &["GET", "http://stock/"],
    ] {
        let misused = explain(words, &files).await;
        assert_eq!(misused.0, Some(2), "{}{}", misused.1, misused.2);
    }
}
