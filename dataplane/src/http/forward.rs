//! Forwards a request: chooses the cluster, attempts until an answer is passed on, and streams it downstream.
//!
//! Each attempt chooses an endpoint anew. The route's time limit spans all attempts and the response's body; it starts
//! when the whole request was received, as in Envoy.

use std::{borrow::Cow, net::SocketAddr, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::{
    body::{Recording, RequestBody},
    exchange::{Exchange, Holds, ResponseBody},
    headers::{
        X_ENVOY_ATTEMPT_COUNT, X_ENVOY_EXPECTED_TIMEOUT, X_ENVOY_ORIGINAL_PATH, X_ENVOY_SERVICE_TIME, X_FORWARDED_HOST,
    },
    mirror,
    reply::{self, Local, Reply},
    retry::{self, Failure},
    route::{Matched, Outgoing, Received, change_request, change_response},
    upgrade,
};
use crate::{
    runtime::{
        Cluster, RequestFacts,
        action::{Forward, HostRewrite, RetryPolicy},
        cluster::{Discovery, UpstreamProtocol},
        route::ClusterChoice,
    },
    telemetry::Flags,
    upstream::{
        LiveEndpoint,
        balancer::{self, Draw},
        cluster_state::{ActiveOf, Held, UsageOf},
        connect::{AlpnSource, Dial, Purpose},
        outlier::{self, Outcome},
        pool::{AcquireError, Lease, SendFailure},
    },
};

/// Forwards a request as a route says.
pub(crate) async fn forward(
    mut exchange: Box<Exchange>,
    matched: &Matched<'_>,
    action: &Forward,
    mut outgoing: Outgoing,
    received: Received,
) -> Reply {
    let Some(cluster) = choose_cluster(matched, action, &outgoing).and_then(|name| matched.config.cluster(&name))
    else {
        let missing = Local::new(action.cluster_not_found_status, "", Flags::NO_CLUSTER, "cluster_not_found");
        return missing.send(exchange);
    };
    exchange.cluster = Some(Arc::clone(cluster));
    let Received { body, upgrade, http2 } = received;
    if upgrade.as_ref().is_some_and(|(protocol, _)| forbids(action, protocol)) {
        return Local::UPGRADE_REFUSED.send(exchange);
    }
    let hash = request_hash(&exchange, action, &outgoing);
    rewrite(&exchange, matched, action, &mut outgoing);
    let limit = time_limit(action, &exchange, &outgoing);
    let timed = limit.filter(|_| upgrade.is_none());
    if let Some(limit) = timed.filter(|_| !matched.suppress_envoy_headers) {
        outgoing.headers.insert(X_ENVOY_EXPECTED_TIMEOUT, HeaderValue::from(millis(limit)));
    }
    let policy = action.retry.as_ref().or(matched.host.retry.as_ref()).filter(|_| upgrade.is_none());
    let mirrors = mirror::drawn(action, matched.config);
    let keep_body = policy.is_some_and(|policy| policy.retries > 0) || !mirrors.is_empty();
    let source = BodySource::new(body, keep_body, &exchange);
    mirror::send(&exchange, mirrors, &outgoing, &source);
    let forwarding = Forwarding {
        matched,
        cluster,
        policy: policy.map(AsRef::as_ref),
        hash,
        purpose: purpose(cluster, http2 && upgrade.is_none()),
        alpn: if matched.mesh_alpn { AlpnSource::Mesh } else { AlpnSource::Transport },
        endpoint_host: action.host_rewrite == HostRewrite::Endpoint,
        outgoing,
    };
    let progress = Rc::clone(&exchange.progress);
    let attempts = forwarding.attempt_until_answered(&mut exchange, source);
    let answered = match timed {
        None => Some((attempts.await, None)),
        Some(limit) => {
            tokio::select! {
                answered = attempts => Some((answered, Some(limit))),
                () = async { progress.ended().await; sleep(limit).await } => None,
            }
        }
    };
    match answered {
        Some((Ok(answer), limit)) => {
            let deadline = limit.map(|limit| deadline(&exchange, limit));
            pass_on(exchange, matched, answer, deadline, upgrade)
        }
        Some((Err(local), _)) => local.send(exchange),
        None => {
            if let (Some(settings), Some(endpoint)) = (&cluster.outlier, &exchange.endpoint) {
                outlier::record(&cluster.state, settings, &endpoint.state, Outcome::LocalOrigin);
            }
            Local::TIMEOUT.send(exchange)
        }
    }
}

/// The time that is left for the response's body. A request that is still being received leaves it all.
fn deadline(exchange: &Exchange, limit: Duration) -> Pin<Box<Sleep>> {
    let from = if exchange.progress.has_ended() { exchange.start.into() } else { Instant::now() };
    Box::pin(sleep_until(from + limit))
}

fn choose_cluster(matched: &Matched<'_>, action: &Forward, outgoing: &Outgoing) -> Option<Arc<str>> {
    match (&action.cluster, matched.target) {
        (_, Some(target)) => Some(Arc::clone(&target.name)),
        (ClusterChoice::One(name), None) => Some(Arc::clone(name)),
        (ClusterChoice::Header(name), None) => outgoing.headers.get(&**name)?.to_str().ok().map(Into::into),
        (ClusterChoice::Weighted(_), None) => None,
    }
}

fn forbids(action: &Forward, protocol: &str) -> bool {
    action.upgrades.iter().any(|(name, allowed)| name.eq_ignore_ascii_case(protocol) && !allowed)
}

/// Folds the hash policies together as Envoy does: rotate and xor, until a terminal one has found something.
fn request_hash(exchange: &Exchange, action: &Forward, outgoing: &Outgoing) -> Option<u64> {
    let facts = RequestFacts {
        connection: &exchange.downstream.facts,
        method: outgoing.method.as_str(),
        scheme: outgoing.scheme,
        authority: &outgoing.authority,
        path: &outgoing.path,
        remote_ip: exchange.remote.ip(),
        headers: &outgoing.headers,
    };
    let mut hash: Option<u64> = None;
    for policy in &action.hash {
        if let Some(text) = policy.source.text(&facts) {
            let part = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
            hash = Some(hash.map_or(part, |so_far| so_far.rotate_left(1) ^ part));
        }
        if policy.terminal && hash.is_some() {
            break;
        }
    }
    hash
}

/// Header changes, then path and host, so that a change of headers sees the request as it came.
fn rewrite(exchange: &Exchange, matched: &Matched<'_>, action: &Forward, outgoing: &mut Outgoing) {
    change_request(exchange, matched, outgoing);
    if let Some(path) = action.path_rewrite.apply(&outgoing.path, &matched.route.matching.path) {
        if !matched.suppress_envoy_headers
            && let Ok(original) = HeaderValue::from_str(&outgoing.path)
        {
            outgoing.headers.insert(X_ENVOY_ORIGINAL_PATH, original);
        }
        outgoing.path = path;
    }
    let of_target = matched.target.and_then(|target| target.host_rewrite.as_ref());
    let host = match (of_target, &action.host_rewrite) {
        (Some(host), _) | (None, HostRewrite::Literal(host)) => Some(host.to_string()),
        (None, HostRewrite::Header(name)) => {
            outgoing.headers.get(&**name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
        }
        (None, HostRewrite::Keep | HostRewrite::Endpoint) => None,
    };
    if let Some(host) = host {
        replace_host(outgoing, host, action.append_forwarded_host);
    }
}

fn replace_host(outgoing: &mut Outgoing, host: String, keep_original: bool) {
    if keep_original && let Ok(original) = HeaderValue::from_str(&outgoing.authority) {
        outgoing.headers.append(X_FORWARDED_HOST, original);
    }
    outgoing.authority = host;
}

/// The route's time limit, or what a gRPC client asks for where the route lets it.
fn time_limit(action: &Forward, exchange: &Exchange, outgoing: &Outgoing) -> Option<Duration> {
    let asked = action.max_grpc_timeout.filter(|_| exchange.is_grpc).and_then(|most| {
        let asked = parse_grpc_timeout(outgoing.headers.get("grpc-timeout")?.to_str().ok()?)?;
        Some(if most.is_zero() { asked } else { asked.min(most) })
    });
    asked.or(action.timeout).filter(|limit| !limit.is_zero())
}

/// `8S`, `500m`… (gRPC over HTTP/2, "Timeout").
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = Some(digits).filter(|digits| digits.len() <= 8)?.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn purpose(cluster: &Cluster, http2: bool) -> Purpose {
    match cluster.connection.protocol {
        UpstreamProtocol::Http1 => Purpose::Http1,
        UpstreamProtocol::Http2 => Purpose::Http2,
        UpstreamProtocol::Downstream if http2 => Purpose::Http2,
        UpstreamProtocol::Downstream => Purpose::Http1,
    }
}

/// The request's body, for one attempt or several.
pub(crate) enum BodySource {
    /// Used up by the first attempt.
    Once(Option<RequestBody>),
    /// Kept while it is short.
    Kept(Rc<Recording>),
}

impl BodySource {
    fn new(body: Incoming, keep: bool, exchange: &Exchange) -> Self {
        if keep {
            Self::Kept(Recording::new(body, &exchange.progress))
        } else {
            Self::Once(Some(RequestBody::stream(body, &exchange.progress)))
        }
    }

    fn next(&mut self) -> Option<RequestBody> {
        match self {
            // An empty body is as good the second time.
            Self::Once(Some(RequestBody::Empty)) => Some(RequestBody::Empty),
            Self::Once(body) => body.take(),
            Self::Kept(recording) => recording.can_replay().then(|| recording.reader()),
        }
    }

    fn has_next(&self) -> bool {
        match self {
            Self::Once(body) => body.is_some(),
            Self::Kept(recording) => recording.can_replay(),
        }
    }
}

/// What is the same for all attempts of a request.
struct Forwarding<'a> {
    matched: &'a Matched<'a>,
    cluster: &'a Arc<Cluster>,
    policy: Option<&'a RetryPolicy>,
    hash: Option<u64>,
    purpose: Purpose,
    alpn: AlpnSource,
    endpoint_host: bool,
    outgoing: Outgoing,
}

/// A response's head, with everything that its body needs.
struct Answer {
    response: Response<Incoming>,
    lease: Lease,
    holds: Holds,
    taken: Duration,
}

/// Why an attempt has brought no response.
struct Failed {
    failure: Failure,
    local: Local,
    /// The connection had carried requests before: its end may have crossed ours.
    on_reused: bool,
}

impl Forwarding<'_> {
    async fn attempt_until_answered(&self, exchange: &mut Exchange, mut body: BodySource) -> Result<Answer, Local> {
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut retries_left = self.policy.map_or(0, |policy| policy.retries);
        let mut retry_hold = None;
        let mut free_replay = true;
        loop {
            let Some(next_body) = body.next() else { return Err(Local::NO_ENDPOINT) };
            exchange.attempts += 1;
            let attempt = self.attempt(exchange, next_body, &tried, retry_hold.take()).await;
            if let Some(endpoint) = &exchange.endpoint {
                tried.push(endpoint.state.address);
            }
            if let Err(failed) = &attempt
                && std::mem::take(&mut free_replay)
                && body.has_next()
                && self.crossed_on_the_wire(failed)
            {
                // Not an attempt of the request but of our pool: the peer has closed an idle connection.
                tried.pop();
                exchange.attempts -= 1;
                continue;
            }
            if !self.wants_retry(&attempt) {
                return attempt.map_err(|failed| failed.local);
            }
            if retries_left == 0 || !body.has_next() {
                if retries_left == 0 {
                    exchange.flag(Flags::RETRY_LIMIT_EXCEEDED);
                }
                return attempt.map_err(|failed| failed.local);
            }
            let usage = UsageOf(Arc::clone(&self.cluster.state), |usage| &usage.retries);
            let Some(hold) = Held::below(usage, self.cluster.limits.max_retries) else {
                exchange.flag(Flags::UPSTREAM_OVERFLOW);
                return attempt.map_err(|failed| failed.local);
            };
            retry_hold = Some(hold);
            retries_left -= 1;
            drop(attempt);
            self.wait_before_retry(retries_left).await;
        }
    }

    async fn wait_before_retry(&self, retries_left: u32) {
        if let Some(policy) = self.policy {
            sleep(retry::back_off(policy, policy.retries - retries_left, rand::random())).await;
        }
    }

    /// A reused connection broke before any answer: the peer has probably closed it while our request was on its way.
    /// Safe to send again if nothing was sent, or if the method may be repeated (RFC 9110 section 9.2.2).
    fn crossed_on_the_wire(&self, failed: &Failed) -> bool {
        match failed.failure {
            Failure::Reset { unsent: true, .. } => true,
            Failure::Reset { .. } => failed.on_reused && self.outgoing.method.is_safe(),
            _ => false,
        }
    }

    fn wants_retry(&self, attempt: &Result<Answer, Failed>) -> bool {
        let Some(policy) = self.policy else { return false };
        match attempt {
            Ok(answer) => retry::retries_response(policy, answer.response.status(), answer.response.headers()),
            Err(failed) => retry::retries_failure(policy.on, failed.failure),
        }
    }

    async fn attempt(
        &self,
        exchange: &mut Exchange,
        body: RequestBody,
        tried: &[SocketAddr],
        retry_hold: Option<Held<UsageOf>>,
    ) -> Result<Answer, Failed> {
        let usage = UsageOf(Arc::clone(&self.cluster.state), |usage| &usage.requests);
        let request_hold = Held::below(usage, self.cluster.limits.max_requests).ok_or_else(|| self.overflow())?;
        let endpoint = self.endpoint(exchange, tried).ok_or_else(|| Failed {
            failure: Failure::NoEndpoint,
            local: Local::NO_ENDPOINT,
            on_reused: false,
        })?;
        exchange.endpoint = Some(endpoint.clone());
        let holds = Holds {
            _active: Held::new(ActiveOf(Arc::clone(&endpoint.state))),
            _request: request_hold,
            _retry: retry_hold,
        };
        let per_try = self.policy.and_then(|policy| policy.per_try_timeout).filter(|limit| !limit.is_zero());
        let started = Instant::now();
        let sent = match per_try {
            None => self.send(exchange, &endpoint, body).await,
            Some(limit) => timeout(limit, self.send(exchange, &endpoint, body)).await.unwrap_or_else(|_| {
                Err(Failed { failure: Failure::PerTryTimeout, local: Local::TIMEOUT, on_reused: false })
            }),
        };
        self.judge(&endpoint, &sent);
        sent.map(|(response, lease)| Answer { response, lease, holds, taken: started.elapsed() })
    }

    fn endpoint(&self, exchange: &Exchange, tried: &[SocketAddr]) -> Option<LiveEndpoint> {
        if let Discovery::OriginalDst { port } = self.cluster.discovery {
            let mut wanted = exchange.downstream.facts.destination;
            if exchange.downstream.direct {
                // Nobody redirected this connection: its destination is ourselves.
                return None;
            }
            if let Some(port) = port {
                wanted.set_port(port);
            }
            return Some(balancer::original_destination(self.cluster, wanted));
        }
        let avoid = self.policy.is_some_and(|policy| policy.reselect_attempts > 0);
        let draw = Draw { hash: self.hash, tried: if avoid { tried } else { &[] } };
        balancer::choose(self.cluster, draw, &mut rand::random)
    }

    async fn send(
        &self,
        exchange: &mut Exchange,
        endpoint: &LiveEndpoint,
        body: RequestBody,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        let request = self.request(exchange, endpoint, body)?;
        let host = host_of(&self.outgoing.authority);
        let dial = Dial { cluster: self.cluster, endpoint, purpose: self.purpose, alpn: self.alpn, host: Some(host) };
        let worker = Rc::clone(&exchange.downstream.worker);
        let mut lease = match worker.pools.acquire(dial, &worker.shared.tls).await {
            Ok(lease) => lease,
            Err(error) => return Err(self.not_acquired(exchange, error)),
        };
        exchange.upstream = Some(Rc::clone(&lease.facts));
        let reused = lease.reused;
        match lease.send(request).await {
            Ok(response) => Ok((response, lease)),
            Err(failure) => Err(self.not_answered(failure, reused)),
        }
    }

    fn request(
        &self,
        exchange: &Exchange,
        endpoint: &LiveEndpoint,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Failed> {
        let mut outgoing = Cow::Borrowed(&self.outgoing);
        if self.endpoint_host
            && let Some(host) = &endpoint.spec.hostname
        {
            outgoing.to_mut().authority = host.to_string();
        }
        let mut headers = outgoing.headers.clone();
        if self.matched.host.attempt_count_in_request {
            headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(exchange.attempts));
        }
        let uri = match self.purpose {
            Purpose::Http2 => absolute(&outgoing),
            Purpose::Http1 | Purpose::Tcp => {
                if let Ok(host) = HeaderValue::from_str(&outgoing.authority) {
                    headers.insert(header::HOST, host);
                }
                outgoing.path.parse::<PathAndQuery>().ok().map(Uri::from)
            }
        };
        let uri =
            uri.ok_or_else(|| Failed { failure: Failure::NoEndpoint, local: Local::BAD_REQUEST, on_reused: false })?;
        let mut request = Request::new(body);
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        if self.purpose == Purpose::Http2 {
            *request.version_mut() = http::Version::HTTP_2;
        }
        Ok(request)
    }

    fn overflow(&self) -> Failed {
        const BODY: &str = "upstream connect error or disconnect/reset before headers. reset reason: overflow";
        let local = Local::new(503, BODY, Flags::UPSTREAM_OVERFLOW, "upstream_reset_before_response_started{overflow}");
        Failed { failure: Failure::Overflow, local, on_reused: false }
    }

    fn not_acquired(&self, exchange: &mut Exchange, error: AcquireError) -> Failed {
        let reason = match error {
            AcquireError::Overflow => return self.overflow(),
            AcquireError::Connect(error) => error.to_string(),
            AcquireError::Protocol(error) => error.to_string(),
        };
        let body = format!(
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, \
             transport failure reason: {reason}"
        );
        exchange.upstream_failure = reason;
        let details = "upstream_reset_before_response_started{remote_connection_failure}";
        let local =
            Local { body: Cow::Owned(body), ..Local::new(503, "", Flags::UPSTREAM_CONNECTION_FAILURE, details) };
        Failed { failure: Failure::Connect, local, on_reused: false }
    }

    fn not_answered(&self, failure: SendFailure, reused: bool) -> Failed {
        const BODY: &str =
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
        let refused = h2_reason(&failure.error) == Some(h2::Reason::REFUSED_STREAM);
        tracing::debug!(error = %failure.error, reused, "no response from upstream");
        let details = "upstream_reset_before_response_started{connection_termination}";
        let local = Local::new(503, BODY, Flags::UPSTREAM_TERMINATION, details);
        Failed { failure: Failure::Reset { unsent: failure.unsent, refused }, local, on_reused: reused }
    }

    /// Tells outlier detection how the endpoint has done.
    fn judge(&self, endpoint: &LiveEndpoint, sent: &Result<(Response<Incoming>, Lease), Failed>) {
        let Some(settings) = &self.cluster.outlier else { return };
        let outcome = match sent {
            Ok((response, _)) => Outcome::Status(outlier_status(response)),
            Err(Failed { failure: Failure::Overflow | Failure::NoEndpoint, .. }) => return,
            Err(_) => Outcome::LocalOrigin,
        };
        outlier::record(&self.cluster.state, settings, &endpoint.state, outcome);
    }
}

