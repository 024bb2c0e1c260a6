//! Invariant 5: private keys and tokens are in the files that are made for them, and nowhere else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ferromesh_integration::{
    certificate::self_signed,
    paths,
    plane::{ControlPlane, exchange, readable},
    process::Process,
};
use http::Request;
use http_body_util::Full;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A text that must not show up, and what it is.
struct Canary {
    what: String,
    text: String,
}

/// What any key or token of ours looks like, whichever it is.
fn general() -> Vec<Canary> {
    let canary = |what: &str, text: &str| Canary { what: what.to_owned(), text: text.to_owned() };
    vec![
        canary("a private key as PEM", "PRIVATE KEY--"),
        canary("a private key as base64 of PEM", "LS0tLS1CRUdJTiBQUklWQVRF"),
        canary("a private key as base64 of PEM", "LS0tLS1CRUdJTiBFQyBQUklWQVRF"),
        canary("a signed token", "eyJhbGci"),
        canary("a signed token", "eyJ0eXAi"),
    ]
}

/// No text holds any canary.
fn is_clean(name: &str, text: &str, canaries: &[Canary]) {
    for canary in canaries {
        assert!(!text.contains(&canary.text), "{name} shows {}", canary.what);
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found
}

/// A private key as a user would write it, and the lines by which it is recognised.
fn key_pair(dir: &Path) -> (String, String) {
    let (certificate, key) = self_signed(dir, "user", &["-subj", "/CN=shop.example.com"]);
    let read = |path| fs::read_to_string(path).expect("a PEM file");
    (read(certificate), read(key))
}

fn key_canaries(what: &str, pem: &str) -> Vec<Canary> {
    let lines = pem.lines().filter(|l| !l.starts_with("-----") && l.len() > 20);
    lines.map(|line| Canary { what: what.to_owned(), text: line.to_owned() }).collect()
}

#[tokio::test]
async fn a_stored_secret_is_redacted_in_answers_and_sealed_on_the_disk() {
    let plane = ControlPlane::new("127.80.30.1");
    let process = plane.start();
    let (certificate, key) = key_pair(plane.folder());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "cert", "namespace": "shop" },
        "stringData": { "tls.crt": certificate, "tls.key": key },
    });
    // Tools keep copies of the whole object in it.
    let mut secret = secret;
    let copy = secret.to_string();
    secret["metadata"]["annotations"] = json!({
        "kubectl.kubernetes.io/last-applied-configuration": copy, "kapp.k14s.io/original": copy,
    });
    let mut canaries = general();
    canaries.extend(key_canaries("the secret's key", &key));
    canaries
        .push(Canary { what: "the administrator's token".to_owned(), text: plane.admin_token() });
    let path = "/api/v1/objects/secrets/shop/cert";
    for (target, status) in [(format!("{path}?dryRun=true"), 200), (path.to_owned(), 201)] {
        let answer = plane.ask_as_admin("PUT", &target, Some(&secret)).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        is_clean(&target, &answer.text, &canaries);
    }
    let mut wrong = secret.clone();
    wrong["stringData"]["tls.crt"] = json!("no certificate");
    let refused = plane.ask_as_admin("PUT", path, Some(&wrong)).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    is_clean("a refusal", &refused.text, &canaries);
    for path in [path, "/api/v1/objects", "/api/v1/diagnostics"] {
        let answer = plane.ask("GET", path, &[], None).await;
        assert!(answer.status == 200, "{}", answer.text);
        is_clean(path, &answer.text, &canaries);
    }
    let (made, report) = plane.administer(&["bug-report", "--output", "-"]);
    assert!(made && report.contains("\"name\": \"cert\""), "{report}");
    is_clean("the bug report", &report, &canaries);
    let list = plane.ask("GET", "/api/v1/objects?kind=secrets&namespace=shop", &[], None).await;
    assert_eq!(list.body["items"][0]["name"], "cert", "{}", list.text);
    process.signal(Signal::SIGTERM);
    let log = process.output();
    drop(process);
    is_clean("the log", &log, &canaries);
    // On the disk: sealed in the journal and the database, readable nowhere.
    for file in files(&plane.path("data")) {
        if file.file_name().is_some_and(|n| n == "admin-token") {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&file).expect("a file")).into_owned();
        is_clean(&file.display().to_string(), &text, &canaries);
    }
    let journal = fs::read_to_string(plane.path("data/store/journal")).expect("the journal");
    assert!(
        journal.contains("Secret/shop/cert") && journal.contains("sealedData"),
        "the secret is not in the journal"
    );
    // Sealed, not lost.
    let _again = plane.start();
    let kept = plane.ask("GET", path, &[], None).await;
    assert_eq!(kept.status, 200, "{}", kept.text);
    is_clean(path, &kept.text, &canaries);
}

/// The demo's services, as it names them when it tells who was called.
const SERVICES: [&str; 4] = ["productpage", "details", "reviews", "ratings"];

