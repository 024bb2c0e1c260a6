//! Upstream HTTP connections of one worker, kept for reuse.
//!
//! HTTP/1 connections wait in a stack, the last one used on top, so that the others age and are
//! closed; HTTP/2 connections are shared by streams. A pool belongs to one endpoint, transport and
//! protocol. Nothing is locked: a worker has one thread. Circuit breaker limits count over all
//! workers, in the cluster's state.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::{
    ClusterState, LiveCluster,
    cluster_state::{Held, UsageOf},
    connect::{AlpnSource, ConnectError, Dial, Dialed, Purpose},
};
use crate::{
    codec::{
        body::RequestBody,
        executor::Local,
        fields::field_bytes,
        guard::{Guarded, Watched},
        room::{CONNECTION_WINDOW, LEAST_SEND_BUFFER, SEND_BUFFER, STREAM_WINDOW},
        tap::{Heard, Tap},
    },
    runtime::{
        cluster::{Discovery, Transport},
        facts::PeerCertificate,
        limits::{BufferLimit, HttpLimits, Limit},
        proxy_header::Ends,
    },
    telemetry::metrics::{Direction, WorkerMetrics},
    tls::{TlsContexts, client::Names},
};

/// The codec's own buffer of a connection of HTTP/1, and its smallest.
const BUFFER: usize = 408 * 1024;
const LEAST_BUFFER: usize = 8 * 1024;

/// Idle HTTP/1 connections that stay with a pool for the hour that is usual, where the cluster does
/// not say for how long.
const KEPT: usize = 8;
/// How long others stay: the hundreds that a burst opened hold descriptors here and at the endpoint
/// which the next burst may never need.
const BURST: Duration = Duration::from_secs(15);
/// Of less than this as the longest idle time a second is much: the clock is asked before a connection
/// is used again.
const LONG_IDLE: Duration = Duration::from_secs(60);

/// Tells pools apart.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct PoolKey {
    /// Identity of the cluster's state, which the pool keeps alive.
    state: usize,
    address: SocketAddr,
    /// Index of the transport; stable, since a changed list makes another state.
    transport: usize,
    purpose: Purpose,
    alpn: AlpnSource,
    /// Server name, and the name that the certificate must bear, where they come from the request
    /// or the endpoint.
    names: [Option<Box<str>>; 2],
    /// Whose connection the endpoint is told of: it is nobody else's then.
    ends: Option<Ends>,
}

/// What is known of an open connection.
#[derive(Debug)]
pub(crate) struct UpstreamFacts {
    /// Our address.
    pub(crate) local: Option<SocketAddr>,
    /// The server's certificate.
    pub(crate) peer: Option<Arc<PeerCertificate>>,
    served: Cell<u32>,
    /// It is too old for another request.
    retired: Cell<bool>,
    /// Something has come since the last request was sent; known for HTTP/1 only.
    heard: Arc<AtomicBool>,
}

impl UpstreamFacts {
    fn new(dialed: &Dialed) -> Rc<Self> {
        let (peer, heard) = (dialed.peer.clone(), Arc::default());
        let (served, retired) = (Cell::new(0), Cell::new(false));
        Rc::new(Self { local: dialed.local, peer, served, retired, heard })
    }

    /// Whether it may carry another request, of so many at most.
    fn is_spent(&self, most: Option<u32>) -> bool {
        self.retired.get() || most.is_some_and(|most| self.served.get() >= most)
    }
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    facts: Rc<UpstreamFacts>,
    since: Instant,
}

struct Multiplexed {
    sender: http2::SendRequest<RequestBody>,
    facts: Rc<UpstreamFacts>,
    watched: Arc<Watched>,
    streams: Rc<Cell<u32>>,
    idle_since: Rc<Cell<Instant>>,
}

struct Pool {
    state: Arc<ClusterState>,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Multiplexed>>,
    /// Open or opening connections.
    open: Cell<u32>,
    /// Told for each connection or stream that comes free, and for room for a connection. Whoever
    /// waits may go away: then the next one is told.
    freed: Notify,
    /// The HTTP/2 connection that is being opened. It is one at a time: the others wait for it, and
    /// share it or its failure.
    opening: RefCell<Option<Rc<Opening>>>,
    max_requests: Option<u32>,
    idle_timeout: Option<Duration>,
    longest: Option<Duration>,
    trims_idle: bool,
    limits: HttpLimits,
    buffer: BufferLimit,
    metrics: Arc<WorkerMetrics>,
}

