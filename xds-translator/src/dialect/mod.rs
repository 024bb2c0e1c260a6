//! Objects: what users write, parsed into types and checked on their own.
//!
//! One table ([`KINDS`]) lists the kinds; one declaration per type (`object!`) gives fields, decoding, documentation and
//! schema. Text goes in, [`Object`]s and [`Diagnostic`](crate::diagnostic::Diagnostic)s come out. What objects say about
//! each other is checked in [`crate::analyze`]; what they mean is decided when they are lowered to [`crate::ir`].

pub mod decode;
pub mod istio;
mod kind;
pub mod kubernetes;
mod object;
pub mod scalar;
pub mod schema;
mod suggest;

pub use kind::{KINDS, Kind, KindRow, Scope, Service, split_api_version};
pub use object::{Meta, Object, Place, Spec};
