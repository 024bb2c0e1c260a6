//! placeholder
pub mod diagnostic;
pub mod dialect;
pub mod ir;
pub mod yaml;
