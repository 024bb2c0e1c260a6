//! Identities of workloads: those that exist, and those of which the last workload went.

use std::{
    collections::BTreeSet,
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
    present: BTreeSet<Account>,
    gone: BTreeSet<Account>,
}

impl Accounts {
    /// Whether some workload has this identity.
    pub(super) fn is_present(&self, id: &SpiffeId) -> bool {
        self.0.read().expect(POISONED).present.contains(&account(id))
    }

    /// Whether the last workload that had this identity went.
    pub(super) fn is_gone(&self, id: &SpiffeId) -> bool {
        self.0.read().expect(POISONED).gone.contains(&account(id))
    }

    /// Takes in the workloads of a new state.
    pub(super) fn update(&self, snapshot: &MeshSnapshot) {
        let present = snapshot.all_workloads().map(|w| (w.id.namespace.clone(), w.service_account.clone())).collect();
        let mut known = self.0.write().expect(POISONED);
        let before = mem::replace(&mut known.present, present);
        known.gone.extend(before);
        let Known { present, gone } = &mut *known;
        gone.retain(|account| !present.contains(account));
    }
}

fn account(id: &SpiffeId) -> Account {
    (id.namespace().into(), id.service_account().into())
}
