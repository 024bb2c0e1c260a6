//! From what was read of files to what the compiler takes in: Secrets stay outside, and where
//! something that guards was refused, a closed door stands in.

use std::collections::BTreeSet;

use ferromesh_xds_translator::{
    compiler::Change,
    dialect::{Parsed, stand_in},
    ir::ObjectId,
};

use super::print::print_error;
use crate::secret;

/// What files say, as changes from nothing; what of it cannot be used is told on standard error.
pub(super) fn of(parsed: Parsed) -> Vec<Change> {
    let accepted: BTreeSet<ObjectId> = parsed.objects.iter().map(|o| o.id.clone()).collect();
    let mut changes = Vec::new();
    for object in parsed.objects {
        match secret::to_change(object) {
            Ok(change) => changes.extend(change),
            Err(finding) => print_error(&finding.to_string()),
        }
    }
    let rejected = parsed.rejected.iter().filter_map(stand_in::of_rejected);
    let closed = rejected.chain(parsed.fragments.iter().filter_map(stand_in::of_fragment));
    for object in closed.filter(|object| !accepted.contains(&object.id)) {
        print_error(&format!(
            "{}: refused, and in force closed where no version was accepted",
            object.id
        ));
        changes.push(Change::Upsert(Box::new(object)));
    }
    changes
}
