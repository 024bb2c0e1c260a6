//! The control plane as tests and benchmarks start it, and how they speak to it: its commands, its
//! REST API, its streams.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use ferromesh_proto::{
    ResourceType,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use futures_util::stream;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::{Streaming, transport::Endpoint};

use crate::{
    kube_cluster::KubeCluster,
    paths,
    process::{Process, until},
};

/// The ports of a control plane, by the name of their options.
const PORTS: [(&str, u16); 4] =
    [("xds", 15010), ("xds-tls", 15012), ("http", 8080), ("metrics", 15014)];
/// Longest wait for an answer of the REST API.
const ANSWER: Duration = Duration::from_secs(20);

/// What a control plane is started on: an address of its own, on which it has its usual ports, and
/// a folder of its own. Outlives the processes, which all find the same data.
pub struct ControlPlane {
    /// The address.
    pub host: String,
    /// Where each port listens, by the name of its option.
    ports: Vec<(&'static str, String)>,
    /// Where its configuration is, and whatever else it is told.
    options: Vec<OsString>,
    /// A program that starts it, with arguments.
    starter: Vec<OsString>,
    starts: AtomicU32,
    dir: tempfile::TempDir,
}

impl ControlPlane {
    /// One that serves the folder `config` of its folder, which is empty.
    ///
    /// # Panics
    /// There is no temporary folder.
    pub fn new(host: impl ToString) -> Self {
        let plane = Self::bare(host);
        let config = plane.path("config");
        fs::create_dir(&config).expect("a directory");
        plane.with("--config", config)
    }

    /// One that serves a Kubernetes cluster.
    ///
    /// # Panics
    /// There is no temporary folder.
    pub fn of_cluster(host: impl ToString, kubeconfig: &Path) -> Self {
        Self::bare(host).with("--kubeconfig", kubeconfig)
    }

    fn bare(host: impl ToString) -> Self {
        let host = host.to_string();
        let ports = PORTS.map(|(name, port)| (name, format!("{host}:{port}"))).into();
        let dir = tempfile::tempdir().expect("a directory");
        let (options, starter) = (Vec::new(), vec![paths::program("ferromesh").into()]);
        Self { host, ports, options, starter, starts: AtomicU32::new(0), dir }
    }

    /// Gives it an option.
    #[must_use]
    pub fn with(mut self, option: &str, value: impl Into<OsString>) -> Self {
        self.options.extend([option.into(), value.into()]);
        self
    }

    /// Gives it options as they stand on a command line.
    #[must_use]
    pub fn with_all(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(Into::into));
        self
    }

    /// Lets one of its ports (`xds`, `xds-tls`, `http`, `metrics`) listen elsewhere.
    ///
    /// # Panics
    /// It has no such port.
    #[must_use]
    pub fn listening(mut self, port: &str, address: impl ToString) -> Self {
        let known = self.ports.iter_mut().find(|(name, _)| *name == port);
        known.unwrap_or_else(|| panic!("no port {port}")).1 = address.to_string();
        self
    }

    /// Lets another program start it, whose last argument it is.
    #[must_use]
    pub fn started_by(mut self, program: &str, arguments: &[&str]) -> Self {
        let before = [program].into_iter().chain(arguments.iter().copied()).map(OsString::from);
        self.starter = before.chain(std::mem::take(&mut self.starter)).collect();
        self
    }

    /// Address and port.
    pub fn address(&self, port: u16) -> String {
        format!("{}:{port}", self.host)
    }

    /// Its folder, which goes with it.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// A path below its folder; `data` and `config` are its own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text.
    ///
    /// # Panics
    /// Never: paths of ours are text.
    pub fn file(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().expect("paths of ours are text")
    }

