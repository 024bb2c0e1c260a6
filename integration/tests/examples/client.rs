//! Who asks: through a caller's sidecar, or past it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Requests of which a share is measured.
pub(crate) const MANY: usize = 4_000;
/// Longest wait for bytes of a connection that is not refused.
const SILENCE: Duration = Duration::from_secs(10);

/// A request, and where it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    address: SocketAddr,
    host: String,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: &'static str,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Reply {
    /// `None`: the connection was closed without an answer.
    pub(crate) status: Option<u16>,
    /// The version that answered; empty if a proxy did.
    pub(crate) by: String,
    /// The pod that answered.
    pub(crate) pod: String,
    /// Where it is elsewhere.
    pub(crate) location: String,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

impl Ask {
    pub(crate) fn get(address: SocketAddr, host: &str, path: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            method: Method::GET,
            path: path.to_owned(),
            headers: Vec::new(),
            body: "",
        }
    }

    pub(crate) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: &'static str) -> Self {
        self.body = body;
        self
    }

    /// Asks once, on a connection of its own.
    pub(crate) async fn send(&self) -> Reply {
        self.by(&client()).await
    }

    /// The status of the answer to one request; `None`: the connection was closed without one.
    pub(crate) async fn status(&self) -> Option<u16> {
        self.send().await.status
    }

    async fn by(&self, client: &Client<HttpConnector, Full<Bytes>>) -> Reply {
        let request = Request::builder()
            .method(self.method.clone())
            .uri(format!("http://{}{}", self.address, self.path))
            .header("host", &self.host);
        let headers = self.headers.iter();
        let request = headers.fold(request, |r, (name, value)| r.header(name, value));
        let body = Full::from(Bytes::from_static(self.body.as_bytes()));
        let begin = Instant::now();
        let mut reply = Reply {
            status: None,
            by: String::new(),
            pod: String::new(),
            location: String::new(),
            body: String::new(),
            took: Duration::ZERO,
        };
        if let Ok(response) = client.request(request.body(body).expect("a request")).await {
            let (head, body) = response.into_parts();
            let header = |name: &str| {
                let value = head.headers.get(name).and_then(|value| value.to_str().ok());
                value.unwrap_or_default().to_owned()
            };
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            reply = Reply {
                status: Some(head.status.as_u16()),
                by: header("x-app"),
                pod: header("x-pod"),
                location: header("location"),
                body: String::from_utf8_lossy(&body).into_owned(),
                ..reply
            };
        }
        reply.took = begin.elapsed();
        reply
    }

    /// Asks many times, so many at a time.
    pub(crate) async fn many(&self, count: usize, at_once: usize) -> Vec<Reply> {
        let client = client();
        // Owned, so that who asks may be sent between threads.
        let each = (0..count).map(move |_| {
            let (ask, client) = (self.clone(), client.clone());
            async move { ask.by(&client).await }
        });
        stream::iter(each).buffer_unordered(at_once).collect().await
    }

    /// All of a few requests are answered by this version.
    pub(crate) async fn only(&self, version: &str) {
        for reply in self.many(60, 4).await {
            assert_eq!((reply.status, &*reply.by), (Some(200), version), "{self:?}");
        }
    }

    /// Ten of a hundred requests, by three more or less, are answered by v2, all others by v1.
    pub(crate) async fn tenth_to_v2(&self) {
        let replies = self.many(MANY, 16).await;
        assert!(replies.iter().all(|reply| reply.status == Some(200)), "{self:?}");
        assert!(replies.iter().all(|reply| ["v1", "v2"].contains(&&*reply.by)), "{self:?}");
        let share = share(&replies, |reply| reply.by == "v2");
        assert!((7.0..=13.0).contains(&share), "{self:?}: {share} %");
    }
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// How many of a hundred.
pub(crate) fn share(replies: &[Reply], counts: impl Fn(&Reply) -> bool) -> f64 {
    let part = replies.iter().filter(|reply| counts(reply)).count();
    100.0 * part as f64 / replies.len() as f64
}

/// Whether bytes that are sent to an address come back.
pub(crate) async fn echoes(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.expect("the caller's sidecar listens");
    let mut back = [0; 4];
    let exchange = async {
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut back).await
    };
    let exchanged = tokio::time::timeout(SILENCE, exchange).await;
    let exchanged = exchanged.expect("a connection is served or closed");
    exchanged.is_ok() && &back == b"ping"
}
