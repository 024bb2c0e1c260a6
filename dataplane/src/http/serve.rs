//! Drives one downstream HTTP connection: codec, limits, draining; hands each request to [`super::route`].
//!
//! A connection outlives configurations: before a request is served, the chain that would take the connection today is
//! looked up again, so that a new policy holds from the next request on, and no listener change breaks a connection.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, Request, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{executor::Local, reply::Reply, route};
use crate::{
    listen::{
        Phase,
        accept::{Downstream, Stream},
    },
    runtime::{FilterChain, HttpConnectionManager, RuntimeConfig, Terminal, TransportProtocol, http::Codec},
};

/// Windows of HTTP/2 towards clients.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// hyper's smallest read buffer.
const MIN_BUFFER: usize = 8 * 1024;
/// Stands for "never" where a timer needs a time.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a connection's requests share.
struct Connection {
    downstream: Rc<Downstream>,
    /// The one that serves the next request.
    manager: RefCell<Arc<HttpConnectionManager>>,
    /// Requests under way.
    active: Cell<u32>,
    /// When the last request ended, or the connection began.
    last_used: Cell<Instant>,
    /// The next response ends the connection.
    closing: Cell<bool>,
    told_to_close: Notify,
    http1: Cell<bool>,
}

/// A request under way; counted until dropped.
struct Active(Rc<Connection>);

impl Active {
    fn new(connection: &Rc<Connection>) -> Self {
        connection.active.set(connection.active.get() + 1);
        Self(Rc::clone(connection))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.last_used.set(Instant::now());
    }
}

/// How the connection stands to the configuration of the moment.
pub(crate) struct Standing {
    /// Serves the request.
    pub(crate) manager: Arc<HttpConnectionManager>,
    /// False when the configuration of today would not accept the connection any more.
    pub(crate) accepted: bool,
}

/// Serves a connection to its end.
pub(crate) async fn serve(downstream: Rc<Downstream>, manager: Arc<HttpConnectionManager>, stream: Stream) {
    let builder = codec(&downstream, &manager);
    let connection = Rc::new(Connection {
        downstream,
        manager: RefCell::new(Arc::clone(&manager)),
        active: Cell::new(0),
        last_used: Cell::new(Instant::now()),
        closing: Cell::new(false),
        told_to_close: Notify::new(),
        http1: Cell::new(true),
    });
    let for_requests = Rc::clone(&connection);
    let service = service_fn(move |request| answer(Rc::clone(&for_requests), request));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        () = watch_over(&connection, &manager) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "downstream connection ended");
    }
}

