//! Terminating TLS: one context per filter chain, one rustls configuration per ALPN answer.
//!
//! rustls aborts a handshake when both lists are non-empty and share nothing, where Envoy goes on without ALPN. So the
//! answer is chosen from the ClientHello first: the first of ours that the client offers, else none, and the
//! configuration that gives exactly that answer is used.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{Built, CertificateSource, PeerPolicy, TlsError, Versions, certified_key, provider, roots, verify};
use crate::{identity::Identity, runtime::facts::PeerCertificate};

/// Whether clients must show a certificate.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They may; one that is shown must pass.
    Optional(PeerPolicy),
    /// They must.
    Required(PeerPolicy),
}

/// What a filter chain's TLS asks for.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// Our certificate.
    pub certificate: CertificateSource,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// Our ALPN protocols, most wanted first; may be empty. `istio-peer-exchange` must not be among them: what follows
    /// once it is agreed is not spoken here.
    pub alpn: Vec<Arc<str>>,
    /// Protocol versions.
    pub versions: Versions,
}

/// A filter chain's TLS with what was built for the certificates in force.
#[derive(Debug)]
pub struct ServerContext {
    spec: ServerSpec,
    built: Built<Answers>,
}

/// A terminated connection.
pub struct Accepted<IO> {
    /// The plaintext stream.
    pub stream: TlsStream<IO>,
    /// The client's certificate, if it has shown one.
    pub peer: Option<Arc<PeerCertificate>>,
    /// The protocol that was agreed on.
    pub alpn: Option<Vec<u8>>,
}

/// The configurations, one per ALPN answer, and the one that gives none.
#[derive(Debug)]
struct Answers {
    none: Arc<ServerConfig>,
    by_protocol: Vec<(Arc<str>, Arc<ServerConfig>)>,
}

impl ServerContext {
    /// A context; nothing is built before the first handshake.
    pub fn new(spec: ServerSpec) -> Self {
        Self { spec, built: Built::default() }
    }

    /// Performs the handshake with the certificates of `identity`.
    ///
    /// # Errors
    /// An I/O error that carries the cause: no certificate yet, a refused client, a broken handshake.
    pub async fn accept<IO>(&self, stream: IO, identity: Option<&Arc<Identity>>) -> std::io::Result<Accepted<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let answers = self.built.current(identity, || self.build(identity.map(AsRef::as_ref))).map_err(std::io::Error::other)?;
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let config = answers.choose(&start.client_hello());
        let stream = start.into_stream(config).await?;
        let (_, connection) = stream.get_ref();
        let peer = match connection.peer_certificates().and_then(<[_]>::first) {
            Some(der) => Some(Arc::new(verify::read_peer(der).map_err(std::io::Error::other)?)),
            None => None,
        };
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Accepted { stream, peer, alpn })
    }

    fn build(&self, identity: Option<&Identity>) -> Result<Answers, TlsError> {
        let base = self.base(identity)?;
        let with_alpn = |protocol: &Arc<str>| {
            let config = ServerConfig { alpn_protocols: vec![protocol.as_bytes().to_vec()], ..base.clone() };
            (Arc::clone(protocol), Arc::new(config))
        };
        Ok(Answers { by_protocol: self.spec.alpn.iter().map(with_alpn).collect(), none: Arc::new(base) })
    }

    fn base(&self, identity: Option<&Identity>) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.spec.versions.supported())?;
        let verifier = match &self.spec.client_auth {
            ClientAuth::None => WebPkiClientVerifier::no_client_auth(),
            ClientAuth::Optional(policy) => client_verifier(policy, identity, false)?,
            ClientAuth::Required(policy) => client_verifier(policy, identity, true)?,
        };
        let key = certified_key(&self.spec.certificate, identity)?;
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(Always(key)));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn client_verifier(
    policy: &PeerPolicy,
    identity: Option<&Identity>,
    mandatory: bool,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let roots = roots(&policy.trust, identity)?;
    Ok(Arc::new(verify::ClientVerifier::new(roots, policy.clone(), mandatory, provider())?))
}

impl Answers {
    fn choose(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let offered: Vec<&[u8]> = hello.alpn().map(Iterator::collect).unwrap_or_default();
        let chosen = self.by_protocol.iter().find(|(protocol, _)| offered.contains(&protocol.as_bytes()));
        Arc::clone(chosen.map_or(&self.none, |(_, config)| config))
    }
}

/// Shows the same certificate to every client, whatever name it asks for, as Envoy does within a filter chain.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
