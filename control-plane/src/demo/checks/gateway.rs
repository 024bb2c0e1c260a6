//! Requests from outside the mesh.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::answers::status;
use crate::demo::{files::PUBLIC_HOST, layout::GATEWAY, mesh::Mesh, sample::peer_identity};

pub(super) async fn http(mesh: &Mesh) -> anyhow::Result<String> {
    let outside = mesh.outside();
    let answer = outside.get(PUBLIC_HOST, "/gateway/http", &[]).await?;
    status(&answer, 200)?;
    status(&outside.get("other.example.com", "/gateway/http", &[]).await?, 404)?;
    let caller = mesh
        .seen("productpage-v1-0")
        .arrivals("/gateway/http")
        .last()
        .and_then(|a| peer_identity(&a.headers));
    ensure!(
        caller.as_deref() == Some("spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway"),
        "productpage saw {caller:?}"
    );
    Ok(format!("{PUBLIC_HOST}: 200 through the gateway's identity; another host: 404"))
}

pub(super) async fn https(mesh: &Mesh) -> anyhow::Result<String> {
    let code = https_get(mesh, PUBLIC_HOST, "/gateway/https").await?;
    ensure!(code == 200, "expected status 200, got {code}");
    if let Ok(code) = https_get(mesh, "other.example.com", "/gateway/https").await {
        bail!("a name that the gateway does not serve got {code}");
    }
    Ok(format!("{PUBLIC_HOST}: 200 with the certificate of its Secret; another name: refused"))
}

async fn https_get(mesh: &Mesh, host: &str, path: &str) -> anyhow::Result<u16> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(mesh.public_certificate.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((mesh.network.inbound(GATEWAY), 8443)).await?;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .context("TLS handshake")?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header(HOST, host).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let code = response.status().as_u16();
    response.into_body().collect().await?;
    connection.abort();
    Ok(code)
}
