//! The aggregated discovery service: what proxies talk to.
//!
//! `session` is the protocol as a pure state machine (with `subscription`, `track`, `order`, and
//! `sotw` and `delta` for the wire); `service`, `stream`, `inbox` and `outbox` connect it to HTTP,
//! to the pipeline's views and to `secrets`, over what all streams have in common (`shared`);
//! `wire` makes bytes; `auth` says who is calling, `arrivals` how many may come at a time, and
//! `keeping` how much of their words is kept.

mod arrivals;
pub mod auth;
pub mod delta;
mod inbox;
mod keeping;
mod order;
mod outbox;
mod secrets;
pub mod service;
pub mod session;
pub mod shared;
pub mod sotw;
mod stream;
pub mod subscription;
mod track;
mod wire;

pub use session::{Fault, Response, Session, Variant, Verdict};

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod model;
#[cfg(test)]
mod transcripts;
