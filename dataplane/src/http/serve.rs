//! Drives one downstream HTTP connection: codec, limits, draining; hands each request to
//! [`super::route`].
//!
//! A connection outlives configurations: before a request is served, the chain that would take the
//! connection today is looked up again, so that a new policy holds from the next request on. Where
//! none would take it, its client is told to go, and the proxy's drain time is the most that the
//! connection has left.

use std::{
    cell::Cell,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{Request, StatusCode, Version};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    reply::{self, NoReply, Reply},
    route::{self, Standing},
    told,
};
use crate::{
    codec::{
        blame::DownstreamFault,
        executor::Local,
        fields::field_bytes,
        guard::Guarded,
        http1_stream::{Http1Stream, LINGER},
        meter::Role,
        requests::Burden,
        room::{CONNECTION_WINDOW, LEAST_SEND_BUFFER, SEND_BUFFER, STREAM_WINDOW},
        tap::{Client, Tap},
    },
    runtime::{
        HttpConnectionManager, RuntimeConfig, Terminal, TransportProtocol,
        http::{Codec, LongestConnection},
        limits::{HttpLimits, Limit},
    },
    telemetry::{Entry, metrics::Direction},
    worker::{
        Phase,
        deadlines::later,
        downstream::{Downstream, Overtaken},
        stream::Stream,
    },
};

/// hyper's smallest read buffer.
const MIN_BUFFER: usize = 8 * 1024;
/// Stands for "never" where a timer needs a time.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often an open head is looked for in the time that it has.
const LOOKS_PER_HEAD: u32 = 4;

/// What a connection's requests share.
struct Connection {
    downstream: Rc<Downstream>,
    /// The one that has served the first request.
    manager: Arc<HttpConnectionManager>,
    since: Instant,
    /// The next response ends the connection.
    closing: Cell<bool>,
    http1: Cell<bool>,
}

/// How a connection is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// What is under way is served.
    Graceful,
    /// At once.
    Cut(Limit),
    /// At once: the client was told to go and nothing is under way or the time for it is over, or
    /// it does not take an answer whose time is over.
    Outstayed,
}