/// Why no connection could be had. All who have waited for it are told the same.
#[derive(Clone, Debug)]
pub(crate) enum AcquireError {
    /// A circuit breaker is open.
    Overflow,
    /// Connecting failed.
    Connect(Rc<ConnectError>),
    /// The HTTP handshake failed.
    Protocol(Rc<hyper::Error>),
}

impl From<ConnectError> for AcquireError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Rc::new(error))
    }
}

impl From<hyper::Error> for AcquireError {
    fn from(error: hyper::Error) -> Self {
        Self::Protocol(Rc::new(error))
    }
}

impl AcquireError {
    /// Whether it says something of the endpoint, and not of our limits or of what we lack.
    pub(crate) fn is_of_endpoint(&self) -> bool {
        match self {
            Self::Overflow => false,
            Self::Connect(error) => !error.is_ours(),
            Self::Protocol(_) => true,
        }
    }
}

/// The right to send one request on a connection.
pub(crate) struct Lease {
    sender: Sender,
    /// What is known of the connection.
    pub(crate) facts: Rc<UpstreamFacts>,
    /// The connection has carried a request before, so the peer may be closing it right now.
    pub(crate) reused: bool,
    pool: Rc<Pool>,
}

enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2 { sender: http2::SendRequest<RequestBody>, _count: StreamCount },
}

/// A stream in use; counted until dropped.
struct StreamCount {
    streams: Rc<Cell<u32>>,
    idle_since: Rc<Cell<Instant>>,
    pool: Rc<Pool>,
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.streams.set(self.streams.get() - 1);
        self.idle_since.set(Instant::now());
        self.pool.freed.notify_one();
    }
}

/// An HTTP/2 connection that somebody opens.
#[derive(Default)]
struct Opening {
    ended: Notify,
    failure: RefCell<Option<AcquireError>>,
}

/// The turn to open one. Those who wait go on when it is dropped, be it that whoever had it has
/// gone away.
struct Turn {
    pool: Rc<Pool>,
    opening: Rc<Opening>,
}

impl Turn {
    fn begin(pool: &Rc<Pool>) -> Self {
        let opening = Rc::<Opening>::default();
        *pool.opening.borrow_mut() = Some(Rc::clone(&opening));
        Self { pool: Rc::clone(pool), opening }
    }

    fn fail(self, error: AcquireError) -> AcquireError {
        *self.opening.failure.borrow_mut() = Some(error.clone());
        error
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.pool.opening.borrow_mut() = None;
        self.opening.ended.notify_waiters();
    }
}

/// A connection that counts as open until dropped.
struct Open(Rc<Pool>, #[expect(dead_code, reason = "counts until dropped")] Held<UsageOf>);

impl Open {
    fn new(pool: &Rc<Pool>, held: Held<UsageOf>) -> Self {
        pool.open.set(pool.open.get() + 1);
        Self(Rc::clone(pool), held)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.freed.notify_one();
    }
}

/// Why there is no response to a request that was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// What hyper says.
    #[error(transparent)]
    Codec(hyper::Error),
    /// The connection ended within the head of a response: no message, and no end that has crossed
    /// our request.
    #[error("the response breaks off: {0}")]
    BrokenOff(hyper::Error),
    /// The response's head crosses a limit.
    #[error("the response crosses a limit: {}", .0.name())]
    Limit(Limit),
}

/// What came of sending a request.
pub(crate) struct SendFailure {
    /// Why.
    pub(crate) error: SendError,
    /// The request's body, if nothing of the request has left, so that it can be sent again without
    /// risk.
    pub(crate) unsent: Option<RequestBody>,
}

