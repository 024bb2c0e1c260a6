//! Requests of the proxy's own: copies that mirrors get, and what filters ask a cluster. Each is
//! one attempt; its endpoint is blamed for what it does, as for any other request.

use std::{future::Future, net::IpAddr, pin::Pin, rc::Rc, sync::Arc};

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::sleep;

use super::{
    headers::{self, X_ENVOY_INTERNAL},
    outgoing::{Outgoing, announce},
};
use crate::{
    codec::body::RequestBody,
    runtime::{
        cluster::UpstreamProtocol,
        filter::{Call, CallAnswer, CallFailure, Called},
    },
    upstream::{
        LiveCluster, LiveEndpoint,
        balancer::{self, Draw},
        cluster_state::{ActiveOf, Held, UsageOf},
        connect::{AlpnSource, Dial, Purpose, names_of},
        outlier::{self, Outcome},
        pool::{AcquireError, Lease},
    },
    worker::{ActiveConfig, Worker},
};

/// Most bytes of an answer that is kept.
const MOST_ANSWERED: usize = 1024 * 1024;

/// A request of our own.
pub(super) struct Ask {
    pub(super) outgoing: Outgoing,
    pub(super) body: RequestBody,
    /// The end of the time for the whole answer; never without one.
    pub(super) deadline: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// An answer of which the head has come.
pub(super) struct Reading {
    response: Response<Incoming>,
    lease: Lease,
}

/// Does what a filter has asked for.
pub(super) async fn call(worker: &Rc<Worker>, config: &ActiveConfig, wanted: Call) -> Called {
    let cluster = config.cluster(&wanted.cluster).ok_or(CallFailure::NoCluster)?;
    let (parts, body) = wanted.request.into_parts();
    let outgoing = Outgoing {
        method: parts.method,
        scheme: if parts.uri.scheme_str() == Some("https") { "https" } else { "http" },
        authority: parts.uri.authority().map(ToString::to_string).unwrap_or_default(),
        path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers: parts.headers,
    };
    let deadline: Pin<Box<dyn Future<Output = ()>>> = Box::pin(sleep(wanted.timeout));
    let ask = Ask { outgoing, body: RequestBody::full(body), deadline: Some(deadline) };
    send(worker, cluster, ask, Reading::answer).await
}

/// The same where nobody waits for what comes of it.
pub(super) fn spawn(worker: &Rc<Worker>, wanted: Box<Call>) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let config = worker.shared.config();
        if let Err(failure) = call(&worker, &config, *wanted).await {
            tracing::debug!(%failure, "what a filter sends at the end was not sent");
        }
    });
}

/// Sends a request, counted as one, to an endpoint of a cluster, and has the answer read.
pub(super) async fn send<T>(
    worker: &Worker,
    cluster: &Arc<LiveCluster>,
    ask: Ask,
    read: impl AsyncFnOnce(Reading) -> Result<T, CallFailure>,
) -> Result<T, CallFailure> {
    let usage = UsageOf(Arc::clone(&cluster.state), |usage| &usage.requests);
    let _request =
        Held::below(usage, cluster.limits.max_requests).ok_or(CallFailure::NoEndpoint)?;
    let endpoint = balancer::choose(cluster, Draw::default(), &mut rand::random)
        .ok_or(CallFailure::NoEndpoint)?;
    let _active = Held::new(ActiveOf(Arc::clone(&endpoint.state)));
    let Ask { outgoing, body, deadline } = ask;
    let carried = async { read(begin(worker, cluster, &endpoint, outgoing, body).await?).await };
    let Some(deadline) = deadline else { return carried.await };
    tokio::select! {
        biased;
        carried = carried => carried,
        // What is not answered in time takes its connection with it.
        () = deadline => {
            judge(cluster, &endpoint, Outcome::LocalOrigin);
            Err(CallFailure::Timeout)
        }
    }
}

