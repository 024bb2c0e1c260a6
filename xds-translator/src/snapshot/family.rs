//! What a family of items is to a snapshot: how items enter and leave its index, and which facts a
//! change of one touches.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    change::{Audience, ChangeSet},
    reader::Dep,
};
use crate::ir::{ServiceKey, Workload};

/// The index of one family of items: a file, which also says what a plan may read of it (an `impl`
/// of [`Reader`](super::Reader)), and a row of the table in `families`.
pub(super) trait Family {
    /// What lowering gives.
    type Item;

    /// Takes an item in. Of the object that gave it none is there.
    fn insert(&mut self, item: &Arc<Self::Item>);

    /// Takes an item out.
    fn remove(&mut self, item: &Self::Item);

    /// Notes the facts that a change touches: `versions` are an item and what came in its place, or
    /// one item that came or went. The index has changed already.
    fn touch(versions: &[&Arc<Self::Item>], touch: &mut Touch<'_>);

    /// Adds the label keys of clients that the item refers to.
    fn label_keys(_item: &Self::Item, _keys: &mut BTreeSet<Arc<str>>) {}

    /// Adds what endpoints may be made from the item.
    fn feeds(_item: &Arc<Self::Item>, _fed: &mut Fed) {}

    /// Adds the services whose definitions depend on the item besides its own: where other objects
    /// define the host as well, a change of one changes what the others come to.
    fn contested(&self, _item: &Self::Item, _contested: &mut BTreeSet<ServiceKey>) {}
}

/// Where the facts are noted that a change touches.
pub(super) struct Touch<'a> {
    /// Facts that somebody may have recorded.
    pub(super) audience: &'a Audience,
    /// Takes the facts.
    pub(super) changes: &'a mut ChangeSet,
    /// Services that several objects define, before the change or after it.
    pub(super) contested: BTreeSet<ServiceKey>,
    /// The root namespace.
    pub(super) root: Arc<str>,
}

impl Touch<'_> {
    /// Touches a fact of every namespace.
    pub(super) fn everywhere(&mut self, fact: fn(Arc<str>) -> Dep) {
        for namespace in self.audience.namespaces() {
            self.changes.touch(fact(namespace.clone()));
        }
    }

    /// Touches a fact of every namespace that a policy of `namespace` concerns.
    pub(super) fn governed(&mut self, namespace: &Arc<str>, fact: fn(Arc<str>) -> Dep) {
        for governed in self.audience.governed_by(namespace, &self.root) {
            self.changes.touch(fact(governed.clone()));
        }
    }

    /// Has the proxies classified again that an object of `namespace` may be for: all, where it is
    /// the root.
    pub(super) fn reclassify(&mut self, namespace: &Arc<str>) {
        if *namespace == self.root {
            self.changes.reclassify.everyone = true;
        } else {
            self.changes.reclassify.namespaces.insert(namespace.clone());
        }
    }
}

/// What endpoints must be built again for.
#[derive(Default)]
pub(super) struct Fed {
    /// These services.
    pub(super) services: BTreeSet<ServiceKey>,
    /// And those whose endpoints may come from these workloads.
    pub(super) workloads: Vec<Arc<Workload>>,
}
