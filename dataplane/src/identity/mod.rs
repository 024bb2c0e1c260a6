//! A workload's identity: its certificate chain, private key and trust bundle, and the channel on
//! which the newest one is published.
//!
//! [`csr_client`] obtains identities from the control plane, [`rotate`] decides when, and [`kept`]
//! keeps one over a restart; whoever
//! terminates or originates mutual TLS, and the agent's SDS server, only read the watch. Knows
//! nothing of listeners or clusters.

pub mod channel;
pub mod csr_client;
pub mod files;
pub mod kept;
mod refused_token;
pub mod rotate;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ferromesh_proto::{SpiffeId, spiffe::SpiffeError};
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::sync::watch;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};
use zeroize::{Zeroize, Zeroizing};

/// The newest identity, or `None` until the first certificate has arrived.
///
/// An expired identity stays in place until a newer one replaces it: a reader that cares compares
/// `not_after`.
pub type IdentityWatch = watch::Receiver<Option<Arc<Identity>>>;

/// Why PEM texts do not make up an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// One of the texts is not PEM, or holds something else than it should.
    #[error("{what}: not readable as PEM: {source}")]
    Pem {
        /// `certificate chain`, `private key` or `trust bundle`.
        what: &'static str,
        /// What the reader found.
        source: rustls_pki_types::pem::Error,
    },
    /// A text without any certificate.
    #[error("{0}: expected at least one certificate, got none")]
    Empty(&'static str),
    /// The first certificate of the chain is not valid DER.
    #[error("certificate chain: the leaf is not a valid X.509 certificate: {0}")]
    Der(String),
    /// X509-SVID §2: exactly one URI SAN.
    #[error("certificate chain: expected exactly one URI name on the leaf, got {0}")]
    UriNames(usize),
    /// The leaf's URI name is not an id of the mesh's shape.
    #[error("certificate chain: {0}")]
    Id(#[from] SpiffeError),
    /// The private key is of an unsupported kind, or belongs to another certificate.
    #[error("private key: {0}")]
    Key(String),
}

/// A certificate chain with its private key and the roots that peers are checked against.
/// Immutable; shared by `Arc`.
pub struct Identity {
    /// Leaf first, then intermediates; never empty, never holds a root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key; its `Debug` form is redacted and it is overwritten when the identity
    /// is dropped.
    pub key: PrivateKeyDer<'static>,
    /// The trust bundle; never empty.
    pub roots: Vec<CertificateDer<'static>>,
    /// `chain` as PEM, as SDS serves it.
    pub chain_pem: String,
    /// `key` as PEM; overwritten when dropped. Never print it.
    pub key_pem: Zeroizing<String>,
    /// `roots` as PEM, one after another.
    pub roots_pem: String,
    /// The leaf's only URI SAN.
    pub spiffe_id: SpiffeId,
    /// Start of the leaf's validity.
    pub not_before: SystemTime,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
}

impl Identity {
    /// Reads an identity from PEM: `chain_pem` leaf first, `key_pem` in PKCS#8, SEC1 or PKCS#1,
    /// `roots_pem` one or more.
    ///
    /// # Errors
    /// [`IdentityError`] when a text is malformed, the leaf does not carry exactly one mesh id, or
    /// the key is another's. Neither validity in time nor the signature chain is checked here.
    pub fn from_pem(
        chain_pem: String,
        key_pem: Zeroizing<String>,
        roots_pem: String,
    ) -> Result<Self, IdentityError> {
        let chain = certificates("certificate chain", &chain_pem)?;
        let roots = certificates("trust bundle", &roots_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|source| IdentityError::Pem { what: "private key", source })?;
        check_key(&chain, &key)?;
        let leaf = parse_leaf(&chain[0])?;
        Ok(Self {
            chain,
            key,
            roots,
            chain_pem,
            key_pem,
            roots_pem,
            spiffe_id: leaf.id,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        })
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("spiffe_id", &self.spiffe_id.to_string())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

struct Leaf {
    id: SpiffeId,
    not_before: SystemTime,
    not_after: SystemTime,
}

fn certificates(
    what: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| IdentityError::Pem { what, source })?;
    if certificates.is_empty() { Err(IdentityError::Empty(what)) } else { Ok(certificates) }
}

fn check_key(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<(), IdentityError> {
    let signing_key =
        aws_lc_rs::sign::any_supported_type(key).map_err(|e| IdentityError::Key(e.to_string()))?;
    let certified = CertifiedKey::new(chain.to_vec(), signing_key);
    certified.keys_match().map_err(|e| IdentityError::Key(e.to_string()))
}

fn parse_leaf(der: &CertificateDer<'_>) -> Result<Leaf, IdentityError> {
    let (_, leaf) =
        x509_parser::parse_x509_certificate(der).map_err(|e| IdentityError::Der(e.to_string()))?;
    let validity = leaf.validity();
    Ok(Leaf {
        id: only_uri_name(&leaf)?.parse()?,
        not_before: system_time(validity.not_before.timestamp()),
        not_after: system_time(validity.not_after.timestamp()),
    })
}

/// The leaf's one URI SAN; a certificate with none or several identifies nobody (X509-SVID §2).
fn only_uri_name<'a>(leaf: &'a X509Certificate<'_>) -> Result<&'a str, IdentityError> {
    let names = leaf.subject_alternative_name().map_err(|e| IdentityError::Der(e.to_string()))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|san| &san.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    if let [uri] = uris[..] { Ok(uri) } else { Err(IdentityError::UriNames(uris.len())) }
}

/// Certificates before 1970 do not occur: such a date counts as the epoch, so as long expired.
fn system_time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Identities without a control plane, for the tests of whoever uses them.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, IsCa, KeyPair,
        KeyUsagePurpose, SanType,
    };

    /// The parts of an identity as PEM.
    pub(crate) struct Pems {
        pub(crate) chain: String,
        pub(crate) key: Zeroizing<String>,
        pub(crate) roots: String,
    }

    /// A leaf for `uri` under a root of its own, valid for an hour.
    pub(crate) fn pems(uri: &str) -> Pems {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.not_before = time::OffsetDateTime::now_utc();
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
        let leaf = params.signed_by(&key, &root).unwrap();
        Pems { chain: leaf.pem(), key: Zeroizing::new(key.serialize_pem()), roots: root.pem() }
    }

    /// The same as an identity.
    pub(crate) fn identity(uri: &str) -> Identity {
        let Pems { chain, key, roots } = pems(uri);
        Identity::from_pem(chain, key, roots).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    #[test]
    fn an_identity_is_read_from_its_parts() {
        let identity = testing::identity(ID);
        assert_eq!(identity.spiffe_id.to_string(), ID);
        assert_eq!((identity.chain.len(), identity.roots.len()), (1, 1));
        assert!(identity.not_before < identity.not_after);
    }

    #[test]
    fn parts_that_do_not_fit_together_are_refused() {
        let (mine, theirs) = (testing::pems(ID), testing::pems(ID));
        let read = |chain: &str, key: &str, roots: &str| {
            Identity::from_pem(chain.to_owned(), Zeroizing::new(key.to_owned()), roots.to_owned())
                .map(drop)
        };
        assert!(read(&mine.chain, &mine.key, &mine.roots).is_ok());
        assert!(matches!(read(&mine.chain, &theirs.key, &mine.roots), Err(IdentityError::Key(_))));
        assert!(matches!(
            read("", &mine.key, &mine.roots),
            Err(IdentityError::Empty("certificate chain"))
        ));
        assert!(matches!(
            read(&mine.chain, &mine.key, ""),
            Err(IdentityError::Empty("trust bundle"))
        ));
        assert!(matches!(
            read(&mine.chain, "", &mine.roots),
            Err(IdentityError::Pem { what: "private key", .. })
        ));
        let foreign = testing::pems("https://example.com");
        assert!(matches!(
            read(&foreign.chain, &foreign.key, &foreign.roots),
            Err(IdentityError::Id(_))
        ));
    }

    #[test]
    fn a_key_is_never_printed() {
        let identity = testing::identity(ID);
        let printed = format!("{identity:?}");
        assert!(
            printed.contains(ID) && !printed.contains("PRIVATE") && printed.len() < 300,
            "{printed}"
        );
    }
}
