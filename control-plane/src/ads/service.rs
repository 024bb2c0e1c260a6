//! The aggregated discovery service: lets callers in and gives each stream a task of its own.
//!
//! Mounts on a tonic server in the place of the generated service, which would encode each response
//! into a buffer of its own, megabytes for each proxy of a mesh that connects, and keep a buffer as
//! large as the largest request.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ferromesh_proto::discovery::aggregated_discovery_service_server::SERVICE_NAME;
use http::{HeaderValue, header::CONTENT_TYPE};
use tokio::sync::mpsc;
use tonic::{Request, Status, body::Body, server::NamedService};
use tower::Service;

use super::{
    auth::Trust,
    inbox::Inbox,
    outbox::Outbox,
    shared::Shared,
    stream::{self, Protocol},
};

/// Responses that wait for the transport: the session makes the next one only when there is room,
/// so that whatever changes meanwhile folds into it. Beside one that waits there is room to find
/// out that nothing else is owed.
const OUTBOX: usize = 2;

/// The service on one port, to mount on a tonic server.
#[derive(Clone)]
pub struct Discovery {
    shared: Arc<Shared>,
    trust: Trust,
}

impl Discovery {
    /// The service of a port whose callers are trusted as `trust` says.
    pub fn server(shared: Arc<Shared>, trust: Trust) -> Self {
        Self { shared, trust }
    }

    async fn answer(self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let method = request.uri().path().trim_start_matches('/').strip_prefix(SERVICE_NAME);
        match method {
            Some("/DeltaAggregatedResources") => self.begin::<stream::Delta>(request).await,
            Some("/StreamAggregatedResources") => self.begin::<stream::Sotw>(request).await,
            _ => Err(Status::unimplemented("the aggregated discovery service has no such method")),
        }
    }

    async fn begin<P: Protocol>(
        self,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status> {
        let Self { shared, trust } = self;
        let (metadata, extensions, body) = Request::from_http(request).into_parts();
        let request = Request::from_parts(metadata, extensions, ());
        let admitting = async {
            let admission = trust.admit(&request).await?;
            Ok((shared.arrivals().place(admission.visitor())?, admission))
        };
        let (place, admission) = admitting.await.inspect_err(|_: &Status| {
            shared.metrics.refused_streams.inc();
        })?;
        let (out, outbox) = mpsc::channel(OUTBOX);
        let requests = Inbox::new(body, shared.begun(), admission.visitor());
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            stream::serve::<P>(shared, admission, requests, out).await;
            drop(place);
        });
        let mut response = http::Response::new(Body::new(Outbox::new(outbox)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Ok(response)
    }
}

impl NamedService for Discovery {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Discovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async { Ok(answer.await.unwrap_or_else(Status::into_http)) })
    }
}