    /// Puts a file into the watched folder.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path("config").join(file), content).expect("a file of the configuration");
    }

    /// What starts it.
    pub fn command(&self) -> Command {
        let mut command = self.serve();
        command.arg("--data-dir").arg(self.path("data")).args(&self.options);
        command
    }

    /// What starts it on its ports, without its folder and options.
    pub fn serve(&self) -> Command {
        let mut command = Command::new(&self.starter[0]);
        command.args(&self.starter[1..]).arg("serve");
        for (name, address) in &self.ports {
            command.args([format!("--{name}-address"), address.clone()]);
        }
        command
    }

    /// Runs a command of this control plane, its output going to a log of its own.
    pub fn run(&self, command: Command) -> Process {
        let number = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        Process::start(&format!("control-plane-{number}"), self.dir.path(), command)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// It ends, or does not become ready in time; with its last words.
    pub fn start(&self) -> Process {
        let mut process = self.run(self.command());
        self.until_ready(&mut process);
        process
    }

    /// Waits until a process of it is ready.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn until_ready(&self, process: &mut Process) {
        process.until("ready", || self.get("/healthz/ready").is_some());
    }

    /// Lets a command run to its end, which must be a failure that one line explains; that line.
    ///
    /// # Panics
    /// It does not end so.
    pub fn refused(&self, command: Command) -> String {
        let mut process = self.run(command);
        let status = process.ended(ANSWER);
        let output = process.output();
        assert_eq!(status.and_then(|s| s.code()), Some(1), "{output}");
        assert!(!output.contains("panicked"), "{output}");
        let errors: Vec<&str> = output.lines().filter(|l| l.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "{output}");
        let last = output.lines().last();
        assert_eq!(last, errors.last().copied(), "more was said after the error:\n{output}");
        errors[0].to_owned()
    }

    /// The administrator's token.
    ///
    /// # Panics
    /// It was not made yet.
    pub fn admin_token(&self) -> String {
        let token = fs::read_to_string(self.path("data/admin-token"));
        token.expect("the administrator's token").trim().to_owned()
    }

    /// The roots that it wrote to its own disk, as PEM.
    ///
    /// # Panics
    /// It did not yet.
    pub fn roots(&self) -> String {
        fs::read_to_string(self.path("data/root-cert.pem")).expect("the file of roots")
    }

    /// Runs `ferromesh` against its REST API as the administrator: whether that succeeded, and
    /// everything that was printed.
    ///
    /// # Panics
    /// It cannot be run.
    pub fn administer(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = program();
        command.args(arguments).args(["--server", &format!("http://{}", self.ports[2].1)]);
        command.arg("--admin-token-file").arg(self.path("data/admin-token"));
        let output = command.output().expect("it runs");
        let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        (output.status.success(), text.concat())
    }

    /// A join token for an account.
    ///
    /// # Panics
    /// It is refused, with the words.
    pub fn join_token(&self, namespace: &str, account: &str) -> String {
        let arguments = ["token", "create", "--namespace", namespace, "--service-account", account];
        let (made, said) = self.administer(&arguments);
        assert!(made, "no join token: {said}");
        said.trim().to_owned()
    }

    /// The body of a successful answer of the REST API to anybody.
    pub fn get(&self, path: &str) -> Option<String> {
        curl(&format!("http://{}{path}", self.ports[2].1))
    }

    /// Its metrics; empty if there is no answer.
    pub fn metrics(&self) -> String {
        curl(&format!("http://{}/metrics", self.ports[3].1)).unwrap_or_default()
    }

    /// One request to the REST API with the headers that are given, and no others.
    ///
    /// # Panics
    /// There is no answer in time.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        let uri = format!("http://{}{path}", self.ports[2].1);
        let request = Request::builder().method(method).uri(uri);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let body = Full::from(body.unwrap_or_default().to_owned());
        exchange(request.body(body).expect("a request")).await
    }

    /// One request to the REST API as the administrator.
    ///
    /// # Panics
    /// As [`Self::ask`].
    pub async fn ask_as_admin(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bearer = format!("Bearer {}", self.admin_token());
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.ask(method, path, &headers, body.map(Value::to_string).as_deref()).await
    }
}

