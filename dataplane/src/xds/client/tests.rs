//! The client against a control plane on loopback that a test plays by hand.

use ferromesh_proto::discovery::{
    Any, DiscoveryRequest, DiscoveryResponse, Resource,
    aggregated_discovery_service_server::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
    },
};
use prost::Message;

use super::*;
use crate::{compile::fixture, upstream::StateRegistry, xds::session::Changed};

#[test]
fn waits_double_up_to_a_limit_and_are_spread() {
    for (failures, draw, expected) in
        [(0, 1.0, 100), (1, 1.0, 200), (1, 0.0, 100), (7, 1.0, 10_000), (99, 0.0, 5_000)]
    {
        assert_eq!(back_off(failures, draw), Duration::from_millis(expected), "{failures} {draw}");
    }
}

#[test]
fn a_socket_that_cannot_be_opened_refuses_its_listener_only() {
    let changed =
        |name: &str| Changed { name: name.into(), version: "1".into(), body: bytes::Bytes::new() };
    let update = |kind| Update { kind, changed: vec![changed("a"), changed("b")], removed: vec![] };
    let failure = |listener: &str| BindFailure {
        listener: listener.into(),
        address: ([127, 0, 0, 1], 80).into(),
        reason: "address in use".into(),
    };
    let failures = [failure("b"), failure("old")];
    let refused = unbound(&update(ResourceType::Listener), &failures);
    assert_eq!(refused.len(), 1);
    assert_eq!(
        refused[0].to_string(),
        "LDS b: address: cannot listen on 127.0.0.1:80: address in use; it is tried again"
    );
    assert!(unbound(&update(ResourceType::Cluster), &failures).is_empty());
}

/// A control plane of which a test holds the other ends: each stream's requests, and where to send
/// responses.
struct Scripted {
    streams: mpsc::UnboundedSender<Stream>,
}

struct Stream {
    authorization: Option<String>,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, tonic::Status>>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Scripted {
    type StreamAggregatedResourcesStream =
        UnboundedReceiverStream<Result<DiscoveryResponse, tonic::Status>>;
    type DeltaAggregatedResourcesStream =
        UnboundedReceiverStream<Result<DeltaDiscoveryResponse, tonic::Status>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::StreamAggregatedResourcesStream>, tonic::Status> {
        Err(tonic::Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::DeltaAggregatedResourcesStream>, tonic::Status> {
        let (responses, outgoing) = mpsc::unbounded_channel();
        let authorization =
            request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let authorization = authorization.map(str::to_owned);
        let stream = Stream { authorization, requests: request.into_inner(), responses };
        self.streams.send(stream).map_err(|_| tonic::Status::unavailable("the test is over"))?;
        Ok(tonic::Response::new(UnboundedReceiverStream::new(outgoing)))
    }
}

impl Stream {
    async fn next(&mut self) -> DeltaDiscoveryRequest {
        let next = tokio::time::timeout(Duration::from_secs(20), self.requests.message());
        next.await.expect("a request in time").expect("an open stream").expect("a request")
    }

    fn send(&self, kind: ResourceType, nonce: &str, resources: &[(&str, Vec<u8>)]) {
        let resource = |(name, body): &(&str, Vec<u8>)| Resource {
            name: (*name).to_owned(),
            version: "v1".to_owned(),
            resource: Some(Any {
                type_url: kind.type_url().to_owned(),
                value: body.clone().into(),
            }),
            aliases: Vec::new(),
        };
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            nonce: nonce.to_owned(),
            resources: resources.iter().map(resource).collect(),
            ..Default::default()
        };
        self.responses.send(Ok(response)).expect("the client reads");
    }
}

struct Scene {
    streams: mpsc::UnboundedReceiver<Stream>,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
}

impl Scene {
    /// Starts a control plane on a free port, a client of it, and no workers.
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, streams) = mpsc::unbounded_channel();
        let service = AggregatedDiscoveryServiceServer::new(Scripted { streams: sender });
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming),
        );

        let registry = Arc::<StateRegistry>::default();
        let (_, identity) = tokio::sync::watch::channel(None);
        let shared =
            Shared::new(registry.clone(), identity.clone(), Default::default(), Duration::ZERO)
                .unwrap();
        let progress = Arc::new(Progress::new(Accepted::new(registry)));
        let client = Client {
            resolver: crate::resolve::Resolver::default(),
            node: Node { id: "sidecar~a".to_owned(), ..Default::default() },
            control_plane: ControlPlane::Plaintext(address.into()),
            identity,
            shared: shared.clone(),
            progress: progress.clone(),
        };
        tokio::spawn(client.run());
        Self { streams, shared, progress }
    }

    async fn stream(&mut self) -> Stream {
        let stream = tokio::time::timeout(Duration::from_secs(20), self.streams.recv());
        stream.await.expect("a stream in time").expect("a running server")
    }
}

