//! The aggregated discovery service: what proxies talk to.
//!
//! `session` is the protocol as a pure state machine (with `subscription`, `track`, `order`, and `sotw` and `delta` for
//! the wire); `service` connects it to tonic, to the pipeline's views and to secrets; `auth` says who is calling.

pub mod delta;
mod order;
pub mod session;
pub mod sotw;
pub mod subscription;
mod track;

pub use session::{Fault, Refusal, Response, Session, Variant, Verdict};

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod model;
#[cfg(test)]
mod transcripts;
