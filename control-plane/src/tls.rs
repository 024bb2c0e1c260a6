//! Who the control plane is on its TLS ports (15012 and 15017): its own certificate, replaced
//! before it ends, and optional client certificates, checked against the mesh's trust bundle and
//! nothing else.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use ferromesh_cert_authority::{Authority, IssueError, PeerCertificates, TrustBundle};
use ferromesh_proto::recurring::Recurring;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::PrivateKeyDer;

/// A connection lasts for this share of what is left of its client's certificate: clients renew
/// around half.
const CONNECTION_SHARE: f64 = 0.9;
/// A client that could not renew does not come back faster than this.
const SHORTEST_CONNECTION: Duration = Duration::from_secs(1);
/// Pause after a certificate could not be made.
const RETRY: Duration = Duration::from_secs(5);

/// Why a port has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority gave no certificate.
    #[error("no certificate for the control plane's own port: {0}")]
    Certificate(#[from] IssueError),
    /// What it gave cannot be used.
    #[error("the control plane's certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The trust bundle cannot be used.
    #[error("the trust bundle cannot be used: {0}")]
    Bundle(#[from] rustls::server::VerifierBuilderError),
    /// The runtime is stopping.
    #[error("stopped")]
    Stopped,
}

/// Names and addresses that the server's certificate carries, and what is spoken behind it.
#[derive(Clone, Debug)]
pub struct ServerNames {
    /// DNS names.
    pub names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Protocols that the port speaks, best first (ALPN).
    pub protocols: &'static [&'static [u8]],
}

/// The TLS settings that new connections of a port get.
pub struct ServerIdentity {
    authority: Arc<Authority>,
    names: ServerNames,
    config: ArcSwap<ServerConfig>,
    clock: fn() -> SystemTime,
}

impl ServerIdentity {
    /// Gets a certificate; returns the identity and when the certificate is to be replaced.
    ///
    /// # Errors
    /// [`TlsError`] when there is no usable certificate.
    pub async fn open(
        authority: Arc<Authority>,
        names: ServerNames,
        clock: fn() -> SystemTime,
    ) -> Result<(Arc<Self>, Duration), TlsError> {
        let (config, renewal) = make(&authority, &names, clock).await?;
        Ok((
            Arc::new(Self { authority, names, config: ArcSwap::from_pointee(config), clock }),
            renewal,
        ))
    }

    /// Replaces the certificate at half of its life and the bundle when it changes, for as long as
    /// it is polled.
    pub async fn keep_fresh(self: Arc<Self>, mut renewal: Duration) {
        let mut bundle = self.authority.trust_bundle();
        let mut trouble = Recurring::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(renewal) => {}
                changed = bundle.changed() => if changed.is_err() { return },
            }
            renewal = match make(&self.authority, &self.names, self.clock).await {
                Ok((config, renewal)) => {
                    if let Some(failures) = trouble.worked(Instant::now()) {
                        tracing::info!(failures, "a new certificate again");
                    }
                    self.config.store(Arc::new(config));
                    renewal
                }
                Err(error) => {
                    if let Some(failures) = trouble.failed(&error, Instant::now()) {
                        tracing::error!(%error, failures, "keeping the present certificate for now");
                    }
                    RETRY
                }
            };
        }
    }

    /// The settings of a connection that begins now.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// How long a connection of a client with these certificates lasts, so that the client comes
    /// back with the one that it has renewed meanwhile: Envoy shows a new one on new connections
    /// only, and would repeat its calls on this one for ever. `None` for a client without.
    pub fn lifetime(&self, certificates: &PeerCertificates) -> Option<Duration> {
        let left = certificates.not_after()?.duration_since((self.clock)()).unwrap_or_default();
        Some(left.mul_f64(CONNECTION_SHARE).max(SHORTEST_CONNECTION))
    }
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerIdentity").field("names", &self.names).finish_non_exhaustive()
    }
}

/// A configuration with a new certificate, and how long to wait before the next.
async fn make(
    authority: &Arc<Authority>,
    names: &ServerNames,
    clock: fn() -> SystemTime,
) -> Result<(ServerConfig, Duration), TlsError> {
    let (signer, wanted) = (authority.clone(), names.clone());
    let issued = tokio::task::spawn_blocking(move || {
        signer.server_certificate(wanted.names, wanted.addresses, clock())
    })
    .await;
    let certificate = issued.map_err(|_| TlsError::Stopped)??;
    let renewal = certificate.renew_at.duration_since(clock()).unwrap_or_default();
    let bundle = authority.trust_bundle().borrow().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&bundle)?), provider.clone())
            .allow_unauthenticated()
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificate.chain, PrivateKeyDer::Pkcs8(certificate.key))?;
    config.alpn_protocols = names.protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // A resumed session would skip the check of a client certificate against today's bundle.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((config, renewal))
}

fn roots(bundle: &TrustBundle) -> Result<RootCertStore, rustls::Error> {
    let mut store = RootCertStore::empty();
    bundle.roots().iter().try_for_each(|root| store.add(root.clone()))?;
    Ok(store)
}