/// A gRPC failure in the headers counts like the HTTP status it stands for.
fn outlier_status(response: &Response<Incoming>) -> u16 {
    match response.headers().get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"14") => 503,
        Some(b"13" | b"2" | b"15") => 500,
        Some(b"4") => 504,
        _ => response.status().as_u16(),
    }
}

fn h2_reason(error: &hyper::Error) -> Option<h2::Reason> {
    use std::error::Error;
    error.source()?.downcast_ref::<h2::Error>()?.reason()
}

/// An authority without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host.trim_matches(['[', ']']),
        _ => authority.trim_matches(['[', ']']),
    }
}

fn absolute(outgoing: &Outgoing) -> Option<Uri> {
    let path: PathAndQuery = outgoing.path.parse().ok()?;
    let authority = if outgoing.authority.is_empty() { "localhost" } else { &outgoing.authority };
    Uri::builder().scheme(outgoing.scheme).authority(authority).path_and_query(path).build().ok()
}

/// Passes a response on: headers changed as configured, the body streamed.
fn pass_on(
    mut exchange: Box<Exchange>,
    matched: &Matched<'_>,
    answer: Answer,
    deadline: Option<Pin<Box<Sleep>>>,
    upgrade: Option<(String, hyper::upgrade::OnUpgrade)>,
) -> Reply {
    let Answer { response, lease, holds, taken } = answer;
    exchange.details = Cow::Borrowed("via_upstream");
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = upgrade.as_ref().filter(|_| switching).map(|(protocol, _)| protocol.clone());
    let mut headers = response.headers().clone();
    super::headers::remove_hop_by_hop(&mut headers, protocol.as_deref());
    if !matched.suppress_envoy_headers {
        headers.insert(X_ENVOY_SERVICE_TIME, HeaderValue::from(millis(taken)));
    }
    if matched.host.attempt_count_in_response {
        headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(exchange.attempts));
    }
    for level in matched.levels() {
        change_response(&exchange, &level.response, &mut headers);
    }
    reply::common(&mut headers, &exchange);
    let status = response.status().as_u16();
    exchange.note_response(status, &headers);
    match upgrade.filter(|_| switching) {
        Some((_, downstream)) => {
            upgrade::join(downstream, response, lease, holds, exchange);
            reply::respond(status, headers, ResponseBody::empty(None))
        }
        None => {
            let body = ResponseBody::upstream(response.into_body(), lease, holds, deadline, exchange);
            reply::respond(status, headers, body)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read() {
        for (text, expected) in [
            ("8S", Some(Duration::from_secs(8))),
            ("500m", Some(Duration::from_millis(500))),
            ("1H", Some(Duration::from_secs(3600))),
            ("7u", Some(Duration::from_micros(7))),
            ("S", None),
            ("", None),
            ("123456789S", None),
            ("5x", None),
            ("5é", None),
        ] {
            assert_eq!(parse_grpc_timeout(text), expected, "{text}");
        }
    }
}
