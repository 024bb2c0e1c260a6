//! Objects: what users write, parsed into types, checked on their own, and lowered.
//!
//! A dialect is a folder: the rows of its kinds, a type for each with its fields (`object!` gives
//! decoding, documentation and schema), the rules of its values, and what it means. Text goes in;
//! [`Object`]s, items of the snapshot and [`Diagnostic`](crate::diagnostic::Diagnostic)s come out.
//! What objects say about each other is checked in [`crate::analyze`].

mod cilium;
mod content;
pub mod decode;
pub(crate) mod definition;
mod document;
pub mod ferromesh;
mod flagger;
mod forms;
mod fragment;
mod gateway_api;
pub mod istio;
mod kind;
pub mod kubernetes;
pub mod linkerd;
mod load;
mod lower;
mod lowering;
mod message;
mod meta;
mod names;
#[cfg(test)]
mod nulls;
mod object;
mod object_meta;
mod outcome;
mod re2;
mod readable;
mod reading;
pub mod scalar;
pub mod schema;
mod shape;
pub mod smi;
mod spec;
pub mod stand_in;
pub(crate) mod suggest;
mod table;
#[cfg(test)]
mod tests;
mod weight;
mod written_kind;

pub(crate) use self::object::Written;
pub use self::{
    fragment::Fragment,
    kind::{Declared, KindRow, split_api_version},
    load::{
        MAX_FILE_BYTES, Parsed, Rejected, overlay, parse_file, parse_file_in, parse_files,
        parse_value,
    },
    lower::{Lowered, lower},
    meta::Meta,
    object::{Object, Place},
    object_meta::ObjectMeta,
    outcome::Stranger,
    reading::Envelope,
    table::{NoSuchKind, kinds},
};
pub use crate::ir::{Kind, KindNames, Scope};
pub(crate) use names::{distribution_of, locality_of};
