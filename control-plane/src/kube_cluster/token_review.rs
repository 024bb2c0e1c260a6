//! Kubernetes service accounts as identities: a pod's projected token becomes
//! `spiffe://TD/ns/NAMESPACE/sa/ACCOUNT`.
//!
//! The API server says whether a token is good for our audience ([`bound`] reads its answer and
//! believes nothing else); then the pod that the token is bound to must exist, be the same one, run
//! under that account and not have ended. Every doubt is a refusal; an API server that does not
//! answer is none, and the caller may try again. An acceptance is remembered for seconds
//! ([`accepted`]), by a digest of the token.

mod accepted;
mod bound;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use ferromesh_cert_authority::{
    AuthError, Authenticator, Caller, Credentials, Proof, authenticate::Authenticating,
};
use ferromesh_proto::{SpiffeId, TrustDomain};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus},
    core::v1::Pod,
};
use kube::{Api, Client, Error, api::PostParams};
use tokio::{sync::Semaphore, time::timeout};
use zeroize::Zeroize;

use self::{
    accepted::{Accepted, Digest},
    bound::{AUDIENCE, Bound, Claimed},
};
use super::{KubeCluster, said};
use crate::metrics::Metrics;

/// Questions to the API server at a time: a thousand pods that start at once must not take it down.
const AT_A_TIME: usize = 32;
/// For a turn and both answers; agents try again.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the audit log calls such a token.
const KIND: &str = "kubernetes token";

/// Proves callers by tokens of Kubernetes service accounts.
pub struct TokenReviews {
    client: Client,
    trust_domain: TrustDomain,
    accepted: Mutex<Accepted>,
    turns: Semaphore,
    metrics: Arc<Metrics>,
}

impl TokenReviews {
    /// Asks the API server of `cluster`; callers become members of `trust_domain`.
    pub fn new(cluster: &KubeCluster, trust_domain: TrustDomain, metrics: Arc<Metrics>) -> Self {
        let (accepted, turns) = (Mutex::default(), Semaphore::new(AT_A_TIME));
        Self { client: cluster.client(), trust_domain, accepted, turns, metrics }
    }

    async fn prove(&self, token: &str, now: SystemTime) -> Result<Caller, AuthError> {
        let claimed =
            Claimed::read(token).map_err(|why| AuthError::Rejected(format!("{KIND}: {why}")))?;
        let digest = Digest::of(token);
        if let Some(caller) = self.remembered(|accepted| accepted.get(&digest, now)) {
            self.metrics.token_review("remembered");
            return Ok(caller);
        }
        let answered = timeout(PATIENCE, self.ask(token)).await;
        let outcome = answered.unwrap_or_else(|_| {
            Err(ReviewError::Unavailable("the API server does not answer".into()))
        });
        self.metrics.token_review(match &outcome {
            Ok(_) => "accepted",
            Err(ReviewError::Rejected(_)) => "refused",
            Err(ReviewError::Unavailable(_)) => "unanswered",
        });
        let caller = outcome.map_err(|refusal| refusal.about(&claimed))?;
        self.remembered(|accepted| accepted.put(digest, caller.clone(), now, claimed.expiry()));
        Ok(caller)
    }

    fn remembered<T>(&self, work: impl FnOnce(&mut Accepted) -> T) -> T {
        work(&mut self.accepted.lock().expect("no holder of this lock panics"))
    }

    async fn ask(&self, token: &str) -> Result<Caller, ReviewError> {
        let _turn =
            self.turns.acquire().await.map_err(|_| ReviewError::Unavailable("stopping".into()))?;
        let bound = Bound::read(&self.review(token).await?).map_err(ReviewError::Rejected)?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &bound.namespace);
        let pod = pods.get_opt(&bound.pod).await.map_err(|e| no_answer(&e, "get pods"))?;
        bound.check(pod.as_ref()).map_err(ReviewError::Rejected)?;
        let id = SpiffeId::new(self.trust_domain.clone(), &bound.namespace, &bound.service_account);
        let id = id.map_err(|e| ReviewError::Rejected(format!("{}: {e}", bound.user())))?;
        Ok(Caller { id, proof: Proof::Token { kind: KIND, token_id: Some(bound.token_id()) } })
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, ReviewError> {
        let spec =
            TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: token.to_owned() };
        let mut question = TokenReview { spec, ..TokenReview::default() };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &question).await;
        question.spec.token.zeroize();
        let mut answer: TokenReview = answer.map_err(|e| no_answer(&e, "create tokenreviews"))?;
        // The server repeats the question.
        answer.spec.token.zeroize();
        answer.status.ok_or_else(|| ReviewError::Rejected("the API server gave no verdict".into()))
    }
}

impl Authenticator for TokenReviews {
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
        now: SystemTime,
    ) -> Authenticating<'a> {
        Box::pin(async move {
            let token = credentials.bearer.as_deref().ok_or(AuthError::NotPresented)?;
            self.prove(token, now).await
        })
    }
}

/// Why nobody is proven.
#[derive(Debug)]
enum ReviewError {
    /// The token is not good.
    Rejected(String),
    /// Nobody can tell now.
    Unavailable(String),
}

impl ReviewError {
    /// With what the token says of itself, so that the audit log tells who was refused.
    fn about(self, claimed: &Claimed) -> AuthError {
        match self {
            Self::Rejected(why) => {
                AuthError::Rejected(format!("{KIND} that says it is of {claimed}: {why}"))
            }
            Self::Unavailable(why) => {
                AuthError::Unavailable(format!("{KIND} that says it is of {claimed}: {why}"))
            }
        }
    }
}

/// An error of the API server never speaks about the token: verdicts come in a status.
fn no_answer(error: &Error, right: &str) -> ReviewError {
    ReviewError::Unavailable(match error {
        Error::Api(status) if matches!(status.code, 401 | 403) => {
            format!("the control plane may not {right}: {}", status.message)
        }
        error => said(error),
    })
}
