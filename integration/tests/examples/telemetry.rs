//! What is told of requests.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, time::Duration};

use ferromesh_integration::{
    paths,
    plane::ControlPlane,
    process::{Process, until},
};
use serde_json::Value;

use crate::{
    application::Application,
    client::Ask,
    routing::{MYAPP, ask},
    rows::{example, fixed},
    site::{Block, Pod, Setup, Site, pods, serve},
};

/// Requests of which each is to be traced.
const TRACED: usize = 1_000;
/// Where traces are taken.
const COLLECTOR: u16 = 9411;

/// A mesh whose settings know the provider that the example names, at an address of its own.
fn with_provider(text: &str, last: u8) -> String {
    format!(
        "{text}\n---\n\
         apiVersion: mesh.istio.io/v1alpha1\nkind: MeshConfig\nmetadata: {{name: default}}\n\
         spec: {{extensionProviders: [{{name: jaeger, zipkin: {{service: jaeger.test, port: {COLLECTOR}}}}}]}}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: jaeger, namespace: production}}\n\
         spec:\n  hosts: [jaeger.test]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
         ports: [{{number: {COLLECTOR}, name: http, protocol: HTTP}}]\n  \
         endpoints: [{{address: 127.254.110.{last}}}]\n"
    )
}

async fn start(text: &str, last: u8) -> (Site, std::sync::Arc<Application>) {
    let address = std::net::SocketAddr::from(([127, 254, 110, last], COLLECTOR));
    let collector = Application::serve("collector", "v1", address).await;
    let site = Setup::of(with_provider(text, last))
        .without_settings()
        .server("production", "myapp")
        .caller("production", "frontend")
        .start()
        .await;
    (site, collector)
}

/// The traces that a collector has of the callers' side or of the servers'.
fn traces(collector: &Application, kind: &str) -> BTreeSet<String> {
    let posts = collector.seen();
    let spans = posts
        .iter()
        .flat_map(|post| serde_json::from_slice::<Vec<Value>>(&post.body).expect("spans in JSON"));
    let spans = spans.filter(|span| span["kind"] == kind);
    spans.map(|span| span["traceId"].as_str().expect("an id").to_owned()).collect()
}

/// Both objects as one, the first of them fixed.
fn merged() -> String {
    let first = fixed(example("s1-04", &[1]));
    let first = first.trim_end().trim_end_matches("---").trim_end();
    let second = example("s1-04", &[2]);
    let (_, tracing) = second.split_once("spec:\n").expect("what the second says");
    format!("{first}\n{tracing}")
}

pub(crate) async fn a_telemetry_that_is_refused_hides_no_other() {
    for (text, last) in [(example("s1-04", &[1, 2]), 1), (merged(), 3)] {
        let (site, collector) = start(&text, last).await;
        let replies = ask(&site, "frontend", MYAPP, "/").many(TRACED, 4).await;
        assert!(replies.iter().all(|reply| reply.status == Some(200)));
        for kind in ["CLIENT", "SERVER"] {
            until(Duration::from_secs(20), "a trace of every request", || {
                traces(&collector, kind).len() == TRACED
            });
        }
    }
}

/// Of an Envoy by its agent, and of our proxy by itself.
pub(crate) async fn a_label_is_there_where_it_is_asked_for() {
    for kind in ["envoy", "run"] {
        a_label_is_there(kind).await;
    }
}

async fn a_label_is_there(kind: &str) {
    let block = Block::claim();
    let setup = Setup::of(merged()).server("production", "myapp").server("default", "my-service");
    let control = ControlPlane::new(block.control_plane());
    control.write("mesh.yaml", setup.text(&block));
    let _plane = control.start();
    for (workload, labelled) in
        [(("production", "myapp"), true), (("default", "my-service"), false)]
    {
        let pod = &pods(workload)[0];
        let _application = serve(&block, pod).await;
        let mut proxy = proxy(kind, &block, &control, pod);
        let address = block.inbound(pod);
        proxy.until("serving", || std::net::TcpStream::connect(address).is_ok());
        let asked = Ask::get(address, &pod.name, "/labelled").status().await;
        assert_eq!(asked, Some(200), "{kind}: {workload:?}");
        let metrics = || {
            let url = format!("http://{}/stats/prometheus", block.metrics(pod));
            ferromesh_integration::plane::curl(&url).unwrap_or_default()
        };
        let counted = || {
            let metrics = metrics();
            let mut lines =
                metrics.lines().filter(|line| line.starts_with("istio_requests_total{"));
            lines.find(|line| line.contains("reporter=\"destination\"")).map(str::to_owned)
        };
        until(Duration::from_secs(20), "the metric", || counted().is_some());
        let line = counted().expect("it was waited for");
        assert_eq!(line.contains("request_path=\"/labelled\""), labelled, "{line}");
        assert!(labelled || !line.contains("request_path"), "{line}");
    }
}

/// A proxy beside a pod's application, which it serves without redirection.
fn proxy(kind: &str, block: &Block, control: &ControlPlane, pod: &Pod) -> Process {
    let token = control.path(&format!("{}.token", pod.name));
    fs::write(&token, control.join_token(&pod.namespace, &pod.account)).expect("a file");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("a mode");
    let work = control.path(&pod.name);
    fs::create_dir(&work).expect("a directory");
    let mut command = std::process::Command::new(paths::program("ferromesh-proxy"));
    command.arg(kind).args(["--control-plane", &control.address(15012)]);
    command.args(["--root-cert", &control.file("data/root-cert.pem")]);
    command.arg("--token-file").arg(&token).arg("--work-dir").arg(&work);
    command.args(["--namespace", &pod.namespace, "--service-account", &pod.account]);
    command.args(["--name", &pod.name, "--interception", "none", "--concurrency", "1"]);
    command.args(["--drain-time", "1s"]);
    for (option, address) in block.options(pod) {
        command.args([format!("--{option}"), address]);
    }
    if kind == "envoy" {
        command.arg("--envoy-path").arg(paths::envoy());
    }
    Process::start(&pod.name, control.folder(), command)
}

/// As an API server leaves the first that drops what it does not know.
pub(crate) async fn of_two_the_older_is_in_force() {
    let written = example("s1-04", &[1]);
    let pruned = written.split("      dimensions:").next().expect("a part").to_owned();
    let (site, collector) = start(&(pruned + "\n---\n" + &example("s1-04", &[2])), 2).await;
    let replies = ask(&site, "frontend", MYAPP, "/").many(200, 4).await;
    assert!(replies.iter().all(|reply| reply.status == Some(200)));
    for proxy in ["frontend", "servers"] {
        let dump = site.admin(proxy, "/config_dump?resource=static_listeners");
        assert!(
            dump.contains("HttpConnectionManager") && !dump.contains("ZipkinConfig"),
            "{proxy}"
        );
    }
    assert_eq!(collector.hits(), 0);
}
