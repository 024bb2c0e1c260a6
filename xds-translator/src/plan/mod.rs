//! Planning: every decision about what a proxy gets, as plain values.
//!
//! Reads the snapshot only through [`crate::snapshot::Reader`], which records what was read; takes nothing but a key.

pub mod keys;
pub mod outline;
pub mod types;

pub use keys::*;
pub use outline::*;
pub use types::*;
