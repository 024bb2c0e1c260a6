//! Identities of workloads: those that exist, and those of which the last workload went.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, RwLock},
};

use ferromesh_proto::SpiffeId;
use ferromesh_xds_translator::snapshot::MeshSnapshot;

const POISONED: &str = "no code panics while it holds this lock";

/// Namespace and name of a service account.
type Account = (Arc<str>, Arc<str>);

/// Read by doors while the thread of the compiler writes.
#[derive(Default, Debug)]
pub(super) struct Accounts(RwLock<Known>);

#[derive(Default, Debug)]
struct Known {
    /// With the number of workloads that have it.
    present: BTreeMap<Account, usize>,
    gone: BTreeSet<Account>,
}

impl Accounts {
    /// Whether some workload has this identity.
    pub(super) fn is_present(&self, id: &SpiffeId) -> bool {
        self.0.read().expect(POISONED).present.contains_key(&account(id))
    }

    /// How many workloads have this identity.
    pub(super) fn workloads(&self, id: &SpiffeId) -> usize {
        self.0.read().expect(POISONED).present.get(&account(id)).copied().unwrap_or(0)
    }

    /// Whether the last workload that had this identity went.
    pub(super) fn is_gone(&self, id: &SpiffeId) -> bool {
        self.0.read().expect(POISONED).gone.contains(&account(id))
    }

    /// Takes in the workloads of a new state.
    pub(super) fn update(&self, snapshot: &MeshSnapshot) {
        let mut present = BTreeMap::new();
        for workload in snapshot.all_workloads() {
            *present.entry((workload.id.namespace.clone(), workload.service_account.clone())).or_default() += 1;
        }
        let mut known = self.0.write().expect(POISONED);
        let before = mem::replace(&mut known.present, present);
        known.gone.extend(before.into_keys());
        let Known { present, gone } = &mut *known;
        gone.retain(|account| !present.contains_key(account));
    }
}

fn account(id: &SpiffeId) -> Account {
    (id.namespace().into(), id.service_account().into())
}
