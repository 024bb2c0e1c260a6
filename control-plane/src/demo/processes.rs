//! The demo's processes: one control plane and one sidecar per workload, each this same program
//! started again.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{
    layout::{Network, Role, Workload},
    options::ProxyKind,
};

/// How long anything may take to become ready on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a process may take to end before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// A child process with its log.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(name: &str, dir: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let program = std::env::current_exe().context("finding this program")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A Ctrl-C at the terminal is for the demo, which then stops its processes in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits until `http://ADDRESS/PATH` answers 200.
    async fn until_ready(&mut self, address: SocketAddr, path: &str) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.last_words());
            }
            if let Ok((StatusCode::OK, _)) = fetch(Method::GET, address, path, None, None).await {
                return Ok(());
            }
            if begin.elapsed() > START_LIMIT {
                bail!("{} is not ready after {START_LIMIT:?}: {}", self.name, self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().rev().take(8).collect();
        lines.reverse();
        if lines.is_empty() { "it said nothing".to_owned() } else { lines.join("\n  ") }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    async fn ended(&mut self) {
        if tokio::time::timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Stops all processes: each is asked, then waited for.
pub(crate) async fn stop(processes: &mut [Process]) {
    processes.iter().for_each(|p| p.signal(Signal::SIGTERM));
    for process in processes {
        process.ended().await;
    }
}

/// A running control plane with its administrator's token.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    /// The process.
    pub process: Process,
    rest: SocketAddr,
    token: String,
    root: PathBuf,
}

impl ControlPlane {
    /// Starts `ferromesh serve` on the network's first address.
    ///
    /// # Errors
    /// It does not become ready.
    pub(crate) async fn start(
        network: &Network,
        dir: &Path,
        config: &Path,
        leaf_ttl: &str,
    ) -> anyhow::Result<Self> {
        let data = dir.join("data");
        let rest = network.control_plane(8080);
        let arguments = [
            ("serve", None),
            ("--config", Some(config.display().to_string())),
            ("--data-dir", Some(data.display().to_string())),
            ("--xds-address", Some(network.control_plane(15010).to_string())),
            ("--xds-tls-address", Some(network.control_plane(15012).to_string())),
            ("--http-address", Some(rest.to_string())),
            ("--metrics-address", Some(network.control_plane(15014).to_string())),
            ("--leaf-ttl", Some(leaf_ttl.to_owned())),
        ];
        let arguments: Vec<String> = arguments
            .into_iter()
            .flat_map(|(flag, value)| [Some(flag.to_owned()), value])
            .flatten()
            .collect();
        let mut process = Process::start("control-plane", dir, &arguments)?;
        process.until_ready(rest, "/healthz/ready").await?;
        let token = fs::read_to_string(data.join("admin-token"))
            .context("reading the administrator's token")?
            .trim()
            .to_owned();
        Ok(Self { process, rest, token, root: data.join("root-cert.pem") })
    }

    /// Asks the REST API.
    ///
    /// # Errors
    /// No answer, or one that is not 2xx.
    pub(crate) async fn rest(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let (status, text) = fetch(method, self.rest, path, Some(&self.token), body).await?;
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&text));
        }
        Ok(serde_json::from_slice(&text).unwrap_or(Value::Null))
    }

    async fn join_token(&self, workload: Workload) -> anyhow::Result<String> {
        let wanted = json!({ "namespace": workload.namespace, "serviceAccount": workload.account, "ttl": "1h" });
        let answer = self.rest(Method::POST, "/api/v1/tokens", Some(wanted)).await?;
        Ok(answer["token"].as_str().context("the answer has no token")?.to_owned())
    }
}

/// How sidecars are started.
#[derive(Clone, Debug)]
pub(crate) struct SidecarSettings {
    /// Which proxy.
    pub kind: ProxyKind,
    /// Where Envoy is, when it is one.
    pub envoy: Option<PathBuf>,
}

/// Starts the sidecar (or gateway) of a workload; [`until_sidecar_ready`] waits for it.
///
/// # Errors
/// It gets no join token or cannot be started.
pub(crate) async fn start_sidecar(
    network: &Network,
    dir: &Path,
    control_plane: &ControlPlane,
    workload: Workload,
    settings: &SidecarSettings,
) -> anyhow::Result<Process> {
    let token_file = dir.join(format!("{}.token", workload.name));
    fs::write(&token_file, "")?;
    fs::set_permissions(&token_file, fs::Permissions::from_mode(0o600))?;
    fs::write(&token_file, control_plane.join_token(workload).await?)?;
    let kind = if workload.role == Role::Gateway { "router" } else { "sidecar" };
    let work_dir = dir.join(workload.name);
    fs::create_dir_all(&work_dir)?;
    let mut arguments: Vec<String> = vec!["proxy".into(), settings.kind.subcommand().into()];
    let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    flag("control-plane", network.control_plane(15012).to_string());
    flag("root-cert", control_plane.root.display().to_string());
    flag("token-file", token_file.display().to_string());
    flag("namespace", workload.namespace.into());
    flag("service-account", workload.account.into());
    flag("name", workload.name.into());
    flag("ip", network.inbound(workload).to_string());
    flag("type", kind.into());
    flag("interception", "none".into());
    flag("app-address", network.application(workload).to_string());
    flag("inbound-address", network.inbound(workload).to_string());
    flag("outbound-address", network.outbound(workload).to_string());
    flag("admin-address", network.own(workload, 15000).to_string());
    flag("status-address", network.own(workload, 15021).to_string());
    flag("metrics-address", network.own(workload, 15090).to_string());
    flag("concurrency", "1".into());
    flag("drain-time", "1s".into());
    flag("work-dir", work_dir.display().to_string());
    flag("label", format!("app={}", workload.app));
    flag("label", format!("version={}", workload.version));
    if let (ProxyKind::Envoy, Some(envoy)) = (settings.kind, &settings.envoy) {
        flag("envoy-path", envoy.display().to_string());
    }
    Process::start(workload.name, dir, &arguments)
}

/// Waits until a sidecar has its certificate and its first configuration.
///
/// # Errors
/// It ends, or takes too long; with its last words.
pub(crate) async fn until_sidecar_ready(
    network: &Network,
    workload: Workload,
    process: &mut Process,
) -> anyhow::Result<()> {
    process.until_ready(network.own(workload, 15021), "/healthz/ready").await
}

/// One HTTP exchange on a connection of its own.
async fn fetch(
    method: Method,
    address: SocketAddr,
    path: &str,
    token: Option<&str>,
    body: Option<Value>,
) -> anyhow::Result<(StatusCode, bytes::Bytes)> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = match body {
        Some(value) => {
            request = request.header("content-type", "application/json");
            Full::from(value.to_string())
        }
        None => Full::default(),
    };
    let exchange = async {
        let response = client.request(request.body(body)?).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    tokio::time::timeout(Duration::from_secs(5), exchange)
        .await
        .with_context(|| format!("no answer from {address}{path}"))?
}
