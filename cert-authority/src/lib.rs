//! The mesh's certificate authority: a notary that decides who may get which SPIFFE id, signs,
//! remembers what it signed, and publishes the trust bundle.
//!
//! ```text
//! request ─▶ authenticate (who calls, proven how) ─▶ csr (what key, proven) ─▶ policy (may they?) ─▶ ApprovedRequest
//!                                                                          ApprovedRequest ─▶ signer ─▶ ledger ─▶ chain
//! ```
//!
//! Invariants:
//! * only [`policy`] can make an [`policy::ApprovedRequest`], and the signer takes nothing else;
//! * nothing of a request reaches a certificate but its public key;
//! * a root is made only where no store ever was, and never over an existing or a damaged one;
//! * private keys leave this crate only sealed, for a store (or, for the control plane's own ports,
//!   in memory); tokens never do.
//!
//! It knows nothing of configuration, Kubernetes or xDS: the control plane plugs further
//! authenticators in.

pub mod authenticate;
pub mod authority;
pub mod csr;
pub mod files;
pub mod ledger;
pub mod lock;
pub mod pem;
pub mod policy;
mod quota;
pub mod rotation;
mod seal;
pub mod service;
pub mod settings;
pub mod signer;
mod state;
pub mod store;
pub mod trust;
mod turn;

pub use authenticate::{
    AuthError, Authenticator, Caller, Credentials, PeerCertificates, Proof,
    client_cert::ClientCertificates,
    jwt::{JoinTokens, Uses},
};
pub use authority::{Authority, Generation, IssueError, IssuedChain, OpenError, ServerCertificate};
pub use ledger::LedgerError;
pub use service::{CertificateService, IdentityRegistry};
pub use settings::{FirstStart, Settings};
pub use store::StateStore;
pub use trust::TrustBundle;