impl From<Burden> for Ending {
    fn from(burden: Burden) -> Self {
        match burden {
            Burden::PrematureResets => Self::Cut(Limit::PrematureResets),
            Burden::TakesNothing => Self::Outstayed,
        }
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    downstream: Rc<Downstream>,
    manager: Arc<HttpConnectionManager>,
    stream: Stream,
) {
    let mut stream =
        Guarded::downstream(stream, &downstream.requests.watched, &downstream.worker.metrics);
    let connection = Rc::new(Connection {
        downstream,
        manager: Arc::clone(&manager),
        since: Instant::now(),
        closing: Cell::new(false),
        http1: Cell::new(true),
    });
    let version = tokio::select! {
        version = version(&connection.downstream, &manager, &mut stream) => version,
        ending = watch_over(&connection, &manager) => return tracing::debug!(?ending, "the client said nothing"),
    };
    match version {
        Ok(Version::HTTP_2) => serve_http2(connection, &manager, stream).await,
        Ok(_) => serve_http1(connection, &manager, stream).await,
        Err(error) => tracing::debug!(%error, "downstream connection ended"),
    }
}

/// What the connection speaks: as configured or agreed on, else the preface tells.
async fn version(
    downstream: &Downstream,
    manager: &HttpConnectionManager,
    stream: &mut Guarded<Stream>,
) -> io::Result<Version> {
    let agreed = downstream.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    let sniffed = downstream.facts.application_protocols.first().map(|protocol| &**protocol);
    let plaintext = downstream.facts.transport == TransportProtocol::RawBuffer;
    match (manager.codec, agreed) {
        (Codec::Http1, _) | (Codec::Auto, Some(b"http/1.1")) => Ok(Version::HTTP_11),
        (Codec::Http2, _) | (Codec::Auto, Some(b"h2")) => Ok(Version::HTTP_2),
        (Codec::Auto, _) if plaintext && matches!(sniffed, Some("http/1.1" | "http/1.0")) => {
            Ok(Version::HTTP_11)
        }
        (Codec::Auto, _) if stream.speaks_http2().await? => Ok(Version::HTTP_2),
        (Codec::Auto, _) => Ok(Version::HTTP_11),
    }
}

async fn serve_http1(
    connection: Rc<Connection>,
    manager: &HttpConnectionManager,
    stream: Guarded<Stream>,
) {
    let limits = &manager.limits;
    let mut builder = http1::Builder::new();
    // A time limit of the codec's would run between requests, too; `watch_over` has one for heads
    // alone.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_header_size(limits.http1_head_bytes())
        .max_buf_size(connection.downstream.listener.buffer.buffer(
            limits.http1_head_bytes().saturating_mul(2).max(MIN_BUFFER),
            limits.http1_head_bytes().max(MIN_BUFFER),
        ));
    if limits.headers != HttpLimits::default().headers {
        builder.max_headers(limits.headers as usize);
    }
    let service = service(&connection);
    let stream = Http1Stream::new(stream, &connection.downstream.seen);
    let serving = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let ended = drive(&connection, manager, serving, |serving| serving.graceful_shutdown()).await;
    if let Err(error) = ended {
        connection.note_broken_head(manager, &error);
    }
}

async fn serve_http2(
    connection: Rc<Connection>,
    manager: &HttpConnectionManager,
    mut stream: Guarded<Stream>,
) {
    connection.http1.set(false);
    stream.count_frames(Role::Server, manager.limits);
    let buffer = connection.downstream.listener.buffer;
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(buffer.window(STREAM_WINDOW))
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(buffer.buffer(SEND_BUFFER, LEAST_SEND_BUFFER))
        .max_concurrent_streams(manager.limits.streams)
        // The codec counts those that it has not handed on yet, however many good ones there are;
        // what is premature is judged by `Requests`.
        .max_pending_accept_reset_streams(manager.limits.premature_resets as usize)
        .max_header_list_size(manager.limits.http2_list_size());
    if manager.upgrades_http2 {
        builder.enable_connect_protocol();
    }
    let service = service(&connection);
    let stream = Tap::new(stream, Client(Arc::clone(&connection.downstream.seen)));
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let _ = drive(&connection, manager, serving, |serving| serving.graceful_shutdown()).await;
}

fn service(
    connection: &Rc<Connection>,
) -> impl Service<Request<Incoming>, Response = Reply, Error = h2::Error, Future: 'static> + use<> {
    let connection = Rc::clone(connection);
    service_fn(move |request| answer(Rc::clone(&connection), request))
}

/// Drives the codec to the connection's end.
async fn drive<C>(
    connection: &Connection,
    manager: &HttpConnectionManager,
    serving: C,
    end_gracefully: impl FnOnce(Pin<&mut C>),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::pin!(serving);
    let told = |ended: hyper::Result<()>| {
        ended.inspect_err(|error| tracing::debug!(%error, "downstream connection ended"))
    };
    // The codec is woken many times a request, and what is watched over is asked only when
    // something has happened to it.
    let mut watching = FuturesUnordered::from_iter([watch_over(connection, manager)]);
    let mut ending = tokio::select! {
        biased;
        ended = serving.as_mut() => return told(ended),
        Some(ending) = watching.next() => ending,
    };
    if ending == Ending::Graceful {
        end_gracefully(serving.as_mut());
        ending = tokio::select! {
            ended = serving.as_mut() => return told(ended),
            ending = watch_end(connection, manager) => ending,
        };
    }
    match ending {
        Ending::Cut(limit) => connection.downstream.requests.watched.cut(limit),
        Ending::Graceful | Ending::Outstayed => return Ok(()),
    }
    told(serving.await)
}

/// Watches over a connection that ends gracefully. The codec of HTTP/2 waits for the client's word
/// before it closes (a PING is answered), and such a word may never come.
async fn watch_end(connection: &Connection, manager: &HttpConnectionManager) -> Ending {
    let requests = &connection.downstream.requests;
    let outstayed = async {
        loop {
            let before = (requests.idle_since(), requests.watched.data_sent());
            sleep(manager.drain_timeout.max(LINGER)).await;
            let now = (requests.idle_since(), requests.watched.data_sent());
            if before.0.is_some() && before == now && !connection.http1.get() {
                return;
            }
        }
    };
    tokio::select! {
        () = outstayed => Ending::Outstayed,
        () = connection.downstream.outlived() => Ending::Outstayed,
        burden = requests.burden() => burden.into(),
        // The codec of HTTP/1 waits for the rest of a head that has begun.
        ending = overtime(connection, manager) => match ending {
            Ending::Graceful => Ending::Outstayed,
            cut => cut,
        },
    }
}

