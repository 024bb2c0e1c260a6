//! Judging a peer's certificate: signed by the trust bundle, in time, for this use, and with the
//! right name.
//!
//! The chain is webpki's work; the names are ours. A peer under the mesh's bundle must show exactly
//! one URI name and that a SPIFFE id (X509-SVID section 2), whatever else is asked; everything
//! fails closed.

use std::{fmt, sync::Arc};

use ferromesh_proto::SpiffeId;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, ServerName, SignatureVerificationAlgorithm,
    UnixTime,
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationOptionsBuilder,
};

use super::{TlsError, peer::read_peer};
use crate::runtime::{
    facts::PeerCertificate,
    secret::{PeerValidation, SanMatcher, SecretRef},
};

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

/// Checks a certificate's names against what is asked of the peer.
///
/// # Errors
/// [`NameError`] says which rule is broken.
pub fn check_names(peer: &PeerCertificate, asked: &PeerValidation) -> Result<(), NameError> {
    if asked.roots == SecretRef::Workload {
        let [uri] = &peer.uri_sans[..] else {
            return Err(NameError::UriCount(peer.uri_sans.len()));
        };
        uri.parse::<SpiffeId>()?;
    }
    if asked.sans.is_empty() || asked.sans.iter().any(|expected| names_match(peer, expected)) {
        return Ok(());
    }
    Err(NameError::Unexpected(
        peer.uri_sans.iter().chain(&peer.dns_sans).map(ToString::to_string).collect(),
    ))
}

fn names_match(peer: &PeerCertificate, expected: &SanMatcher) -> bool {
    let dns = |presented: &Arc<str>| match expected {
        SanMatcher::Exact(name) => covers(presented, name),
        matcher => matcher.matches(presented),
    };
    peer.uri_sans.iter().any(|name| expected.matches(name)) || peer.dns_sans.iter().any(dns)
}

/// Whether a DNS name of a certificate stands for `name`; a leading `*.` covers one label (RFC 6125
/// section 6.4.3).
fn covers(presented: &str, name: &str) -> bool {
    match presented.strip_prefix("*.") {
        None => presented.eq_ignore_ascii_case(name),
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
    }
}