impl Lease {
    /// Sends a request and waits for the response's head.
    ///
    /// # Errors
    /// [`SendFailure`] says whether anything was sent.
    pub(crate) async fn send(
        &mut self,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<hyper::body::Incoming>, SendFailure> {
        self.facts.served.set(self.facts.served.get().saturating_add(1));
        self.facts.heard.store(false, Relaxed);
        let sent = match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2 { sender, .. } => sender.try_send_request(request).await,
        };
        match sent {
            Ok(response) => self.pool.judge(&response).map(|()| response),
            Err(mut failure) => {
                let unsent = failure.take_message().map(http::Request::into_body);
                let error = failure.into_error();
                if error.is_parse_too_large() {
                    self.pool.metrics.exceeded(Direction::Upstream, Limit::Head);
                }
                let broken_off = error.is_incomplete_message() && self.facts.heard.load(Relaxed);
                let error =
                    if broken_off { SendError::BrokenOff(error) } else { SendError::Codec(error) };
                Err(SendFailure { error, unsent })
            }
        }
    }

    /// Whether the trailers of a response are within the limits; those of HTTP/1 go no further.
    pub(crate) fn allows(&self, trailers: &http::HeaderMap) -> bool {
        if !self.is_http2() {
            return true;
        }
        let judged = self.pool.limits.judge(trailers.len(), field_bytes(trailers));
        judged.inspect_err(|limit| self.pool.metrics.exceeded(Direction::Upstream, *limit)).is_ok()
    }

    /// Whether the connection carries several requests at once.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2 { .. })
    }

    /// Gives the connection back; only after the response was read to its end.
    pub(crate) fn release(self) {
        let Self { sender, facts, pool, .. } = self;
        if let Sender::Http1(sender) = sender
            && !sender.is_closed()
            && !facts.is_spent(pool.max_requests)
        {
            pool.idle.borrow_mut().push(Idle { sender, facts, since: Instant::now() });
            pool.freed.notify_one();
        }
    }
}

impl Pool {
    /// Whether the head of an HTTP/2 response is within the limits; for HTTP/1 the parser has
    /// judged.
    fn judge(&self, response: &http::Response<hyper::body::Incoming>) -> Result<(), SendFailure> {
        if response.version() < http::Version::HTTP_2 {
            return Ok(());
        }
        let (headers, status) = (response.headers(), ":status200".len());
        self.limits.judge(1 + headers.len(), status + field_bytes(headers)).map_err(|limit| {
            self.metrics.exceeded(Direction::Upstream, limit);
            SendFailure { error: SendError::Limit(limit), unsent: None }
        })
    }

    /// The connection that was used last and is ready; closed ones are dropped on the way.
    fn take_idle(&self) -> Option<Idle> {
        let overdue = self.overdue();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| !connection.sender.is_closed() && !overdue(connection.since));
        let ready = idle.iter().rposition(|connection| connection.sender.is_ready())?;
        Some(idle.remove(ready))
    }

    /// A stream of a connection that may carry one more: no more than `limit` at a time, and no more
    /// than the server allows, since the codec would keep them waiting behind streams that may last
    /// for ever.
    fn take_stream(self: &Rc<Self>, limit: u32) -> Option<Lease> {
        let mut shared = self.shared.borrow_mut();
        let spent = |c: &Multiplexed| c.facts.is_spent(self.max_requests);
        let overdue = self.overdue();
        let is_done =
            |c: &Multiplexed| c.streams.get() == 0 && (spent(c) || overdue(c.idle_since.get()));
        shared.retain(|c| !c.sender.is_closed() && !is_done(c));
        let allowed = |c: &Multiplexed| limit.min(c.watched.allowed_streams());
        let usable = |c: &&Multiplexed| !spent(c) && c.streams.get() < allowed(c);
        let found = shared.iter().find(usable)?;
        found.streams.set(found.streams.get() + 1);
        let count = StreamCount {
            streams: Rc::clone(&found.streams),
            idle_since: Rc::clone(&found.idle_since),
            pool: Rc::clone(self),
        };
        Some(Lease {
            sender: Sender::Http2 { sender: found.sender.clone(), _count: count },
            facts: Rc::clone(&found.facts),
            reused: true,
            pool: Rc::clone(self),
        })
    }

    /// Closes what is too old and carries nothing; the rest ends with what it carries.
    fn close_retired(&self) {
        self.idle.borrow_mut().retain(|connection| !connection.facts.retired.get());
        self.shared
            .borrow_mut()
            .retain(|connection| connection.streams.get() > 0 || !connection.facts.retired.get());
    }

    /// Tells what the next sweep will find idle for too long, which is not to be used until then:
    /// where a second more is much.
    fn overdue(&self) -> impl Fn(Instant) -> bool + use<> {
        let limit = self.idle_timeout.filter(|limit| *limit < LONG_IDLE);
        let limit = limit.map(|limit| (limit, Instant::now()));
        move |since| limit.is_some_and(|(limit, now)| now.duration_since(since) >= limit)
    }

    /// Closes idle connections beyond a limit that was lowered after they were opened, those that
    /// were used last as the last ones. One is kept, as it would be opened again ([`admit`]).
    fn shed(&self, limit: u32) {
        let beyond = self.state.usage.connections.load(Relaxed).saturating_sub(limit);
        let mut surplus = beyond.min(self.open.get().saturating_sub(1)) as usize;
        if surplus == 0 {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let closed = surplus.min(idle.len());
        idle.drain(..closed);
        surplus -= closed;
        self.shared.borrow_mut().retain(|connection| {
            let closes = surplus > 0 && connection.streams.get() == 0;
            surplus -= usize::from(closes);
            !closes
        });
    }

    /// Closes what nobody has used for long.
    fn sweep(&self, now: Instant, close_all: bool) {
        let stale = |since: Instant| {
            close_all || self.idle_timeout.is_some_and(|limit| now.duration_since(since) >= limit)
        };
        let mut idle = self.idle.borrow_mut();
        if self.trims_idle {
            let surplus = surplus(idle.iter().map(|connection| connection.since), now);
            idle.drain(..surplus);
        }
        idle.retain(|connection| !connection.sender.is_closed() && !stale(connection.since));
        self.shared.borrow_mut().retain(|connection| {
            let idle = connection.streams.get() == 0;
            let spent = connection.facts.is_spent(self.max_requests);
            !connection.sender.is_closed()
                && !(idle && (spent || stale(connection.idle_since.get())))
        });
    }
}

