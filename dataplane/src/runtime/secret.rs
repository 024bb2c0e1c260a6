//! Where TLS contexts get their certificates and roots: the workload's own identity, or a named
//! slot that secrets from the control plane fill.
//!
//! A slot outlives configurations, so that a rotated secret changes no listener. Key material is
//! never shown.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroize;

/// Certificates of one secret, parsed.
pub enum SecretMaterial {
    /// A certificate chain, leaf first, with its private key.
    Certificate {
        /// Never empty.
        chain: Vec<CertificateDer<'static>>,
        /// The leaf's key.
        key: PrivateKeyDer<'static>,
    },
    /// Whom peers are checked against.
    Trust(Trust),
}

/// Roots, and what they and those below them have revoked.
#[derive(Default)]
pub struct Trust {
    /// Roots; never empty where they came from a message.
    pub roots: Vec<CertificateDer<'static>>,
    /// Lists of revoked certificates. Empty: nobody asks. Otherwise each authority of a peer's
    /// chain must have one that is not over, or the peer is refused.
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl Drop for SecretMaterial {
    fn drop(&mut self) {
        if let Self::Certificate { key, .. } = self {
            key.zeroize();
        }
    }
}

impl fmt::Debug for SecretMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { chain, .. } => write!(f, "certificate({} in chain)", chain.len()),
            Self::Trust(Trust { roots, revoked }) if revoked.is_empty() => {
                write!(f, "trust({} roots)", roots.len())
            }
            Self::Trust(Trust { roots, revoked }) => {
                write!(f, "trust({} roots, {} lists)", roots.len(), revoked.len())
            }
        }
    }
}

/// The current content of a named secret; empty until it arrives. Compare by pointer to see a
/// change.
pub struct SecretSlot {
    name: Arc<str>,
    material: ArcSwapOption<SecretMaterial>,
}

impl SecretSlot {
    /// An empty slot.
    pub fn new(name: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), material: ArcSwapOption::empty() })
    }

    /// The secret's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the slot holds now.
    pub fn load(&self) -> Option<Arc<SecretMaterial>> {
        self.material.load_full()
    }

    /// Replaces the content; `None` empties the slot, and handshakes that need it fail.
    pub fn store(&self, material: Option<Arc<SecretMaterial>>) {
        self.material.store(material);
    }
}

impl fmt::Debug for SecretSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretSlot({}, {:?})", self.name, self.material.load())
    }
}

/// Where a certificate or trust bundle comes from.
#[derive(Clone, Debug)]
pub enum SecretRef {
    /// The workload's own identity: SDS names `default` and `ROOTCA`.
    Workload,
    /// A secret of the control plane, or one written into the configuration itself.
    Slot(Arc<SecretSlot>),
}

impl PartialEq for SecretRef {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Workload, Self::Workload) => true,
            (Self::Slot(a), Self::Slot(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for SecretRef {}

impl Hash for SecretRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Workload => 0u8.hash(state),
            Self::Slot(slot) => (1u8, Arc::as_ptr(slot) as usize).hash(state),
        }
    }
}

/// What a peer's certificate must name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SanMatcher {
    /// A SAN equal to this; of kind URI if it contains `://`.
    Exact(Arc<str>),
    /// A SAN that begins with this.
    Prefix(Arc<str>),
    /// A SAN that ends with this.
    Suffix(Arc<str>),
}

impl SanMatcher {
    /// Whether a URI or DNS SAN matches.
    pub fn matches(&self, san: &str) -> bool {
        match self {
            Self::Exact(s) => **s == *san,
            Self::Prefix(s) => san.starts_with(&**s),
            Self::Suffix(s) => san.ends_with(&**s),
        }
    }
}

/// How a peer's certificate is checked.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerValidation {
    /// The roots.
    pub roots: SecretRef,
    /// The peer must have a SAN that any of these matches; empty means any SAN.
    pub sans: Vec<SanMatcher>,
}

/// TLS versions that a context allows; both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TlsVersions {
    /// TLS 1.2 is allowed.
    pub tls12: bool,
    /// TLS 1.3 is allowed.
    pub tls13: bool,
}

/// Terminates TLS on a filter chain (Envoy's `DownstreamTlsContext`).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DownstreamTls {
    /// Our certificate.
    pub certificate: SecretRef,
    /// How a client's certificate is checked; `None` asks for none.
    pub validation: Option<PeerValidation>,
    /// Refuses clients without certificate.
    pub require_client_certificate: bool,
    /// ALPN that we agree to, in our order; may be empty.
    pub alpn: Vec<Arc<str>>,
    /// Versions that we agree to.
    pub versions: TlsVersions,
    /// The suites of TLS 1.2 that we agree to, as OpenSSL names them; empty means all that we have.
    /// Those of TLS 1.3 are never chosen among.
    pub suites: Vec<Arc<str>>,
}

/// Originates TLS to an endpoint (Envoy's `UpstreamTlsContext`).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UpstreamTls {
    /// Our certificate, if the server is to get one.
    pub certificate: Option<SecretRef>,
    /// How the server's certificate is checked; `None` accepts any (`insecureSkipVerify`, and Envoy
    /// without a context).
    pub validation: Option<PeerValidation>,
    /// Server name to send.
    pub sni: Option<Arc<str>>,
    /// Sends the endpoint's host name as server name where it has one, rather than `sni`
    /// (`auto_host_sni`).
    pub sni_from_endpoint: bool,
    /// The server's certificate must also match the server name that was sent
    /// (`auto_sni_san_validation`).
    pub match_server_name: bool,
    /// ALPN to offer; may be empty. [`super::cluster::MeshAlpn`] overrides it per request.
    pub alpn: Vec<Arc<str>>,
    /// Versions to offer.
    pub versions: TlsVersions,
}