fn refuse(error: NameError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Who vouches for peers, and for whom no more.
#[derive(Debug)]
pub(super) struct Authorities {
    /// Roots; not empty.
    pub(super) roots: Arc<RootCertStore>,
    /// Lists of revoked certificates; empty: nobody asks.
    pub(super) revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl Authorities {
    /// The lists, read.
    pub(super) fn lists(&self) -> Result<Vec<CertRevocationList<'static>>, TlsError> {
        let lists = self.revoked.iter().map(|list| OwnedCertRevocationList::from_der(list));
        let lists: Result<Vec<_>, _> = lists.map(|list| list.map(Into::into)).collect();
        lists.map_err(|error| TlsError::Revoked(error.to_string()))
    }
}

/// What is told of a chain that does not hold.
fn broken(error: webpki::Error) -> Error {
    use webpki::Error::{CertRevoked, CrlExpired, UnknownIssuer, UnknownRevocationStatus};
    Error::InvalidCertificate(match error {
        CertRevoked => CertificateError::Revoked,
        UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        UnknownIssuer => CertificateError::UnknownIssuer,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

/// Judges clients: the chain, then the names.
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    asked: PeerValidation,
}

impl ClientVerifier {
    /// A verifier over these roots; `mandatory` refuses clients without a certificate.
    pub(super) fn new(
        authorities: Authorities,
        asked: PeerValidation,
        mandatory: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(authorities.roots, provider)
            .clear_root_hint_subjects()
            .with_crls(authorities.revoked)
            .enforce_revocation_expiration();
        let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
        let chain = builder.build().map_err(|error| match error {
            VerifierBuilderError::InvalidCrl(why) => TlsError::Revoked(format!("{why:?}")),
            _ => TlsError::Roots,
        })?;
        Ok(Self { chain, asked })
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("asked", &self.asked).finish_non_exhaustive()
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
        check_names(&read_peer(end_entity)?, &self.asked).map_err(refuse)?;
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

/// What servers are checked against.
#[derive(Debug)]
pub(super) struct ServerChecks {
    pub(super) roots: Arc<RootCertStore>,
    /// What [`Authorities::lists`] has read.
    pub(super) revoked: Vec<CertRevocationList<'static>>,
    pub(super) asked: PeerValidation,
    /// The certificate must also be for the server name.
    pub(super) match_server_name: bool,
}

impl ServerChecks {
    /// Checks that nobody in a server's chain is revoked. Where there are lists, each authority in
    /// it must have one that is not over: of whom nobody knows whether they are revoked, they are
    /// refused, as by Envoy (`CertificateValidationContext.crl`) and as clients are.
    fn verify_not_revoked(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), Error> {
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        let Ok(options) = RevocationOptionsBuilder::new(&lists) else { return Ok(()) };
        let options = options.with_expiration_policy(ExpirationPolicy::Enforce).build();
        let certificate = EndEntityCert::try_from(end_entity).map_err(broken)?;
        let path = certificate.verify_for_usage(
            algorithms,
            &self.roots.roots,
            intermediates,
            now,
            KeyUsage::server_auth(),
            Some(options),
            None,
        );
        path.map(drop).map_err(broken)
    }
}

/// Judges servers, or takes any when the context has no checks (as Envoy without a validation
/// context).
pub(super) struct ServerVerifier {
    checks: Option<Arc<ServerChecks>>,
    /// The certificate must be for this host of the request.
    expected: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    pub(super) fn new(checks: Option<Arc<ServerChecks>>, provider: Arc<CryptoProvider>) -> Self {
        Self { checks, expected: None, provider }
    }

    /// The same, for a server whose certificate must also be for `name`.
    pub(super) fn expecting(self, name: ServerName<'static>) -> Self {
        Self { expected: Some(name), ..self }
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.checks.as_ref().map(|checks| &checks.asked);
        f.debug_struct("ServerVerifier")
            .field("asked", &asked)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // A name in a certificate that nobody vouches for says nothing.
        if self.checks.is_none() && self.expected.is_some() {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        if let Some(checks) = &self.checks {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let certificate = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &checks.roots,
                intermediates,
                now,
                algorithms,
            )?;
            checks.verify_not_revoked(end_entity, intermediates, now, algorithms)?;
            check_names(&read_peer(end_entity)?, &checks.asked).map_err(refuse)?;
            if checks.match_server_name {
                verify_server_name(&certificate, server_name)?;
            }
            if let Some(expected) = &self.expected {
                verify_server_name(&certificate, expected)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::secret::SecretSlot;

    fn peer(uris: &[&str], dns: &[&str]) -> PeerCertificate {
        let arcs = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        PeerCertificate { uri_sans: arcs(uris), dns_sans: arcs(dns), ..PeerCertificate::default() }
    }

    fn check(roots: SecretRef, sans: &[SanMatcher], peer: &PeerCertificate) -> bool {
        check_names(peer, &PeerValidation { roots, sans: sans.to_vec() }).is_ok()
    }

    fn other_roots() -> SecretRef {
        SecretRef::Slot(SecretSlot::new("roots"))
    }

    #[test]
    fn a_mesh_peer_shows_exactly_one_spiffe_id() {
        let mesh = || SecretRef::Workload;
        assert!(check(mesh(), &[], &peer(&["spiffe://td/ns/a/sa/b"], &[])));
        assert!(!check(mesh(), &[], &peer(&[], &["a.b"])));
        assert!(!check(
            mesh(),
            &[],
            &peer(&["spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/c"], &[])
        ));
        assert!(!check(mesh(), &[], &peer(&["https://td/ns/a/sa/b"], &[])));
        assert!(check(other_roots(), &[], &peer(&[], &["a.b"])));
    }

    #[test]
    fn one_matching_name_suffices_and_none_refuses() {
        let exact = |s: &str| SanMatcher::Exact(s.into());
        let id = peer(&["spiffe://td/ns/a/sa/b"], &[]);
        assert!(check(
            other_roots(),
            &[exact("x"), SanMatcher::Prefix("spiffe://td/".into())],
            &id
        ));
        assert!(check(SecretRef::Workload, &[exact("spiffe://td/ns/a/sa/b")], &id));
        assert!(!check(SecretRef::Workload, &[exact("spiffe://td/ns/a/sa/c")], &id));
        assert!(!check(other_roots(), &[exact("a.b")], &id));
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
            let asked = [SanMatcher::Exact(expected.into())];
            assert_eq!(
                check(other_roots(), &asked, &peer(&[], &[presented])),
                matches,
                "{presented} for {expected}"
            );
        }
    }
}
