//! Forwards bytes between a downstream connection and an endpoint, each direction until its end
//! (half-close).

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    http::told,
    runtime::{FilterChain, PeerCertificate, TcpProxy, cluster::Discovery, target::ClusterChoice},
    telemetry::{
        Entry, Flags,
        labels::{Changed, ConnectionKey, Observed, Reporter},
        metrics::ConnectionSeries,
    },
    tls::client::Names,
    upstream::{
        LiveCluster, LiveEndpoint,
        balancer::{self, Draw},
        cluster_state::{ActiveOf, Held, UsageOf},
        connect::{AlpnSource, ConnectError, Dial, Dialed, Purpose},
        outlier::{self, Outcome},
    },
    worker::{Phase, downstream::Downstream, stream::Stream},
};

/// Bytes that one direction carries at a time: one TLS record.
const BUFFER: usize = 16 * 1024;
/// Stands for "never" where a timer needs a time.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What is noted of a connection, for metrics and the access log.
#[derive(Default)]
struct Notes {
    cluster: Option<Arc<LiveCluster>>,
    endpoint: Option<LiveEndpoint>,
    peer: Option<Arc<PeerCertificate>>,
    local: Option<SocketAddr>,
    flags: Flags,
    failure: String,
    attempts: u32,
    received: u64,
    sent: u64,
}

/// Carries a connection to its end.
pub(crate) async fn proxy(downstream: &Rc<Downstream>, proxy: &TcpProxy, stream: Stream) {
    let (start, start_wall) = (Instant::now(), SystemTime::now());
    let mut notes = Notes::default();
    if let Some((upstream, _holds)) = connect(downstream, proxy, &mut notes).await {
        let series = open_series(downstream, proxy, &notes);
        let _closed = Closed(Arc::clone(&series));
        let traffic = Traffic::new(series);
        let carrying = carry(stream, upstream.stream, &traffic);
        // Asked only when something has happened to it, not with every piece that is carried.
        let mut over = FuturesUnordered::from_iter([over(downstream, proxy)]);
        tokio::select! {
            carried = carrying => if let Err(error) = carried {
                tracing::debug!(%error, "TCP connection ended");
            },
            () = idle(&traffic, proxy.idle_timeout.unwrap_or(FOREVER)) => {}
            Some(()) = over.next() => {}
        }
        (notes.received, notes.sent) = (traffic.received.get(), traffic.sent.get());
    } else {
        let series = open_series(downstream, proxy, &notes);
        drop(Closed(series));
    }
    log(downstream, proxy, &notes, start.elapsed(), start_wall);
}

/// Returns when a connection must end, whatever it carries.
async fn over(downstream: &Downstream, proxy: &TcpProxy) {
    let mut phase = downstream.worker.phase.clone();
    tokio::select! {
        () = sleep(proxy.max_duration.unwrap_or(FOREVER)) => {}
        () = downstream.outlived() => {}
        _ = phase.wait_for(|phase| *phase == Phase::Stopped) => {}
    }
}

/// What a connection counts against until it ends.
struct Holds {
    _active: Held<ActiveOf>,
    _connection: Held<UsageOf>,
}

