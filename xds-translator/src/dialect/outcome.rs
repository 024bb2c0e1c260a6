//! What reading one document came to.

use std::sync::Arc;

use super::{Object, fragment::Fragment};
use crate::diagnostic::Diagnostic;

/// A document that has a kind, but none that means anything here: another program's, or a slip of
/// the pen.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stranger {
    /// `apiVersion` as written.
    pub api_version: Arc<str>,
    /// `kind` as written.
    pub kind: Arc<str>,
    /// `metadata.name`; may be empty.
    pub name: Arc<str>,
}

/// What one document, or one item of a `List`, came to.
pub(super) enum Outcome {
    /// An object and the findings about it; refused if one of them is an error.
    Object(Object, Vec<Diagnostic>),
    /// Something else that is well formed.
    Stranger(Stranger, Diagnostic),
    /// No object.
    Finding(Diagnostic),
    /// What could be read of an object in a text of which something is wrong.
    Fragment(Fragment),
}
