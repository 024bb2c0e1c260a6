//! Judging a peer's certificate: signed by the trust bundle, in time, for this use, and with the right name.
//!
//! The chain is webpki's work; the names are ours. A peer under the mesh's bundle must show exactly one URI name and
//! that a SPIFFE id (X509-SVID section 2), whatever else is asked; everything fails closed.

use std::{fmt, fmt::Write, sync::Arc};

use ferromesh_proto::SpiffeId;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;

use super::{PeerPolicy, SanKind, SanMatcher, TlsError, TrustSource};
use crate::runtime::facts::PeerCertificate;

/// Why a certificate that chains to a root is refused all the same.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Under the mesh's bundle, not exactly one URI name.
    #[error("expected exactly one URI name, got {0}")]
    UriCount(usize),
    /// Under the mesh's bundle, the URI name is not a SPIFFE id.
    #[error("{0}")]
    NotSpiffe(#[from] ferromesh_proto::spiffe::SpiffeError),
    /// None of the names is one of those asked for.
    #[error("none of the names {0:?} is one of those expected")]
    Unexpected(Vec<String>),
}

/// Reads what policies and headers need of a certificate.
///
/// # Errors
/// `BadEncoding` when it is not a certificate or its names cannot be read.
pub fn read_peer(der: &CertificateDer<'_>) -> Result<PeerCertificate, Error> {
    let bad = Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| bad.clone())?;
    let names = certificate.subject_alternative_name().map_err(|_| bad)?;
    let mut peer = PeerCertificate {
        subject: certificate.subject().to_string().into(),
        sha256: hexadecimal(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref()).into(),
        ..PeerCertificate::default()
    };
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::URI(uri) => peer.uri_sans.push((*uri).into()),
            GeneralName::DNSName(dns) => peer.dns_sans.push((*dns).into()),
            _ => {}
        }
    }
    Ok(peer)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Checks a certificate's names against a policy.
///
/// # Errors
/// [`NameError`] says which rule is broken.
pub fn check_names(peer: &PeerCertificate, policy: &PeerPolicy) -> Result<(), NameError> {
    if matches!(policy.trust, TrustSource::Identity) {
        let [uri] = &peer.uri_sans[..] else { return Err(NameError::UriCount(peer.uri_sans.len())) };
        uri.parse::<SpiffeId>()?;
    }
    if policy.names.is_empty() || policy.names.iter().any(|expected| names_match(peer, expected)) {
        return Ok(());
    }
    Err(NameError::Unexpected(peer.uri_sans.iter().chain(&peer.dns_sans).map(ToString::to_string).collect()))
}

fn names_match(peer: &PeerCertificate, expected: &SanMatcher) -> bool {
    let uri = || peer.uri_sans.iter().any(|name| expected.matcher.matches(name));
    let dns = || peer.dns_sans.iter().any(|name| dns_matches(name, expected));
    match expected.kind {
        SanKind::Uri => uri(),
        SanKind::Dns => dns(),
        SanKind::Any => uri() || dns(),
    }
}

/// A wildcard in the certificate covers one label of an exactly expected name (RFC 6125 section 6.4.3).
fn dns_matches(presented: &str, expected: &SanMatcher) -> bool {
    use crate::runtime::matcher::StringMatcher::{Exact, ExactIgnoreCase};
    match (&expected.matcher, presented.strip_prefix("*.")) {
        (Exact(name) | ExactIgnoreCase(name), Some(parent)) => {
            name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
        }
        (Exact(name), None) => name.eq_ignore_ascii_case(presented),
        (matcher, _) => matcher.matches(presented),
    }
}

fn refuse(error: NameError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Judges clients: the chain, then the names.
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    policy: PeerPolicy,
}

impl ClientVerifier {
    /// A verifier over these roots; `mandatory` refuses clients without a certificate.
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        policy: PeerPolicy,
        mandatory: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider).clear_root_hint_subjects();
        let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
        let chain = builder.build().map_err(|e| TlsError::Roots(e.to_string()))?;
        Ok(Self { chain, policy })
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        check_names(&read_peer(end_entity)?, &self.policy).map_err(refuse)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Judges servers by a policy, or takes any when the context has none (Envoy without a validation context).
pub(super) struct ServerVerifier {
    checks: Option<(Arc<RootCertStore>, PeerPolicy)>,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    pub(super) fn new(checks: Option<(Arc<RootCertStore>, PeerPolicy)>, provider: Arc<CryptoProvider>) -> Self {
        Self { checks, provider }
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier").field("policy", &self.checks.as_ref().map(|(_, p)| p)).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some((roots, policy)) = &self.checks {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let certificate = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
            check_names(&read_peer(end_entity)?, policy).map_err(refuse)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::matcher::StringMatcher;

    fn peer(uris: &[&str], dns: &[&str]) -> PeerCertificate {
        let arcs = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        PeerCertificate { uri_sans: arcs(uris), dns_sans: arcs(dns), ..PeerCertificate::default() }
    }

    fn check(trust: TrustSource, names: &[(SanKind, StringMatcher)], peer: &PeerCertificate) -> bool {
        let names = names.iter().map(|(kind, matcher)| SanMatcher { kind: *kind, matcher: matcher.clone() }).collect();
        check_names(peer, &PeerPolicy { trust, names }).is_ok()
    }

    #[test]
    fn a_mesh_peer_shows_exactly_one_spiffe_id() {
        let mesh = || TrustSource::Identity;
        assert!(check(mesh(), &[], &peer(&["spiffe://td/ns/a/sa/b"], &[])));
        assert!(!check(mesh(), &[], &peer(&[], &["a.b"])));
        assert!(!check(mesh(), &[], &peer(&["spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/c"], &[])));
        assert!(!check(mesh(), &[], &peer(&["https://td/ns/a/sa/b"], &[])));
        let fixed = TrustSource::Fixed(Arc::new(RootCertStore::empty()));
        assert!(check(fixed, &[], &peer(&[], &["a.b"])));
    }

    #[test]
    fn one_matching_name_suffices_and_none_refuses() {
        let fixed = || TrustSource::Fixed(Arc::new(RootCertStore::empty()));
        let exact = |s: &str| StringMatcher::Exact(s.into());
        let id = peer(&["spiffe://td/ns/a/sa/b"], &[]);
        let prefix = StringMatcher::Prefix("spiffe://td/".into());
        assert!(check(fixed(), &[(SanKind::Uri, exact("x")), (SanKind::Uri, prefix)], &id));
        assert!(!check(fixed(), &[(SanKind::Uri, exact("spiffe://td/ns/a/sa/c"))], &id));
        assert!(!check(fixed(), &[(SanKind::Dns, exact("spiffe://td/ns/a/sa/b"))], &id));
        assert!(check(fixed(), &[(SanKind::Any, exact("spiffe://td/ns/a/sa/b"))], &id));
    }

    #[test]
    fn a_wildcard_certificate_covers_one_label() {
        for (presented, expected, matches) in [
            ("*.a.b", "x.a.b", true),
            ("*.a.b", "X.A.B", true),
            ("*.a.b", "y.x.a.b", false),
            ("*.a.b", "a.b", false),
            ("x.a.b", "x.a.b", true),
            ("x.a.b", "y.a.b", false),
        ] {
            let matcher = StringMatcher::Exact(expected.into());
            assert_eq!(dns_matches(presented, &SanMatcher { kind: SanKind::Dns, matcher }), matches, "{presented}");
        }
    }
}