fn kinds(requests: &[DeltaDiscoveryRequest]) -> Vec<&str> {
    requests
        .iter()
        .map(|r| ResourceType::from_type_url(&r.type_url).map_or("?", ResourceType::short_name))
        .collect()
}

#[tokio::test]
async fn a_configuration_is_in_force_before_it_is_acknowledged_and_a_new_stream_resumes() {
    let mut scene = Scene::start().await;
    let mut stream = scene.stream().await;
    let first = [stream.next().await, stream.next().await, stream.next().await];
    assert_eq!(kinds(&first), ["CDS", "LDS", "BDS"]);
    assert_eq!(first[0].node.as_ref().unwrap().id, "sidecar~a");
    assert_eq!(stream.authorization, None);

    stream.send(ResourceType::Cluster, "1", &[]);
    assert_eq!(stream.next().await.response_nonce, "1");
    assert!(!scene.progress.is_ready());
    stream.send(
        ResourceType::Listener,
        "2",
        &[("l", fixture::http_listener("l", "80").encode_to_vec())],
    );
    assert_eq!(stream.next().await.response_nonce, "2");
    let routes = stream.next().await;
    assert_eq!(routes.resource_names_subscribe, ["80"]);
    assert!(!scene.progress.is_ready(), "the listener waits for its routes");

    stream.send(ResourceType::Route, "3", &[("80", fixture::routes("80"))]);
    let ack = stream.next().await;
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail.clone()), ("3", None));
    assert!(scene.progress.is_ready());
    assert!(scene.shared.config().listener("l").is_some());

    drop(stream);
    let mut again = scene.stream().await;
    let resumed = [again.next().await, again.next().await, again.next().await, again.next().await];
    assert_eq!(kinds(&resumed), ["CDS", "LDS", "RDS", "BDS"]);
    assert_eq!(resumed[1].initial_resource_versions["l"], "v1");
    assert_eq!(resumed[2].initial_resource_versions["80"], "v1");
    assert!(scene.shared.config().listener("l").is_some(), "what is known serves on");
}

#[tokio::test]
async fn a_refused_listener_is_nacked_with_the_reason() {
    let mut scene = Scene::start().await;
    let mut stream = scene.stream().await;
    let _ = [stream.next().await, stream.next().await, stream.next().await];
    let empty = fixture::listener("bad", fixture::chain(vec![]));
    let good = fixture::tls_listener("good", "default");
    let listeners = [("bad", empty.encode_to_vec()), ("good", good.encode_to_vec())];
    stream.send(ResourceType::Listener, "1", &listeners);
    let nack = stream.next().await;
    let error = nack.error_detail.unwrap();
    assert_eq!(nack.response_nonce, "1");
    assert!(
        error.message.starts_with("LDS bad: filter_chains[0].filters: expected tcp_proxy"),
        "{}",
        error.message
    );
    assert!(scene.shared.config().listener("good").is_some());
    assert_eq!(scene.progress.accepted().refusals().count(), 1);
}

#[tokio::test]
async fn a_listener_that_cannot_listen_is_refused_before_its_routes_come() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let mut scene = Scene::start().await;
    let mut stream = scene.stream().await;
    let _ = [stream.next().await, stream.next().await, stream.next().await];
    let listener = fixture::http_listener_at("l", address, "80", vec![], false);
    stream.send(ResourceType::Listener, "1", &[("l", listener.clone())]);
    let nack = stream.next().await.error_detail.expect("a refusal");
    let expected = format!("LDS l: address: cannot listen on {address}: ");
    assert!(nack.message.starts_with(&expected), "{}", nack.message);
    let told = || {
        let refusals = without_sockets(&scene.progress.accepted(), &scene.shared);
        let told = |refusal: &Refusal| (refusal.version.clone(), refusal.rejection.to_string());
        refusals.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(told(), [("v1".to_owned(), nack.message)], "it can be read as long as it is true");
    let _routes = stream.next().await;
    drop(taken);
    assert!(told().is_empty());
    stream.send(ResourceType::Listener, "2", &[("l", listener)]);
    assert_eq!(stream.next().await.error_detail, None);
}
