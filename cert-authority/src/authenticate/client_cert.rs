//! Callers that hold a certificate of this authority.
//!
//! The TLS layer has verified the chain when the connection began; what can change since, or is no
//! TLS concern, is checked here at every call: expiry, revocation, the shape of the identity.

use std::{sync::Arc, time::SystemTime};

use ferromesh_proto::{SpiffeId, TrustDomain};
use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use super::{AuthError, Authenticating, Authenticator, Caller, Credentials, Proof};
use crate::{signer::local::hex, trust::Revocations};

/// Authenticates by client certificate.
pub struct ClientCertificates {
    trust_domain: TrustDomain,
    revoked: Arc<Revocations>,
}

impl ClientCertificates {
    /// Accepts members of `trust_domain` whose certificate is not in `revoked`.
    pub fn new(trust_domain: TrustDomain, revoked: Arc<Revocations>) -> Self {
        Self { trust_domain, revoked }
    }

    fn check(&self, leaf: &CertificateDer<'_>, now: SystemTime) -> Result<Caller, String> {
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|e| format!("client certificate: {e}"))?;
        if leaf.is_ca() {
            return Err("client certificate: it belongs to a certificate authority".into());
        }
        check_time(&leaf, now)?;
        let serial = hex(&leaf.serial.to_bytes_be());
        if self.revoked.contains(&serial) {
            return Err(format!("client certificate: serial {serial} is revoked"));
        }
        let id: SpiffeId =
            only_uri_name(&leaf)?.parse().map_err(|e| format!("client certificate: {e}"))?;
        if id.trust_domain() != &self.trust_domain {
            return Err(format!(
                "client certificate: {id} is not in trust domain {}",
                self.trust_domain
            ));
        }
        Ok(Caller {
            id,
            proof: Proof::Certificate { serial, public_key: leaf.public_key().raw.to_vec() },
        })
    }
}

impl Authenticator for ClientCertificates {
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
        now: SystemTime,
    ) -> Authenticating<'a> {
        Box::pin(async move {
            match credentials.peer_certificates.0.first() {
                None => Err(AuthError::NotPresented),
                Some(leaf) => self.check(leaf, now).map_err(AuthError::Rejected),
            }
        })
    }
}

/// A connection may outlive the certificate that opened it.
fn check_time(leaf: &X509Certificate<'_>, now: SystemTime) -> Result<(), String> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = |t: &x509_parser::time::ASN1Time| u64::try_from(t.timestamp()).unwrap_or(0);
    let validity = leaf.validity();
    if (at(&validity.not_before)..=at(&validity.not_after)).contains(&now) {
        Ok(())
    } else {
        Err(format!(
            "client certificate: valid from {} to {}, not now",
            validity.not_before, validity.not_after
        ))
    }
}

fn only_uri_name<'a>(leaf: &'a X509Certificate<'_>) -> Result<&'a str, String> {
    let names = leaf.subject_alternative_name().map_err(|e| format!("client certificate: {e}"))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|san| &san.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris[..] {
        [only] => Ok(only),
        _ => Err(format!("client certificate: expected exactly one URI name, got {}", uris.len())),
    }
}
