//! A control plane of a test's own: its directories, its loopback address, and its REST API.

use std::{
    cell::Cell,
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferromesh_integration::{paths, process::Process};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};

/// What a control plane is started on. Outlives its processes.
pub(crate) struct Plane {
    /// Every port is bound to this address, which is the test's own.
    pub(crate) host: &'static str,
    dir: tempfile::TempDir,
    starts: Cell<u32>,
}

/// An answer of the REST API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// `null` when the body is no JSON.
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Plane {
    pub(crate) fn new(host: &'static str) -> Self {
        let plane = Self { host, dir: tempfile::tempdir().expect("a directory"), starts: Cell::new(0) };
        fs::create_dir(plane.path("config")).expect("a directory");
        plane
    }

    /// A path below the test's directory; `data` and `config` are the control plane's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file into the watched directory.
    pub(crate) fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path("config").join(file), content).expect("a file of the configuration");
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(paths::program("ferromesh"));
        command.arg("serve").arg("--data-dir").arg(self.path("data")).arg("--config").arg(self.path("config"));
        for (flag, port) in PORTS {
            command.args([flag, &format!("{}:{port}", self.host)]);
        }
        command
    }

    /// Runs a command of this control plane, its output going to a log of its own.
    pub(crate) fn run(&self, command: Command) -> Process {
        self.starts.set(self.starts.get() + 1);
        Process::start(&format!("control-plane-{}", self.starts.get()), self.dir.path(), command)
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self) -> Process {
        let mut process = self.run(self.command());
        let ready = format!("http://{}:8080/healthz/ready", self.host);
        process.until("ready", || {
            Command::new("curl").args(["-sf", "-m", "1", &ready]).output().is_ok_and(|o| o.status.success())
        });
        process
    }

    /// Lets a command run to its end, which must be a failure that one line explains; that line.
    pub(crate) fn refused(&self, command: Command) -> String {
        let mut process = self.run(command);
        let status = process.ended(Duration::from_secs(20));
        let output = process.output();
        assert_eq!(status.and_then(|s| s.code()), Some(1), "{output}");
        assert!(!output.contains("panicked"), "{output}");
        let errors: Vec<&str> = output.lines().filter(|l| l.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "{output}");
        assert_eq!(output.lines().last(), errors.last().copied(), "more was said after the error:\n{output}");
        errors[0].to_owned()
    }

    pub(crate) fn admin_token(&self) -> String {
        fs::read_to_string(self.path("data/admin-token")).expect("the administrator's token").trim().to_owned()
    }

    /// One request to the REST API with the headers that are given, and no others.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}:8080{path}", self.host));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.unwrap_or_default().to_owned())).expect("a request");
        exchange(request).await
    }

    /// One request as the administrator.
    pub(crate) async fn command_rest(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bearer = format!("Bearer {}", self.admin_token());
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.ask(method, path, &headers, body.map(Value::to_string).as_deref()).await
    }

    /// Stores a host of the given name; its cluster is [`cluster_of`].
    pub(crate) async fn put_host(&self, name: &str) -> Answer {
        let path = format!("/api/v1/objects/serviceentries/default/{name}");
        self.command_rest("PUT", &path, Some(&host(name))).await
    }

    /// Waits until the diagnostics contain every text, and returns them as text.
    pub(crate) async fn until_said(&self, texts: &[&str]) -> String {
        let begin = Instant::now();
        loop {
            let answer = self.ask("GET", "/api/v1/diagnostics", &[], None).await;
            let missing = texts.iter().find(|text| !answer.text.contains(**text));
            let Some(missing) = missing else { return answer.text };
            assert!(begin.elapsed() < Duration::from_secs(30), "nothing was said of {missing}: {}", answer.text);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

const PORTS: [(&str, u16); 4] =
    [("--xds-address", 15010), ("--xds-tls-address", 15012), ("--http-address", 8080), ("--metrics-address", 15014)];

/// Sends a request on a connection of its own.
pub(crate) async fn exchange(request: Request<Full<Bytes>>) -> Answer {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let what = format!("{} {}", request.method(), request.uri());
    let answer = tokio::time::timeout(Duration::from_secs(20), client.request(request)).await;
    let response = answer.unwrap_or_else(|_| panic!("{what}: no answer")).unwrap_or_else(|e| panic!("{what}: {e}"));
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status: head.status.as_u16(), headers: head.headers, body, text }
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
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n")
}

/// The cluster of a service of [`service`].
pub(crate) fn service_cluster(name: &str) -> String {
    format!("outbound|80||{name}.default.svc.cluster.local")
}
