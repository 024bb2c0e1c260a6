//! Patches of what proxies are sent, and which of them a workload's proxy gets.

use std::{collections::BTreeMap, sync::Arc};

use ferromesh_proto::IMAGE_PULL;

use super::{
    age::forget,
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{Field, Labels, ObjectId, PatchSet, ProxySide};

/// Every set of patches: by namespace, then name.
#[derive(Clone, Default, Debug)]
pub(crate) struct PatchSets(BTreeMap<Arc<str>, BTreeMap<ObjectId, Arc<PatchSet>>>);

impl PatchSets {
    /// The sets with a patch for this side of a workload's proxy, in the order in which they are
    /// applied.
    pub(crate) fn of(
        &self,
        root: &str,
        (namespace, labels): (&str, &Labels),
        side: ProxySide,
    ) -> Vec<ObjectId> {
        let mut scopes = vec![root, namespace];
        scopes.dedup();
        let sets = scopes.into_iter().filter_map(|scope| self.0.get(scope));
        let mut chosen: Vec<&Arc<PatchSet>> = sets
            .flat_map(BTreeMap::values)
            .filter(|set| set.concerns(side) && set.governs(root, namespace, labels))
            .collect();
        chosen.sort_by(|a, b| a.by_precedence(b, root));
        chosen.into_iter().map(|set| set.origin.id.clone()).collect()
    }

    /// Names of the secrets with which a workload's proxy pulls images, as agents ask for them.
    pub(crate) fn pull_secrets(
        &self,
        root: &str,
        (namespace, labels): (&str, &Labels),
    ) -> impl Iterator<Item = Arc<str>> {
        let scopes = [Some(root), (namespace != root).then_some(namespace)];
        let sets = scopes.into_iter().flatten().filter_map(|scope| self.0.get(scope));
        let governing =
            sets.flat_map(BTreeMap::values).filter(|set| set.governs(root, namespace, labels));
        let named = governing.filter_map(|set| {
            let name = set.pull_secret.as_ref()?;
            Some(format!("{IMAGE_PULL}{}/{name}", set.origin.id.namespace).into())
        });
        named.collect::<Vec<_>>().into_iter()
    }

    /// The patches of some sets for one side that are not for a proxy which says this of itself.
    pub(crate) fn left_out(
        &self,
        sets: &[ObjectId],
        side: ProxySide,
        metadata: &BTreeMap<Arc<str>, Arc<str>>,
    ) -> Vec<(ObjectId, Field)> {
        let sets = sets.iter().filter_map(|id| self.0.get(&id.namespace)?.get(id));
        let patches = sets.flat_map(|set| &set.patches).filter(|patch| patch.concerns(side));
        let others = patches.filter(|patch| !patch.proxy.admits(metadata));
        others.map(|patch| (patch.origin.clone(), patch.at.clone())).collect()
    }
}

/// What decides who gets a set, and when it is applied.
fn standing(set: &PatchSet) -> impl PartialEq {
    let sides = [ProxySide::Inbound, ProxySide::Outbound, ProxySide::Gateway];
    let proxies = set.patches.iter().map(|patch| (patch.side, patch.proxy.clone()));
    let sides = sides.map(|side| set.concerns(side));
    let order = (set.stage, set.priority);
    let who = (set.origin.clone(), set.selector.clone(), set.pull_secret.clone());
    (who, order, sides, proxies.collect::<Vec<_>>())
}

impl Family for PatchSets {
    type Item = PatchSet;

    fn insert(&mut self, set: &Arc<PatchSet>) {
        let id = set.origin.id.clone();
        self.0.entry(id.namespace.clone()).or_default().insert(id, set.clone());
    }

    fn remove(&mut self, set: &PatchSet) {
        let id = &set.origin.id;
        forget(&mut self.0, &id.namespace, id);
    }

    fn touch(versions: &[&Arc<PatchSet>], touch: &mut Touch<'_>) {
        touch.changes.touch(Dep::Object(versions[0].origin.id.clone()));
        if versions.windows(2).any(|w| standing(w[0]) == standing(w[1])) {
            return;
        }
        touch.reclassify(&versions[0].origin.id.namespace);
    }
}

impl<'a> Reader<'a> {
    /// One set of patches; `None` while it is not there.
    pub fn patch_set(&self, id: &ObjectId) -> Option<&'a Arc<PatchSet>> {
        self.record(Dep::Object(id.clone()));
        self.snapshot().patches().0.get(&id.namespace)?.get(id)
    }
}
