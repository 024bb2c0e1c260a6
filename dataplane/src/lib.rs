//! The Ferromesh data plane: a proxy that runs the same xDS as Envoy, and an agent that gives a stock Envoy its
//! identity.
//!
//! ```text
//! xds (delta ADS) ─▶ compile ─▶ runtime (immutable) ─ArcSwap─▶ listen ─▶ tls ─▶ http | tcp ─▶ upstream
//!        ▲              └─ refuses what it cannot do: NACK with resource, field and reason
//!   identity (CSR, rotation) ─▶ tls, agent (SDS for Envoy)
//! ```
//! It never imports the translator or the control plane: they meet only on the wire. Admin work (xDS, certificates,
//! metrics) runs on one thread, traffic on others, each with a runtime of its own.

pub mod agent;
pub mod compile;
pub mod http;
pub mod identity;
pub mod listen;
pub mod runtime;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod xds;
