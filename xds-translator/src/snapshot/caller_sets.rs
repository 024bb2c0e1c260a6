//! Callers to which policies of other objects refer.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{CallerSet, ObjectId};

/// Every set of callers.
#[derive(Clone, Default, Debug)]
pub(crate) struct CallerSets(BTreeMap<ObjectId, Arc<CallerSet>>);

impl CallerSets {
    /// The callers of an object; `None` while it is not there.
    pub(crate) fn of(&self, id: &ObjectId) -> Option<&Arc<CallerSet>> {
        self.0.get(id)
    }
}

impl Family for CallerSets {
    type Item = CallerSet;

    fn insert(&mut self, set: &Arc<CallerSet>) {
        self.0.insert(set.origin.id.clone(), set.clone());
    }

    fn remove(&mut self, set: &CallerSet) {
        self.0.remove(&set.origin.id);
    }

    fn touch(versions: &[&Arc<CallerSet>], touch: &mut Touch<'_>) {
        touch.changes.touch(Dep::Object(versions[0].origin.id.clone()));
    }
}

impl<'a> Reader<'a> {
    /// The callers of an object; `None` while it is not there.
    pub fn caller_set(&self, id: &ObjectId) -> Option<&'a Arc<CallerSet>> {
        self.record(Dep::Object(id.clone()));
        self.snapshot().caller_sets().of(id)
    }
}
