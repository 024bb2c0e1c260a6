//! Istio's certificate service over gRPC: the only part that knows the protocol.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use ferromesh_proto::{
    SpiffeId,
    istio_ca::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::{
            IstioCertificateService, IstioCertificateServiceServer,
        },
    },
    retry,
};
use tonic::{Request, Response, Status};

use crate::{
    authenticate::{AuthError, Authenticator, Caller, Credentials, PeerCertificates, Proof},
    authority::{Authority, IssueError, IssuedChain},
    csr::{Csr, CsrError},
    policy::{self, Refusal},
    quota::Quota,
    turn::{AGAIN, Crowded, Queue, Urgency},
};

/// Largest message that is read at all: a request of [`crate::csr::MAX_PEM`] and its metadata fit.
const MAX_MESSAGE: usize = 64 << 10;
/// Signatures at a time: more would only starve other users of the blocking pool.
const CONCURRENT_SIGNATURES: usize = 16;
/// Requests that may wait for a signature; further ones are told to come back.
const WAITING: usize = 4096;
/// The metadata field with which a node proxy asks for another's identity.
const IMPERSONATION: &str = "ImpersonatedIdentity";

/// Which identities exist now. Without it, a stolen key could renew its certificate for ever after
/// its workload is gone.
pub trait IdentityRegistry: Send + Sync {
    /// Whether a workload with this identity is registered.
    fn exists(&self, id: &SpiffeId) -> bool;

    /// How many workloads have it, as far as is known: so many may start at once.
    fn workloads(&self, _: &SpiffeId) -> usize {
        0
    }
}

impl<F: Fn(&SpiffeId) -> bool + Send + Sync> IdentityRegistry for F {
    fn exists(&self, id: &SpiffeId) -> bool {
        self(id)
    }
}

/// `istio.v1.auth.IstioCertificateService`.
pub struct CertificateService {
    authority: Arc<Authority>,
    authenticator: Arc<dyn Authenticator>,
    registry: Option<Arc<dyn IdentityRegistry>>,
    clock: fn() -> SystemTime,
    signatures: Arc<Queue>,
    quota: Mutex<Quota>,
}

impl CertificateService {
    /// A service that issues to whom `authenticator` accepts.
    pub fn new(
        authority: Arc<Authority>,
        authenticator: Arc<dyn Authenticator>,
        clock: fn() -> SystemTime,
    ) -> Self {
        let signatures = Queue::new(CONCURRENT_SIGNATURES, WAITING);
        let quota = Mutex::new(Quota::new(authority.settings().leaf_ttl));
        Self { authority, authenticator, registry: None, clock, signatures, quota }
    }

    /// Renewals by certificate from now on need a live entry in `registry`.
    #[must_use]
    pub fn with_registry(self, registry: Arc<dyn IdentityRegistry>) -> Self {
        Self { registry: Some(registry), ..self }
    }