/// Drives a connection to its end, and retires it once it is as old as connections get.
async fn drive<C: Future>(connection: C, pool: &Rc<Pool>, facts: &UpstreamFacts) -> C::Output {
    let Some(longest) = pool.longest else { return connection.await };
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = tokio::time::sleep(longest) => {}
    }
    facts.retired.set(true);
    pool.close_retired();
    connection.await
}

/// How many connections at the bottom of a stack a burst has left, by when each was used last, the
/// top last.
fn surplus(since: impl ExactSizeIterator<Item = Instant>, now: Instant) -> usize {
    let beyond = since.len().saturating_sub(KEPT);
    since.take(beyond).take_while(|since| now.duration_since(*since) >= BURST).count()
}

/// All pools of one worker.
pub(crate) struct Pools {
    pools: RefCell<FxHashMap<PoolKey, Rc<Pool>>>,
    metrics: Arc<WorkerMetrics>,
}

impl Pools {
    /// None yet; limits that servers cross are counted in `metrics`.
    pub(crate) fn new(metrics: Arc<WorkerMetrics>) -> Self {
        Self { pools: RefCell::default(), metrics }
    }

    /// A connection for one request: one that is open and free, else a new one, within the
    /// cluster's limits.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub(crate) async fn acquire(
        &self,
        dial: Dial<'_>,
        contexts: &TlsContexts,
    ) -> Result<Lease, AcquireError> {
        let pool = self.pool(&dial);
        match dial.purpose {
            Purpose::Http2 => acquire_http2(pool, dial, contexts).await,
            Purpose::Http1 | Purpose::Tcp => acquire_http1(pool, dial, contexts).await,
        }
    }

    fn pool(&self, dial: &Dial<'_>) -> Rc<Pool> {
        let settings = &dial.cluster.connection;
        let transport = settings.transport_for(&dial.endpoint.spec);
        let index = settings
            .transport_matches
            .iter()
            .position(|entry| std::ptr::eq(&entry.transport, transport));
        let (announced, inner) = transport.parts();
        let names = match inner {
            Transport::Tls(tls) => dial.varying_names(tls),
            Transport::Plaintext | Transport::Closed | Transport::Announced(..) => Names::default(),
        };
        let key = PoolKey {
            state: Arc::as_ptr(&dial.cluster.state) as usize,
            address: dial.endpoint.state.address,
            transport: index.unwrap_or(usize::MAX),
            purpose: dial.purpose,
            alpn: dial.alpn,
            names: [names.sent, names.expected]
                .map(|name| name.map(|name| name.to_ascii_lowercase().into())),
            ends: dial.ends.filter(|_| announced.is_some()),
        };
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry(key).or_insert_with(|| {
            Rc::new(Pool {
                state: Arc::clone(&dial.cluster.state),
                idle: RefCell::default(),
                shared: RefCell::default(),
                open: Cell::new(0),
                freed: Notify::new(),
                opening: RefCell::default(),
                max_requests: settings.http.max_requests_per_connection,
                idle_timeout: settings.http.idle_timeout,
                longest: settings.http.longest,
                trims_idle: settings.http.trims_idle,
                limits: settings.http.limits,
                buffer: settings.buffer,
                metrics: Arc::clone(&self.metrics),
            })
        });
        Rc::clone(pool)
    }

    /// Closes idle connections whose time is over, and all idle ones of endpoints and clusters that
    /// are gone; `cluster` finds one in force by its name.
    pub(crate) fn sweep<'a>(&self, cluster: impl Fn(&str) -> Option<&'a Arc<LiveCluster>>) {
        let now = Instant::now();
        self.pools.borrow_mut().retain(|key, pool| {
            let in_force = cluster(&pool.state.name);
            pool.sweep(now, !in_force.is_some_and(|cluster| is_current(cluster, key, pool)));
            if let Some(cluster) = in_force {
                pool.shed(cluster.limits.max_connections);
            }
            pool.open.get() > 0 || Rc::strong_count(pool) > 1
        });
    }
}

