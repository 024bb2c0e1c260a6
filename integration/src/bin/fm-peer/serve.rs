//! Servers: HTTP/1.1 and HTTP/2 on one port, and bytes.

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::json;
use tokio::{net::TcpListener, time::sleep};

use crate::told_to_end;

/// The health service of gRPC, and its answer SERVING in a frame: grpc.health.v1.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// Who answers.
struct Identity {
    name: String,
    version: String,
    /// What every request gets; `None`: what it asks for, else 200.
    status: Option<StatusCode>,
}

type Frames = stream::Iter<std::array::IntoIter<Result<Frame<Bytes>, Infallible>, 2>>;
type Answer = Response<Either<Full<Bytes>, StreamBody<Frames>>>;

/// Serves until `linger` seconds after it is told to end.
pub(crate) async fn serve(
    address: SocketAddr,
    name: &str,
    version: &str,
    linger: u64,
) -> anyhow::Result<()> {
    let identity = Identity { name: name.to_owned(), version: version.to_owned(), status: None };
    run(address, identity, Duration::from_secs(linger)).await
}

/// Answers every request with an error until it is told to end.
pub(crate) async fn fail(address: SocketAddr, name: &str, version: &str) -> anyhow::Result<()> {
    let status = Some(StatusCode::SERVICE_UNAVAILABLE);
    run(
        address,
        Identity { name: name.to_owned(), version: version.to_owned(), status },
        Duration::ZERO,
    )
    .await
}

async fn run(address: SocketAddr, identity: Identity, linger: Duration) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("binding {address}"))?;
    let end = async {
        told_to_end().await?;
        sleep(linger).await;
        anyhow::Ok(())
    };
    tokio::select! {
        outcome = accept(listener, Arc::new(identity)) => outcome,
        outcome = end => outcome,
    }
}

async fn accept(listener: TcpListener, identity: Arc<Identity>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let identity = identity.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(identity.clone(), request));
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(identity: Arc<Identity>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let length = body.collect().await.map_or(0, |b| b.to_bytes().len());
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
    if path == HEALTH {
        return Ok(healthy());
    }
    // Asked by the path, or whatever that is by a header.
    let by_header = || head.headers.get("x-delay")?.to_str().ok();
    let delay = path.strip_prefix("/delay/").or_else(by_header);
    if let Some(delay) = delay.and_then(|delay| delay.parse().ok()) {
        sleep(Duration::from_millis(delay)).await;
    }
    let asked = || path.strip_prefix("/status/")?.parse().ok();
    let status = identity.status.or_else(asked);
    let text = json!({
        "pod": identity.name, "version": identity.version, "method": head.method.as_str(), "path": path,
        "length": length, "headers": headers(&head.headers), "protocol": format!("{:?}", head.version),
    });
    let mut response = Response::new(Either::Left(Full::from(text.to_string())));
    *response.status_mut() = status.unwrap_or(StatusCode::OK);
    Ok(response)
}

fn healthy() -> Answer {
    let trailers = HeaderMap::from_iter([(
        "grpc-status".parse().expect("a name"),
        HeaderValue::from_static("0"),
    )]);
    let frames = [Ok(Frame::data(Bytes::from_static(SERVING))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(Either::Right(StreamBody::new(stream::iter(frames))));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn headers(map: &HeaderMap) -> BTreeMap<&str, String> {
    map.iter()
        .map(|(name, value)| {
            (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

/// Echoes bytes until it is told to end.
pub(crate) async fn echo(address: SocketAddr) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("binding {address}"))?;
    let accept = async {
        loop {
            let (mut stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    };
    tokio::select! {
        outcome = accept => outcome,
        outcome = told_to_end() => outcome,
    }
}
