//! An application's HTTP client: it knows a service by name and sends everything to its own
//! sidecar.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// Longest that any call may take: longer than every limit the demo configures.
const PATIENCE: Duration = Duration::from_secs(15);

/// Calls services through one address.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    through: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status.
    pub status: StatusCode,
    /// The sample service's JSON; `Null` when it is none.
    pub body: Value,
}

impl Answer {
    /// `version` of the service that answered; empty when none did.
    pub(crate) fn version(&self) -> &str {
        self.body["version"].as_str().unwrap_or_default()
    }
}

impl Caller {
    /// A caller whose requests all go to `through`.
    pub(crate) fn new(through: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { through, client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    /// GETs `path` of `host`.
    ///
    /// # Errors
    /// No answer: refused, reset, or none in time.
    pub(crate) async fn get(
        &self,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        self.send(Method::GET, host, path, headers).await
    }

    /// Sends a request without body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn send(
        &self,
        method: Method,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.through))
            .header(HOST, host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default())?;
        let exchange = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let bytes = body.collect().await?.to_bytes();
            Ok(Answer {
                status: head.status,
                body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            })
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .with_context(|| format!("no answer from {host}{path} in {PATIENCE:?}"))?
    }
}
