//! Which tokens workloads take, by scope; and the keys that were fetched for them: facts that come
//! from a source of their own, and from no object. They outlive a rebuild, as credentials do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    MeshSnapshot,
    by_scope::{ByScope, touch_scope},
    change::ChangeSet,
    family::{Family, Touch},
    reader::{Dep, Reader},
};
use crate::{
    diagnostic::FieldPath,
    ir::{KeySet, KeySource, Labels, ObjectId, TokenKeys, TokenPolicy},
};

/// Every token policy of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct TokenPolicies(ByScope<TokenPolicy>);

/// Keys that are to be fetched.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct WantedKeys {
    /// The longest time that some rule gives to it.
    pub limit: Duration,
    /// The rules, by object and field; never empty.
    pub by: Vec<(ObjectId, FieldPath)>,
}

/// The sets of keys that are known.
pub(super) type KeySets = BTreeMap<KeySource, KeySet>;

impl Family for TokenPolicies {
    type Item = TokenPolicy;

    fn insert(&mut self, policy: &Arc<TokenPolicy>) {
        self.0.insert(&policy.scope, &policy.origin, policy);
    }

    fn remove(&mut self, policy: &TokenPolicy) {
        self.0.remove(&policy.scope, &policy.origin);
    }

    fn touch(versions: &[&Arc<TokenPolicy>], touch: &mut Touch<'_>) {
        versions.iter().for_each(|policy| touch_scope(&policy.scope, Dep::Tokens, touch));
    }
}

impl MeshSnapshot {
    /// Records the keys of a source, or that there are none.
    pub(crate) fn set_key_set(
        &mut self,
        source: KeySource,
        keys: Option<KeySet>,
        changes: &mut ChangeSet,
    ) {
        if self.key_sets.get(&source) == keys.as_ref() {
            return;
        }
        let known = Arc::make_mut(&mut self.key_sets);
        match keys {
            Some(keys) => drop(known.insert(source.clone(), keys)),
            None => drop(known.remove(&source)),
        }
        changes.touch(Dep::KeySet(source));
    }

    /// Takes over the keys of a former state.
    pub(crate) fn take_key_sets(&mut self, former: &Self) {
        self.key_sets = former.key_sets.clone();
    }

    /// Every set of keys that is known; sorted.
    pub(crate) fn key_sets(&self) -> impl Iterator<Item = (&KeySource, &KeySet)> {
        self.key_sets.iter()
    }

    /// Where keys are to be fetched from that are not known yet.
    pub fn missing_key_sets(&self) -> impl Iterator<Item = KeySource> {
        let wanted = self.wanted_key_sets().into_keys();
        wanted.filter(|source| !self.key_sets.contains_key(source))
    }

    /// Where keys are to be fetched from.
    pub fn wanted_key_sets(&self) -> BTreeMap<KeySource, WantedKeys> {
        let mut sets: BTreeMap<KeySource, WantedKeys> = BTreeMap::new();
        for policy in self.tokens().0.all() {
            for rule in &policy.rules {
                let TokenKeys::Fetched(source, limit) = &rule.keys else { continue };
                let wanted = sets.entry(source.clone()).or_default();
                wanted.limit = wanted.limit.max(*limit);
                wanted.by.push((policy.origin.id.clone(), FieldPath::of(&rule.at)));
            }
        }
        sets
    }
}

impl Reader<'_> {
    /// Token policies that govern workloads with these labels; sorted by object.
    pub fn token_policies(&self, namespace: &str, labels: &Labels) -> Vec<Arc<TokenPolicy>> {
        self.record(Dep::Tokens(namespace.into()));
        let governs = |policy: &TokenPolicy| policy.governs(namespace, labels);
        self.snapshot().tokens().0.governing(namespace, governs)
    }

    /// The keys of a source; keys with which no token is valid, as long as there are none.
    pub fn key_set(&self, source: &KeySource) -> KeySet {
        self.record(Dep::KeySet(source.clone()));
        self.snapshot().key_sets.get(source).cloned().unwrap_or_else(KeySet::nobodys)
    }
}