/// An answer of the REST API.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// `null` when the body is no JSON.
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

/// Sends a request on a connection of its own.
///
/// # Panics
/// There is no answer in time.
pub async fn exchange(request: Request<Full<Bytes>>) -> Answer {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let what = format!("{} {}", request.method(), request.uri());
    let answer = tokio::time::timeout(ANSWER, client.request(request)).await;
    let response = answer
        .unwrap_or_else(|_| panic!("{what}: no answer"))
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status: head.status.as_u16(), headers: head.headers, body, text }
}

/// What a description of the REST API says can be read by its path alone: nothing in it is to be filled
/// in, and no parameter is needed.
///
/// # Panics
/// It is no description.
pub fn readable(document: &Value) -> Vec<String> {
    let is_needed = |parameter: &Value| parameter["required"] == true;
    let reads = |operations: &Value| {
        let read = operations.get("get");
        read.is_some_and(|read| {
            !read["parameters"].as_array().is_some_and(|all| all.iter().any(is_needed))
        })
    };
    let paths = document["paths"].as_object().expect("paths");
    paths.iter().filter(|(_, operations)| reads(operations)).map(|(path, _)| path.clone()).collect()
}

/// The program of the control plane, without arguments.
pub fn program() -> Command {
    Command::new(paths::program("ferromesh"))
}

/// The body of an answer that says success within two seconds.
///
/// # Panics
/// curl is not installed.
pub fn curl(url: &str) -> Option<String> {
    let output = Command::new("curl").args(["-sf", "-m", "2", url]).output().expect("curl runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Installs what `ferromesh crds` prints, and waits for at most `limit` until it is in force.
///
/// # Panics
/// The API server refuses, or takes too long.
pub fn install_definitions(cluster: &KubeCluster, limit: Duration) {
    let output = program().arg("crds").output().expect("it runs");
    assert!(output.status.success(), "ferromesh crds: {}", String::from_utf8_lossy(&output.stderr));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, output.stdout).expect("a file");
    cluster.kubectl(&[
        "apply",
        "--server-side",
        "--filename",
        file.path().to_str().expect("UTF-8"),
    ]);
    // kubectl gives up on a definition that has no conditions at all yet.
    let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=10s"];
    until(limit, "definitions in force", || cluster.try_kubectl(&wait).is_ok());
}

/// A proxy's stream of one type: where it sends, and what it receives.
pub type Stream = (mpsc::UnboundedSender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>);

/// Opens the stream of the sidecar `name` in namespace `default`, which asks for `resources`.
///
/// # Panics
/// There is no control plane on `host`, or it refuses.
pub async fn subscribe(host: &str, name: &str, kind: ResourceType, resources: &[&str]) -> Stream {
    let endpoint = Endpoint::from_shared(format!("http://{host}:15010")).expect("an address");
    let channel = endpoint.connect().await.expect("a connection");
    let (requests, outbox) = mpsc::unbounded_channel();
    let id = format!("sidecar~10.80.0.1~{name}.default~default.svc.cluster.local");
    let hello = DeltaDiscoveryRequest {
        node: Some(Node { id, ..Node::default() }),
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: resources.iter().map(|n| (*n).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    let _ = requests.send(hello);
    let outbox = stream::unfold(outbox, async |mut outbox| Some((outbox.recv().await?, outbox)));
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let responses =
        client.delta_aggregated_resources(Box::pin(outbox)).await.expect("a stream").into_inner();
    (requests, responses)
}

/// The next response of a stream, which is acknowledged.
///
/// # Panics
/// The stream has ended.
pub async fn acknowledged((requests, responses): &mut Stream) -> DeltaDiscoveryResponse {
    let response = responses.message().await.expect("a response").expect("an open stream");
    let _ = requests.send(DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..DeltaDiscoveryRequest::default()
    });
    response
}
