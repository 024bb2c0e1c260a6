//! Copies of requests for other clusters: sent while the request comes, within the route's time
//! limit, answers dropped, failures of no consequence.
//!
//! As in Envoy, a copy gets what has arrived when its request is answered or broken before its end,
//! and is broken off then. Envoy lets a mirror slow the request down; here one that lags too far
//! behind is broken off.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::time::sleep;

use super::{
    attempt::BodySource,
    call::{self, Ask, Reading},
    exchange::Exchange,
    headers::X_ENVOY_ATTEMPT_COUNT,
    outgoing::Outgoing,
    request::Matched,
    time_left::TimeLeft,
};
use crate::{
    codec::{
        body::RequestBody,
        progress::{Progress, Trailers},
        recording::{Follower, Recording},
    },
    runtime::{
        action::{Forward, Mirror},
        cluster::UpstreamProtocol,
    },
    upstream::LiveCluster,
    worker::{ActiveConfig, Worker},
};

/// The mirrors that get a copy of this request, with their clusters.
pub(super) fn drawn<'a>(
    action: &'a Forward,
    config: &ActiveConfig,
) -> Vec<(&'a Mirror, Arc<LiveCluster>)> {
    let hit = action.mirrors.iter().filter(|mirror| mirror.share.contains(rand::random()));
    hit.filter_map(|mirror| Some((mirror, Arc::clone(config.cluster(&mirror.cluster)?)))).collect()
}

/// Starts the copies, before anybody reads the body. `time` is that of the request: a copy has the
/// same for its answer, in one attempt. They follow what is answered, whoever reads it.
pub(super) fn send(
    exchange: &Exchange,
    matched: &Matched<'_>,
    time: TimeLeft,
    mirrors: Vec<(&Mirror, Arc<LiveCluster>)>,
    outgoing: &Outgoing,
    body: &BodySource,
) -> Option<Rc<Recording>> {
    let BodySource::Kept(recording) = body else { return None };
    for (mirror, cluster) in mirrors {
        let mut copy = outgoing.clone();
        if !mirror.keep_host {
            copy.authority = shadow(&copy.authority);
        }
        if matched.host.attempt_count_in_request {
            copy.headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(1));
        }
        // As the request has it, and then as one of our own that is tried once.
        time.tell(&mut copy.headers, Duration::ZERO);
        let own = TimeLeft { per_try: None, in_grpc: false, ..time };
        own.tell(&mut copy.headers, Duration::ZERO);
        let trailers = match cluster.connection.protocol {
            UpstreamProtocol::Http2 => Trailers::Kept,
            UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => Trailers::Dropped,
        };
        let body = recording.follower(trailers);
        let deadline = time.whole.map(|limit| deadline(&exchange.progress, limit));
        let worker = Rc::clone(&exchange.downstream.worker);
        tokio::task::spawn_local(async move {
            if send_copy(&worker, &cluster, copy, body, deadline).await.is_none() {
                tracing::debug!(cluster = %cluster.name, "a mirrored request was not sent");
            }
        });
    }
    Some(Rc::clone(recording))
}

/// `reviews:9080` → `reviews-shadow:9080`.
fn shadow(authority: &str) -> String {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{host}-shadow:{port}")
        }
        _ => format!("{authority}-shadow"),
    }
}

/// The time of an answer begins with the end of the request.
fn deadline(progress: &Rc<Progress>, limit: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
    let progress = Rc::clone(progress);
    Box::pin(async move {
        progress.ended().await;
        sleep(limit).await;
    })
}

async fn send_copy(
    worker: &Worker,
    cluster: &Arc<LiveCluster>,
    outgoing: Outgoing,
    body: Follower,
    deadline: Option<Pin<Box<dyn Future<Output = ()>>>>,
) -> Option<()> {
    let followed = body.followed();
    let ask = Ask { outgoing, body: RequestBody::mirrored(body), deadline };
    tokio::select! {
        biased;
        // No fault of the mirror's endpoint.
        () = followed.broken() => None,
        sent = call::send(worker, cluster, ask, Reading::drain) => sent.ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shadows_are_named_before_the_port() {
        for (authority, expected) in
            [("reviews", "reviews-shadow"), ("reviews:9080", "reviews-shadow:9080")]
        {
            assert_eq!(shadow(authority), expected);
        }
    }
}
