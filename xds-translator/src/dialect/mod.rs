//! Objects: what users write, parsed into types and checked on their own.
//!
//! One table ([`KINDS`]) lists the kinds; one declaration per type (`object!`) gives fields, decoding, documentation and
//! schema. Text goes in, [`Object`]s and [`Diagnostic`](crate::diagnostic::Diagnostic)s come out. What objects say about
//! each other is checked in [`crate::analyze`]; what they mean is decided when they are lowered to [`crate::ir`].

mod content;
pub mod decode;
mod document;
pub mod istio;
mod kind;
pub mod kubernetes;
mod load;
mod object;
mod re2;
pub mod scalar;
pub mod schema;
mod suggest;
#[cfg(test)]
mod tests;

pub use content::Envelope;
pub use kind::{KINDS, Kind, KindRow, Scope, Service, split_api_version};
pub use load::{MAX_FILE_BYTES, Parsed, Rejected, Stranger, overlay, parse_file, parse_files, parse_value};
pub use object::{Meta, Object, Place, Spec};
