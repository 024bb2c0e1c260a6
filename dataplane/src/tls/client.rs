//! Originating TLS towards an upstream: server name, ALPN list, our certificate, and whom we
//! accept.
//!
//! The ALPN list may be overridden per connection (Istio marks what a mutual-TLS connection carries
//! by it), so built configurations are kept per list.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    sign::CertifiedKey,
};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Built, Sources, TlsError, peer, provider, supported, verify};
use crate::{
    identity::IdentityWatch,
    runtime::{facts::PeerCertificate, secret::UpstreamTls},
};

/// A cluster's TLS with what was built for the certificates in force.
#[derive(Debug)]
pub struct ClientContext {
    spec: Arc<UpstreamTls>,
    identity: IdentityWatch,
    built: Built<Lists>,
}

/// An ALPN list and the configuration that offers it.
type Variant = (Vec<Vec<u8>>, Arc<ClientConfig>);

/// The first configuration, and its variants by ALPN list; a cluster uses one to three lists.
#[derive(Debug)]
struct Lists {
    base: ClientConfig,
    checks: Option<Arc<verify::ServerChecks>>,
    variants: Mutex<Vec<Variant>>,
}

/// What the server is called on one connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Names<'a> {
    /// Sent as server name; an address is not sent.
    pub sent: Option<&'a str>,
    /// A host that the server's certificate must be for, beside what the context asks.
    pub expected: Option<&'a str>,
}

/// An encrypted connection.
pub struct Connected<IO> {
    /// The plaintext stream.
    pub stream: TlsStream<IO>,
    /// The server's certificate.
    pub peer: Option<Arc<PeerCertificate>>,
    /// The protocol that was agreed on.
    pub alpn: Option<Vec<u8>>,
}

impl ClientContext {
    /// A context; nothing is built before the first handshake.
    pub(super) fn new(spec: Arc<UpstreamTls>, identity: IdentityWatch) -> Self {
        Self { spec, identity, built: Built::default() }
    }

    /// Performs the handshake, offering `alpn`.
    ///
    /// # Errors
    /// An I/O error that carries the cause: no certificate yet, a refused server, a broken
    /// handshake.
    pub async fn connect<IO>(
        &self,
        stream: IO,
        alpn: &[Arc<str>],
        names: Names<'_>,
    ) -> io::Result<Connected<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let lists = self.lists().map_err(io::Error::other)?;
        let name = server_name(names.sent).map_err(io::Error::other)?;
        let mut config = lists.with_alpn(alpn);
        if let Some(expected) = names.expected {
            let expected = server_name(Some(expected)).map_err(io::Error::other)?;
            config = Arc::new(lists.expecting(&config, expected));
        }
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let peer = certificate.and_then(|der| peer::read_peer(der).ok()).map(Arc::new);
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Connected { stream, peer, alpn })
    }

    fn lists(&self) -> Result<Arc<Lists>, TlsError> {
        let roots = self.spec.validation.as_ref().map(|validation| &validation.roots);
        let sources = Sources::now(self.spec.certificate.as_ref(), roots, &self.identity)?;
        self.built.current(sources, |sources| self.build(sources))
    }

    fn build(&self, sources: &Sources) -> Result<Lists, TlsError> {
        let checks = match (&self.spec.validation, &sources.roots) {
            (Some(asked), Some(source)) => {
                let authorities = source.authorities()?;
                Some(Arc::new(verify::ServerChecks {
                    revoked: authorities.lists()?,
                    roots: authorities.roots,
                    asked: asked.clone(),
                    match_server_name: self.spec.match_server_name,
                }))
            }
            _ => None,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(supported(self.spec.versions))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verify::ServerVerifier::new(
                checks.clone(),
                provider(),
            )));
        let mut base = match &sources.certificate {
            Some(source) => {
                builder.with_client_cert_resolver(Arc::new(Always(source.certified_key()?)))
            }
            None => builder.with_no_client_auth(),
        };
        base.resumption = Resumption::disabled();
        Ok(Lists { base, checks, variants: Mutex::default() })
    }
}

/// A client of servers that nobody vouches for, such as a workload's own HTTPS probe; it shows no
/// certificate.
pub(crate) fn unverified_client(alpn: &[&[u8]]) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::ServerVerifier::new(None, provider())))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn server_name(name: Option<&str>) -> Result<ServerName<'static>, TlsError> {
    match name {
        // An address is never sent: it only stands where rustls wants a name.
        None => Ok(ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())),
        Some(name) => match name.parse::<IpAddr>() {
            Ok(address) => Ok(ServerName::IpAddress(address.into())),
            Err(_) => ServerName::try_from(name.to_owned())
                .map_err(|_| TlsError::ServerName(name.to_owned())),
        },
    }
}

impl Lists {
    /// The same configuration for a server whose certificate must be for `name`.
    fn expecting(&self, config: &ClientConfig, name: ServerName<'static>) -> ClientConfig {
        let mut config = config.clone();
        let verifier = verify::ServerVerifier::new(self.checks.clone(), provider()).expecting(name);
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        config
    }

    fn with_alpn(&self, alpn: &[Arc<str>]) -> Arc<ClientConfig> {
        let wanted: Vec<Vec<u8>> =
            alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let mut variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = variants.iter().find(|(list, _)| *list == wanted) {
            return Arc::clone(config);
        }
        let mut config = self.base.clone();
        config.alpn_protocols.clone_from(&wanted);
        let config = Arc::new(config);
        variants.push((wanted, Arc::clone(&config)));
        config
    }
}

/// Shows our certificate to every server that asks.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
