//! A control plane on this host beside a cluster, and how tests speak to one: its REST API, its commands, its streams.

use std::{path::Path, process::Command, time::Duration};

use ferromesh_proto::{
    ResourceType,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use futures_util::stream;
use tokio::sync::mpsc;
use tonic::{Streaming, transport::Endpoint};

use crate::{
    cluster::Cluster,
    paths,
    process::{Process, until},
};

/// Lets `command` serve the cluster of `kubeconfig` on the usual ports of `host`, its data in the folder `data` of `dir`.
pub fn serve(mut command: Command, host: &str, dir: &Path, kubeconfig: &Path) -> Command {
    command.arg("serve").arg("--kubeconfig").arg(kubeconfig).arg("--data-dir").arg(dir.join("data"));
    for (name, port) in [("xds", 15010), ("xds-tls", 15012), ("http", 8080), ("metrics", 15014)] {
        command.args([format!("--{name}-address"), format!("{host}:{port}")]);
    }
    command
}

/// The program of the control plane, without arguments.
pub fn program() -> Command {
    Command::new(paths::program("ferromesh"))
}

/// Waits until the control plane on `host` is ready.
///
/// # Panics
/// It ends, or does not become ready in time; with its last words.
pub fn until_ready(process: &mut Process, host: &str) {
    let ready = format!("http://{host}:8080/healthz/ready");
    process.until("ready", || curl(&ready).is_some());
}

/// The body of an answer that says success within two seconds.
///
/// # Panics
/// curl is not installed.
pub fn curl(url: &str) -> Option<String> {
    let output = Command::new("curl").args(["-sf", "-m", "2", url]).output().expect("curl runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `ferromesh` against the REST API on `host`, with the administrator's token below `dir`: whether that succeeded,
/// and everything that was printed.
///
/// # Panics
/// It cannot be run.
pub fn command(host: &str, dir: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = program();
    command.args(arguments).args(["--server", &format!("http://{host}:8080")]);
    command.arg("--admin-token-file").arg(dir.join("data/admin-token"));
    let output = command.output().expect("it runs");
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (output.status.success(), text)
}

/// Installs what `ferromesh crds` prints, and waits for at most `limit` until it is in force.
///
/// # Panics
/// The API server refuses, or takes too long.
pub fn install_definitions(cluster: &Cluster, limit: Duration) {
    let output = program().arg("crds").output().expect("it runs");
    assert!(output.status.success(), "ferromesh crds: {}", String::from_utf8_lossy(&output.stderr));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, output.stdout).expect("a file");
    cluster.kubectl(&["apply", "--server-side", "--filename", file.path().to_str().expect("UTF-8")]);
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
    let responses = client.delta_aggregated_resources(Box::pin(outbox)).await.expect("a stream").into_inner();
    (requests, responses)
}
