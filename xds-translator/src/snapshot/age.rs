//! The order of age, in which the first of several items is in force, and groups kept in it.

use std::{collections::BTreeMap, sync::Arc};

use crate::ir::{ObjectId, Origin};

/// A place in the order of age: creation, namespace, name.
pub(super) type Age = (i64, Arc<str>, Arc<str>);

/// Items in the order of age.
pub(super) type ByAge<T> = BTreeMap<(Age, ObjectId), Arc<T>>;

pub(super) fn age(origin: &Origin) -> Age {
    (origin.created, origin.id.namespace.clone(), origin.id.name.clone())
}

/// Takes something out of its group, and the group with the last of it: what came and went leaves
/// nothing.
pub(super) fn forget<G: Ord, K: Ord, V>(groups: &mut BTreeMap<G, BTreeMap<K, V>>, of: &G, key: &K) {
    if let Some(group) = groups.get_mut(of) {
        group.remove(key);
        if group.is_empty() {
            groups.remove(of);
        }
    }
}
