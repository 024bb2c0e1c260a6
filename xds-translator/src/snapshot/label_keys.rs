//! Label keys of clients that some rule refers to. Only these are part of a client's class.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::change::ChangeSet;

/// Label keys with the number of objects that refer to them.
#[derive(Clone, Default, Debug)]
pub(super) struct ReferencedLabelKeys(BTreeMap<Arc<str>, usize>);

impl ReferencedLabelKeys {
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    /// Replaces what one object refers to. Another set of keys makes other classes.
    pub(super) fn replace(
        &mut self,
        old: &BTreeSet<Arc<str>>,
        new: &BTreeSet<Arc<str>>,
        changes: &mut ChangeSet,
    ) {
        let known: BTreeSet<Arc<str>> = self.0.keys().cloned().collect();
        for key in new {
            *self.0.entry(key.clone()).or_default() += 1;
        }
        for key in old {
            if let Some(count) = self.0.get_mut(key) {
                *count -= 1;
            }
        }
        self.0.retain(|_, count| *count > 0);
        changes.reclassify.everyone |= !self.0.keys().eq(known.iter());
    }
}