async fn connect(
    downstream: &Downstream,
    proxy: &TcpProxy,
    notes: &mut Notes,
) -> Option<(Dialed, Holds)> {
    let config = downstream.worker.shared.config();
    let Some(cluster) = choose_cluster(proxy).and_then(|name| config.cluster(name)) else {
        notes.flags = notes.flags.with(Flags::NO_CLUSTER);
        return None;
    };
    notes.cluster = Some(Arc::clone(cluster));
    let mut tried = Vec::new();
    for _ in 0..proxy.max_connect_attempts.max(1) {
        notes.attempts += 1;
        let Some(endpoint) = choose_endpoint(downstream, proxy, cluster, &tried) else {
            notes.flags = notes.flags.with(Flags::NO_HEALTHY_UPSTREAM);
            return None;
        };
        notes.endpoint = Some(endpoint.clone());
        tried.push(endpoint.state.address);
        let usage = UsageOf(Arc::clone(&cluster.state), |usage| &usage.connections);
        let Some(connection) = Held::below(usage, cluster.limits.max_connections) else {
            notes.flags = notes.flags.with(Flags::UPSTREAM_OVERFLOW);
            return None;
        };
        let holds = Holds {
            _active: Held::new(ActiveOf(Arc::clone(&endpoint.state))),
            _connection: connection,
        };
        match dial(downstream, cluster, &endpoint).await {
            Ok(dialed) => {
                notes.flags = Flags::default();
                (notes.peer, notes.local) = (dialed.peer.clone(), dialed.local);
                return Some((dialed, holds));
            }
            Err(error) => {
                notes.failure = error.to_string();
                notes.flags = Flags::UPSTREAM_CONNECTION_FAILURE;
            }
        }
    }
    notes.flags = notes.flags.with(Flags::RETRY_LIMIT_EXCEEDED);
    None
}

fn choose_cluster(proxy: &TcpProxy) -> Option<&str> {
    match &proxy.cluster {
        ClusterChoice::One(name) => Some(name),
        ClusterChoice::Weighted(clusters) => Some(&clusters.pick(rand::random()).name),
        // A connection has no headers.
        ClusterChoice::Header(_) => None,
    }
}

fn choose_endpoint(
    downstream: &Downstream,
    proxy: &TcpProxy,
    cluster: &LiveCluster,
    tried: &[SocketAddr],
) -> Option<LiveEndpoint> {
    if let Discovery::OriginalDst { port } = cluster.discovery {
        let mut wanted = downstream.facts.destination;
        if let Some(port) = port {
            wanted.set_port(port);
        }
        // Nobody redirected this connection: its destination is ourselves, and it would come back
        // for ever.
        return (!downstream.direct).then(|| balancer::original_destination(cluster, wanted));
    }
    let source = downstream.facts.source.ip().to_string();
    let hash = proxy.hash_source_ip.then(|| xxhash_rust::xxh64::xxh64(source.as_bytes(), 0));
    balancer::choose(cluster, Draw { hash, tried }, &mut rand::random)
}

async fn dial(
    downstream: &Downstream,
    cluster: &LiveCluster,
    endpoint: &LiveEndpoint,
) -> Result<Dialed, ConnectError> {
    // Bytes name no host: as in Envoy, only the endpoint and the transport do.
    let names = Names::default();
    let ends = Some(downstream.facts.ends());
    let dial =
        Dial { cluster, endpoint, purpose: Purpose::Tcp, alpn: AlpnSource::Transport, names, ends };
    let dialed = dial.connect(&downstream.worker.shared.tls).await;
    let outcome = match &dialed {
        Ok(_) => Some(Outcome::Connected),
        Err(error) if error.is_ours() => None,
        Err(_) => Some(Outcome::LocalOrigin),
    };
    if let (Some(settings), Some(outcome)) = (&cluster.outlier, outcome) {
        outlier::record(&cluster.state, settings, &endpoint.state, outcome);
    }
    dialed
}

/// Bytes carried so far, and when the last of them moved.
struct Traffic {
    series: Arc<ConnectionSeries>,
    received: std::cell::Cell<u64>,
    sent: std::cell::Cell<u64>,
    last: std::cell::Cell<Instant>,
}

impl Traffic {
    fn new(series: Arc<ConnectionSeries>) -> Self {
        Self {
            series,
            received: Default::default(),
            sent: Default::default(),
            last: std::cell::Cell::new(Instant::now()),
        }
    }

    fn note_received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
        self.series.received.fetch_add(bytes, Relaxed);
        self.last.set(Instant::now());
    }

    fn note_sent(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
        self.series.sent.fetch_add(bytes, Relaxed);
        self.last.set(Instant::now());
    }
}

