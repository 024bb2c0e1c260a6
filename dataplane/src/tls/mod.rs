//! TLS towards both sides: what a context asks for, independent of the certificates in force, and the rustls
//! configurations built from it whenever those change.
//!
//! A context is immutable and belongs to the compiled configuration; certificates come from the identity watch (SDS
//! names `default` and `ROOTCA`) or from a compiled secret. Connections keep the configuration they began with.
//! Session resumption is off: a resumed session would skip the check of a rotated trust bundle.

pub mod client;
pub mod server;
pub mod verify;

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{RootCertStore, SupportedProtocolVersion, crypto::CryptoProvider, sign::CertifiedKey};

use crate::{identity::Identity, runtime::matcher::StringMatcher};

/// Why a TLS configuration cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The context names the workload's identity and none has arrived yet.
    #[error("the workload has no certificate yet")]
    NoIdentity,
    /// rustls refuses a key, certificate or version.
    #[error("TLS configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// A trust bundle holds no usable certificate.
    #[error("TLS configuration: the trust bundle holds no usable certificate: {0}")]
    Roots(String),
    /// The server name cannot stand in a ClientHello.
    #[error("TLS configuration: {0:?} is not a server name")]
    ServerName(String),
}

/// Where a context's own certificate comes from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// The workload's identity (SDS secret `default`).
    Identity,
    /// A compiled secret; every change of it compiles a new context.
    Fixed(Arc<CertifiedKey>),
}

/// Which roots a peer's certificate must chain to.
#[derive(Clone, Debug)]
pub enum TrustSource {
    /// The mesh's trust bundle (SDS secret `ROOTCA`): the peer must then show exactly one SPIFFE id.
    Identity,
    /// A compiled trust bundle.
    Fixed(Arc<RootCertStore>),
}

/// Which kind of subject alternative name a matcher looks at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SanKind {
    /// Names of every kind (Envoy's deprecated `match_subject_alt_names`).
    Any,
    /// URI names, such as SPIFFE ids.
    Uri,
    /// DNS names; a certificate's leading `*.` covers one label.
    Dns,
}

/// A predicate over subject alternative names.
#[derive(Clone, Debug)]
pub struct SanMatcher {
    /// The names that are looked at.
    pub kind: SanKind,
    /// The predicate; one matching name suffices.
    pub matcher: StringMatcher,
}

/// How a peer's certificate is judged.
#[derive(Clone, Debug)]
pub struct PeerPolicy {
    /// The roots.
    pub trust: TrustSource,
    /// One of these must match one of the peer's names; empty means any peer under the roots.
    pub names: Vec<SanMatcher>,
}

/// Protocol versions that a context admits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Versions {
    /// TLS 1.2 and 1.3.
    #[default]
    Both,
    /// TLS 1.2 only.
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

impl Versions {
    fn supported(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Both => rustls::ALL_VERSIONS,
            Self::Tls12 => &[&rustls::version::TLS12],
            Self::Tls13 => &[&rustls::version::TLS13],
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certified_key(source: &CertificateSource, identity: Option<&Identity>) -> Result<Arc<CertifiedKey>, TlsError> {
    match source {
        CertificateSource::Fixed(key) => Ok(Arc::clone(key)),
        CertificateSource::Identity => {
            let identity = identity.ok_or(TlsError::NoIdentity)?;
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&identity.key)?;
            Ok(Arc::new(CertifiedKey::new(identity.chain.clone(), key)))
        }
    }
}

fn roots(source: &TrustSource, identity: Option<&Identity>) -> Result<Arc<RootCertStore>, TlsError> {
    match source {
        TrustSource::Fixed(roots) => Ok(Arc::clone(roots)),
        TrustSource::Identity => {
            let identity = identity.ok_or(TlsError::NoIdentity)?;
            let mut store = RootCertStore::empty();
            let (added, _) = store.add_parsable_certificates(identity.roots.iter().cloned());
            if added == 0 {
                return Err(TlsError::Roots(identity.spiffe_id.trust_domain().to_string()));
            }
            Ok(Arc::new(store))
        }
    }
}

/// A value built from the identity in force, and built again when a newer one has arrived.
#[derive(Debug)]
struct Built<T>(Mutex<Option<(Option<Arc<Identity>>, Arc<T>)>>);

impl<T> Default for Built<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Built<T> {
    /// The value for this identity. Locked once per handshake, never per request.
    fn current<E>(
        &self,
        identity: Option<&Arc<Identity>>,
        build: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, value)) = &*slot
            && of.as_ref().map(Arc::as_ptr) == identity.map(Arc::as_ptr)
        {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(build()?);
        *slot = Some((identity.cloned(), Arc::clone(&value)));
        Ok(value)
    }
}
