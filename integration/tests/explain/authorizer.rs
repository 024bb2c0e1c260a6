//! A service that is asked about requests over HTTP, as a user runs it: it refuses what says so, and
//! remembers what it was asked about.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::calls::{ASK, NUMBER};

/// Its name for policies.
pub(crate) const NAME: &str = "by-http";
const HOST: &str = "http.authz.example.com";
const PORT: u16 = 9191;

/// The part of a mesh configuration.
pub(crate) fn provider() -> Value {
    json!({"name": NAME, "envoyExtAuthzHttp": {
        "service": format!("istio-system/{HOST}"), "port": PORT, "timeout": "10s",
        "includeRequestHeadersInCheck": [ASK, NUMBER],
    }})
}

/// Its service.
pub(crate) fn service(address: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": "authorizer", "namespace": "istio-system"},
        "spec": {
            "hosts": [HOST], "location": "MESH_EXTERNAL", "resolution": "DNS",
            "ports": [{"number": PORT, "name": "http", "protocol": "HTTP"}],
            "endpoints": [{"address": address}],
        },
    })
}

/// Whether a cluster leads to it.
pub(crate) fn is_cluster(name: &str) -> bool {
    name.contains(HOST)
}

/// A running one.
#[derive(Clone, Default)]
pub(crate) struct Authorizer(Arc<Mutex<BTreeMap<usize, usize>>>);

impl Authorizer {
    pub(crate) async fn serve(address: Ipv4Addr) -> Self {
        let own = Self::default();
        let address: SocketAddr = (address, PORT).into();
        let listener = TcpListener::bind(address).await.expect("a free address");
        let serving = own.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().answer(stream));
            }
        });
        own
    }

    /// How often it was asked about each request since the last time.
    pub(crate) fn take(&self) -> BTreeMap<usize, usize> {
        std::mem::take(&mut *self.0.lock().expect("nobody panics with it"))
    }

    async fn answer(self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            seen.extend_from_slice(&buffer[..read]);
            if !seen.ends_with(b"\r\n\r\n") {
                continue;
            }
            let head = String::from_utf8_lossy(&seen).into_owned();
            seen.clear();
            let header = |name: &str| {
                let lines = head.lines().filter_map(|line| line.split_once(':'));
                let mut values = lines.filter(|(own, _)| own.eq_ignore_ascii_case(name));
                values.next().map(|(_, value)| value.trim())
            };
            if let Some(number) = header(NUMBER).and_then(|number| number.parse().ok()) {
                let mut asked = self.0.lock().expect("nobody panics with it");
                *asked.entry(number).or_default() += 1;
            }
            let status = if header(ASK) == Some("no") { "403 Forbidden" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}