fn is_current(cluster: &LiveCluster, key: &PoolKey, pool: &Pool) -> bool {
    let original = matches!(cluster.discovery, Discovery::OriginalDst { .. });
    let endpoints = pool.state.endpoints();
    let mut addresses = endpoints.iter().map(|endpoint| endpoint.state.address);
    Arc::ptr_eq(&cluster.state, &pool.state)
        && (original || addresses.any(|address| address == key.address))
}

async fn acquire_http1(
    pool: Rc<Pool>,
    dial: Dial<'_>,
    contexts: &TlsContexts,
) -> Result<Lease, AcquireError> {
    pool.shed(dial.cluster.limits.max_connections);
    loop {
        if let Some(Idle { sender, facts, .. }) = pool.take_idle() {
            return Ok(Lease { sender: Sender::Http1(sender), facts, reused: true, pool });
        }
        if let Some(open) = admit(&pool, &dial) {
            // Boxed, since it is large and seldom: every downstream connection keeps room for what
            // its request holds.
            let opening = async {
                let dialed = dial.connect(contexts).await?;
                handshake_http1(pool, dialed, open).await
            };
            return Box::pin(opening).await;
        }
        wait(&pool, &dial).await?;
    }
}

/// Counts a new connection against the limit. A pool without any may always open one, so that the
/// connections of other endpoints and workers cannot starve it.
fn admit(pool: &Rc<Pool>, dial: &Dial<'_>) -> Option<Open> {
    let usage = || UsageOf(Arc::clone(&pool.state), |usage| &usage.connections);
    let held = Held::below(usage(), dial.cluster.limits.max_connections);
    let held = held.or_else(|| (pool.open.get() == 0).then(|| Held::new(usage())));
    held.map(|held| Open::new(pool, held))
}

/// Waits for a connection or a stream to come free, within the limit of waiting requests.
async fn wait(pool: &Rc<Pool>, dial: &Dial<'_>) -> Result<(), AcquireError> {
    let _pending = pending(pool, dial)?;
    pool.freed.notified().await;
    Ok(())
}

/// Counts a request that waits.
fn pending(pool: &Rc<Pool>, dial: &Dial<'_>) -> Result<Held<UsageOf>, AcquireError> {
    let usage = UsageOf(Arc::clone(&pool.state), |usage| &usage.pending);
    Held::below(usage, dial.cluster.limits.max_pending_requests).ok_or(AcquireError::Overflow)
}

