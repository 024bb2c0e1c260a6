//! The API server as a client sees it: one HTTP/2 connection, JSON in, success or the server's
//! words out.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::setting::Collection;

/// Requests in flight while many objects are made.
const IN_FLIGHT: usize = 32;

/// A connection to the API server of a test cluster, with an administrator's rights.
pub(crate) struct Api {
    sender: Mutex<SendRequest<Full<Bytes>>>,
    tls: TlsConnector,
    server: String,
    token: String,
}

impl Api {
    /// Connects to the cluster of this folder.
    ///
    /// # Errors
    /// The folder is not a cluster's, or the server does not answer.
    pub(crate) async fn connect(folder: &Path) -> anyhow::Result<Self> {
        let kubeconfig = fs::read_to_string(folder.join("kubeconfig"))?;
        let server = kubeconfig.split('"').find_map(|text| text.strip_prefix("https://"));
        let server = server.context("the kubeconfig names no server")?.to_owned();
        let token = fs::read_to_string(folder.join("pki/admin.token"))?.trim().to_owned();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join("pki/ca.crt"))?)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        let sender = Mutex::new(dial(&tls, &server).await?);
        Ok(Self { sender, tls, server, token })
    }

    /// Connects again if the server has closed the connection, as it does with one that was silent
    /// for long.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) async fn wake(&self) -> anyhow::Result<()> {
        if self.sender().is_closed() {
            let sender = dial(&self.tls, &self.server).await?;
            *self.sender.lock().expect("nobody panics with it") = sender;
        }
        Ok(())
    }

    fn sender(&self) -> SendRequest<Full<Bytes>> {
        self.sender.lock().expect("nobody panics with it").clone()
    }

    /// Makes an object.
    ///
    /// # Errors
    /// The server refuses, with its words.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> anyhow::Result<()> {
        self.send(Method::POST, path, "application/json", object.to_string()).await
    }

    /// Makes many objects of one collection.
    ///
    /// # Errors
    /// The server refuses one.
    pub(crate) async fn create_all(
        &self,
        collection: Collection,
        objects: impl Iterator<Item = Value>,
    ) -> anyhow::Result<()> {
        let create = async |object: Value| {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            self.create(&collection.path(namespace), &object).await
        };
        stream::iter(objects).map(create).buffer_unordered(IN_FLIGHT).try_collect().await
    }

    /// Merges a change into an object.
    ///
    /// # Errors
    /// The server refuses.
    pub(crate) async fn patch(&self, path: &str, change: &Value) -> anyhow::Result<()> {
        self.send(Method::PATCH, path, "application/merge-patch+json", change.to_string()).await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The server refuses.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.send(Method::DELETE, path, "application/json", String::new()).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: String,
    ) -> anyhow::Result<()> {
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("https://{}{path}", self.server))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", kind)
            .body(Full::from(body))?;
        let response = self.sender().send_request(request).await?;
        let status = response.status();
        let said = response.into_body().collect().await?.to_bytes();
        ensure!(
            status.is_success(),
            "{method} {path}: {status}: {}",
            String::from_utf8_lossy(&said)
        );
        Ok(())
    }
}

async fn dial(tls: &TlsConnector, server: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let host = server.split(':').next().unwrap_or_default().to_owned();
    let stream = tls.connect(ServerName::try_from(host)?, stream).await?;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
