//! Copies of requests for other clusters: sent once the body is there, answers dropped, failures of no consequence.

use std::{rc::Rc, sync::Arc};

use http::{HeaderValue, Request, Uri, header};
use http_body_util::BodyExt;

use super::{
    attempt::BodySource,
    body::{Recording, RequestBody},
    exchange::Exchange,
    route::Outgoing,
};
use crate::{
    listen::Worker,
    runtime::{
        Cluster, RuntimeConfig,
        action::{Forward, Mirror},
        cluster::UpstreamProtocol,
    },
    upstream::{
        balancer::{self, Draw},
        cluster_state::{ActiveOf, Held, UsageOf},
        connect::{AlpnSource, Dial, Purpose, names_of},
        outlier::{self, Outcome},
        pool::AcquireError,
    },
};

/// The mirrors that get a copy of this request, with their clusters.
pub(super) fn drawn<'a>(action: &'a Forward, config: &RuntimeConfig) -> Vec<(&'a Mirror, Arc<Cluster>)> {
    let hit = action.mirrors.iter().filter(|mirror| mirror.share.contains(rand::random()));
    hit.filter_map(|mirror| Some((mirror, Arc::clone(config.cluster(&mirror.cluster)?)))).collect()
}

/// Starts the copies. A body that is too long to be kept is not copied, nor is its request.
pub(super) fn send(exchange: &Exchange, mirrors: Vec<(&Mirror, Arc<Cluster>)>, outgoing: &Outgoing, body: &BodySource) {
    let BodySource::Kept(recording) = body else { return };
    for (mirror, cluster) in mirrors {
        let mut copy = outgoing.clone();
        if !mirror.keep_host {
            copy.authority = shadow(&copy.authority);
        }
        let (worker, progress) = (Rc::clone(&exchange.downstream.worker), Rc::clone(&exchange.progress));
        let recording = Rc::clone(recording);
        tokio::task::spawn_local(async move {
            progress.ended().await;
            if send_copy(&worker, &cluster, copy, &recording).await.is_none() {
                tracing::debug!(cluster = %cluster.name, "a mirrored request was not sent");
            }
        });
    }
}

/// `reviews:9080` → `reviews-shadow:9080`.
fn shadow(authority: &str) -> String {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => format!("{host}-shadow:{port}"),
        _ => format!("{authority}-shadow"),
    }
}

async fn send_copy(worker: &Worker, cluster: &Arc<Cluster>, copy: Outgoing, recording: &Recording) -> Option<()> {
    let bytes = recording.complete_bytes()?;
    let usage = UsageOf(Arc::clone(&cluster.state), |usage| &usage.requests);
    let _request = Held::below(usage, cluster.limits.max_requests)?;
    let endpoint = balancer::choose(cluster, Draw::default(), &mut rand::random)?;
    let _active = Held::new(ActiveOf(Arc::clone(&endpoint.state)));
    let purpose = match cluster.connection.protocol {
        UpstreamProtocol::Http2 => Purpose::Http2,
        UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => Purpose::Http1,
    };
    let names = names_of(&cluster.connection.http.names, &copy.authority, &copy.headers);
    let dial = Dial { cluster, endpoint: &endpoint, purpose, alpn: AlpnSource::Mesh, names };
    // A copy tells of the endpoint that gets it, and of no other.
    let judge = |outcome| {
        if let Some(settings) = &cluster.outlier {
            outlier::record(&cluster.state, settings, &endpoint.state, outcome);
        }
    };
    let acquired = worker.pools.acquire(dial, &worker.shared.tls).await;
    let blamed = |error: &AcquireError| {
        if error.is_of_endpoint() {
            judge(Outcome::LocalOrigin)
        }
    };
    let mut lease = acquired.inspect_err(blamed).ok()?;
    let reused = lease.reused;
    let body = if bytes.is_empty() { RequestBody::Empty } else { RequestBody::Full(Some(bytes)) };
    let sent = lease.send(request(copy, purpose, body)?).await;
    // A connection that was used before may have been closed meanwhile.
    let response = sent
        .inspect_err(|_| {
            if !reused {
                judge(Outcome::LocalOrigin)
            }
        })
        .ok()?;
    judge(Outcome::Status(response.status().as_u16()));
    let mut answer = response.into_body();
    while let Some(frame) = answer.frame().await {
        frame.ok()?;
    }
    lease.release();
    Some(())
}

fn request(copy: Outgoing, purpose: Purpose, body: RequestBody) -> Option<Request<RequestBody>> {
    let mut request = Request::new(body);
    *request.method_mut() = copy.method;
    *request.headers_mut() = copy.headers;
    match purpose {
        Purpose::Http2 => {
            let uri = Uri::builder().scheme(copy.scheme).authority(copy.authority).path_and_query(copy.path).build();
            *request.uri_mut() = uri.ok()?;
            *request.version_mut() = http::Version::HTTP_2;
        }
        Purpose::Http1 | Purpose::Tcp => {
            request.headers_mut().insert(header::HOST, HeaderValue::from_str(&copy.authority).ok()?);
            *request.uri_mut() = copy.path.parse().ok()?;
        }
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shadows_are_named_before_the_port() {
        for (authority, expected) in [("reviews", "reviews-shadow"), ("reviews:9080", "reviews-shadow:9080")] {
            assert_eq!(shadow(authority), expected);
        }
    }
}
