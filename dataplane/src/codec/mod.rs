//! What clients' and endpoints' connections of HTTP have in common, on both sides of the codec
//! (hyper): the bytes below it and the bodies above it.
//!
//! ```text
//! stream ─▶ guard (meter: what HTTP/2 costs) ─▶ tap, http1_stream (framing, who has gone) ─▶ hyper ─▶ progress ─▶ recording ─▶ body
//! ```
//! Floods and what can be read in two ways end here, and a fault has its type ([`blame`]) before
//! anybody acts on it. Knows the limits of a configuration, no route and no cluster.

pub(crate) mod blame;
pub(crate) mod body;
pub(crate) mod executor;
pub(crate) mod fields;
pub(crate) mod framing;
pub(crate) mod guard;
pub(crate) mod http1_stream;
pub(crate) mod meter;
pub(crate) mod progress;
pub(crate) mod recording;
pub(crate) mod requests;
pub(crate) mod room;
pub(crate) mod tap;
pub(crate) mod through;
