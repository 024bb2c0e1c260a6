//! Servers that answer with what they saw, a line for each thing, and do what requests wish of
//! them: by `x-delay` (in ms), `x-status`, `x-reset`, `x-answer` (headers, `NAME: VALUE` with `|`
//! between them), all of them only at the servers that `x-at` names, and of the first `x-first`
//! requests with the same host and path.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ferromesh_integration::matrix::is_like;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// All servers of a test, and what they were asked.
#[derive(Clone, Default)]
pub(crate) struct Servers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The lines of every request.
    seen: Mutex<Vec<Vec<String>>>,
    /// How often a host and path were asked for.
    counts: Mutex<BTreeMap<String, usize>>,
    connections: AtomicUsize,
}

/// What is known of a connection.
#[derive(Clone)]
struct Connection {
    application: String,
    lines: Vec<String>,
}

/// Which server an address is.
pub(crate) type Naming = fn(SocketAddr) -> String;

impl Servers {
    /// How many requests had a line like this, in which `*` stands for anything.
    pub(crate) fn arrived(&self, line: &str) -> usize {
        let seen = self.0.seen.lock().expect("nobody panics with it");
        seen.iter().filter(|lines| lines.iter().any(|own| is_like(own, line))).count()
    }

    /// Keeps what is no whole request.
    pub(crate) fn note_line(&self, line: &str) {
        self.0.seen.lock().expect("nobody panics with it").push(vec![line.to_owned()]);
    }

    /// Serves HTTP/1.1 and HTTP/2, by TLS where there is what accepts it, until the test ends.
    pub(crate) fn serve(&self, listener: TcpListener, naming: Naming, tls: Option<TlsAcceptor>) {
        let servers = self.clone();
        tokio::spawn(async move {
            let listener = asynchronous(listener);
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(local) = stream.local_addr() else { continue };
                let _ = stream.set_nodelay(true);
                let mut connection = servers.connection(naming(local), local);
                let (servers, tls) = (servers.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => servers.converse(stream, connection).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            connection.lines.extend(of_tls(stream.get_ref().1));
                            servers.converse(stream, connection).await;
                        }
                    }
                });
            }
        });
    }

    /// Answers bytes with a line for each line of what came so far.
    pub(crate) fn serve_bytes(&self, listener: TcpListener, naming: Naming) {
        let servers = self.clone();
        tokio::spawn(async move {
            let listener = asynchronous(listener);
            while let Ok((mut stream, _)) = listener.accept().await {
                let Ok(local) = stream.local_addr() else { continue };
                let connection = servers.connection(naming(local), local);
                tokio::spawn(async move {
                    let mut lines = connection.lines;
                    let mut part = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut part).await {
                        let text = String::from_utf8_lossy(&part[..read]).into_owned();
                        lines.extend(text.lines().map(|line| format!("said {line}")));
                        // Who asks for a tunnel talks to this server through it.
                        let answer = match text.starts_with("CONNECT ") {
                            true => "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
                            false => format!("{}\nend\n", lines.join("\n")),
                        };
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    fn connection(&self, application: String, local: SocketAddr) -> Connection {
        let number = self.0.connections.fetch_add(1, Ordering::Relaxed);
        let lines = vec![
            format!("application {application}"),
            format!("connection {number}"),
            format!("at {}", local.ip()),
        ];
        Connection { application, lines }
    }

    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        connection: Connection,
    ) {
        let servers = self.clone();
        let service = service_fn(move |request| {
            let (servers, connection) = (servers.clone(), connection.clone());
            async move { servers.answer(connection, request).await }
        });
        let server = auto::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(
        &self,
        connection: Connection,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Reset> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Reset)?.to_bytes();
        let lines = lines(&connection, &head, &body);
        let host = head.headers.get("host").and_then(|host| host.to_str().ok());
        let host = head.uri.authority().map(|a| a.as_str()).or(host).unwrap_or_default();
        let place = format!("{} {} {}", connection.application, head.method, head.uri.path());
        let seen = lines.iter().cloned().chain([place]).collect();
        let number = self.keep(format!("{host}{}", head.uri.path()), seen);
        let wish = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let here =
            wish("x-at").is_none_or(|at| at.split(',').any(|at| at == connection.application));
        let early =
            wish("x-first").and_then(|n| n.parse().ok()).is_none_or(|first| number <= first);
        let wish = |name: &str| wish(name).filter(|_| here && early);
        if let Some(delay) = wish("x-delay").and_then(|delay| delay.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if wish("x-reset").is_some() {
            return Err(Reset);
        }
        let mut response = Response::new(Full::from(lines.join("\n")));
        let status = wish("x-status").and_then(|status| status.parse().ok());
        *response.status_mut() = status.unwrap_or(StatusCode::OK);
        for header in wish("x-answer").unwrap_or_default().split('|') {
            let Some((name, value)) = header.split_once(": ") else { continue };
            let name = HeaderName::try_from(name).expect("a case has names of headers");
            response.headers_mut().append(name, HeaderValue::from_str(value).expect("a value"));
        }
        Ok(response)
    }

    /// Keeps a request; how many there were for the same.
    pub(crate) fn keep(&self, what: impl Into<String>, lines: Vec<String>) -> usize {
        self.0.seen.lock().expect("nobody panics with it").push(lines);
        let mut counts = self.0.counts.lock().expect("nobody panics with it");
        let count = counts.entry(what.into()).or_default();
        *count += 1;
        *count
    }
}

/// Ends a connection without an answer.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset")
    }
}

impl std::error::Error for Reset {}

/// A listener of the runtime.
pub(crate) fn asynchronous(listener: TcpListener) -> tokio::net::TcpListener {
    listener.set_nonblocking(true).expect("a socket can be so");
    tokio::net::TcpListener::from_std(listener).expect("within a runtime")
}

fn lines(connection: &Connection, head: &http::request::Parts, body: &Bytes) -> Vec<String> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut lines = connection.lines.clone();
    lines.push(format!("protocol {:?}", head.version));
    lines.push(format!("request {} {path}", head.method));
    // HTTP/2 has the host in the place of the target's.
    if let Some(authority) = head.uri.authority() {
        lines.push(format!("field host: {authority}"));
    }
    for (name, value) in &head.headers {
        lines.push(format!("field {name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    lines.push(format!("length {}", body.len()));
    lines
}

fn of_tls(session: &rustls::ServerConnection) -> Vec<String> {
    let name = session.server_name().unwrap_or("none");
    let client = if session.peer_certificates().is_some() { "proven" } else { "unknown" };
    vec![format!("tls name {name}"), format!("tls client {client}")]
}