async fn handshake_http1(
    pool: Rc<Pool>,
    dialed: Dialed,
    open: Open,
) -> Result<Lease, AcquireError> {
    let facts = UpstreamFacts::new(&dialed);
    let mut builder = http1::Builder::new();
    let head = pool.limits.http1_head_bytes();
    builder
        .preserve_header_case(false)
        .max_header_size(head)
        .max_buf_size(pool.buffer.buffer(BUFFER, head.max(LEAST_BUFFER)));
    if pool.limits.headers != HttpLimits::default().headers {
        builder.max_headers(pool.limits.headers as usize);
    }
    let own = dialed.own;
    let stream = Tap::new(dialed.stream, Heard(Arc::clone(&facts.heard)));
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let of = Rc::clone(&facts);
    tokio::task::spawn_local(async move {
        let (open, _own) = (open, own);
        if let Err(error) = drive(connection.with_upgrades(), &open.0, &of).await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(Lease { sender: Sender::Http1(sender), facts, reused: false, pool })
}

async fn acquire_http2(
    pool: Rc<Pool>,
    dial: Dial<'_>,
    contexts: &TlsContexts,
) -> Result<Lease, AcquireError> {
    let limit = dial.cluster.connection.http.limits.streams;
    pool.shed(dial.cluster.limits.max_connections);
    loop {
        if let Some(lease) = pool.take_stream(limit) {
            return Ok(lease);
        }
        let opening = pool.opening.borrow().clone();
        if let Some(opening) = opening {
            share(&pool, &dial, &opening).await?;
            continue;
        }
        let Some(open) = admit(&pool, &dial) else {
            wait(&pool, &dial).await?;
            continue;
        };
        let turn = Turn::begin(&pool);
        let keepalive = dial.cluster.connection.http.h2_keepalive;
        // Boxed as above.
        let opening = async {
            let dialed = dial.connect(contexts).await?;
            handshake_http2(&pool, dialed, open, keepalive).await
        };
        if let Err(error) = Box::pin(opening).await {
            return Err(turn.fail(error));
        }
        let lease = pool.take_stream(limit).map(|lease| Lease { reused: false, ..lease });
        return lease.ok_or(AcquireError::Overflow);
    }
}

/// Waits for a connection that another request opens. What fails, fails for all who have waited:
/// were each of them to try by itself, the last would wait for as many times the limit.
async fn share(pool: &Rc<Pool>, dial: &Dial<'_>, opening: &Opening) -> Result<(), AcquireError> {
    let _pending = pending(pool, dial)?;
    opening.ended.notified().await;
    opening.failure.borrow().clone().map_or(Ok(()), Err)
}

async fn handshake_http2(
    pool: &Rc<Pool>,
    dialed: Dialed,
    open: Open,
    keepalive: Option<(Duration, Duration)>,
) -> Result<(), AcquireError> {
    let facts = UpstreamFacts::new(&dialed);
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(pool.buffer.window(STREAM_WINDOW))
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(pool.buffer.buffer(SEND_BUFFER, LEAST_SEND_BUFFER))
        .max_header_list_size(pool.limits.http2_list_size());
    if let Some((interval, timeout)) = keepalive {
        builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
    }
    let own = dialed.own;
    let watched = Arc::default();
    let stream = Guarded::upstream(dialed.stream, &watched, pool.limits, &pool.metrics);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let of = Rc::clone(&facts);
    tokio::task::spawn_local(async move {
        let (open, _own) = (open, own);
        if let Err(error) = drive(connection, &open.0, &of).await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    pool.shared.borrow_mut().push(Multiplexed {
        sender,
        facts,
        watched,
        streams: Rc::default(),
        idle_since: Rc::new(Cell::new(Instant::now())),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_burst_has_opened_goes_and_what_is_used_stays() {
        let (old, now) = (Instant::now(), Instant::now() + BURST);
        let check = |used: &[Instant], expected: usize| {
            assert_eq!(surplus(used.iter().copied(), now), expected, "{}", used.len());
        };
        check(&[], 0);
        check(&[old; KEPT], 0);
        check(&[old; 900], 900 - KEPT);
        check(&[now; 900], 0);
        check(&[vec![old; 5], vec![now; KEPT]].concat(), 5);
        check(&[vec![old; 5], vec![now; KEPT - 2]].concat(), 3);
    }
}