/// Sends a request and waits for the head of its answer.
async fn begin(
    worker: &Worker,
    cluster: &Arc<LiveCluster>,
    endpoint: &LiveEndpoint,
    outgoing: Outgoing,
    body: RequestBody,
) -> Result<Reading, CallFailure> {
    let purpose = match cluster.connection.protocol {
        UpstreamProtocol::Http2 => Purpose::Http2,
        UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => Purpose::Http1,
    };
    let names = names_of(&cluster.connection.http.names, &outgoing.authority, &outgoing.headers);
    let dial = Dial { cluster, endpoint, purpose, alpn: AlpnSource::Mesh, names, ends: None };
    let acquired = worker.pools.acquire(dial, &worker.shared.tls).await;
    let mut lease = acquired.map_err(|error| not_acquired(cluster, endpoint, &error))?;
    let reused = lease.reused;
    let local = lease.facts.local.map(|local| local.ip());
    let request = request(outgoing, purpose, body, local).ok_or(CallFailure::Broken)?;
    let response = lease.send(request).await.map_err(|_| {
        // A connection that was used before may have been closed meanwhile.
        if !reused {
            judge(cluster, endpoint, Outcome::LocalOrigin);
        }
        CallFailure::Broken
    })?;
    judge(cluster, endpoint, Outcome::Status(response.status().as_u16()));
    Ok(Reading { response, lease })
}

fn not_acquired(
    cluster: &LiveCluster,
    endpoint: &LiveEndpoint,
    error: &AcquireError,
) -> CallFailure {
    if error.is_of_endpoint() {
        judge(cluster, endpoint, Outcome::LocalOrigin);
    }
    CallFailure::Broken
}

fn judge(cluster: &LiveCluster, endpoint: &LiveEndpoint, outcome: Outcome) {
    if let Some(settings) = &cluster.outlier {
        outlier::record(&cluster.state, settings, &endpoint.state, outcome);
    }
}

impl Reading {
    /// Reads the answer to its end and forgets it.
    pub(super) async fn drain(self) -> Result<(), CallFailure> {
        let mut body = self.response.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|_| CallFailure::Broken)?;
        }
        self.lease.release();
        Ok(())
    }

    /// Reads the whole answer.
    async fn answer(self) -> Called {
        let (parts, mut incoming) = self.response.into_parts();
        let (mut body, mut trailers) = (BytesMut::new(), HeaderMap::new());
        while let Some(frame) = incoming.frame().await {
            match frame.map_err(|_| CallFailure::Broken)?.into_data() {
                Ok(bytes) if body.len() + bytes.len() > MOST_ANSWERED => {
                    return Err(CallFailure::Broken);
                }
                Ok(bytes) => body.extend_from_slice(&bytes),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        self.lease.release();
        let (status, headers) = (parts.status, parts.headers);
        Ok(CallAnswer { status, headers, body: body.freeze(), trailers })
    }
}

/// It comes from ourselves, at address `local`: a hop like any other.
fn request(
    mut ours: Outgoing,
    purpose: Purpose,
    body: RequestBody,
    local: Option<IpAddr>,
) -> Option<Request<RequestBody>> {
    ours.headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    if let Some(local) = local {
        headers::append_forwarded_for(&mut ours.headers, local);
    }
    if purpose != Purpose::Http2 {
        announce(&body, &mut ours.headers);
    }
    let mut request = Request::new(body);
    *request.method_mut() = ours.method;
    *request.headers_mut() = ours.headers;
    match purpose {
        Purpose::Http2 => {
            let uri = Uri::builder()
                .scheme(ours.scheme)
                .authority(ours.authority)
                .path_and_query(ours.path)
                .build();
            *request.uri_mut() = uri.ok()?;
            *request.version_mut() = http::Version::HTTP_2;
        }
        Purpose::Http1 | Purpose::Tcp => {
            let host = HeaderValue::from_str(&ours.authority).ok()?;
            request.headers_mut().insert(header::HOST, host);
            *request.uri_mut() = ours.path.parse().ok()?;
        }
    }
    Some(request)
}
