//! Who is calling on a discovery port, proven or believed, and for how long.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use ferromesh_cert_authority::{AuthError, Authenticator, Caller, Credentials, Proof};
use tonic::{Request, Status};

use super::arrivals::Visitor;
use crate::accept::{ClientNetwork, Visit};

/// What a port knows about its callers.
#[derive(Clone)]
pub enum Trust {
    /// The node id is believed, and nothing secret is served (15010).
    Believed,
    /// Callers prove who they are by certificate or token (15012).
    Proven {
        /// Checks what they present.
        authenticator: Arc<dyn Authenticator>,
        /// Tells the time.
        clock: fn() -> SystemTime,
    },
}

/// A caller who has been let in, with what is needed to check it again.
pub struct Admission {
    trust: Trust,
    credentials: Credentials,
    /// The proven caller; `None` where callers are believed.
    pub caller: Option<Caller>,
    /// Where it calls from.
    pub remote: Option<SocketAddr>,
    /// The connection that it calls on.
    pub(super) visit: Option<Visit>,
}

impl Trust {
    /// Lets a caller in, or says no in words that help nobody who guesses; the audit log has the
    /// reason.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, or `UNAVAILABLE` when it cannot be checked now.
    pub async fn admit<T>(&self, request: &Request<T>) -> Result<Admission, Status> {
        let remote = request.remote_addr();
        let credentials = match self {
            Self::Believed => Credentials::default(),
            Self::Proven { .. } => {
                Credentials::from_request(request).map_err(|e| refuse(&e, remote))?
            }
        };
        let visit = request.extensions().get::<Visit>().cloned();
        let mut admission =
            Admission { trust: self.clone(), credentials, caller: None, remote, visit };
        admission.caller = admission.prove().await?;
        Ok(admission)
    }
}

impl Admission {
    /// Who it counts as, for fairness.
    pub(super) fn visitor(&self) -> Visitor {
        match &self.caller {
            Some(caller) => Visitor::Proven(caller.id.clone()),
            None => Visitor::From(
                self.remote.map_or(ClientNetwork::UNKNOWN, |remote| ClientNetwork::of(remote.ip())),
            ),
        }
    }

    /// Checks again that the caller is who it was: its credential may have expired or been revoked
    /// since.
    ///
    /// # Errors
    /// As [`Trust::admit`]; a caller whose checker does not answer is not refused for it.
    pub async fn renew(&self) -> Result<(), Status> {
        match self.prove().await {
            Ok(caller) if caller.as_ref().map(|c| &c.id) == self.caller.as_ref().map(|c| &c.id) => {
                Ok(())
            }
            Ok(_) => Err(Status::permission_denied("the caller has changed")),
            Err(status) if status.code() == tonic::Code::Unavailable => Ok(()),
            Err(status) => Err(status),
        }
    }

    async fn prove(&self) -> Result<Option<Caller>, Status> {
        let Trust::Proven { authenticator, clock } = &self.trust else { return Ok(None) };
        let outcome = authenticator.authenticate(&self.credentials, clock()).await;
        outcome.and_then(for_streams).map(Some).map_err(|e| refuse(&e, self.remote))
    }
}

/// A token that is good for one certificate opens no stream: it would be used without being used up.
fn for_streams(caller: Caller) -> Result<Caller, AuthError> {
    match &caller.proof {
        Proof::SingleUse { .. } => {
            Err(AuthError::Rejected(format!("{} opens no stream", caller.proof)))
        }
        _ => Ok(caller),
    }
}

fn refuse(error: &AuthError, remote: Option<SocketAddr>) -> Status {
    tracing::warn!(target: "audit", reason = %error, peer = ?remote, "xDS stream not authenticated");
    error.to_status()
}
