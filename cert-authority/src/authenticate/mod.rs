//! Who is calling, and how that is proven.
//!
//! Inside, every failure has its full reason, for the audit log; callers outside learn only that
//! they are not authenticated, since any further word would help somebody who guesses.

pub mod client_cert;
pub mod jwt;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ferromesh_proto::SpiffeId;
use rustls_pki_types::CertificateDer;
use tonic::metadata::MetadataMap;
use zeroize::Zeroizing;

use crate::rotation::Validity;

/// Longest bearer token that is looked at, in bytes; Kubernetes' tokens are below 2 KiB.
const MAX_TOKEN: usize = 16 << 10;

/// The certificates that the peer of a TLS connection presented, leaf first, verified against the
/// trust bundle by the TLS layer. Empty when it presented none.
///
/// The server's connection type returns it as (or a layer copies it from) tonic's connect info, so
/// that it reaches handlers in the request's extensions.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificates(pub Arc<Vec<CertificateDer<'static>>>);

impl PeerCertificates {
    /// When the leaf ends; `None` without a certificate, or when it cannot be read.
    ///
    /// A server should close the connection before then: a client that has renewed its certificate
    /// meanwhile shows the new one only on a new connection, and Envoy opens none for as long as
    /// the old one stands.
    pub fn not_after(&self) -> Option<SystemTime> {
        Some(self.validity()?.not_after)
    }

    /// The time in which the leaf may be used; `None` as for its end.
    pub fn validity(&self) -> Option<Validity> {
        let (_, leaf) = x509_parser::parse_x509_certificate(self.0.first()?).ok()?;
        let at = |time: &x509_parser::time::ASN1Time| {
            Some(
                SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).ok()?),
            )
        };
        let validity = leaf.validity();
        Some(Validity {
            not_before: at(&validity.not_before)?,
            not_after: at(&validity.not_after)?,
        })
    }
}

/// Everything that a caller presented to prove who it is.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Leaf first, already verified by the TLS layer against the trust bundle; empty without a
    /// client certificate.
    pub peer_certificates: PeerCertificates,
    /// The token of an `authorization: Bearer` header.
    pub bearer: Option<Zeroizing<String>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bearer = self.bearer.as_ref().map(|_| "[redacted]");
        f.debug_struct("Credentials")
            .field("certificates", &self.peer_certificates.0.len())
            .field("bearer", &bearer)
            .finish()
    }
}

impl Credentials {
    /// Collects what a gRPC request carries.
    ///
    /// # Errors
    /// [`AuthError::Rejected`] when the authorization header is repeated, overlong, or of another
    /// scheme than Bearer.
    pub fn from_request<T>(request: &tonic::Request<T>) -> Result<Self, AuthError> {
        let peer_certificates =
            request.extensions().get::<PeerCertificates>().cloned().unwrap_or_default();
        Ok(Self { peer_certificates, bearer: bearer(request.metadata())? })
    }
}

fn bearer(metadata: &MetadataMap) -> Result<Option<Zeroizing<String>>, AuthError> {
    let rejected = |why: &str| AuthError::Rejected(format!("authorization header: {why}"));
    let mut values = metadata.get_all("authorization").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(rejected("given more than once"));
    }
    let text = value.to_str().map_err(|_| rejected("not ASCII"))?;
    match text.split_once(' ') {
        Some((scheme, token))
            if scheme.eq_ignore_ascii_case("bearer") && token.len() <= MAX_TOKEN =>
        {
            Ok(Some(Zeroizing::new(token.trim().to_owned())))
        }
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("bearer") => {
            Err(rejected("token too long"))
        }
        _ => Err(rejected("expected the scheme Bearer")),
    }
}

/// An authenticated caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Its only identity.
    pub id: SpiffeId,
    /// What proved it.
    pub proof: Proof,
}

/// What proved a caller's identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proof {
    /// A certificate of this trust domain.
    Certificate {
        /// Its serial number, lower-case hexadecimal.
        serial: String,
        /// Its key, as DER SubjectPublicKeyInfo.
        public_key: Vec<u8>,
    },
    /// A bearer token.
    Token {
        /// Which kind: `join token`, `kubernetes token`.
        kind: &'static str,
        /// The token's own id, if it has one; never the token.
        token_id: Option<String>,
    },
    /// A join token that is good for one certificate, and for nothing else.
    SingleUse {
        /// The token's own id.
        token_id: String,
        /// When it ends, in seconds since 1970.
        expires: u64,
    },
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { serial, .. } => write!(f, "certificate {serial}"),
            Self::Token { kind, token_id } => {
                write!(f, "{kind} {}", token_id.as_deref().unwrap_or("without id"))
            }
            Self::SingleUse { token_id, .. } => write!(f, "join token {token_id} of a single use"),
        }
    }
}

/// Why a caller is not authenticated. For the audit log only: outside, every one of these looks the
/// same.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthError {
    /// The credential that this authenticator reads is absent.
    #[error("no credentials")]
    NotPresented,
    /// A credential is present and not good.
    #[error("{0}")]
    Rejected(String),
    /// Two good credentials name different callers.
    #[error("the certificate names {certificate}, the token names {token}")]
    Disagree {
        /// Id of the client certificate.
        certificate: SpiffeId,
        /// Id of the token.
        token: SpiffeId,
    },
    /// Whoever could tell does not answer; the caller may try again.
    #[error("cannot be checked now: {0}")]
    Unavailable(String),
}

impl AuthError {
    /// What the caller is told: nothing but whether trying again makes sense.
    pub fn to_status(&self) -> tonic::Status {
        match self {
            Self::Unavailable(_) => tonic::Status::unavailable("cannot authenticate now"),
            _ => tonic::Status::unauthenticated("not authenticated"),
        }
    }
}

