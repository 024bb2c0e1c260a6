//! Gets certificates from the control plane: makes the key here, so that it never travels, and asks
//! for a certificate over it by Istio's CSR service.
//!
//! The first certificate needs a join token; later ones are asked for with the certificate in hand,
//! and with the token again when that one has expired or is refused.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ferromesh_proto::{
    SpiffeId,
    istio_ca::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    },
    retry,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use tonic::{Request, metadata::MetadataValue, transport::Channel};
use xxhash_rust::xxh3::xxh3_64;
use zeroize::Zeroizing;

use super::{
    Identity, IdentityError,
    channel::{self, ChannelError, TlsTarget},
    refused_token,
};
use crate::{file, resolve::Resolver};

/// From sending the request to the whole answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No channel to the control plane.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The token's file cannot be read or holds no token.
    #[error("join token {path}: {why}", path = .path.display())]
    Token {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it; never the token.
        why: String,
    },
    /// The control plane did not take the join token.
    #[error("the control plane refused the join token {path}: {why}", path = .path.display())]
    TokenRefused {
        /// Which file.
        path: PathBuf,
        /// Why, as far as the token tells, and what to do.
        why: String,
    },
    /// Neither a valid certificate nor a token file: nothing proves who we are.
    #[error("no certificate is held and no join token file is configured")]
    NoCredentials,
    /// The control plane said no.
    #[error("the control plane refused to issue a certificate: {code:?}: {message}")]
    Refused {
        /// gRPC status code.
        code: tonic::Code,
        /// What it said.
        message: String,
        /// When it wants to be asked again.
        again: Option<Duration>,
    },
    /// Neither way worked.
    #[error("renewal by certificate failed: {renewal}; joining by token failed: {joining}")]
    BothWays {
        /// What the held certificate met.
        renewal: Box<FetchError>,
        /// What the token met.
        joining: Box<FetchError>,
    },
    /// The answer is not a chain with roots.
    #[error(
        "the control plane answered with {0} certificates: expected leaf, intermediates and roots"
    )]
    Shape(usize),
    /// The answer does not fit together.
    #[error("the control plane's answer is unusable: {0}")]
    Identity(#[from] IdentityError),
    /// The certificate is somebody else's.
    #[error("the control plane issued {got}: expected {expected}")]
    ForeignId {
        /// The id in the certificate.
        got: SpiffeId,
        /// The id that was asked for.
        expected: SpiffeId,
    },
    /// The certificate is over already: one of the two clocks is wrong.
    #[error("the control plane issued a certificate that has already expired: compare the clocks")]
    Expired,
    /// The key or the request could not be made.
    #[error("the certificate request could not be made: {0}")]
    Request(String),
}

impl FetchError {
    fn refused(status: &tonic::Status) -> Self {
        Self::Refused {
            code: status.code(),
            message: status.message().to_owned(),
            again: retry::hint(status),
        }
    }

    /// When the control plane wants to be asked again, if it says so.
    pub fn again(&self) -> Option<Duration> {
        match self {
            Self::Refused { again, .. } => *again,
            Self::BothWays { joining, .. } => joining.again(),
            _ => None,
        }
    }
}

/// A boxed answer, so that a source fits behind `dyn`.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Identity, FetchError>> + Send + 'a>>;

/// Where identities come from.
pub trait CertificateSource: Send + Sync {
    /// A fresh identity; `held` is the one in use, valid or not.
    ///
    /// # Errors
    /// [`FetchError`]; the caller keeps what it holds and tries again.
    fn fetch(&self, held: Option<Arc<Identity>>) -> Fetching<'_>;

    /// Tells apart the states of what the source itself trusts; a change means that a new identity
    /// is wanted.
    fn trust(&self) -> u64 {
        0
    }
}

/// Whom to ask, and for what.
#[derive(Clone, Debug)]
pub struct CsrSettings {
    /// The control plane's TLS port.
    pub target: TlsTarget,
    /// The id to ask for.
    pub id: SpiffeId,
    /// File with a join token, read again at each use; without it a lost certificate cannot be
    /// replaced.
    pub token_file: Option<PathBuf>,
    /// Lifetime to ask for; the authority's default without it.
    pub lifetime: Option<Duration>,
}

