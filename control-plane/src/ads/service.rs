//! The aggregated discovery service on tonic: lets callers in and gives each stream a task of its own.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use ferromesh_proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::{arrivals::Arrivals, auth::Trust, stream, stream::Protocol};
use crate::{metrics::Metrics, pipeline::Mesh, secret::SecretProvider, status::Proxies};

/// Largest request: a delta client that reconnects tells the version of every resource it has.
const MAX_REQUEST: usize = 32 << 20;
/// Responses that wait for the transport: the session makes the next one only when there is room, so that whatever
/// changes meanwhile folds into it.
const OUTBOX: usize = 1;

/// What all streams of the server share.
pub struct Shared {
    /// Views and classes.
    pub mesh: Mesh,
    /// Gateways' credentials.
    pub secrets: Arc<dyn SecretProvider>,
    /// Who is connected.
    pub proxies: Arc<Proxies>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How this server calls itself: shown by Envoy as `control_plane.identifier`.
    pub identifier: String,
    /// Tells the time.
    pub clock: fn() -> SystemTime,
    /// Ends every stream.
    pub stop: CancellationToken,
    /// The streams' tasks.
    pub tasks: TaskTracker,
    arrivals: Arrivals,
    streams: AtomicU64,
}

/// What [`Shared::new`] needs.
pub struct Parts {
    /// Views and classes.
    pub mesh: Mesh,
    /// Gateways' credentials.
    pub secrets: Arc<dyn SecretProvider>,
    /// Who is connected.
    pub proxies: Arc<Proxies>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How this server calls itself.
    pub identifier: String,
    /// Tells the time.
    pub clock: fn() -> SystemTime,
    /// Ends every stream.
    pub stop: CancellationToken,
}

impl Shared {
    /// What the ports of one server share.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { mesh, secrets, proxies, metrics, identifier, clock, stop } = parts;
        let (tasks, arrivals, streams) = (TaskTracker::new(), Arrivals::new(), AtomicU64::new(1));
        Arc::new(Self { mesh, secrets, proxies, metrics, identifier, clock, stop, tasks, arrivals, streams })
    }

    pub(super) fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    pub(super) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }
}

/// The service on one port.
pub struct Discovery {
    shared: Arc<Shared>,
    trust: Trust,
}

impl Discovery {
    /// The service of a port whose callers are trusted as `trust` says, to mount on a tonic server.
    pub fn server(shared: Arc<Shared>, trust: Trust) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(Self { shared, trust }).max_decoding_message_size(MAX_REQUEST)
    }

    async fn begin<P: Protocol>(
        &self,
        request: Request<Streaming<P::Request>>,
    ) -> Result<Response<Outbox<P::Response>>, Status> {
        let shared = self.shared.clone();
        let begun = async {
            let place = shared.arrivals.place()?;
            Ok((place, self.trust.admit(&request).await?))
        };
        let (place, admission) = begun.await.inspect_err(|_: &Status| {
            shared.metrics.refused_streams.inc();
        })?;
        let (out, outbox) = mpsc::channel(OUTBOX);
        let requests = request.into_inner();
        self.shared.tasks.spawn(async move {
            stream::serve::<P>(shared, admission, requests, out).await;
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outbox))))
    }
}

/// Responses of one stream.
pub type Outbox<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Outbox<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outbox<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.begin::<stream::Sotw>(request).await
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.begin::<stream::Delta>(request).await
    }
}
