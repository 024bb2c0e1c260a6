//! Conditions that rules of other objects refer to.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{MatchSet, ObjectId};

/// Every set of conditions.
#[derive(Clone, Default, Debug)]
pub(crate) struct MatchSets(BTreeMap<ObjectId, Arc<MatchSet>>);

impl Family for MatchSets {
    type Item = MatchSet;

    fn insert(&mut self, set: &Arc<MatchSet>) {
        self.0.insert(set.origin.id.clone(), set.clone());
    }

    fn remove(&mut self, set: &MatchSet) {
        self.0.remove(&set.origin.id);
    }

    fn touch(versions: &[&Arc<MatchSet>], touch: &mut Touch<'_>) {
        touch.changes.touch(Dep::Object(versions[0].origin.id.clone()));
    }
}

impl<'a> Reader<'a> {
    /// The conditions of an object; `None` while it is not there.
    pub fn match_set(&self, id: &ObjectId) -> Option<&'a Arc<MatchSet>> {
        self.record(Dep::Object(id.clone()));
        self.snapshot().match_sets().0.get(id)
    }
}