fn codec(downstream: &Downstream, manager: &HttpConnectionManager) -> Builder<Local> {
    let mut builder = Builder::new(Local);
    let agreed = downstream.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    let sniffed = downstream.facts.application_protocols.first().map(|protocol| &**protocol);
    let plaintext = downstream.facts.transport == TransportProtocol::RawBuffer;
    builder = match (manager.codec, agreed) {
        (Codec::Http1, _) | (Codec::Auto, Some(b"http/1.1")) => builder.http1_only(),
        (Codec::Http2, _) | (Codec::Auto, Some(b"h2")) => builder.http2_only(),
        (Codec::Auto, _) if plaintext && matches!(sniffed, Some("http/1.1" | "http/1.0")) => builder.http1_only(),
        // Neither agreed on nor known: the preface tells.
        (Codec::Auto, _) => builder,
    };
    let limits = &manager.limits;
    builder.http1().timer(TokioTimer::new()).max_buf_size(limits.http1_head_bytes().max(MIN_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.http2_list_size());
    builder
}

/// Returns when the connection should end gracefully: idle for too long, drained, or overtaken by a configuration.
async fn watch_over(connection: &Connection, manager: &HttpConnectionManager) {
    let mut phase = connection.downstream.worker.phase.clone();
    let idle = idle_for(connection, manager.idle_timeout.unwrap_or(FOREVER));
    tokio::select! {
        () = idle => return,
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => connection.close(),
        () = connection.told_to_close.notified() => {}
    }
    // HTTP/2 clients are told by GOAWAY, HTTP/1 clients by the next response; who asks for none is closed after a while.
    if connection.http1.get() {
        tokio::time::sleep(manager.drain_timeout).await;
    }
}

async fn idle_for(connection: &Connection, limit: Duration) {
    let mut due = Instant::now() + limit;
    loop {
        sleep_until(due).await;
        let since = if connection.active.get() > 0 { Instant::now() } else { connection.last_used.get() };
        due = since + limit;
        if due <= Instant::now() {
            return;
        }
    }
}

async fn answer(connection: Rc<Connection>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let _active = Active::new(&connection);
    let http1 = request.version() < http::Version::HTTP_2;
    connection.http1.set(http1);
    let config = connection.downstream.worker.shared.config();
    let standing = connection.standing(&config);
    let mut reply = route::answer(&connection.downstream, &config, standing, request).await;
    if http1 && connection.closing.get() {
        reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(reply)
}

impl Connection {
    fn close(&self) {
        self.closing.set(true);
        self.told_to_close.notify_one();
    }

    /// Finds the chain by which `config` would take this connection.
    fn standing(&self, config: &RuntimeConfig) -> Standing {
        let downstream = &self.downstream;
        let mut accepted = true;
        if downstream.generation.replace(config.generation) != config.generation {
            match self.chain_of_today(config) {
                Ok(Some((chain, manager))) => {
                    *downstream.chain.borrow_mut() = chain;
                    *self.manager.borrow_mut() = manager;
                }
                // The connection would be treated otherwise today; this request still gets its answer.
                Ok(None) => self.close(),
                Err(NotAccepted) => {
                    // Asked again by a next request that was sent before the refusal arrived.
                    downstream.generation.set(u64::MAX);
                    self.close();
                    accepted = false;
                }
            }
        }
        Standing { manager: Arc::clone(&self.manager.borrow()), accepted }
    }

    fn chain_of_today(&self, config: &RuntimeConfig) -> Result<Option<HttpChain>, NotAccepted> {
        let (downstream, before) = (&self.downstream, self.downstream.chain.borrow());
        let Some(listener) = config.listener(&downstream.listener.name) else { return Ok(None) };
        let chain = listener.find_chain(&downstream.facts).ok_or(NotAccepted)?;
        let admitted = chain.rbac.iter().all(|rbac| rbac.decide_connection(&downstream.facts).is_allowed());
        if chain.tls.is_some() != before.tls.is_some() || !admitted {
            return Err(NotAccepted);
        }
        match &chain.terminal {
            // What is to be told of the client was not kept.
            Terminal::Http(_) if chain.tells_certificates() && !before.tells_certificates() => Ok(None),
            Terminal::Http(manager) if chain.tls == before.tls => Ok(Some((Arc::clone(chain), Arc::clone(manager)))),
            Terminal::Http(_) | Terminal::Tcp(_) => Ok(None),
        }
    }
}

/// A chain and the connection manager in it.
type HttpChain = (Arc<FilterChain>, Arc<HttpConnectionManager>);

/// The configuration of today would close this connection.
struct NotAccepted;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::runtime::{
        RouteConfig, RouteSource,
        http::{EscapedSlashes, ForwardClientCert, ForwardClientCertMode, HttpFilter, ServerHeader},
        limits::HttpLimits,
    };

    /// A connection manager without routes and with nothing switched on.
    pub(crate) fn manager() -> HttpConnectionManager {
        let routes = RouteConfig::new("routes".into(), false, vec![]).expect("no virtual hosts");
        HttpConnectionManager {
            stat_prefix: "test".into(),
            codec: Codec::Auto,
            routes: RouteSource::Inline(Arc::new(routes)),
            filters: vec![HttpFilter::Router { suppress_envoy_headers: false }],
            normalize_path: false,
            merge_slashes: false,
            escaped_slashes: EscapedSlashes::Keep,
            use_remote_address: false,
            xff_trusted_hops: 0,
            skip_xff_append: false,
            client_cert: ForwardClientCert { mode: ForwardClientCertMode::Sanitize, details: Default::default() },
            server_name: "istio-envoy".into(),
            server_header: ServerHeader::Overwrite,
            upgrades: vec!["websocket".into()],
            stream_idle_timeout: None,
            request_timeout: None,
            idle_timeout: None,
            drain_timeout: Duration::from_millis(100),
            limits: HttpLimits { streams: 100, ..HttpLimits::default() },
            accept_http_10: true,
            generate_request_id: false,
            preserve_external_request_id: false,
            always_set_request_id_in_response: false,
            via: "".into(),
            access_logs: vec![],
        }
    }
}