/// A running demo: its REST address, its folder, and what it says itself.
struct Demo {
    process: Process,
    rest: String,
    dir: PathBuf,
    log: PathBuf,
}

impl Demo {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(paths::program("ferromesh"));
        command.arg("demo");
        let mut process = Process::start("demo", dir, command);
        let mut output = String::new();
        let log = dir.join("demo.log");
        process.until("running", || {
            output = fs::read_to_string(&log).unwrap_or_default();
            output.contains("REST: http://") && output.contains("Logs: ")
        });
        let after = |mark: &str| {
            let word = output.split(mark).nth(1).and_then(|rest| rest.split_whitespace().next());
            word.unwrap_or_else(|| panic!("no {mark:?} in {output}")).to_owned()
        };
        let rest = after("REST: http://").split('/').next().unwrap_or_default().to_owned();
        Self { process, rest, dir: after("Logs: ").into(), log }
    }

    /// Every service has answered calls, so that logs have something to say.
    fn until_traffic(&mut self) {
        let log = self.log.clone();
        self.process.until("carrying calls to every service", || {
            let output = fs::read_to_string(&log).unwrap_or_default();
            SERVICES.iter().all(|name| output.contains(&format!("→ {name} ")))
        });
    }

    async fn get(&self, address: &str, path: &str) -> (String, Value) {
        let request = Request::get(format!("http://{address}{path}"))
            .body(Full::default())
            .expect("a request");
        let answer = exchange(request).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        (answer.text, answer.body)
    }

    /// Everything that the control plane and the proxies tell whoever asks.
    async fn dumps(&self) -> Vec<(String, String)> {
        let mut dumps = Vec::new();
        let (document, described) = self.get(&self.rest, "/openapi.json").await;
        dumps.push(("/openapi.json".to_owned(), document));
        for path in readable(&described) {
            dumps.push((path.clone(), self.get(&self.rest, &path).await.0));
        }
        let (_, proxies) = self.get(&self.rest, "/api/v1/proxies").await;
        for proxy in proxies["items"].as_array().expect("proxies") {
            let id = proxy["id"].as_str().expect("an id").replace('~', "%7E");
            for path in
                [format!("/api/v1/proxies/{id}/config"), format!("/debug/config_dump?proxyID={id}")]
            {
                dumps.push((path.clone(), self.get(&self.rest, &path).await.0));
            }
        }
        let (_, objects) = self.get(&self.rest, "/api/v1/objects").await;
        for object in
            objects["items"].as_array().expect("objects").iter().filter(|o| o["kind"] == "Secret")
        {
            let word = |name: &str| object[name].as_str().unwrap_or_default();
            let path = format!("/api/v1/objects/secrets/{}/{}", word("namespace"), word("name"));
            dumps.push((path.clone(), self.get(&self.rest, &path).await.0));
        }
        let network = self.rest.split(".0.1:").next().expect("127.N.0.1");
        for workload in 1..=9 {
            let address = format!("{network}.{workload}.4:15000");
            dumps.push((
                format!("{address}/config_dump"),
                self.get(&address, "/config_dump").await.0,
            ));
        }
        dumps
    }
}

#[tokio::test]
async fn no_log_and_no_dump_of_a_running_mesh_shows_a_key_or_a_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut demo = Demo::start(dir.path());
    demo.until_traffic();
    let mut canaries = general();
    let mut secret_files = 0;
    for file in files(&demo.dir) {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if name.ends_with("token") {
            secret_files += 1;
            canaries
                .push(Canary { what: format!("the token {name}"), text: text.trim().to_owned() });
        } else if text.contains("PRIVATE KEY") {
            secret_files += 1;
            let key: Vec<&str> =
                text.lines().map(str::trim).skip_while(|l| !l.contains("BEGIN PRIVATE")).collect();
            canaries.extend(key_canaries(&format!("the key of {name}"), &key.join("\n")));
        }
    }
    assert!(
        secret_files >= 11,
        "administrator, nine workloads and the gateway's key: found {secret_files}"
    );
    let dumps = demo.dumps().await;
    assert!(
        dumps.iter().filter(|(path, _)| path.ends_with("/config")).count() >= 9,
        "nine proxies are connected"
    );
    for (name, text) in &dumps {
        is_clean(name, text, &canaries);
    }
    let logs: Vec<PathBuf> = files(&demo.dir)
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "log"))
        .collect();
    assert!(logs.len() >= 10, "{logs:?}");
    for log in logs {
        is_clean(
            &log.display().to_string(),
            &fs::read_to_string(&log).unwrap_or_default(),
            &canaries,
        );
    }
    demo.process.signal(Signal::SIGINT);
    is_clean("the demo's output", &demo.process.output(), &canaries);
    let ended = demo.process.ended(Duration::from_secs(30));
    assert_eq!(ended.and_then(|s| s.code()), Some(0), "{}", demo.process.output());
    assert!(!demo.dir.exists(), "the demo left {} behind", demo.dir.display());
}
