//! Control planes beside a cluster, each on an address of its own, and a proxy that says what it is
//! told to say.

use std::time::Duration;

use ferromesh_integration::{
    kube_cluster::KubeCluster,
    plane::{self, ControlPlane},
    process::Process,
};
use ferromesh_proto::{
    ResourceType,
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Status},
};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tonic::Streaming;

/// One replica. Fields are dropped in order: the process before its folder.
pub(crate) struct Plane {
    pub(crate) host: &'static str,
    pub(crate) process: Process,
    pub(crate) control: ControlPlane,
}

impl Plane {
    pub(crate) fn start(host: &'static str, cluster: &KubeCluster) -> Self {
        let control =
            ControlPlane::of_cluster(host, &cluster.kubeconfig()).with("--pod-name", host);
        Self { host, process: control.start(), control }
    }

    /// A counter or gauge without labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.control.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }

    /// An answer of its REST API.
    pub(crate) fn get(&self, path: &str) -> Value {
        let text = self.control.get(path).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(crate) fn leads(&self) -> bool {
        self.metric("mesh_leader") == 1
    }

    pub(crate) fn writes(&self) -> u64 {
        self.metric("mesh_status_writes_total")
    }

    /// Writes `yaml` through the REST API.
    pub(crate) fn apply(&self, yaml: &str) -> (bool, String) {
        let file = self.control.file("object.yaml");
        std::fs::write(&file, yaml).expect("a file");
        self.control.administer(&["apply", "-f", &file])
    }

    pub(crate) fn panicked(&self) -> bool {
        self.process.output().contains("panicked")
    }
}

/// A proxy's stream of one type, answered as the test wants.
pub(crate) struct Proxy {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Proxy {
    /// `name` in namespace `default`.
    pub(crate) async fn open(host: &str, name: &str, kind: ResourceType, resource: &str) -> Self {
        let (requests, responses) = plane::subscribe(host, name, kind, &[resource]).await;
        Self { requests, responses }
    }

    /// Receives until a response has a resource that contains `text`, taking everything before, and
    /// answers that one: `complaint` refuses it.
    pub(crate) async fn answer(&mut self, text: &str, complaint: Option<&str>) {
        let received = async {
            loop {
                let response = self
                    .responses
                    .message()
                    .await
                    .expect("the stream goes on")
                    .expect("a response");
                let bodies = response.resources.iter().filter_map(|r| r.resource.as_ref());
                let found = bodies
                    .into_iter()
                    .any(|b| b.value.windows(text.len()).any(|w| w == text.as_bytes()));
                let error_detail = complaint
                    .filter(|_| found)
                    .map(|message| Status { code: 13, message: message.to_owned() });
                let (type_url, response_nonce) = (response.type_url, response.nonce);
                let answer = DeltaDiscoveryRequest {
                    type_url,
                    response_nonce,
                    error_detail,
                    ..Default::default()
                };
                let _ = self.requests.send(answer);
                if found {
                    return;
                }
            }
        };
        let limit = Duration::from_secs(60);
        timeout(limit, received)
            .await
            .unwrap_or_else(|_| panic!("{text} was not sent within {limit:?}"));
    }
}
