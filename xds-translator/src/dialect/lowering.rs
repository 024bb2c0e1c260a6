//! One object on its way down to the intermediate representation.

use std::sync::Arc;

use super::meta::Meta;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    ir::{MeshDefaults, ObjectId, Origin},
};

/// What lowering an object may look at, and where it says what it could not express.
pub(crate) struct Lowering<'a> {
    /// The object.
    pub(super) id: &'a ObjectId,
    /// What it says about itself.
    pub(super) meta: &'a Meta,
    /// The mesh's settings.
    pub(super) mesh: &'a MeshDefaults,
    /// In the order found.
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Lowering<'_> {
    /// Where the items come from.
    pub(super) fn origin(&self) -> Origin {
        Origin { id: self.id.clone(), created: self.meta.created }
    }

    /// Its namespace; empty for cluster-scoped kinds.
    pub(super) fn namespace(&self) -> &Arc<str> {
        &self.id.namespace
    }

    /// Notes a finding.
    pub(super) fn note(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Notes a value that cannot be used.
    pub(super) fn invalid(&mut self, field: FieldPath, expected: &str, got: &str) {
        let diagnostic = Diagnostic::error(Code::InvalidValue, field, "the value cannot be used");
        self.note(diagnostic.expected(expected, got));
    }

    /// Something that is accepted, but has no effect yet.
    pub(super) fn unserved(&mut self, field: FieldPath, message: &str) {
        self.note(Diagnostic::warning(Code::NotActedOn, field, message));
    }
}
