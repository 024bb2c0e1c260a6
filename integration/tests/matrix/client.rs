//! Requests of pods, and their answers as lines.

use std::{
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferromesh_integration::{matrix::Ask, namespace::Pod};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::credentials::Credentials;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a request got.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status; 200 for bytes that were answered, 0 for no answer.
    pub(crate) status: u16,
    /// `header NAME: VALUE`, and the lines of the body.
    pub(crate) lines: Vec<String>,
    /// How long it took.
    pub(crate) time: Duration,
}

/// Sends one request.
pub(crate) async fn send(
    credentials: &Credentials,
    pod: Arc<Pod>,
    address: String,
    ask: &Ask,
) -> Answer {
    let begin = Instant::now();
    let exchange = async {
        let port = ask.port;
        let stream =
            tokio::task::spawn_blocking(move || pod.inside(|| TcpStream::connect((address, port))));
        let stream = stream.await.expect("it does not panic").map_err(|e| e.to_string())?;
        stream.set_nonblocking(true).map_err(|e| e.to_string())?;
        let stream = tokio::net::TcpStream::from_std(stream).map_err(|e| e.to_string())?;
        match &ask.sni {
            None => converse(stream, credentials, ask).await,
            Some(name) => {
                let name = ServerName::try_from(name.clone()).expect("a case has names");
                let config = credentials.client(ask.shows.as_deref(), ask.old_tls);
                let connector = TlsConnector::from(config);
                let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
                let terms = terms(stream.get_ref().1);
                let (status, mut lines) = converse(stream, credentials, ask).await?;
                lines.extend(terms);
                Ok((status, lines))
            }
        }
    };
    // What takes longer than it may is wrong, however much longer.
    let patience = ask.most.map_or(PATIENCE, |most| Duration::from_millis(most + 500));
    let outcome = tokio::time::timeout(patience, exchange).await;
    let (status, lines) = outcome
        .unwrap_or_else(|_| Err("no answer in time".to_owned()))
        .unwrap_or_else(|error| (0, vec![format!("error {error}")]));
    Answer { status, lines, time: begin.elapsed() }
}

/// What both ends agreed on.
fn terms(session: &rustls::ClientConnection) -> [String; 3] {
    let group = session.negotiated_key_exchange_group().map(|group| group.name());
    [
        format!("tls version {:?}", session.protocol_version()),
        format!("tls suite {:?}", session.negotiated_cipher_suite().map(|suite| suite.suite())),
        format!("tls group {group:?}"),
    ]
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    credentials: &Credentials,
    ask: &Ask,
) -> Result<(u16, Vec<String>), String> {
    match &ask.bytes {
        Some(bytes) => say(stream, bytes, ask.ends).await.map_err(|e| e.to_string()),
        None => request(stream, credentials, ask).await.map_err(|e| e.to_string()),
    }
}

async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    credentials: &Credentials,
    ask: &Ask,
) -> Result<(u16, Vec<String>), hyper::Error> {
    let path = credentials.with_tokens(ask.path.as_deref().unwrap_or("/"));
    let mut request = Request::builder().method(&*ask.method);
    request = match ask.http2 {
        true => request.uri(format!("http://{}{path}", ask.to)),
        false => request.uri(&path).header("host", &ask.to),
    };
    for (name, value) in &ask.headers {
        request = request.header(name, credentials.with_tokens(value));
    }
    let body = Full::<Bytes>::from(ask.body.clone());
    let request = request.body(body).expect("a case has requests");
    let stream = TokioIo::new(stream);
    let response = match ask.http2 {
        true => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        }
        false => {
            let (mut sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        }
    };
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    let headers = head.headers.iter();
    let headers = headers.map(|(name, value)| {
        format!("header {name}: {}", String::from_utf8_lossy(value.as_bytes()))
    });
    let body = String::from_utf8_lossy(&body).into_owned();
    let lines = headers.chain(body.lines().map(str::to_owned)).collect();
    Ok((head.status.as_u16(), lines))
}

async fn say(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: &str,
    ends: bool,
) -> std::io::Result<(u16, Vec<String>)> {
    stream.write_all(format!("{bytes}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    while ends || !answer.ends_with(b"end\n") {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await?;
        answer.extend_from_slice(&part[..read]);
        if read == 0 {
            break;
        }
    }
    let status = if answer.is_empty() { 0 } else { 200 };
    Ok((status, String::from_utf8_lossy(&answer).lines().map(str::to_owned).collect()))
}