    /// The service with its message limit, to mount on a tonic server.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    async fn authenticate(
        &self,
        request: &Request<IstioCertificateRequest>,
        now: SystemTime,
    ) -> Result<Caller, Status> {
        let outcome = match Credentials::from_request(request) {
            Ok(credentials) => self.authenticator.authenticate(&credentials, now).await,
            Err(error) => Err(error),
        };
        outcome.map_err(|error| {
            tracing::warn!(target: "audit", reason = %error, peer = ?request.remote_addr(), "certificate request not authenticated");
            error.to_status()
        })
    }

    fn check_registered(&self, caller: &Caller, peer: Option<SocketAddr>) -> Result<(), Status> {
        let by_certificate = matches!(caller.proof, Proof::Certificate { .. });
        let gone = by_certificate
            && self.registry.as_ref().is_some_and(|registry| !registry.exists(&caller.id));
        if gone {
            tracing::warn!(target: "audit", id = %caller.id, proof = %caller.proof, ?peer, "renewal refused: no such workload");
            return Err(Status::permission_denied("renewal not permitted"));
        }
        Ok(())
    }

    /// An identity gets what its workloads need, and no more.
    fn check_quota(
        &self,
        caller: &Caller,
        peer: Option<SocketAddr>,
        now: SystemTime,
    ) -> Result<(), Status> {
        let workloads = self.registry.as_ref().map_or(0, |registry| registry.workloads(&caller.id));
        let taken = self
            .quota
            .lock()
            .expect("no holder of this lock panics")
            .take(&caller.id, workloads, now);
        taken.map_err(|wait| {
            tracing::warn!(target: "audit", id = %caller.id, proof = %caller.proof, ?peer, "certificate request refused: too many for this identity");
            retry::exhausted("too many certificate requests of this identity", wait)
        })
    }

    /// Waits for a turn; sheds load instead of queueing without end.
    async fn sign(
        &self,
        caller: Caller,
        urgency: Urgency,
        peer: Option<SocketAddr>,
        body: IstioCertificateRequest,
        now: SystemTime,
    ) -> Result<IssuedChain, Status> {
        let turn = self.signatures.turn(urgency).await;
        let turn =
            turn.map_err(|Crowded| retry::exhausted("too many certificate requests", AGAIN))?;
        let authority = self.authority.clone();
        let signed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let outcome = decide(&authority, &caller, &body).and_then(|approved| {
                use_up(&authority, &caller, now)?;
                Ok(authority.issue(&approved, now)?)
            });
            audit(&caller, peer, &outcome);
            outcome
        });
        signed
            .await
            .map_err(|_| Status::internal("the request could not be completed"))?
            .map_err(Status::from)
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let now = (self.clock)();
        let peer = request.remote_addr();
        let caller = self.authenticate(&request, now).await?;
        self.check_registered(&caller, peer)?;
        self.check_quota(&caller, peer, now)?;
        let held =
            request.extensions().get::<PeerCertificates>().and_then(PeerCertificates::validity);
        let urgency = Urgency::of(held, now);
        let issued = self.sign(caller, urgency, peer, request.into_inner(), now).await?;
        Ok(Response::new(IstioCertificateResponse { cert_chain: issued.pem_elements() }))
    }
}

#[derive(Debug, thiserror::Error)]
enum CreateError {
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("acting for another identity ({IMPERSONATION}) is not supported")]
    Impersonation,
    #[error("the join token is of a single use, and was used")]
    Used,
    #[error("validity_duration {0}: expected seconds, or 0 for the default")]
    Duration(i64),
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl From<CreateError> for Status {
    fn from(error: CreateError) -> Self {
        match error {
            // What is wrong inside the authority is its operator's business.
            CreateError::Issue(_) => Self::unavailable("no certificate can be issued now"),
            // As for every other credential that is not good.
            CreateError::Used => AuthError::Rejected(String::new()).to_status(),
            own_mistake => Self::invalid_argument(own_mistake.to_string()),
        }
    }
}

/// Tells the audit log who got a certificate, or why not.
fn audit(caller: &Caller, peer: Option<SocketAddr>, outcome: &Result<IssuedChain, CreateError>) {
    let Caller { id, proof } = caller;
    match outcome {
        Ok(issued) => {
            tracing::info!(target: "audit", %id, %proof, ?peer, serial = issued.serial, "certificate issued");
        }
        Err(CreateError::Issue(error)) => {
            tracing::error!(target: "audit", %id, ?peer, %error, "certificate not issued");
        }
        Err(reason) => {
            tracing::warn!(target: "audit", %id, %proof, ?peer, %reason, "certificate request refused");
        }
    }
}

fn decide(
    authority: &Authority,
    caller: &Caller,
    body: &IstioCertificateRequest,
) -> Result<policy::ApprovedRequest, CreateError> {
    if body.metadata.as_ref().is_some_and(|metadata| metadata.fields.contains_key(IMPERSONATION)) {
        return Err(CreateError::Impersonation);
    }
    let asked = match body.validity_duration {
        0 => None,
        seconds => Some(u64::try_from(seconds).map_err(|_| CreateError::Duration(seconds))?),
    };
    let csr = Csr::parse(&body.csr)?;
    Ok(policy::approve_workload(
        caller,
        &csr,
        asked.map(Duration::from_secs),
        authority.settings(),
    )?)
}

