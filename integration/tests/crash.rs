//! kill -9 at random moments under writes: nothing that was acknowledged is lost, and traffic does
//! not notice.
#![cfg(feature = "e2e")]

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use ferromesh_integration::{paths, plane::ControlPlane, process::Process};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

const HOST: &str = "127.78.1.1";

/// Writes and deletes objects one after the other, and remembers what was acknowledged.
struct Writer {
    token: String,
    random: StdRng,
    /// Last acknowledged content by name; `None`: deleted.
    acknowledged: BTreeMap<String, Option<u64>>,
    /// The write that was under way when the server died: both outcomes are allowed.
    doubtful: Option<(String, Option<u64>)>,
    count: u64,
}

impl Writer {
    async fn run(&mut self, stop: &AtomicBool) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        while !stop.load(Ordering::Relaxed) {
            self.count += 1;
            let name = format!("entry-{}", self.random.random_range(0..40));
            let exists = self.acknowledged.get(&name).is_some_and(Option::is_some);
            let value = (!(exists && self.random.random_bool(0.3))).then_some(self.count);
            let (method, body) = match value {
                Some(n) => (Method::PUT, object(&name, n).to_string()),
                None => (Method::DELETE, String::new()),
            };
            let request = Request::builder()
                .method(method)
                .uri(format!("http://{HOST}:8080/api/v1/objects/serviceentries/default/{name}"))
                .header("authorization", format!("Bearer {}", self.token))
                .header("content-type", "application/json")
                .body(Full::from(body))
                .expect("a request");
            let answer =
                tokio::time::timeout(Duration::from_secs(10), client.request(request)).await;
            match answer {
                Ok(Ok(response)) if response.status().is_success() => {
                    self.acknowledged.insert(name, value);
                }
                Ok(Ok(response)) => panic!("{name}: {}", response.status()),
                _ => {
                    self.doubtful = Some((name, value));
                    return;
                }
            }
        }
    }

    /// Compares what is stored with what was acknowledged, then believes what is stored.
    async fn verify(&mut self) {
        for (name, expected) in self.acknowledged.clone() {
            let found = stored(&name).await;
            let doubtful = self.doubtful.as_ref().filter(|(n, _)| *n == name).map(|(_, v)| *v);
            assert!(
                found == expected || Some(found) == doubtful,
                "{name}: acknowledged {expected:?}, stored {found:?}, in doubt {doubtful:?}"
            );
            self.acknowledged.insert(name, found);
        }
        self.doubtful = None;
    }
}

fn object(name: &str, n: u64) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": { "name": name, "namespace": "default", "labels": { "n": n.to_string() } },
        "spec": {
            "hosts": [format!("{name}.example.com")], "location": "MESH_EXTERNAL", "resolution": "DNS",
            "ports": [{ "number": 80, "name": "http", "protocol": "HTTP" }],
        },
    })
}

async fn stored(name: &str) -> Option<u64> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let uri = format!("http://{HOST}:8080/api/v1/objects/serviceentries/default/{name}")
        .parse()
        .expect("a URI");
    let response = client.get(uri).await.expect("an answer");
    if response.status() == StatusCode::NOT_FOUND {
        return None;
    }
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let value: Value = serde_json::from_slice(&bytes).expect("JSON");
    Some(
        value["object"]["metadata"]["labels"]["n"]
            .as_str()
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("{name}: {value}")),
    )
}

