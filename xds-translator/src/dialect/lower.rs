//! Lowering: objects of any dialect become the items of the snapshot.
//!
//! One object at a time, with nothing but the mesh's settings beside it; what objects mean together
//! is the snapshot's affair. Objects come here parsed and checked on their own, so that a
//! diagnostic made here says only what the intermediate representation cannot express. Key material
//! never passes: a Secret lowers to nothing.

use super::{Object, lowering::Lowering, stand_in, table::annotate};
use crate::{
    diagnostic::{Diagnostic, Severity},
    ir::MeshDefaults,
    snapshot::Item,
};

/// The items of one object, and what is said to its author.
#[derive(Clone, Default, Debug)]
pub struct Lowered {
    /// Items; empty for objects that say nothing to a proxy.
    pub items: Vec<Item>,
    /// What stands in for the object if it is refused and no version of it was ever accepted: of a
    /// guard its items with every door closed ([`stand_in`]). Empty for all others.
    pub closed: Vec<Item>,
    /// In the order found; with object and position.
    pub diagnostics: Vec<Diagnostic>,
}

impl Lowered {
    /// Whether the object is refused, so that its last accepted version stays in force.
    pub fn is_refused(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Lowers one object.
pub fn lower(object: &Object, mesh: &MeshDefaults) -> Lowered {
    let mut lowered = lower_as_written(object, mesh);
    if lowered.is_refused() {
        let closed = stand_in::closed(&object.id, &object.raw());
        lowered.closed = closed.map(|o| lower_as_written(&o, mesh).items).unwrap_or_default();
    }
    lowered
}

fn lower_as_written(object: &Object, mesh: &MeshDefaults) -> Lowered {
    let mut lowering =
        Lowering { id: &object.id, meta: &object.meta, mesh, diagnostics: Vec::new() };
    let mut items = object.spec.as_ref().map(|spec| spec.lower(&mut lowering)).unwrap_or_default();
    annotate(&mut lowering, &mut items);
    let diagnostics = object.diagnose_all(lowering.diagnostics);
    Lowered { items, closed: Vec::new(), diagnostics }
}

#[cfg(test)]
mod tests;
