//! Terminating TLS: one context per filter chain, one rustls configuration per ALPN answer.
//!
//! rustls aborts a handshake when both lists are non-empty and share nothing, where Envoy goes on
//! without ALPN. So the answer is chosen from the ClientHello first: the first of ours that the
//! client offers, else none, and the configuration that gives exactly that answer is used.

use std::{io, sync::Arc};

use rustls::{
    CipherSuite, ServerConfig,
    crypto::CryptoProvider,
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{Built, Sources, TlsError, peer, provider, supported, verify};
use crate::{
    identity::IdentityWatch,
    runtime::{facts::PeerCertificate, secret::DownstreamTls},
};

/// Agreed on between Istio's own Envoys only: what follows it on the wire is not spoken here.
const PEER_EXCHANGE: &str = "istio-peer-exchange";

/// A filter chain's TLS with what was built for the certificates in force.
#[derive(Debug)]
pub struct ServerContext {
    spec: Arc<DownstreamTls>,
    identity: IdentityWatch,
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
    /// URI names of the certificate that we have shown.
    pub uri_sans: Arc<[Arc<str>]>,
}

/// The configurations, one per ALPN answer, and the one that gives none.
#[derive(Debug)]
struct Answers {
    none: Arc<ServerConfig>,
    by_protocol: Vec<(Arc<str>, Arc<ServerConfig>)>,
    uri_sans: Arc<[Arc<str>]>,
}

impl ServerContext {
    /// A context; nothing is built before the first handshake.
    pub(super) fn new(spec: Arc<DownstreamTls>, identity: IdentityWatch) -> Self {
        Self { spec, identity, built: Built::default() }
    }

    /// Performs the handshake with the certificates in force; `whole_chain` keeps the client's
    /// certificates.
    ///
    /// # Errors
    /// An I/O error that carries the cause: no certificate yet, a refused client, a broken
    /// handshake.
    pub async fn accept<IO>(&self, stream: IO, whole_chain: bool) -> io::Result<Accepted<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let answers = self.answers().map_err(io::Error::other)?;
        let config = answers.choose(&start.client_hello());
        let stream = start.into_stream(config).await?;
        let (_, connection) = stream.get_ref();
        let peer = peer::read_chain(connection.peer_certificates(), whole_chain)
            .map_err(io::Error::other)?;
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Accepted { stream, peer, alpn, uri_sans: Arc::clone(&answers.uri_sans) })
    }

    fn answers(&self) -> Result<Arc<Answers>, TlsError> {
        let roots = self.spec.validation.as_ref().map(|validation| &validation.roots);
        let sources = Sources::now(Some(&self.spec.certificate), roots, &self.identity)?;
        self.built.current(sources, |sources| self.build(sources))
    }

    fn build(&self, sources: &Sources) -> Result<Answers, TlsError> {
        let certificate =
            sources.certificate.as_ref().ok_or(TlsError::NoIdentity)?.certified_key()?;
        let uri_sans = certificate
            .cert
            .first()
            .map(peer::read_peer)
            .transpose()?
            .unwrap_or_default()
            .uri_sans
            .into();
        let base = self.base(sources, certificate)?;
        let with_alpn = |protocol: &Arc<str>| {
            let mut config = base.clone();
            config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            (Arc::clone(protocol), Arc::new(config))
        };
        let agreeable = self.spec.alpn.iter().filter(|protocol| ***protocol != *PEER_EXCHANGE);
        Ok(Answers {
            by_protocol: agreeable.map(with_alpn).collect(),
            none: Arc::new(base),
            uri_sans,
        })
    }

    fn base(
        &self,
        sources: &Sources,
        certificate: Arc<CertifiedKey>,
    ) -> Result<ServerConfig, TlsError> {
        let verifier: Arc<dyn ClientCertVerifier> = match (&self.spec.validation, &sources.roots) {
            (Some(asked), Some(roots)) => {
                let mandatory = self.spec.require_client_certificate;
                Arc::new(verify::ClientVerifier::new(
                    roots.authorities()?,
                    asked.clone(),
                    mandatory,
                    provider(),
                )?)
            }
            _ => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = ServerConfig::builder_with_provider(agreeing_to(&self.spec.suites))
            .with_protocol_versions(supported(self.spec.versions))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Always(certificate)));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// The provider with these suites of TLS 1.2 only; with all if none is named.
fn agreeing_to(suites: &[Arc<str>]) -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider::clone(&provider());
    let agreed = |suite: CipherSuite| {
        openssl_name(suite).is_none_or(|name| suites.iter().any(|own| **own == *name))
    };
    if !suites.is_empty() {
        provider.cipher_suites.retain(|suite| agreed(suite.suite()));
    }
    Arc::new(provider)
}

/// What OpenSSL calls a suite of TLS 1.2.
fn openssl_name(suite: CipherSuite) -> Option<&'static str> {
    match suite {
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => {
            Some("ECDHE-ECDSA-AES128-GCM-SHA256")
        }
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => {
            Some("ECDHE-ECDSA-AES256-GCM-SHA384")
        }
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            Some("ECDHE-ECDSA-CHACHA20-POLY1305")
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Some("ECDHE-RSA-AES128-GCM-SHA256"),
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some("ECDHE-RSA-AES256-GCM-SHA384"),
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            Some("ECDHE-RSA-CHACHA20-POLY1305")
        }
        _ => None,
    }
}

impl Answers {
    fn choose(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let offered: Vec<&[u8]> = hello.alpn().map(Iterator::collect).unwrap_or_default();
        let chosen =
            self.by_protocol.iter().find(|(protocol, _)| offered.contains(&protocol.as_bytes()));
        Arc::clone(chosen.map_or(&self.none, |(_, config)| config))
    }
}

/// Shows the same certificate to every client, whatever name it asks for, as Envoy does within a
/// filter chain.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_suites_that_are_named_are_agreed_to_and_all_of_tls_1_3() {
        let names = |suites: &[Arc<str>]| -> Vec<_> {
            agreeing_to(suites)
                .cipher_suites
                .iter()
                .filter_map(|suite| openssl_name(suite.suite()))
                .collect()
        };
        assert_eq!(names(&[]).len(), 6);
        let one = "ECDHE-RSA-AES256-GCM-SHA384";
        assert_eq!(names(&[one.into()]), [one]);
        assert_eq!(
            agreeing_to(&[one.into()]).cipher_suites.len(),
            provider().cipher_suites.len() - 5
        );
    }
}
