//! Who read which fact.

use std::cmp::Ordering;

use rustc_hash::{FxHashMap, FxHashSet};

use super::ids::{ItemId, ViewId};
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

    /// Gives back room that far more facts took than there are now.
    pub(super) fn shrink(&mut self) {
        self.readers.shrink_to(2 * self.readers.len());
        for readers in self.readers.values_mut() {
            readers.items.shrink_to(2 * readers.items.len());
            readers.views.shrink_to(2 * readers.views.len());
        }
    }

    /// Replaces what a plan reads. Both lists are sorted and unique.
    pub(super) fn replace(&mut self, consumer: Consumer, old: &[Dep], new: &[Dep]) {
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(gone), Some(came)) => gone.cmp(came),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return,
            };
            let gone = if order.is_le() { old.next() } else { None };
            let came = if order.is_ge() { new.next() } else { None };
            match (gone, came) {
                (Some(dep), None) => self.leave(consumer, dep),
                (None, Some(dep)) => self.join(consumer, dep),
                _ => {}
            }
        }
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
    pub(super) fn readers_of<'a>(
        &self,
        deps: impl Iterator<Item = &'a Dep>,
    ) -> (Vec<ItemId>, Vec<ViewId>) {
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