/// Carries both directions; one that ends is passed on as the end of the other side's input.
async fn carry<D, U>(downstream: D, upstream: U, traffic: &Traffic) -> io::Result<()>
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(downstream);
    let (mut from_server, mut to_server) = tokio::io::split(upstream);
    let up = copy(&mut from_client, &mut to_server, |bytes| traffic.note_received(bytes));
    let down = copy(&mut from_server, &mut to_client, |bytes| traffic.note_sent(bytes));
    tokio::try_join!(up, down).map(|_| ())
}

async fn copy<R, W>(from: &mut R, to: &mut W, note: impl Fn(u64)) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = Vec::new();
    loop {
        readable(from, &mut buffer).await?;
        if buffer.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&buffer).await?;
        to.flush().await?;
        note(buffer.len() as u64);
    }
}

async fn readable<R: AsyncRead + Unpin>(from: &mut R, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    buffer.reserve(BUFFER);
    from.read_buf(buffer).await.map(|_| ())
}

async fn idle(traffic: &Traffic, limit: Duration) {
    loop {
        let due = traffic.last.get() + limit;
        if due <= Instant::now() {
            return;
        }
        sleep_until(due).await;
    }
}

/// Counts the end of a connection when dropped.
struct Closed(Arc<ConnectionSeries>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Relaxed);
    }
}

fn open_series(downstream: &Downstream, proxy: &TcpProxy, notes: &Notes) -> Arc<ConnectionSeries> {
    let reporter = Reporter::from(downstream.listener.direction);
    let (certificate, workload) = match reporter {
        Reporter::Source => (
            notes.peer.as_ref(),
            notes.endpoint.as_ref().and_then(|endpoint| endpoint.workload.as_ref()),
        ),
        Reporter::Destination => (downstream.facts.peer.as_ref(), None),
    };
    let changed = proxy.metrics.as_ref().map(|own| {
        let chain = Arc::clone(&downstream.chain.borrow());
        let entry = entry(downstream, &chain, notes, (SystemTime::now(), Duration::ZERO));
        Changed::of(own, &entry)
    });
    let key = ConnectionKey::from(Observed {
        reporter,
        principal: certificate.and_then(|peer| peer.uri_sans.first()),
        workload,
        service: notes.cluster.as_ref().and_then(|cluster| cluster.services.first()),
        cluster: notes.cluster.as_ref().map_or("", |cluster| &cluster.name),
        host: Arc::default(),
        flags: notes.flags,
        changed: changed.as_ref(),
    });
    let series = downstream.worker.metrics.connections(&key);
    series.opened.fetch_add(1, Relaxed);
    series
}

fn log(
    downstream: &Downstream,
    proxy: &TcpProxy,
    notes: &Notes,
    duration: Duration,
    start: SystemTime,
) {
    if proxy.access_logs.is_empty() {
        return;
    }
    let chain = Arc::clone(&downstream.chain.borrow());
    let entry = entry(downstream, &chain, notes, (start, duration));
    told::log(&downstream.worker, &proxy.access_logs, &entry);
}

/// What formats and labels are made of; `time`: when the connection began, and how long it was.
fn entry<'a>(
    downstream: &'a Downstream,
    chain: &'a FilterChain,
    notes: &'a Notes,
    time: (SystemTime, Duration),
) -> Entry<'a> {
    Entry {
        flags: notes.flags,
        bytes_received: notes.received,
        bytes_sent: notes.sent,
        upstream_host: notes.endpoint.as_ref().map(|endpoint| endpoint.state.address),
        upstream_local: notes.local,
        cluster: notes.cluster.as_ref().map_or("", |cluster| &cluster.name),
        upstream_failure: &notes.failure,
        attempts: notes.attempts,
        chain: &chain.name,
        tls: downstream.tls.as_ref(),
        ..Entry::of_connection(&downstream.facts, time.0, time.1)
    }
}