/// Returns when the connection should end: idle for too long, too old, drained, overtaken by a
/// configuration, or a burden.
async fn watch_over(connection: &Connection, manager: &HttpConnectionManager) -> Ending {
    let mut phase = connection.downstream.worker.phase.clone();
    // Of HTTP/1 that is told by its next answer alone there is nothing to wait for.
    let by_answer = |longest: &LongestConnection| longest.http1_by_answer && connection.http1.get();
    let mut longest = manager.longest;
    loop {
        tokio::select! {
            ending = overtime(connection, manager) => return ending,
            burden = connection.downstream.requests.burden() => return burden.into(),
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => {}
            _ = connection.downstream.overtaken() => {}
            () = too_old(connection, longest) => {}
        }
        connection.closing.set(true);
        match longest.take_if(|longest| by_answer(longest)) {
            Some(_)
                if !connection.downstream.is_overtaken() && *phase.borrow() < Phase::Draining => {}
            _ => break,
        }
    }
    // HTTP/2 clients are told by GOAWAY, HTTP/1 clients by the next response; who asks for none is
    // closed after a while.
    if connection.http1.get() {
        tokio::select! {
            () = sleep(manager.drain_timeout) => {}
            () = connection.downstream.outlived() => return Ending::Outstayed,
        }
    }
    Ending::Graceful
}

/// Returns when a connection has lasted as long as it may.
async fn too_old(connection: &Connection, longest: Option<LongestConnection>) {
    match longest {
        Some(longest) => sleep_until(later(connection.since, longest.duration)).await,
        None => std::future::pending().await,
    }
}

/// Returns when nothing was under way for too long, or a head has begun and does not end.
async fn overtime(connection: &Connection, manager: &HttpConnectionManager) -> Ending {
    let (idle_limit, head_limit) =
        (manager.idle_timeout.unwrap_or(FOREVER), manager.limits.head_time);
    let requests = &connection.downstream.requests;
    // The request whose head is open, by the number of those before it, and since when that is
    // known.
    let mut open: Option<(u64, Instant)> = None;
    loop {
        let now = Instant::now();
        let idle_end = requests.idle_since().unwrap_or(now) + idle_limit;
        if idle_end <= now {
            return Ending::Graceful;
        }
        let is_open = requests.is_head_open(connection.http1.get());
        open = match open.filter(|(begun, _)| is_open && *begun == requests.begun()) {
            Some((_, since)) if since + head_limit <= now => return Ending::Cut(Limit::HeadTime),
            None if is_open => Some((requests.begun(), now)),
            seen => seen,
        };
        let head_end =
            open.map_or(now + head_limit / LOOKS_PER_HEAD, |(_, since)| since + head_limit);
        sleep_until(idle_end.min(head_end)).await;
    }
}

/// An error ends the stream by its reason, or a connection of HTTP/1, without a reply.
async fn answer(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Reply, h2::Error> {
    let version = request.version();
    let http1 = version < Version::HTTP_2;
    let config = connection.downstream.worker.shared.config();
    let standing = connection.standing(&config);
    if !http1 && let Err(limit) = judge(&request, &standing.manager.limits) {
        connection.downstream.worker.metrics.exceeded(Direction::Downstream, limit);
        route::refuse(&connection.downstream, &standing.manager, request);
        // The stream alone ends, by RST_STREAM with this code, as in Envoy.
        return Err(h2::Reason::INTERNAL_ERROR.into());
    }
    let mut reply = route::answer(&connection.downstream, &config, standing, request).await;
    match reply.extensions().get() {
        Some(NoReply(DownstreamFault::Malformed)) => return Err(h2::Reason::PROTOCOL_ERROR.into()),
        Some(NoReply(DownstreamFault::TooMuch(_))) => {
            return Err(h2::Reason::INTERNAL_ERROR.into());
        }
        Some(NoReply(DownstreamFault::Gone | DownstreamFault::Reset)) => {
            return Err(h2::Reason::CANCEL.into());
        }
        None => {}
    }
    // What is upgraded has no further answers to be told by.
    let upgraded = reply.status() == StatusCode::SWITCHING_PROTOCOLS;
    if http1 && connection.is_closing() && !upgraded {
        reply = reply::closing(reply);
    }
    // To an older client that has asked to keep the connection, the codec would promise that, too.
    if version == Version::HTTP_10 && reply::is_closing(&reply) {
        *reply.version_mut() = version;
    }
    Ok(reply)
}

/// Whether the head of an HTTP/2 request is within the limits; for HTTP/1 the parser has judged.
fn judge(request: &Request<Incoming>, limits: &HttpLimits) -> Result<(), Limit> {
    let (uri, headers) = (request.uri(), request.headers());
    let pseudo = [
        (":method", Some(request.method().as_str())),
        (":scheme", uri.scheme_str()),
        (":authority", uri.authority().map(|authority| authority.as_str())),
        (":path", uri.path_and_query().map(|path| path.as_str())),
    ];
    let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some(name.len() + value?.len()));
    let (count, bytes) = pseudo.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
    limits.judge(count + headers.len(), bytes + field_bytes(headers))
}

