//! From an accepted socket to a filter chain: original destination, inspection, choice of the
//! chain, TLS, network RBAC.
//!
//! A connection loads the configuration once for all of this. What takes it then (HTTP or TCP)
//! knows nothing of how it came in but [`Downstream`].

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Buf, Bytes, BytesMut};
use ferromesh_proto::recurring::Recurring;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{self, timeout, timeout_at},
};

use super::{
    original_dst::{original_destination, unmapped},
    sniff::{self, ClientHello, HttpSniffer, Sniffed},
};
use crate::{
    codec::requests::Requests,
    http::{self, told},
    runtime::{
        ConnectionFacts, FilterChain, Listener, RuntimeConfig, Terminal, TransportProtocol,
        filter::Counter,
        limits::Limit,
        listener::ProxyHeader,
        proxy_header::{self, Ends, Seen},
    },
    tcp,
    telemetry::{Entry, Flags, access_log::TlsFacts, metrics::Direction},
    tls::MaybeTls,
    worker::{
        Worker,
        deadlines::later,
        downstream::{Downstream, Standing},
        shared::Counted,
        socket::bound,
        stream::{Replayed, Stream},
    },
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Limit for a TLS handshake where the chain names none: a silent client must not hold its socket
/// for ever.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after accept has failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections of ours that interception has led back to us.
const CAPTURED: Counter =
    Counter { name: "ferromesh_own_connections_captured_total", label: "listener" };
/// Limit for a header of the PROXY protocol where the listener names none.
const LONGEST_HEADER: Duration = Duration::from_secs(60);
/// First read of an inspector: most ClientHellos and request lines fit.
const FIRST_READ: usize = 2048;

/// Opens a listening socket of this worker and accepts on it until aborted.
pub(super) fn open(
    worker: &Rc<Worker>,
    address: SocketAddr,
    listener: &Arc<str>,
) -> io::Result<AbortHandle> {
    let socket = bound(address)?;
    socket.listen(BACKLOG)?;
    let accepting =
        accept_all(Rc::clone(worker), TcpListener::from_std(socket.into())?, Arc::clone(listener));
    Ok(tokio::task::spawn_local(accepting).abort_handle())
}

async fn accept_all(worker: Rc<Worker>, socket: TcpListener, listener: Arc<str>) {
    let mut trouble = Recurring::default();
    loop {
        match socket.accept().await {
            Ok((stream, source)) => {
                if let Some(failures) = trouble.worked(Instant::now()) {
                    tracing::info!(%listener, failures, "accepting again");
                }
                let Some(counted) = Counted::new(&worker.shared) else {
                    worker.metrics.exceeded(Direction::Downstream, Limit::Connections);
                    continue;
                };
                tokio::task::spawn_local(serve(
                    Rc::clone(&worker),
                    Arc::clone(&listener),
                    (stream, counted),
                    unmapped(source),
                ));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if let Some(failures) = trouble.failed(&error, Instant::now()) {
                    tracing::warn!(%listener, %error, failures, "cannot accept");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The client has gone before it was accepted; the socket itself is fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | ConnectionRefused | Interrupted)
}

async fn serve(
    worker: Rc<Worker>,
    name: Arc<str>,
    (stream, counted): (TcpStream, Counted),
    source: SocketAddr,
) {
    let config = worker.shared.config();
    let Some(listener) = config.listener(&name) else { return };
    // A failure shows on the connection itself.
    let _ = stream.set_nodelay(true);
    match take(&worker, &config, listener, (stream, counted), source).await {
        Ok((downstream, stream)) => hand_over(downstream, stream).await,
        Err(refusal) => tracing::debug!(listener = %name, %source, %refusal, "connection closed"),
    }
}

async fn hand_over(downstream: Rc<Downstream>, stream: Stream) {
    let chain = Arc::clone(&downstream.chain.borrow());
    match &chain.terminal {
        Terminal::Http(manager) => {
            http::serve::serve(downstream, Arc::clone(manager), stream).await
        }
        Terminal::Tcp(proxy) => tcp::proxy(&downstream, proxy, stream).await,
    }
}

/// Why a connection was closed before anything served it.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
    #[error("the listener filters took too long")]
    InspectionTimeout,
    #[error("{} bytes do not tell what the connection carries", sniff::MAX_INSPECTED)]
    Unknown,
    #[error("no header of the PROXY protocol: {0}")]
    NoProxyHeader(&'static str),
    #[error("no filter chain matches")]
    NoChain,
    #[error("TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    #[error("TLS handshake took too long")]
    TlsTimeout,
    #[error("RBAC: access denied")]
    Rbac,
    #[error("it is our own connection to an endpoint, which would come back for ever")]
    Own,
}

async fn take(
    worker: &Rc<Worker>,
    config: &RuntimeConfig,
    accepting: &Arc<Listener>,
    (mut stream, counted): (TcpStream, Counted),
    source: SocketAddr,
) -> Result<(Rc<Downstream>, Stream), Refusal> {
    let local = unmapped(stream.local_addr()?);
    let redirectable = accepting.inspect.original_dst || accepting.use_original_dst;
    let wanted = if redirectable { original_destination(&stream) } else { None };
    if let Some(wanted) = wanted {
        not_ours(worker, &accepting.name, source, wanted)?;
    }
    let destination = wanted.unwrap_or(local);
    let listener = responsible(config, accepting, wanted);
    let mut facts = ConnectionFacts::plaintext(source, destination);
    let prefix = inspect(listener, &mut stream, &mut facts).await?;
    let Some(chain) = config.find_chain(listener, &facts).cloned() else {
        let flags = Flags::NO_ROUTE;
        let entry =
            Entry { flags, ..Entry::of_connection(&facts, SystemTime::now(), Duration::ZERO) };
        told::log(worker, &listener.access_logs, &entry);
        return Err(Refusal::NoChain);
    };
    let (stream, tls) =
        terminate(worker, &chain, Replayed::new(prefix, stream), &mut facts).await?;
    if !chain.rbac.iter().all(|rbac| rbac.decide_connection(&facts).is_allowed()) {
        // Waits for nothing, so that the refusal cannot be used to hold sockets.
        return Err(Refusal::Rbac);
    }
    let downstream = Downstream {
        worker: Rc::clone(worker),
        listener: Arc::clone(listener),
        facts,
        tls,
        chain: RefCell::new(chain),
        standing: Standing::new(config.generation),
        direct: wanted.is_none(),
        requests: Requests::default(),
        filters: Default::default(),
        seen: Arc::default(),
        _counted: counted,
    };
    Ok((Rc::new(downstream), stream))
}

/// Closes a redirected connection that is one of our own to an endpoint: carried on, it would come
/// back until there are no descriptors left.
fn not_ours(
    worker: &Worker,
    listener: &Arc<str>,
    source: SocketAddr,
    wanted: SocketAddr,
) -> Result<(), Refusal> {
    if !worker.shared.registry.own().contains(source, wanted) {
        return Ok(());
    }
    tracing::error!(
        %listener, endpoint = %wanted,
        "interception captures this proxy's own connections: run it as the user that is exempt \
         (uid 1337, unless --proxy-uid of `ferromesh-proxy redirect` names another)"
    );
    worker.metrics.count(CAPTURED, listener);
    Err(Refusal::Own)
}

/// The listener of a redirected connection's destination, if there is one that opens no socket of
/// its own.
fn responsible<'a>(
    config: &'a RuntimeConfig,
    accepting: &'a Arc<Listener>,
    wanted: Option<SocketAddr>,
) -> &'a Arc<Listener> {
    let of_destination = wanted
        .filter(|_| accepting.use_original_dst)
        .and_then(|wanted| config.listener_for_destination(wanted));
    of_destination.filter(|listener| !listener.bind_to_port).unwrap_or(accepting)
}

/// Runs the listener filters; answers what they have read.
async fn inspect(
    listener: &Listener,
    stream: &mut TcpStream,
    facts: &mut ConnectionFacts,
) -> Result<Bytes, Refusal> {
    let port = facts.destination.port();
    let until = listener.inspect.timeout.map(|limit| later(time::Instant::now(), limit));
    let mut read = BytesMut::new();
    if let Some(header) = listener.inspect.proxy_header.as_ref().filter(|h| h.scope.covers(port)) {
        // Whoever goes on without what must be there would be taken for somebody else.
        let until = until.unwrap_or_else(|| time::Instant::now() + LONGEST_HEADER);
        let taking = take_header(header, stream, &mut read);
        let ends = timeout_at(until, taking).await.map_err(|_| Refusal::InspectionTimeout)??;
        if let Some(Ends { source, destination }) = ends {
            (facts.source, facts.destination) = (source, destination);
        }
    }
    let port = facts.destination.port();
    let (tls, http) = (listener.inspects_tls(port), listener.inspects_http(port));
    if !tls && !http {
        return Ok(read.freeze());
    }
    let looking = look(tls, http, stream, &mut read);
    let found = match until {
        Some(until) => match timeout_at(until, looking).await {
            Ok(found) => found?,
            Err(_) if listener.inspect.continue_on_timeout => Found::Nothing,
            Err(_) => return Err(Refusal::InspectionTimeout),
        },
        None => looking.await?,
    };
    match found {
        Found::Tls(hello) => {
            facts.transport = TransportProtocol::Tls;
            facts.server_name = hello.server_name;
            facts.application_protocols = hello.alpn;
        }
        Found::Http(version) => facts.application_protocols = vec![version.into()],
        Found::Nothing => {}
    }
    Ok(read.freeze())
}

/// Takes off what a balancer says of the connection; what follows stays in `read`.
async fn take_header(
    header: &ProxyHeader,
    stream: &mut TcpStream,
    read: &mut BytesMut,
) -> Result<Option<Ends>, Refusal> {
    loop {
        match proxy_header::read(read) {
            Seen::Header { version, .. } if header.disallowed.contains(&version) => {
                return none_of_it(header, "its version is not allowed");
            }
            Seen::Header { length, ends, .. } => {
                read.advance(length);
                return Ok(ends);
            }
            Seen::None => return none_of_it(header, "there is none"),
            Seen::Malformed(why) => return Err(Refusal::NoProxyHeader(why)),
            Seen::NotYet => {}
        }
        read.reserve(FIRST_READ);
        if stream.read_buf(read).await? == 0 {
            return none_of_it(header, "the client has ended before it");
        }
    }
}

fn none_of_it(header: &ProxyHeader, why: &'static str) -> Result<Option<Ends>, Refusal> {
    if header.optional { Ok(None) } else { Err(Refusal::NoProxyHeader(why)) }
}

enum Found {
    Tls(ClientHello),
    Http(&'static str),
    Nothing,
}

/// Reads until the inspectors can tell, or the client has nothing more to say.
async fn look(
    tls: bool,
    http: bool,
    stream: &mut TcpStream,
    read: &mut BytesMut,
) -> Result<Found, Refusal> {
    let mut sniffer = HttpSniffer::default();
    // What a header has left behind it may tell already.
    let mut judged_unread = read.is_empty();
    loop {
        if read.len() >= sniff::MAX_INSPECTED {
            return Err(Refusal::Unknown);
        }
        let mut ended = false;
        if std::mem::replace(&mut judged_unread, true) {
            read.reserve(FIRST_READ);
            ended = stream.read_buf(read).await? == 0;
        }
        let hello = if tls { sniff::sniff_client_hello(read) } else { Sniffed::Other };
        let request = match (&hello, http) {
            (Sniffed::Other, true) => sniffer.sniff(read),
            _ => Sniffed::Other,
        };
        match (hello, request) {
            (Sniffed::Found(hello), _) => return Ok(Found::Tls(hello)),
            (_, Sniffed::Found(version)) => return Ok(Found::Http(version)),
            (Sniffed::Other, Sniffed::Other) => return Ok(Found::Nothing),
            (_, Sniffed::NotYet) if ended => {
                return Ok(sniff::sniff_ended_http(read).map_or(Found::Nothing, Found::Http));
            }
            (Sniffed::NotYet, _) if ended => return Ok(Found::Nothing),
            (Sniffed::NotYet, _) | (_, Sniffed::NotYet) => {}
        }
    }
}

async fn terminate(
    worker: &Worker,
    chain: &FilterChain,
    stream: Replayed,
    facts: &mut ConnectionFacts,
) -> Result<(Stream, Option<TlsFacts>), Refusal> {
    let Some(spec) = &chain.tls else { return Ok((MaybeTls::Plain(stream), None)) };
    let context = worker.shared.tls.server(spec);
    let limit = chain.handshake_timeout.unwrap_or(HANDSHAKE_TIMEOUT);
    let accepted = timeout(limit, context.accept(stream, chain.tells_certificates()))
        .await
        .map_err(|_| Refusal::TlsTimeout)?
        .map_err(Refusal::Tls)?;
    let (_, connection) = accepted.stream.get_ref();
    let tls = TlsFacts {
        version: connection.protocol_version().and_then(version_name).unwrap_or_default(),
        cipher: connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or_default(),
        alpn: accepted.alpn,
        local_uri_sans: accepted.uri_sans,
    };
    if facts.server_name.is_none() {
        facts.server_name = connection.server_name().map(|name| name.to_ascii_lowercase().into());
    }
    facts.peer = accepted.peer;
    Ok((MaybeTls::Tls(Box::new(accepted.stream.into())), Some(tls)))
}

fn version_name(version: rustls::ProtocolVersion) -> Option<&'static str> {
    match version {
        rustls::ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        rustls::ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    }
}
