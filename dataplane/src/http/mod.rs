//! HTTP on a filter chain: requests are read, named, filtered, routed, forwarded and answered.
//!
//! ```text
//! serve (connection) ─▶ target, normalize, headers ─▶ route, passing, filter (phases) ─▶ forward (attempts: retry) ─▶ upstream
//!                                                  └─▶ reply (answered here)             └─▶ mirror, upgrade
//! ```
//! Each request loads the runtime configuration once and uses it to its end; its [`exchange`] notes
//! what logs and metrics tell, and reports when the last byte has gone. Who has broken it, client
//! or endpoint, is told by types ([`crate::codec::blame`]).

mod attempt;
mod call;
mod carried;
pub(crate) mod exchange;
mod filter;
mod forward;
mod hash;
pub(crate) mod headers;
mod mirror;
pub(crate) mod normalize;
mod operation;
mod outgoing;
mod overtime;
mod passing;
pub(crate) mod reply;
mod request;
pub(crate) mod response;
pub(crate) mod retry;
mod route;
pub(crate) mod serve;
mod step;
pub(crate) mod target;
mod time_left;
pub(crate) mod told;
mod trace;
pub(crate) mod upgrade;
pub(crate) mod xfcc;