impl Connection {
    /// Logs a head that was no request, which the codec has answered by itself, or that was cut
    /// off.
    fn note_broken_head(&self, manager: &HttpConnectionManager, error: &hyper::Error) {
        let worker = &self.downstream.worker;
        let (status, fault, details) = match DownstreamFault::of_head(error) {
            _ if error.is_parse_too_large() => {
                worker.metrics.exceeded(Direction::Downstream, Limit::Head);
                (431, DownstreamFault::Malformed, "http1.headers_too_large")
            }
            fault @ DownstreamFault::Malformed => (400, fault, fault.details(false)),
            // A request that has begun tells of itself.
            _ if !self.downstream.requests.is_head_open(true) => return,
            fault => (0, fault, fault.details(false)),
        };
        let connection =
            Entry::of_connection(&self.downstream.facts, SystemTime::now(), Duration::ZERO);
        let entry =
            Entry { status, protocol: "HTTP/1.1", flags: fault.flag(), details, ..connection };
        told::log(worker, &manager.access_logs, &entry);
    }

    /// How `config` would take this connection, and who would serve its next request.
    fn standing(&self, config: &RuntimeConfig) -> Standing {
        let verdict = self.downstream.judge(config);
        let manager = match &self.downstream.chain.borrow().terminal {
            Terminal::Http(manager) => Arc::clone(manager),
            // No chain for bytes takes over from one for HTTP.
            Terminal::Tcp(_) => Arc::clone(&self.manager),
        };
        Standing { manager, accepted: verdict != Err(Overtaken::Refused) }
    }

    /// Whether the client is to be told to go.
    fn is_closing(&self) -> bool {
        self.closing.get() || self.downstream.is_overtaken()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::runtime::{
        RouteConfig, RouteSource,
        filter::{Filters, HttpFilter},
        http::{EscapedSlashes, ForwardClientCert, ForwardClientCertMode, ServerHeader},
        limits::HttpLimits,
    };

    /// A connection manager without routes and with nothing switched on.
    pub(crate) fn manager() -> HttpConnectionManager {
        let routes = RouteConfig::new("routes".into(), false, vec![]).expect("no virtual hosts");
        HttpConnectionManager {
            version: Default::default(),
            stat_prefix: "test".into(),
            codec: Codec::Auto,
            routes: RouteSource::Inline(Arc::new(routes)),
            filters: Filters::of([HttpFilter::Router { suppress_envoy_headers: false }]),
            normalize_path: false,
            merge_slashes: false,
            escaped_slashes: EscapedSlashes::Keep,
            use_remote_address: false,
            xff_trusted_hops: 0,
            skip_xff_append: false,
            client_cert: ForwardClientCert {
                mode: ForwardClientCertMode::Sanitize,
                details: Default::default(),
            },
            server_name: "istio-envoy".into(),
            server_header: ServerHeader::Overwrite,
            upgrades: vec!["websocket".into()],
            upgrades_http2: false,
            stream_idle_timeout: None,
            request_timeout: None,
            idle_timeout: None,
            longest: None,
            drain_timeout: Duration::from_millis(100),
            limits: HttpLimits { streams: 100, ..HttpLimits::default() },
            accept_http_10: true,
            generate_request_id: false,
            preserve_external_request_id: false,
            via: "".into(),
            tracing: None,
            access_logs: vec![],
            metrics: None,
        }
    }
}
