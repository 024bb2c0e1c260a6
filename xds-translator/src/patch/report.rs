//! What patches did to a message.

use std::{collections::BTreeSet, sync::Arc};

use crate::ir::{Field, ObjectId, Patch};

/// What patches did to one message.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// Those that are in it: object, and where the patch stands there.
    pub applied: BTreeSet<(ObjectId, Field)>,
    /// Those that were left out, since they would make what every proxy refuses.
    pub refused: Vec<Refused>,
}

/// A patch that was left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Which.
    pub patch: Arc<Patch>,
    /// Why, in words.
    pub reason: String,
}

impl Report {
    /// Whether the message is as it was.
    pub(super) fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.refused.is_empty()
    }

    /// Notes that a patch is in the message.
    pub(super) fn apply(&mut self, patch: &Patch) {
        self.applied.insert((patch.origin.clone(), patch.at.clone()));
    }

    /// Notes that a patch is left out.
    pub(super) fn refuse(&mut self, patch: &Arc<Patch>, reason: String) {
        self.refused.push(Refused { patch: patch.clone(), reason });
    }

    /// Adds what another message says.
    pub fn merge(&mut self, other: Self) {
        self.applied.extend(other.applied);
        self.refused.extend(other.refused);
    }
}