/// Constant traffic through one of our proxies in NONE mode; counts failures.
struct Traffic {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    fn start() -> Self {
        let (stop, requests, failures) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicU64::new(0)),
        );
        let (s, r, f) = (stop.clone(), requests.clone(), failures.clone());
        let thread = thread::spawn(move || {
            while !s.load(Ordering::Relaxed) {
                r.fetch_add(1, Ordering::Relaxed);
                if !request_through_proxy() {
                    f.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, requests, failures, thread: Some(thread) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn request_through_proxy() -> bool {
    use std::io::{Read, Write};
    let send = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect("127.78.2.3:9080")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(b"GET /crash HTTP/1.1\r\nhost: echo:9080\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    send().is_ok_and(|text| text.starts_with("HTTP/1.1 200"))
}

const CONFIG: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: echo, containers: [{name: app, image: echo}]}
status: {phase: Running, podIP: 127.78.2.2, podIPs: [{ip: 127.78.2.2}], conditions: [{type: Ready, status: "True"}]}
"#;

fn start_proxy(victim: &ControlPlane) -> [Process; 2] {
    let mut application = Command::new(paths::program("fm-peer"));
    application.args(["serve", "127.78.2.1:9080", "echo", "v1"]);
    let application = Process::start("echo", victim.folder(), application);
    fs::write(victim.path("token"), victim.join_token("default", "echo")).expect("a token file");
    let mut command = Command::new(paths::program("ferromesh-proxy"));
    command.args([
        "run",
        "--control-plane",
        &format!("{HOST}:15012"),
        "--root-cert",
        &victim.file("data/root-cert.pem"),
    ]);
    command.args([
        "--token-file",
        &victim.file("token"),
        "--namespace",
        "default",
        "--service-account",
        "echo",
        "--name",
        "echo",
    ]);
    command.args([
        "--ip",
        "127.78.2.2",
        "--interception",
        "none",
        "--app-address",
        "127.78.2.1",
        "--inbound-address",
        "127.78.2.2",
    ]);
    command.args([
        "--outbound-address",
        "127.78.2.3",
        "--admin-address",
        "127.78.2.4:15000",
        "--status-address",
        "127.78.2.4:15021",
    ]);
    command.args([
        "--metrics-address",
        "127.78.2.4:15090",
        "--concurrency",
        "1",
        "--drain-time",
        "1s",
        "--work-dir",
        &victim.file("work"),
    ]);
    let mut proxy = Process::start("proxy", victim.folder(), command);
    proxy.until("serving", request_through_proxy);
    [application, proxy]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9_while_proxies_keep_serving() {
    let (kills, seed) = paths::crash_settings();
    #[allow(clippy::print_stderr, reason = "a failed run is repeated with its seed")]
    {
        eprintln!("{kills} kills, seed {seed}");
    }
    let victim = ControlPlane::new(HOST);
    victim.write("mesh.yaml", CONFIG);
    let mut process = victim.start();
    let _proxy = start_proxy(&victim);
    let traffic = Traffic::start();
    let mut moments = StdRng::seed_from_u64(seed);
    let random = StdRng::seed_from_u64(seed ^ 1);
    let mut writer = Writer {
        token: victim.admin_token(),
        random,
        acknowledged: BTreeMap::new(),
        doubtful: None,
        count: 0,
    };
    for _ in 0..kills {
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Duration::from_millis(moments.random_range(1..150));
        let killer = async {
            tokio::time::sleep(pause).await;
            process.signal(Signal::SIGKILL);
            stop.store(true, Ordering::Relaxed);
        };
        tokio::join!(writer.run(&stop), killer);
        assert!(process.ended(Duration::from_secs(30)).is_some(), "kill -9 did not end it");
        process = victim.start();
        writer.verify().await;
    }
    let (requests, failures) =
        (traffic.requests.load(Ordering::Relaxed), traffic.failures.load(Ordering::Relaxed));
    // On a slow disk no more than one is under way before each kill.
    assert!(writer.count >= u64::from(kills), "the writer wrote {} objects", writer.count);
    assert_eq!(
        failures, 0,
        "{failures} of {requests} requests failed while the control plane was away"
    );
    assert!(requests > u64::from(kills) * 5, "only {requests} requests were sent");

    // The proxy is back: what is written now reaches it.
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let back = async {
        loop {
            let uri = format!("http://{HOST}:8080/api/v1/proxies").parse().expect("a URI");
            let body = client
                .get(uri)
                .await
                .expect("an answer")
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes();
            let list: Value = serde_json::from_slice(&body).expect("JSON");
            if list["items"][0]["sync"]["LDS"]["state"] == "SYNCED" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), back).await.expect("the proxy did not come back");
}