/// A boxed future, so that authenticators that ask somebody over the network fit behind `dyn`.
pub type Authenticating<'a> = Pin<Box<dyn Future<Output = Result<Caller, AuthError>> + Send + 'a>>;

/// Proves callers by one kind of credential.
pub trait Authenticator: Send + Sync {
    /// Who presents `credentials` at time `now`.
    ///
    /// # Errors
    /// [`AuthError::NotPresented`] when the credential that it reads is absent or plainly of
    /// another kind, else why it is not good.
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
        now: SystemTime,
    ) -> Authenticating<'a>;
}

/// All ways in which a caller may prove itself. Everything presented must be good and agree: a
/// caller with a bad certificate and a good token is refused, as is one whose certificate and token
/// name different workloads. A good certificate stands alone while nobody can tell about the token:
/// its holder could have left the token out.
pub struct AuthenticatorSet {
    certificate: Arc<dyn Authenticator>,
    tokens: Vec<Arc<dyn Authenticator>>,
}

impl AuthenticatorSet {
    /// Certificates, and tokens: the first of `tokens` that knows a token as one of its kind
    /// decides.
    pub fn new(certificate: Arc<dyn Authenticator>, tokens: Vec<Arc<dyn Authenticator>>) -> Self {
        Self { certificate, tokens }
    }

    async fn by_token(
        &self,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<Caller, AuthError> {
        if credentials.bearer.is_none() {
            return Err(AuthError::NotPresented);
        }
        for authenticator in &self.tokens {
            match authenticator.authenticate(credentials, now).await {
                Err(AuthError::NotPresented) => {}
                decided => return decided,
            }
        }
        Err(AuthError::Rejected("a token of no known kind".into()))
    }
}

impl Authenticator for AuthenticatorSet {
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
        now: SystemTime,
    ) -> Authenticating<'a> {
        Box::pin(async move {
            let certificate = self.certificate.authenticate(credentials, now).await;
            let token = self.by_token(credentials, now).await;
            agree(certificate, token)
        })
    }
}

/// The caller that both name; a certificate's proof is kept, because it is the stronger one.
fn agree(
    certificate: Result<Caller, AuthError>,
    token: Result<Caller, AuthError>,
) -> Result<Caller, AuthError> {
    match (certificate, token) {
        (only, Err(AuthError::NotPresented)) | (Err(AuthError::NotPresented), only) => only,
        (Ok(proven), Err(AuthError::Unavailable(_))) => Ok(proven),
        (Err(bad), _) | (_, Err(bad)) => Err(bad),
        (Ok(a), Ok(b)) if a.id == b.id => Ok(a),
        (Ok(a), Ok(b)) => Err(AuthError::Disagree { certificate: a.id, token: b.id }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(account: &str) -> Caller {
        let id = format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap();
        Caller { id, proof: Proof::Token { kind: "test", token_id: None } }
    }

    fn bad(why: &str) -> Result<Caller, AuthError> {
        Err(AuthError::Rejected(why.into()))
    }

    #[test]
    fn everything_that_is_presented_must_be_good_and_agree() {
        let none = || Err(AuthError::NotPresented);
        assert_eq!(agree(Ok(caller("a")), none()), Ok(caller("a")));
        assert_eq!(agree(none(), Ok(caller("a"))), Ok(caller("a")));
        assert_eq!(agree(Ok(caller("a")), Ok(caller("a"))), Ok(caller("a")));
        assert_eq!(agree(none(), none()), none());
        assert_eq!(agree(bad("expired"), Ok(caller("a"))), bad("expired"));
        assert_eq!(agree(Ok(caller("a")), bad("expired")), bad("expired"));
        let no_answer = || Err(AuthError::Unavailable("no answer".into()));
        assert_eq!(agree(Ok(caller("a")), no_answer()), Ok(caller("a")));
        assert_eq!(agree(none(), no_answer()), no_answer());
        assert_eq!(agree(bad("expired"), no_answer()), bad("expired"));
        assert!(matches!(agree(Ok(caller("a")), Ok(caller("b"))), Err(AuthError::Disagree { .. })));
    }

    fn check_header(values: &[&str], expected: Result<Option<&str>, ()>) {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append("authorization", value.parse().unwrap());
        }
        let expected = expected.map(|token| token.map(|t| Zeroizing::new(t.to_owned())));
        assert_eq!(bearer(&metadata).map_err(|_| ()), expected, "{values:?}");
    }

    #[test]
    fn one_bearer_token_is_read_and_anything_else_refused() {
        check_header(&[], Ok(None));
        check_header(&["Bearer abc"], Ok(Some("abc")));
        check_header(&["bearer abc"], Ok(Some("abc")));
        check_header(&["Basic abc"], Err(()));
        check_header(&["Bearer"], Err(()));
        check_header(&["Bearer a", "Bearer b"], Err(()));
        check_header(&[&format!("Bearer {}", "a".repeat(MAX_TOKEN + 1))], Err(()));
    }

    #[test]
    fn a_token_is_never_printed() {
        let credentials =
            Credentials { bearer: Some(Zeroizing::new("hush".into())), ..Credentials::default() };
        assert!(!format!("{credentials:?}").contains("hush"));
    }

    #[test]
    fn outside_all_failures_look_alike() {
        let status = |e: AuthError| (e.to_status().code(), e.to_status().message().to_owned());
        let disagree = AuthError::Disagree { certificate: caller("a").id, token: caller("b").id };
        assert_eq!(
            status(AuthError::NotPresented),
            status(AuthError::Rejected("secret reason".into()))
        );
        assert_eq!(status(AuthError::NotPresented), status(disagree));
    }
}
