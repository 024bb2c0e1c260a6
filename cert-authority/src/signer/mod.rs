//! Turns an approved request into a certificate. [`local`] holds the key in this process; a remote
//! signer fits the same trait.

pub mod local;

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use crate::policy::ApprovedRequest;

/// A leaf and what a peer needs to reach a root from it.
#[derive(Clone, Debug)]
pub struct SignedChain {
    /// The new certificate.
    pub leaf: CertificateDer<'static>,
    /// The signer's certificate, and those above it short of a root.
    pub intermediates: Vec<CertificateDer<'static>>,
    /// Serial number as lower-case hexadecimal, 32 digits.
    pub serial: String,
    /// End of validity; never after the signer's own.
    pub not_after: SystemTime,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The signing certificate is over, or so close to its end that a leaf would be useless.
    #[error("the signing certificate ends too soon to sign with it")]
    SignerExpiring,
    /// The clock stands before the signing certificate's validity.
    #[error("the clock stands before the signing certificate's validity: check the system's time")]
    ClockBehind,
    /// A name that does not fit into a certificate.
    #[error("{0:?} is not a valid name in a certificate")]
    Name(String),
    /// The cryptographic library refused.
    #[error("signing failed: {0}")]
    Crypto(String),
}

/// Signs what policy approved, and checks its own right to do so.
pub trait Signer: Send + Sync {
    /// Signs with a fresh random serial; the leaf's validity begins two minutes before `now` and
    /// ends with the signer's at the latest. Blocks for one signature.
    ///
    /// # Errors
    /// [`SignError`] when the signer is out of date or the key store fails.
    fn sign(&self, request: &ApprovedRequest, now: SystemTime) -> Result<SignedChain, SignError>;
}
