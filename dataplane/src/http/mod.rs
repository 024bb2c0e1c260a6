//! HTTP on a filter chain: requests are read, named, filtered, routed, forwarded and answered.
//!
//! ```text
//! serve (connection) ─▶ target, normalize, headers ─▶ route (filters: rbac, fault, cors) ─▶ forward (attempts: retry) ─▶ upstream
//!                                                  └─▶ reply (answered here)             └─▶ mirror, upgrade
//! ```
//! Each request loads the runtime configuration once and uses it to its end; its [`exchange`] notes what logs and
//! metrics tell, and reports when the last byte has gone. Who has broken it, client or endpoint, is told by types ([`blame`]).

pub(crate) mod attempt;
pub(crate) mod blame;
pub(crate) mod body;
pub(crate) mod cors;
pub(crate) mod exchange;
pub(crate) mod executor;
pub(crate) mod fault;
pub(crate) mod forward;
pub(crate) mod framing;
pub(crate) mod guard;
mod hash;
pub(crate) mod headers;
pub(crate) mod meter;
pub(crate) mod mirror;
pub(crate) mod normalize;
pub(crate) mod reply;
pub(crate) mod requests;
pub(crate) mod response;
pub(crate) mod retry;
pub(crate) mod route;
pub(crate) mod serve;
pub(crate) mod tap;
pub(crate) mod target;
pub(crate) mod upgrade;
pub(crate) mod xfcc;
