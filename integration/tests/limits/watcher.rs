//! An xDS client that follows its clusters, and on request everything else, as a proxy does.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use ferromesh_proto::{
    ResourceType,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use futures_util::stream;
use tokio::{sync::mpsc, time::timeout};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

const TYPE: ResourceType = ResourceType::Cluster;

/// A stream that is subscribed to every cluster.
pub(crate) struct Watcher {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    /// What it has.
    pub(crate) clusters: BTreeSet<String>,
    /// How many resources of other types have come, by type URL.
    others: BTreeMap<String, usize>,
}

/// A connection to the plaintext port of a host.
pub(crate) async fn connect(host: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{host}:15010")).expect("an address");
    endpoint.connect().await.expect("a connection")
}

impl Watcher {
    /// Opens a stream and subscribes; nothing was received yet.
    pub(crate) async fn open(channel: Channel, name: &str) -> Result<Self, Status> {
        Self::open_as(
            channel,
            format!("sidecar~10.80.0.1~{name}.default~default.svc.cluster.local"),
        )
        .await
    }

    /// Opens a stream as the proxy with this node id.
    pub(crate) async fn open_as(channel: Channel, id: String) -> Result<Self, Status> {
        let (requests, outbox) = mpsc::unbounded_channel();
        let hello = DeltaDiscoveryRequest {
            node: Some(Node { id, ..Node::default() }),
            type_url: TYPE.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let _ = requests.send(hello);
        let outbox =
            stream::unfold(outbox, async |mut outbox| Some((outbox.recv().await?, outbox)));
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
        let responses = client.delta_aggregated_resources(Box::pin(outbox)).await?.into_inner();
        Ok(Self { requests, responses, clusters: BTreeSet::new(), others: BTreeMap::new() })
    }

    /// Asks for resources of another type, and waits until as many have come as were named.
    pub(crate) async fn fetch(&mut self, kind: ResourceType, names: Vec<String>, limit: Duration) {
        let count = names.len();
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        };
        let _ = self.requests.send(request);
        let received = async {
            while self.others.get(kind.type_url()).is_none_or(|have| *have < count) {
                self.next().await.unwrap_or_else(|status| panic!("{kind:?}: {status}"));
            }
        };
        timeout(limit, received).await.unwrap_or_else(|_| panic!("{kind:?}: not within {limit:?}"));
    }

    /// Receives and accepts one response.
    pub(crate) async fn next(&mut self) -> Result<(), Status> {
        let response = self
            .responses
            .message()
            .await?
            .ok_or_else(|| Status::unavailable("the stream ended"))?;
        if response.type_url == TYPE.type_url() {
            for name in &response.removed_resources {
                self.clusters.remove(name);
            }
            self.clusters.extend(response.resources.into_iter().map(|r| r.name));
        } else {
            *self.others.entry(response.type_url.clone()).or_default() += response.resources.len();
        }
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        let _ = self.requests.send(ack);
        Ok(())
    }

    /// Receives until `holds`; how long that took.
    pub(crate) async fn until(
        &mut self,
        limit: Duration,
        what: &str,
        holds: impl Fn(&BTreeSet<String>) -> bool,
    ) -> Duration {
        let begin = Instant::now();
        let received = async {
            while !holds(&self.clusters) {
                self.next().await.unwrap_or_else(|status| panic!("{what}: {status}"));
            }
        };
        timeout(limit, received).await.unwrap_or_else(|_| panic!("{what}: not within {limit:?}"));
        begin.elapsed()
    }

    /// Receives until it has the cluster; how long that took.
    pub(crate) async fn until_has(&mut self, cluster: &str, limit: Duration) -> Duration {
        self.until(limit, cluster, |clusters| clusters.contains(cluster)).await
    }
}
