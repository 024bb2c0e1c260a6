//! Attempts of one request: each chooses an endpoint anew, until an answer can be passed on or
//! there is no point in another.

use std::{
    borrow::Cow,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use super::{
    carried::Holds,
    exchange::Exchange,
    headers::{GRPC_STATUS, X_ENVOY_ATTEMPT_COUNT},
    outgoing::{Outgoing, announce},
    reply::Local,
    request::{HostChange, Matched},
    retry::{self, Failure},
    time_left::TimeLeft,
    upgrade,
};
use crate::{
    codec::{
        blame::{DownstreamFault, UpstreamFault},
        body::RequestBody,
        framing,
        progress::{Progress, Trailers},
        recording::Recording,
    },
    runtime::{action::RetryPolicy, cluster::Discovery},
    telemetry::Flags,
    upstream::{
        LiveCluster, LiveEndpoint,
        balancer::{self, Draw},
        cluster_state::{ActiveOf, Held, UsageOf},
        connect::{AlpnSource, Dial, Purpose, names_of},
        outlier::Outcome,
        pool::{AcquireError, Lease, SendError, SendFailure},
    },
    worker::deadlines::{Deadlines, later},
};

/// The request's body, for one attempt or several.
pub(super) enum BodySource {
    /// Used up by the first attempt.
    Once(Option<RequestBody>),
    /// Kept while it is short.
    Kept(Rc<Recording>),
}

impl BodySource {
    /// `body` is nothing where filters have begun to read it. So many bytes of it are kept, if any.
    pub(super) fn new(
        body: Option<Incoming>,
        to: Purpose,
        keep: Option<usize>,
        exchange: &Exchange,
    ) -> Self {
        let http2 = exchange.is_http2();
        let trailers = Trailers::between(http2, to == Purpose::Http2);
        match body {
            Some(body) => {
                exchange.progress.begin(body, http2, trailers, exchange.manager.limits);
            }
            None => exchange.progress.go_on(trailers),
        }
        if let Some(limit) = keep {
            let budget = &exchange.downstream.worker.shared.kept_bodies;
            Self::Kept(Recording::new(&exchange.progress, limit, budget))
        } else {
            Self::Once(Some(RequestBody::stream(&exchange.progress)))
        }
    }

    fn next(&mut self) -> Option<RequestBody> {
        match self {
            // An empty body is as good the second time.
            Self::Once(Some(RequestBody::Empty)) => Some(RequestBody::Empty),
            Self::Once(body) => body.take(),
            Self::Kept(recording) => recording.can_replay().then(|| RequestBody::replay(recording)),
        }
    }

    fn give_back(&mut self, unused: Option<RequestBody>) {
        if let (Self::Once(body @ None), Some(unused)) = (self, unused) {
            *body = Some(unused);
        }
    }

    /// No attempt follows: an upload that goes on need not be kept.
    fn settle(&self) {
        if let Self::Kept(recording) = self {
            recording.forget();
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
pub(super) struct Attempts<'a> {
    pub(super) matched: &'a Matched<'a>,
    pub(super) cluster: &'a Arc<LiveCluster>,
    pub(super) policy: Option<&'a RetryPolicy>,
    pub(super) hash: Option<u64>,
    pub(super) purpose: Purpose,
    pub(super) alpn: AlpnSource,
    pub(super) time: TimeLeft,
    /// How the endpoint's own host replaces the request's, if it does.
    pub(super) endpoint_host: Option<HostChange>,
    pub(super) outgoing: Outgoing,
    /// It asks for an upgrade over HTTP/2.
    pub(super) extends: bool,
}

/// A response's head, with everything that its body needs.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
    pub(super) holds: Holds,
    pub(super) taken: Duration,
}

/// Why there is no response.
pub(super) enum Unanswered {
    /// The client has broken its request, whatever the endpoint would have answered.
    Downstream(DownstreamFault),
    /// The endpoint's doing, or ours: this is answered.
    Local(Local),
}

/// Why an attempt has brought no response.
enum Ended {
    /// The client has broken its request. No endpoint is blamed and nothing is tried again.
    Downstream(DownstreamFault),
    /// The attempt has failed.
    Upstream(Failed),
}

impl From<Failed> for Ended {
    fn from(failed: Failed) -> Self {
        Self::Upstream(failed)
    }
}

/// How an attempt has failed.
struct Failed {
    failure: Failure,
    local: Local,
    /// The connection had carried requests before: its end may have crossed ours.
    on_reused: bool,
    /// A body of which nothing was sent.
    unused: Option<RequestBody>,
}

impl Failed {
    fn new(failure: Failure, local: Local) -> Self {
        Self { failure, local, on_reused: false, unused: None }
    }

    fn broken(fault: UpstreamFault) -> Self {
        Self::new(Failure::Broken { fault, unsent: false }, Local::of_fault(fault))
    }
}

impl Attempts<'_> {
    /// Adds what the first attempt says and most others repeat, before the first: in the copies for
    /// the attempts, which have no room left, each field would move all of them.
    fn settle(&mut self) {
        let Outgoing { authority, headers, .. } = &mut self.outgoing;
        if self.matched.host.attempt_count_in_request {
            headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(1_u32));
        }
        if self.purpose != Purpose::Http2
            && let Ok(host) = HeaderValue::from_str(authority)
        {
            headers.insert(header::HOST, host);
        }
    }

    pub(super) async fn until_answered(
        &mut self,
        exchange: &mut Exchange,
        mut body: BodySource,
    ) -> Result<Answer, Unanswered> {
        self.settle();
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut retries_left = self.policy.map_or(0, |policy| policy.retries);
        let mut retry_hold = None;
        let mut free_replay = true;
        loop {
            let Some(next_body) = body.next() else {
                return Err(Unanswered::Local(Local::NO_ENDPOINT));
            };
            exchange.attempts += 1;
            let mut attempt =
                match self.attempt(exchange, next_body, &tried, retry_hold.take()).await {
                    Ok(answer) => Ok(answer),
                    Err(Ended::Upstream(failed)) => Err(failed),
                    Err(Ended::Downstream(fault)) => return Err(Unanswered::Downstream(fault)),
                };
            if let Err(failed) = &mut attempt {
                body.give_back(failed.unused.take());
            }
            if let Some(endpoint) = &exchange.endpoint {
                tried.push(endpoint.state.address);
            }
            if let Err(failed) = &attempt
                && std::mem::take(&mut free_replay)
                && body.has_next()
                && self.crossed_on_the_wire(failed)
            {
                // Not an attempt of the request but of our pool: the peer has closed an idle
                // connection.
                tried.pop();
                exchange.attempts -= 1;
                continue;
            }
            judge(exchange, &attempt);
            let answered = |attempt: Result<Answer, Failed>| {
                body.settle();
                attempt.map_err(|failed| Unanswered::Local(failed.local))
            };
            if !self.wants_retry(&attempt) {
                return answered(attempt);
            }
            if retries_left == 0 || !body.has_next() {
                if retries_left == 0 {
                    exchange.flag(Flags::RETRY_LIMIT_EXCEEDED);
                }
                return answered(attempt);
            }
            let requests = self.cluster.state.usage.requests.load(Relaxed);
            let limit = self.cluster.limits.retries.among(requests);
            let usage = UsageOf(Arc::clone(&self.cluster.state), |usage| &usage.retries);
            let Some(hold) = Held::below(usage, limit) else {
                exchange.flag(Flags::UPSTREAM_OVERFLOW);
                return answered(attempt);
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

    /// A reused connection broke before any answer: the peer has probably closed it while our
    /// request was on its way. Safe to send again if nothing was sent, or if the method may be
    /// repeated (RFC 9110 section 9.2.2).
    fn crossed_on_the_wire(&self, failed: &Failed) -> bool {
        match failed.failure {
            Failure::Broken { unsent: true, .. } => true,
            Failure::Broken { fault: UpstreamFault::Terminated, .. } => {
                failed.on_reused && self.outgoing.method.is_safe()
            }
            _ => false,
        }
    }

    fn wants_retry(&self, attempt: &Result<Answer, Failed>) -> bool {
        let Some(policy) = self.policy else { return false };
        match attempt {
            Ok(answer) => {
                retry::retries_response(policy, answer.response.status(), answer.response.headers())
            }
            Err(failed) => retry::retries_failure(policy.on, failed.failure),
        }
    }

    async fn attempt(
        &self,
        exchange: &mut Exchange,
        body: RequestBody,
        tried: &[SocketAddr],
        retry_hold: Option<Held<UsageOf>>,
    ) -> Result<Answer, Ended> {
        let usage = UsageOf(Arc::clone(&self.cluster.state), |usage| &usage.requests);
        let request_hold =
            Held::below(usage, self.cluster.limits.max_requests).ok_or_else(|| self.overflow())?;
        let endpoint = self
            .endpoint(exchange, tried)
            .ok_or_else(|| Failed::new(Failure::NoEndpoint, Local::NO_ENDPOINT))?;
        exchange.endpoint = Some(endpoint.clone());
        let holds = Holds {
            _active: Held::new(ActiveOf(Arc::clone(&endpoint.state))),
            _request: request_hold,
            _retry: retry_hold,
        };
        let started = Instant::now();
        let progress = Rc::clone(&exchange.progress);
        let worker = Rc::clone(&exchange.downstream.worker);
        let sent = tokio::select! {
            biased;
            sent = self.send(exchange, &endpoint, body) => sent,
            // The codec may wait for an answer to what it could not send.
            fault = progress.faulted() => return Err(Ended::Downstream(fault)),
            () = self.overtime(&worker.deadlines, &progress, started) => {
                Err(Failed::new(Failure::PerTryTimeout, Local::TIMEOUT))
            }
        };
        match (sent, progress.fault()) {
            (Ok((response, lease)), _) => {
                Ok(Answer { response, lease, holds, taken: started.elapsed() })
            }
            // A broken request breaks the endpoint's connection, too.
            (Err(_), Some(fault)) => Err(Ended::Downstream(fault)),
            (Err(failed), None) => Err(failed.into()),
        }
    }

    /// Returns when this attempt has taken too long. Its time begins when the client has sent the
    /// whole request, so that a slow client is not the endpoint's fault.
    async fn overtime(&self, deadlines: &Deadlines, progress: &Progress, started: Instant) {
        match self.policy.and_then(|policy| policy.per_try_timeout).filter(|limit| !limit.is_zero())
        {
            None => std::future::pending().await,
            Some(limit) => {
                let from = progress.ended().await.max(started);
                deadlines.until(later(from, limit)).await;
            }
        }
    }

    /// Whether there is an endpoint for the first attempt.
    pub(super) fn has_endpoint(&self, exchange: &Exchange) -> bool {
        match self.cluster.discovery {
            Discovery::OriginalDst { .. } => !exchange.downstream.direct,
            _ => balancer::has_any(self.cluster, &mut rand::random),
        }
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
        let asked = &self.cluster.connection.http.names;
        let names = names_of(asked, &self.outgoing.authority, &self.outgoing.headers);
        let ends = Some(exchange.downstream.facts.ends());
        let dial = Dial {
            cluster: self.cluster,
            endpoint,
            purpose: self.purpose,
            alpn: self.alpn,
            names,
            ends,
        };
        let worker = Rc::clone(&exchange.downstream.worker);
        let mut lease = match worker.pools.acquire(dial, &worker.shared.tls).await {
            Ok(lease) => lease,
            Err(error) => return Err(self.not_acquired(exchange, error)),
        };
        exchange.upstream = Some(Rc::clone(&lease.facts));
        let reused = lease.reused;
        let mut answer = lease.send(request).await;
        if let (Ok(response), true) = (&mut answer, self.extends) {
            upgrade::answered(response, self.outgoing.headers.get(header::UPGRADE));
        }
        match answer {
            Ok(response) if framing::is_ambiguous(&response) || self.is_unasked(&response) => {
                Err(Failed::broken(UpstreamFault::Protocol))
            }
            Ok(response) => Ok((response, lease)),
            Err(failure) => Err(not_answered(failure, reused)),
        }
    }

    /// Whether the endpoint changes to a protocol of which the request has said nothing, or does not
    /// say to which (RFC 9110 sections 7.8 and 15.2.2).
    fn is_unasked(&self, response: &Response<Incoming>) -> bool {
        response.status() == StatusCode::SWITCHING_PROTOCOLS
            && !upgrade::is_offered(response.headers(), &self.outgoing.headers)
    }

    fn request(
        &self,
        exchange: &mut Exchange,
        endpoint: &LiveEndpoint,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Failed> {
        let mut outgoing = Cow::Borrowed(&self.outgoing);
        if let (Some(change), Some(host)) = (self.endpoint_host, endpoint.spec.host_name()) {
            change.apply(outgoing.to_mut(), host.to_string());
            exchange.note_changed(&outgoing);
        }
        let mut headers = outgoing.headers.clone();
        let is_first = exchange.attempts <= 1;
        if self.matched.host.attempt_count_in_request && !is_first {
            headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(exchange.attempts));
        }
        let elapsed = if is_first { Duration::ZERO } else { exchange.progress.since_end() };
        self.time.tell(&mut headers, elapsed);
        let uri = match self.purpose {
            Purpose::Http2 => absolute(&outgoing),
            Purpose::Http1 | Purpose::Tcp => {
                if let Cow::Owned(changed) = &outgoing
                    && let Ok(host) = HeaderValue::from_str(&changed.authority)
                {
                    headers.insert(header::HOST, host);
                }
                announce(&body, &mut headers);
                outgoing.path.parse::<PathAndQuery>().ok().map(Uri::from)
            }
        };
        let uri = uri.ok_or_else(|| Failed::new(Failure::NoEndpoint, Local::BAD_REQUEST))?;
        let mut request = Request::new(body);
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        if self.purpose == Purpose::Http2 {
            *request.version_mut() = http::Version::HTTP_2;
        }
        if self.extends {
            upgrade::extend(&mut request)
                .ok_or_else(|| Failed::new(Failure::NoEndpoint, Local::BAD_REQUEST))?;
        }
        Ok(request)
    }

    fn overflow(&self) -> Failed {
        const BODY: &str =
            "upstream connect error or disconnect/reset before headers. reset reason: overflow";
        let local = Local::new(
            503,
            BODY,
            Flags::UPSTREAM_OVERFLOW,
            "upstream_reset_before_response_started{overflow}",
        );
        Failed::new(Failure::Overflow, local)
    }

    fn not_acquired(&self, exchange: &mut Exchange, error: AcquireError) -> Failed {
        let (reason, failure) = match error {
            AcquireError::Overflow => return self.overflow(),
            AcquireError::Connect(error) if error.is_ours() => {
                (error.to_string(), Failure::Unequipped)
            }
            AcquireError::Connect(error) => (error.to_string(), Failure::Connect),
            AcquireError::Protocol(error) => (error.to_string(), Failure::Connect),
        };
        let body = format!(
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, \
             transport failure reason: {reason}"
        );
        exchange.upstream_failure = reason;
        let details = "upstream_reset_before_response_started{remote_connection_failure}";
        let local = Local {
            body: Cow::Owned(body),
            ..Local::new(503, "", Flags::UPSTREAM_CONNECTION_FAILURE, details)
        };
        Failed::new(failure, local)
    }
}

fn not_answered(failure: SendFailure, reused: bool) -> Failed {
    tracing::debug!(error = %failure.error, reused, "no response from upstream");
    let fault = match &failure.error {
        // An HTTP/2 response with too long a head ends its stream only, which Envoy calls a reset.
        SendError::Limit(_) => UpstreamFault::Reset,
        SendError::BrokenOff(_) => UpstreamFault::Protocol,
        SendError::Codec(error) => UpstreamFault::of(error),
    };
    let broken = Failure::Broken { fault, unsent: failure.unsent.is_some() };
    Failed {
        on_reused: reused,
        unused: failure.unsent,
        ..Failed::new(broken, Local::of_fault(fault))
    }
}

/// Tells outlier detection how the endpoint has done.
fn judge(exchange: &Exchange, attempt: &Result<Answer, Failed>) {
    match attempt {
        Ok(answer) => exchange.judge(Outcome::Status(outlier_status(&answer.response))),
        Err(failed) if failed.failure.is_of_endpoint() => exchange.judge(Outcome::LocalOrigin),
        Err(_) => {}
    }
}

/// A gRPC failure in the headers counts like the HTTP status it stands for.
fn outlier_status(response: &Response<Incoming>) -> u16 {
    match response.headers().get(GRPC_STATUS).map(HeaderValue::as_bytes) {
        Some(b"14") => 503,
        Some(b"13" | b"2" | b"15") => 500,
        Some(b"4") => 504,
        _ => response.status().as_u16(),
    }
}

fn absolute(outgoing: &Outgoing) -> Option<Uri> {
    let path: PathAndQuery = outgoing.path.parse().ok()?;
    let authority = if outgoing.authority.is_empty() { "localhost" } else { &outgoing.authority };
    Uri::builder().scheme(outgoing.scheme).authority(authority).path_and_query(path).build().ok()
}
