//! Originating TLS towards an upstream: server name, ALPN list, our certificate, and whom we accept.
//!
//! The ALPN list may be overridden per connection (Istio marks what a mutual-TLS connection carries by it), so built
//! configurations are kept per list.

use std::{
    net::IpAddr,
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

use super::{Built, CertificateSource, PeerPolicy, TlsError, Versions, certified_key, provider, roots, verify};
use crate::{identity::Identity, runtime::facts::PeerCertificate};

/// Names the peer when no server name is configured; it is not sent.
const NO_SERVER_NAME: ServerName<'static> =
    ServerName::IpAddress(rustls_pki_types::IpAddr::V4(rustls_pki_types::Ipv4Addr::from_octets([0, 0, 0, 0])));

/// What a cluster's TLS asks for.
#[derive(Clone, Debug)]
pub struct ClientSpec {
    /// The certificate that is shown if the server asks.
    pub certificate: Option<CertificateSource>,
    /// Which servers are accepted; `None` accepts any (Envoy without a validation context).
    pub peer: Option<PeerPolicy>,
    /// The name sent in the ClientHello; none is sent when empty or an address.
    pub server_name: Option<Arc<str>>,
    /// ALPN list unless overridden.
    pub alpn: Vec<Arc<str>>,
    /// Protocol versions.
    pub versions: Versions,
}

/// A cluster's TLS with what was built for the certificates in force.
#[derive(Debug)]
pub struct ClientContext {
    spec: ClientSpec,
    built: Built<Lists>,
}

/// The first configuration, and its variants by ALPN list; a cluster uses one to three lists.
#[derive(Debug)]
struct Lists {
    base: ClientConfig,
    variants: Mutex<Vec<(Vec<Vec<u8>>, Arc<ClientConfig>)>>,
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
    pub fn new(spec: ClientSpec) -> Self {
        Self { spec, built: Built::default() }
    }

    /// The ALPN list that is sent unless overridden.
    pub fn alpn(&self) -> &[Arc<str>] {
        &self.spec.alpn
    }

    /// Performs the handshake, offering `alpn`.
    ///
    /// # Errors
    /// An I/O error that carries the cause: no certificate yet, a refused server, a broken handshake.
    pub async fn connect<IO>(
        &self,
        stream: IO,
        alpn: &[Arc<str>],
        identity: Option<&Arc<Identity>>,
    ) -> std::io::Result<Connected<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let lists = self.built.current(identity, || self.build(identity.map(AsRef::as_ref))).map_err(std::io::Error::other)?;
        let name = server_name(self.spec.server_name.as_deref()).map_err(std::io::Error::other)?;
        let stream = TlsConnector::from(lists.with_alpn(alpn)).connect(name, stream).await?;
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let peer = certificate.and_then(|der| verify::read_peer(der).ok()).map(Arc::new);
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Connected { stream, peer, alpn })
    }

    fn build(&self, identity: Option<&Identity>) -> Result<Lists, TlsError> {
        let checks = match &self.spec.peer {
            Some(policy) => Some((roots(&policy.trust, identity)?, policy.clone())),
            None => None,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(self.spec.versions.supported())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verify::ServerVerifier::new(checks, provider())));
        let mut base = match &self.spec.certificate {
            Some(source) => builder.with_client_cert_resolver(Arc::new(Always(certified_key(source, identity)?))),
            None => builder.with_no_client_auth(),
        };
        base.resumption = Resumption::disabled();
        base.enable_sni = self.spec.server_name.is_some();
        Ok(Lists { base, variants: Mutex::default() })
    }
}

fn server_name(name: Option<&str>) -> Result<ServerName<'static>, TlsError> {
    match name {
        None => Ok(NO_SERVER_NAME),
        Some(name) => match name.parse::<IpAddr>() {
            Ok(address) => Ok(ServerName::IpAddress(address.into())),
            Err(_) => ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned())),
        },
    }
}

impl Lists {
    fn with_alpn(&self, alpn: &[Arc<str>]) -> Arc<ClientConfig> {
        let wanted: Vec<Vec<u8>> = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let mut variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = variants.iter().find(|(list, _)| *list == wanted) {
            return Arc::clone(config);
        }
        let config = Arc::new(ClientConfig { alpn_protocols: wanted.clone(), ..self.base.clone() });
        variants.push((wanted, Arc::clone(&config)));
        config
    }
}

/// Shows our certificate to every server that asks.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
