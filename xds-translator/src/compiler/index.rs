//! Who read which fact.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{items::ItemId, views::ViewId};
use crate::snapshot::{Audience, Dep};

/// From facts to the items and outlines whose plans read them.
#[derive(Default, Debug)]
pub(super) struct DepIndex {
    readers: FxHashMap<Dep, Readers>,
    audience: Audience,
}

#[derive(Default, Debug)]
struct Readers {
    items: FxHashSet<ItemId>,
    views: FxHashSet<ViewId>,
}

/// A plan that reads facts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Consumer {
    /// An item's.
    Item(ItemId),
    /// A view's outline.
    Outline(ViewId),
}

impl DepIndex {
    /// Namespaces and hosts that recorded facts speak of.
    pub(super) fn audience(&self) -> &Audience {
        &self.audience
    }

    pub(super) fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// Replaces what a plan reads. Both lists are sorted and unique.
    pub(super) fn replace(&mut self, consumer: Consumer, old: &[Dep], new: &[Dep]) {
        let gone = |dep: &&Dep| new.binary_search(dep).is_err();
        let came = |dep: &&Dep| old.binary_search(dep).is_err();
        old.iter().filter(gone).for_each(|dep| self.leave(consumer, dep));
        new.iter().filter(came).for_each(|dep| self.join(consumer, dep));
    }

    fn join(&mut self, consumer: Consumer, dep: &Dep) {
        if !self.readers.contains_key(dep) {
            self.audience.join(dep);
            self.readers.insert(dep.clone(), Readers::default());
        }
        if let Some(readers) = self.readers.get_mut(dep) {
            match consumer {
                Consumer::Item(id) => readers.items.insert(id),
                Consumer::Outline(id) => readers.views.insert(id),
            };
        }
    }

    fn leave(&mut self, consumer: Consumer, dep: &Dep) {
        let Some(readers) = self.readers.get_mut(dep) else { return };
        match consumer {
            Consumer::Item(id) => readers.items.remove(&id),
            Consumer::Outline(id) => readers.views.remove(&id),
        };
        if readers.items.is_empty() && readers.views.is_empty() {
            self.readers.remove(dep);
            self.audience.leave(dep);
        }
    }

    /// The plans that read one of the facts; sorted, unique.
    pub(super) fn readers_of<'a>(&self, deps: impl Iterator<Item = &'a Dep>) -> (Vec<ItemId>, Vec<ViewId>) {
        let (mut items, mut views) = (Vec::new(), Vec::new());
        for readers in deps.filter_map(|dep| self.readers.get(dep)) {
            items.extend(&readers.items);
            views.extend(&readers.views);
        }
        items.sort_unstable();
        items.dedup();
        views.sort_unstable();
        views.dedup();
        (items, views)
    }
}
