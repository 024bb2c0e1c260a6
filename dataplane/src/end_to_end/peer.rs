//! The other sides: servers that answer as a test says, clients, and certificates.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

use crate::identity::Identity;

/// A server for HTTP/1 and HTTP/2 that counts what it answers.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    hits: Arc<AtomicUsize>,
    accepting: tokio::task::AbortHandle,
}

impl Server {
    /// Answers every request by `answer(request, its number from 1)`.
    pub(super) async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>, usize) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (hits, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let counted = Arc::clone(&hits);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (answer, hits) = (Arc::clone(&answer), Arc::clone(&counted));
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answered = answer(request, hits.fetch_add(1, SeqCst) + 1);
                        async move { Ok::<_, Infallible>(answered.await) }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ =
                        builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, hits, accepting: accepting.abort_handle() }
    }

    /// Answers 200 and this text.
    pub(super) async fn saying(text: &'static str) -> Self {
        Self::start(move |_, _| async move { Response::new(Full::from(text)) }).await
    }

    /// Answers what it got: method, target and headers in lower case, line by line, then the body.
    pub(super) async fn echoing() -> Self {
        Self::start(|request, _| async move {
            let (parts, body) = request.into_parts();
            let mut text = format!(
                "{} {}\n",
                parts.method,
                parts.uri.path_and_query().map_or("", |p| p.as_str())
            );
            for (name, value) in &parts.headers {
                text += &format!("{name}: {}\n", value.to_str().unwrap_or("?"));
            }
            text += &format!(
                "\n{}",
                String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes())
            );
            Response::new(Full::from(text))
        })
        .await
    }

    pub(super) fn hits(&self) -> usize {
        self.hits.load(SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A client that keeps connections.
pub(super) fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A client that speaks HTTP/2 at once.
pub(super) fn http2_client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) body: String,
}

impl Answer {
    /// A header as text; empty if it is missing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub(super) async fn get(client: &Client<HttpConnector, Full<Bytes>>, url: String) -> Answer {
    send(client, Request::get(url).body(Full::default()).unwrap()).await
}

pub(super) async fn send(
    client: &Client<HttpConnector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Answer {
    let response = client.request(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

/// A certificate authority of a test.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate.
    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names, with its key, for a server that knows no mesh.
    pub(super) fn server(
        &self,
        names: &[&str],
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    /// An identity for a service account of namespace `default`.
    pub(super) fn identity(&self, account: &str) -> Arc<Identity> {
        let mut params = CertificateParams::default();
        let id = format!("spiffe://cluster.local/ns/default/sa/{account}");
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Arc::new(
            Identity::from_pem(certificate.pem(), key.serialize_pem().into(), self.0.pem())
                .unwrap(),
        )
    }
}
