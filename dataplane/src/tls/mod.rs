//! TLS towards both sides: rustls configurations built from a compiled context and the certificates
//! in force, and built again whenever those change.
//!
//! Certificates come from the identity watch (SDS names `default` and `ROOTCA`) or from a secret
//! slot. Connections keep the configuration they began with. Session resumption is off: a resumed
//! session would skip the check against a rotated trust bundle.

pub mod client;
pub mod peer;
pub mod server;
pub mod verify;

use std::{
    collections::HashMap,
    hash::Hash,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use rustls::{RootCertStore, SupportedProtocolVersion, crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::{client::ClientContext, server::ServerContext, verify::Authorities};
use crate::{
    identity::{Identity, IdentityWatch},
    runtime::secret::{DownstreamTls, SecretMaterial, SecretRef, TlsVersions, UpstreamTls},
};

/// Contexts that no configuration uses any more are dropped once this many are kept.
const MAX_CONTEXTS: usize = 4096;

static TLS12_ONLY: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static TLS13_ONLY: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Why a TLS configuration cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The context names the workload's identity and none has arrived yet.
    #[error("the workload has no certificate yet")]
    NoIdentity,
    /// The context names a secret that has not arrived or was taken away.
    #[error("secret {0:?} is not there")]
    NoSecret(Arc<str>),
    /// A secret holds roots where a certificate with key is needed, or the reverse.
    #[error("secret {name:?}: expected {expected}")]
    WrongSecret {
        /// The secret's name.
        name: Arc<str>,
        /// What the context needs.
        expected: &'static str,
    },
    /// rustls refuses a key, certificate or version.
    #[error("TLS configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// A trust bundle holds no usable certificate.
    #[error("TLS configuration: the trust bundle holds no usable certificate")]
    Roots,
    /// What should say who is revoked is no such list.
    #[error("TLS configuration: a list of revoked certificates is unusable: {0}")]
    Revoked(String),
    /// The server name cannot stand in a ClientHello.
    #[error("TLS configuration: {0:?} is not a server name")]
    ServerName(String),
}

/// A stream with or without TLS.
#[derive(Debug)]
pub enum MaybeTls<IO> {
    /// Without.
    Plain(IO),
    /// With, as client or server.
    Tls(Box<tokio_rustls::TlsStream<IO>>),
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for MaybeTls<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MaybeTls<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

/// The contexts in use, by content: an unrelated push or another worker finds what was built
/// before.
#[derive(Debug)]
pub struct TlsContexts {
    identity: IdentityWatch,
    servers: Mutex<HashMap<Arc<DownstreamTls>, Arc<ServerContext>>>,
    clients: Mutex<HashMap<Arc<UpstreamTls>, Arc<ClientContext>>>,
}

impl TlsContexts {
    /// No contexts yet; certificates of the workload come from `identity`.
    pub fn new(identity: IdentityWatch) -> Self {
        Self { identity, servers: Mutex::default(), clients: Mutex::default() }
    }

    /// The context that terminates TLS as `spec` says.
    pub fn server(&self, spec: &Arc<DownstreamTls>) -> Arc<ServerContext> {
        find_or_insert(&self.servers, spec, || {
            ServerContext::new(Arc::clone(spec), self.identity.clone())
        })
    }

    /// The context that originates TLS as `spec` says.
    pub fn client(&self, spec: &Arc<UpstreamTls>) -> Arc<ClientContext> {
        find_or_insert(&self.clients, spec, || {
            ClientContext::new(Arc::clone(spec), self.identity.clone())
        })
    }
}

/// Locked once per handshake, never per request.
fn find_or_insert<K: Eq + Hash, V>(
    map: &Mutex<HashMap<Arc<K>, Arc<V>>>,
    key: &Arc<K>,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = map.get(key) {
        return Arc::clone(found);
    }
    if map.len() >= MAX_CONTEXTS {
        // A context holds its own key; one more owner means that a configuration holds it too.
        map.retain(|key, _| Arc::strong_count(key) > 2);
    }
    let made = Arc::new(make());
    map.insert(Arc::clone(key), Arc::clone(&made));
    made
}

/// What a context's certificates come from right now. Equal by pointer: a rotated certificate is
/// another source.
#[derive(Clone, Debug)]
enum Source {
    Identity(Arc<Identity>),
    Secret(Arc<str>, Arc<SecretMaterial>),
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Identity(a), Self::Identity(b)) => Arc::ptr_eq(a, b),
            (Self::Secret(_, a), Self::Secret(_, b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Source {
    fn of(secret: &SecretRef, identity: &IdentityWatch) -> Result<Self, TlsError> {
        match secret {
            SecretRef::Workload => {
                identity.borrow().clone().map(Self::Identity).ok_or(TlsError::NoIdentity)
            }
            SecretRef::Slot(slot) => match slot.load() {
                Some(material) => Ok(Self::Secret(Arc::clone(slot.name()), material)),
                None => Err(TlsError::NoSecret(Arc::clone(slot.name()))),
            },
        }
    }

    fn certified_key(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let (chain, key): (&Vec<CertificateDer<'static>>, &PrivateKeyDer<'static>) = match self {
            Self::Identity(identity) => (&identity.chain, &identity.key),
            Self::Secret(name, material) => match &**material {
                SecretMaterial::Certificate { chain, key } => (chain, key),
                SecretMaterial::Trust(_) => {
                    return Err(TlsError::WrongSecret {
                        name: Arc::clone(name),
                        expected: "a certificate with its key",
                    });
                }
            },
        };
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(key)?;
        Ok(Arc::new(CertifiedKey::new(chain.clone(), key)))
    }

    fn authorities(&self) -> Result<Authorities, TlsError> {
        let (roots, revoked) = match self {
            Self::Identity(identity) => (&identity.roots, &[][..]),
            Self::Secret(name, material) => match &**material {
                SecretMaterial::Trust(trust) => (&trust.roots, &trust.revoked[..]),
                SecretMaterial::Certificate { .. } => {
                    return Err(TlsError::WrongSecret {
                        name: Arc::clone(name),
                        expected: "trusted roots",
                    });
                }
            },
        };
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(roots.iter().cloned());
        if added == 0 {
            return Err(TlsError::Roots);
        }
        Ok(Authorities { roots: Arc::new(store), revoked: revoked.to_vec() })
    }
}

/// A value built from the sources in force, and built again when one of them was replaced.
#[derive(Debug)]
struct Built<T>(Mutex<Option<(Sources, Arc<T>)>>);

/// Own certificate and trusted roots, as far as a context uses them.
#[derive(Clone, PartialEq, Debug)]
struct Sources {
    certificate: Option<Source>,
    roots: Option<Source>,
}

impl Sources {
    fn now(
        certificate: Option<&SecretRef>,
        roots: Option<&SecretRef>,
        identity: &IdentityWatch,
    ) -> Result<Self, TlsError> {
        let of = |secret: Option<&SecretRef>| {
            secret.map(|secret| Source::of(secret, identity)).transpose()
        };
        Ok(Self { certificate: of(certificate)?, roots: of(roots)? })
    }
}

impl<T> Default for Built<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Built<T> {
    fn current(
        &self,
        sources: Sources,
        build: impl FnOnce(&Sources) -> Result<T, TlsError>,
    ) -> Result<Arc<T>, TlsError> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, value)) = &*slot
            && *of == sources
        {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(build(&sources)?);
        *slot = Some((sources, Arc::clone(&value)));
        Ok(value)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn supported(versions: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    match (versions.tls12, versions.tls13) {
        (true, true) => rustls::ALL_VERSIONS,
        (true, false) => TLS12_ONLY,
        (false, true) => TLS13_ONLY,
        (false, false) => &[],
    }
}
