//! Identities of workloads: those that exist, and those of which the last workload went.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use ferromesh_proto::SpiffeId;
use ferromesh_xds_translator::snapshot::MeshSnapshot;

const POISONED: &str = "no code panics while it holds this lock";

/// Namespace and name of a service account.
type Account = (Arc<str>, Arc<str>);

/// Read by ports while the thread of the compiler writes.
#[derive(Debug)]
pub(super) struct Accounts {
    known: RwLock<Known>,
    /// How long one that is gone is remembered.
    memory: Duration,
}

#[derive(Default, Debug)]
struct Known {
    /// With the number of workloads that have it.
    present: BTreeMap<Account, usize>,
    /// With the time since when.
    gone: BTreeMap<Account, Instant>,
}

impl Accounts {
    /// None yet. `longest` is how long a certificate lasts: whose last workload went before that
    /// has none any more, and is forgotten.
    pub(super) fn new(longest: Duration) -> Self {
        Self { known: RwLock::default(), memory: longest }
    }

    /// Whether some workload has this identity.
    pub(super) fn is_present(&self, id: &SpiffeId) -> bool {
        self.known.read().expect(POISONED).present.contains_key(&account(id))
    }

    /// How many workloads have this identity.
    pub(super) fn workloads(&self, id: &SpiffeId) -> usize {
        self.known.read().expect(POISONED).present.get(&account(id)).copied().unwrap_or(0)
    }

    /// Whether the last workload that had this identity went.
    pub(super) fn is_gone(&self, id: &SpiffeId) -> bool {
        self.known.read().expect(POISONED).gone.contains_key(&account(id))
    }

    /// Takes in the workloads of a new state.
    pub(super) fn update(&self, snapshot: &MeshSnapshot) {
        let mut present = BTreeMap::new();
        for workload in snapshot.all_workloads() {
            *present
                .entry((workload.id.namespace.clone(), workload.service_account.clone()))
                .or_default() += 1;
        }
        let mut known = self.known.write().expect(POISONED);
        let before = mem::replace(&mut known.present, present);
        let now = Instant::now();
        let Known { present, gone } = &mut *known;
        for account in before.into_keys().filter(|account| !present.contains_key(account)) {
            gone.insert(account, now);
        }
        gone.retain(|account, since| {
            !present.contains_key(account) && now.duration_since(*since) < self.memory
        });
    }
}

fn account(id: &SpiffeId) -> Account {
    (id.namespace().into(), id.service_account().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(accounts: &Accounts) -> (usize, usize) {
        let known = accounts.known.read().expect(POISONED);
        (known.present.len(), known.gone.len())
    }

    #[test]
    fn who_is_gone_is_remembered_no_longer_than_its_certificate_lasts() {
        for (longest, remembered) in [(Duration::from_secs(3600), 1), (Duration::ZERO, 0)] {
            let accounts = Accounts::new(longest);
            let account: Account = ("default".into(), "a".into());
            accounts.known.write().expect(POISONED).present.insert(account, 1);
            accounts.update(&MeshSnapshot::default());
            assert_eq!(known(&accounts), (0, remembered), "{longest:?}");
        }
    }
}
