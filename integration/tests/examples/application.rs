//! What stands behind a sidecar: an application that remembers what it was asked, and answers as it
//! is told to.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    /// A header's text; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The application of one pod.
pub(crate) struct Application {
    /// The pod's name.
    pub(crate) pod: String,
    /// The pod's version.
    pub(crate) version: String,
    hits: AtomicUsize,
    status: AtomicU16,
    /// How long every answer takes, in milliseconds.
    delay: AtomicU64,
    /// While this is false, requests are held.
    open: watch::Sender<bool>,
    seen: Mutex<Vec<Seen>>,
    /// Requests by connection.
    connections: Mutex<BTreeMap<usize, usize>>,
}

impl Application {
    pub(crate) async fn serve(pod: &str, version: &str, address: SocketAddr) -> Arc<Self> {
        let application = Arc::new(Self {
            pod: pod.to_owned(),
            version: version.to_owned(),
            hits: AtomicUsize::new(0),
            status: AtomicU16::new(200),
            delay: AtomicU64::new(0),
            open: watch::Sender::new(true),
            seen: Mutex::default(),
            connections: Mutex::default(),
        });
        let listener = TcpListener::bind(address).await.expect("a free address");
        let served = application.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let one = served.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| one.clone().answer(number, request));
                    let connection = auto::Builder::new(TokioExecutor::new());
                    // A proxy that closes a connection is no failure of the application.
                    let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        application
    }

    async fn answer(
        self: Arc<Self>,
        connection: usize,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, http::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let seen =
            Seen { path: head.uri.to_string(), version: head.version, headers: head.headers, body };
        self.seen.lock().expect("nobody panics with it").push(seen);
        *self.connections.lock().expect("nobody panics with it").entry(connection).or_default() +=
            1;
        self.hits.fetch_add(1, Ordering::Relaxed);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        let delay = self.delay.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let response = Response::builder().status(self.status.load(Ordering::Relaxed));
        let response = response.header("x-pod", &self.pod).header("x-app", &self.version);
        response.body(Full::from("hello"))
    }

    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }

    pub(crate) fn answers(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    pub(crate) fn takes(&self, milliseconds: u64) {
        self.delay.store(milliseconds, Ordering::Relaxed);
    }

    /// Holds requests, or lets them go.
    pub(crate) fn holds(&self, held: bool) {
        self.open.send_replace(!held);
    }

    /// What it was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("nobody panics with it").clone()
    }

    /// The most requests that came on one connection.
    pub(crate) fn most_on_a_connection(&self) -> usize {
        let connections = self.connections.lock().expect("nobody panics with it");
        connections.values().copied().max().unwrap_or_default()
    }
}

/// Sends back what comes.
pub(crate) async fn echo(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.expect("a free address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut part = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut part).await {
                    if stream.write_all(&part[..read]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}