/// Asks the control plane's CSR service.
#[derive(Clone, Debug)]
pub struct CsrClient {
    settings: CsrSettings,
    resolver: Resolver,
}

impl CsrClient {
    /// A client that connects only when asked.
    pub fn new(settings: CsrSettings) -> Self {
        Self { settings, resolver: Resolver::default() }
    }

    async fn renew_or_join(&self, held: Option<Arc<Identity>>) -> Result<Identity, FetchError> {
        let valid = held.as_deref().filter(|held| held.not_after > SystemTime::now());
        let Some(valid) = valid else { return self.join(held.as_deref()).await };
        let renewal = match self.renew(valid).await {
            // Who is told to come back later would be told so again.
            Err(renewal) if self.settings.token_file.is_some() && renewal.again().is_none() => {
                renewal
            }
            outcome => return outcome,
        };
        // The certificate may be revoked, or its workload registered anew: the token says who we
        // are once more.
        self.join(Some(valid)).await.map_err(|joining| FetchError::BothWays {
            renewal: renewal.into(),
            joining: joining.into(),
        })
    }

    async fn renew(&self, held: &Identity) -> Result<Identity, FetchError> {
        let channel = channel::connect(&self.settings.target, Some(held), &self.resolver).await?;
        self.request(channel, None).await
    }

    /// `held` lends its roots only: an expired certificate would end the handshake.
    async fn join(&self, held: Option<&Identity>) -> Result<Identity, FetchError> {
        let path = self.settings.token_file.as_deref().ok_or(FetchError::NoCredentials)?;
        let token = read_token(path)?;
        let channel =
            channel::connect_anonymously(&self.settings.target, held, &self.resolver).await?;
        let outcome = self.request(channel, Some(&token)).await;
        outcome.map_err(|refused| self.explained(refused, path, &token))
    }

    /// Says of a refused token what the control plane does not.
    fn explained(&self, refused: FetchError, path: &Path, token: &str) -> FetchError {
        match refused {
            FetchError::Refused { code: tonic::Code::Unauthenticated, .. } => {
                let id = &self.settings.id;
                match refused_token::explain(token, id, path, SystemTime::now()) {
                    Some(why) => FetchError::TokenRefused { path: path.to_owned(), why },
                    None => refused,
                }
            }
            other => other,
        }
    }

    async fn request(&self, channel: Channel, token: Option<&str>) -> Result<Identity, FetchError> {
        let (key_pem, csr) = make_request(&self.settings.id)?;
        let lifetime = self.settings.lifetime.unwrap_or_default().as_secs();
        let body = IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(lifetime).unwrap_or(i64::MAX),
            metadata: None,
        };
        let mut request = Request::new(body);
        request.set_timeout(REQUEST_TIMEOUT);
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", bearer(token)?);
        }
        let call = IstioCertificateServiceClient::new(channel);
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, { call }.create_certificate(request))
            .await
            .unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time")))
            .map_err(|status| FetchError::refused(&status))?;
        self.accept(answer.into_inner().cert_chain, key_pem)
    }

    /// Leaf first, roots last; believed only if it is what was asked for.
    fn accept(
        &self,
        mut chain: Vec<String>,
        key_pem: Zeroizing<String>,
    ) -> Result<Identity, FetchError> {
        if chain.len() < 2 {
            return Err(FetchError::Shape(chain.len()));
        }
        let roots_pem = chain.pop().unwrap_or_default();
        let identity = Identity::from_pem(chain.concat(), key_pem, roots_pem)?;
        if identity.spiffe_id != self.settings.id {
            return Err(FetchError::ForeignId {
                got: identity.spiffe_id.clone(),
                expected: self.settings.id.clone(),
            });
        }
        if identity.not_after <= SystemTime::now() {
            Err(FetchError::Expired)
        } else {
            Ok(identity)
        }
    }
}