/// A token of a single use is used up by an approved request, before anything is signed: of two that
/// come with it at once, one gets a certificate.
fn use_up(authority: &Authority, caller: &Caller, now: SystemTime) -> Result<(), CreateError> {
    match &caller.proof {
        Proof::SingleUse { token_id, expires } if !authority.use_up(token_id, *expires, now)? => {
            Err(CreateError::Used)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FirstStart, Settings, authenticate::jwt::Uses, signer::local::testing};
    use ferromesh_proto::TrustDomain;
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    use tonic::Code;

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    struct Fixture {
        _dir: tempfile::TempDir,
        authority: Arc<Authority>,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let settings = Settings::new(TrustDomain::default());
            let authority =
                Authority::open(&dir.path().join("ca"), settings, FirstStart::Allowed, now())
                    .unwrap();
            Self { _dir: dir, authority: Arc::new(authority) }
        }

        fn service(&self) -> CertificateService {
            CertificateService::new(
                self.authority.clone(),
                Arc::new(self.authority.authenticator([])),
                now,
            )
        }

        fn by_token(&self, csr: String) -> Request<IstioCertificateRequest> {
            self.token_of(ID, Uses::Many, csr)
        }

        fn token_of(&self, id: &str, uses: Uses, csr: String) -> Request<IstioCertificateRequest> {
            let token = self
                .authority
                .join_tokens()
                .issue(&id.parse().unwrap(), Duration::from_secs(60), uses, now())
                .unwrap();
            let mut request = Request::new(IstioCertificateRequest { csr, ..Default::default() });
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
            request
        }
    }

    fn by_certificate(leaf_pem: &str, csr: String) -> Request<IstioCertificateRequest> {
        let leaf = CertificateDer::from_pem_slice(leaf_pem.as_bytes()).unwrap();
        let mut request = Request::new(IstioCertificateRequest { csr, ..Default::default() });
        request.extensions_mut().insert(PeerCertificates(Arc::new(vec![leaf])));
        request
    }

    async fn call(
        service: &CertificateService,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Vec<String>, Status> {
        service.create_certificate(request).await.map(|response| response.into_inner().cert_chain)
    }

    #[tokio::test]
    async fn a_token_of_a_single_use_is_good_for_one_certificate_over_a_restart_too() {
        let fixture = Fixture::new();
        let service = fixture.service();
        let good = || testing::good_csr(&[ID]);
        let once = fixture.token_of(ID, Uses::Once, good());
        let again = |csr: String| {
            let mut request = Request::new(IstioCertificateRequest { csr, ..Default::default() });
            let header = once.metadata().get("authorization").unwrap().clone();
            request.metadata_mut().insert("authorization", header);
            request
        };
        let refused = |outcome: Result<_, Status>| outcome.map(drop).unwrap_err().code();
        let malformed = call(&service, again("rubbish".into())).await;
        assert_eq!(
            refused(malformed.map(drop)),
            Code::InvalidArgument,
            "it is not used up by that"
        );
        assert!(call(&service, again(good())).await.is_ok());
        let second = call(&service, again(good())).await;
        assert_eq!(refused(second.map(drop)), Code::Unauthenticated);
        let Fixture { _dir: dir, authority } = fixture;
        drop((service, authority));
        let settings = Settings::new(TrustDomain::default());
        let path = dir.path().join("ca");
        let authority = Authority::open(&path, settings, FirstStart::Refused, now()).unwrap();
        let fixture = Fixture { _dir: dir, authority: Arc::new(authority) };
        let third = call(&fixture.service(), again(good())).await;
        assert_eq!(refused(third.map(drop)), Code::Unauthenticated);
    }

    #[tokio::test]
    async fn the_answer_is_leaf_intermediate_and_last_all_roots() {
        let fixture = Fixture::new();
        let chain =
            call(&fixture.service(), fixture.by_token(testing::good_csr(&[ID]))).await.unwrap();
        assert_eq!(chain.len(), 3);
        assert_eq!(chain[2], fixture.authority.trust_bundle().borrow().pem());
        for element in &chain {
            assert!(
                element.starts_with("-----BEGIN CERTIFICATE-----\n")
                    && element.ends_with("-----END CERTIFICATE-----\n")
            );
        }
    }

    #[tokio::test]
    async fn a_certificate_renews_itself_while_its_workload_lives() {
        let fixture = Fixture::new();
        let service = fixture.service();
        let first = call(&service, fixture.by_token(testing::good_csr(&[]))).await.unwrap();
        assert!(call(&service, by_certificate(&first[0], testing::good_csr(&[]))).await.is_ok());
        let service = service.with_registry(Arc::new(|_: &SpiffeId| false));
        let refused =
            call(&service, by_certificate(&first[0], testing::good_csr(&[]))).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(
            call(&service, fixture.by_token(testing::good_csr(&[]))).await.is_ok(),
            "a token needs no entry"
        );
    }

    #[tokio::test]
    async fn an_identity_that_asks_without_end_is_told_when_to_come_back_and_others_are_served() {
        let fixture = Fixture::new();
        let service = fixture.service();
        let csr = testing::good_csr(&[]);
        let mut refused = None;
        let mut issued = 0;
        for _ in 0..200 {
            match call(&service, fixture.by_token(csr.clone())).await {
                Ok(_) => issued += 1,
                Err(status) => refused = Some(status),
            }
        }
        let refused = refused.expect("a refusal");
        assert_eq!((issued, refused.code()), (60, Code::ResourceExhausted));
        assert_eq!(retry::hint(&refused), Some(Duration::from_secs(1)));
        let other =
            fixture.token_of("spiffe://cluster.local/ns/shop/sa/other", Uses::Many, csr.clone());
        assert!(call(&service, other).await.is_ok(), "another identity has its own allowance");

        struct Many;
        impl IdentityRegistry for Many {
            fn exists(&self, _: &SpiffeId) -> bool {
                true
            }
            fn workloads(&self, _: &SpiffeId) -> usize {
                100
            }
        }
        let service = fixture.service().with_registry(Arc::new(Many));
        for number in 0..200 {
            assert!(
                call(&service, fixture.by_token(csr.clone())).await.is_ok(),
                "start {number} of a hundred workloads"
            );
        }
    }

    async fn check(
        request: impl FnOnce(&Fixture) -> Request<IstioCertificateRequest>,
        expected: Code,
    ) {
        let fixture = Fixture::new();
        let status = call(&fixture.service(), request(&fixture)).await.unwrap_err();
        assert_eq!(status.code(), expected, "{status:?}");
        assert!(fixture.authority.issued(1).unwrap().is_empty(), "nothing was issued");
    }

    #[tokio::test]
    async fn strangers_and_bad_requests_get_nothing() {
        let good = || testing::good_csr(&[]);
        let unproven = IstioCertificateRequest { csr: good(), ..Default::default() };
        check(|_| Request::new(unproven), Code::Unauthenticated).await;
        check(|f| f.by_token("rubbish".into()), Code::InvalidArgument).await;
        check(
            |f| f.by_token(testing::good_csr(&["spiffe://cluster.local/ns/bank/sa/vault"])),
            Code::InvalidArgument,
        )
        .await;
        let with = |f: &Fixture, change: fn(&mut IstioCertificateRequest)| {
            let mut request = f.by_token(good());
            change(request.get_mut());
            request
        };
        check(|f| with(f, |r| r.validity_duration = -1), Code::InvalidArgument).await;
        check(|f| with(f, |r| r.validity_duration = i64::MAX), Code::InvalidArgument).await;
        let impersonating = |r: &mut IstioCertificateRequest| {
            let fields = [(IMPERSONATION.to_owned(), prost_types::Value::default())].into();
            r.metadata = Some(prost_types::Struct { fields });
        };
        check(|f| with(f, impersonating), Code::InvalidArgument).await;
    }
}
