//! HTTP on a filter chain: requests are read, named, filtered, routed, forwarded and answered.
//!
//! [`serve`] drives a downstream connection; [`forward`] one request upstream, with [`retry`] and [`mirror`]. Each
//! request loads the runtime configuration once and uses it to its end.

pub mod body;
pub mod executor;
