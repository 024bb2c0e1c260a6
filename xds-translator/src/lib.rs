//! A pure compiler: mesh configuration in, xDS resources out.
//!
//! ```text
//! Object ─lower─▶ ir ─▶ MeshSnapshot ─classify─▶ ViewKey ─plan─▶ Outline + PlanItem
//!     ─emit─▶ message ─patch─▶ EncodedResource ─▶ View
//! ```
//! Every stage is a value and every arrow a function. Nothing here does IO, reads a clock or knows
//! a secret; nothing before `emit` names an Envoy type, and nothing behind `lower` names a CRD.
//! Names, versions and bytes depend on the configuration alone, so that replicas agree, and an
//! incremental build equals one from scratch.

pub mod analyze;
pub mod class;
pub mod closure;
pub mod compiler;
pub mod crds;
pub mod debug;
pub mod descriptors;
pub mod diagnostic;
pub mod dialect;
pub mod emit;
pub mod explain;
pub mod forecast;
pub mod ir;
pub mod patch;
pub mod plan;
pub mod snapshot;
pub mod translate;
pub mod view;
pub mod yaml;