impl CertificateSource for CsrClient {
    fn fetch(&self, held: Option<Arc<Identity>>) -> Fetching<'_> {
        Box::pin(self.renew_or_join(held))
    }

    fn trust(&self) -> u64 {
        // A file that is being replaced counts as a change, which does no harm.
        file::read(&self.settings.target.roots_file).map_or(0, |pem| xxh3_64(&pem))
    }
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, FetchError> {
    let wrong = |why: String| FetchError::Token { path: path.to_owned(), why };
    let text = Zeroizing::new(file::read_text(path).map_err(|e| wrong(e.to_string()))?);
    let token = text.trim();
    if token.is_empty() {
        Err(wrong("the file is empty".into()))
    } else {
        Ok(Zeroizing::new(token.to_owned()))
    }
}

fn bearer(token: &str) -> Result<MetadataValue<tonic::metadata::Ascii>, FetchError> {
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut value: MetadataValue<_> = text.parse().map_err(|_| {
        FetchError::Request("the join token holds characters that no token has".into())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A fresh P-256 key and a request over it that names `id` and nothing else.
fn make_request(id: &SpiffeId) -> Result<(Zeroizing<String>, String), FetchError> {
    let failed = |e: rcgen::Error| FetchError::Request(e.to_string());
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().map_err(failed)?)];
    let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(failed)?;
    Ok((Zeroizing::new(key.serialize_pem()), csr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing;

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn client() -> CsrClient {
        CsrClient::new(CsrSettings {
            target: TlsTarget {
                address: "127.0.0.1:1".parse().unwrap(),
                server_name: "ferromesh.local".into(),
                roots_file: "/nonexistent/roots.pem".into(),
            },
            id: ID.parse().unwrap(),
            token_file: None,
            lifetime: None,
        })
    }

    fn key(pems: &testing::Pems) -> Zeroizing<String> {
        pems.key.clone()
    }

    #[test]
    fn an_answer_is_believed_only_if_it_is_what_was_asked_for() {
        let (good, other) =
            (testing::pems(ID), testing::pems("spiffe://cluster.local/ns/shop/sa/other"));
        let answer = |p: &testing::Pems| vec![p.chain.clone(), p.roots.clone()];
        let identity = client().accept(answer(&good), key(&good)).unwrap();
        assert_eq!(identity.spiffe_id.to_string(), ID);
        assert!(matches!(
            client().accept(answer(&other), key(&other)),
            Err(FetchError::ForeignId { .. })
        ));
        assert!(matches!(
            client().accept(answer(&good), key(&other)),
            Err(FetchError::Identity(IdentityError::Key(_)))
        ));
        assert!(matches!(
            client().accept(vec![good.chain.clone()], key(&good)),
            Err(FetchError::Shape(1))
        ));
        assert!(matches!(client().accept(vec![], key(&good)), Err(FetchError::Shape(0))));
        let rubbish = vec!["rubbish".to_owned(), good.roots.clone()];
        assert!(matches!(client().accept(rubbish, key(&good)), Err(FetchError::Identity(_))));
    }

    #[test]
    fn a_request_names_the_id_and_its_key_is_new_each_time() {
        let id = ID.parse().unwrap();
        let (first, csr) = make_request(&id).unwrap();
        let (second, _) = make_request(&id).unwrap();
        assert_ne!(*first, *second);
        assert!(csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
    }

    #[tokio::test]
    async fn without_certificate_and_token_nothing_is_asked() {
        assert!(matches!(client().fetch(None).await, Err(FetchError::NoCredentials)));
    }

    #[tokio::test]
    async fn a_missing_or_empty_token_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let mut client = client();
        client.settings.token_file = Some(path.clone());
        assert!(client.fetch(None).await.unwrap_err().to_string().contains("token: "));
        std::fs::write(&path, " \n").unwrap();
        assert!(client.fetch(None).await.unwrap_err().to_string().contains("the file is empty"));
        std::fs::write(&path, "token").unwrap();
        assert!(
            client.fetch(None).await.unwrap_err().to_string().contains("/nonexistent/roots.pem")
        );
    }
}
