//! What nobody else would remember: the objects written through the REST API.
//!
//! Every accepted write is appended to a checksummed, fsynced [`journal`] first, then marked as
//! [`acknowledged`], then put into the embedded database, then acknowledged. The journal is the
//! truth and the audit trail; the mark says what it must hold; the database is an index that is
//! rebuilt from the journal whenever it lags, is damaged, or is gone. Nothing is made in the place
//! of what is missing, unless it is [said](AcceptState) that there is no more. A store that is
//! another one or an older one than somebody outside has [seen](Generation) is refused.

mod accept;
mod acknowledged;
mod durable;
mod entry;
mod error;
mod identity;
mod journal;
mod key;
mod memory;
mod opening;
mod proof;
mod settled;
mod sled;

pub use accept::AcceptState;
pub use durable::Durable;
pub use entry::{Entry, Expect, Store};
pub use error::StoreError;
pub use identity::Generation;
pub use key::StoreKey;
pub use memory::Memory;
pub use opening::{Opening, Recovery};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn behaves(store: &dyn Store) {
        let key = StoreKey::new("VirtualService", "shop", "cart");
        let first =
            store.put(&key, json!({"a": 1}), Expect::Absent, "test").expect("a first write");
        assert!(matches!(
            store.put(&key, json!({}), Expect::Absent, "test"),
            Err(StoreError::Conflict { .. })
        ));
        let second = store
            .put(&key, json!({"a": 2}), Expect::Revision(first), "test")
            .expect("compare and set");
        assert!(second > first);
        assert!(matches!(
            store.delete(&key, Expect::Revision(first), "test"),
            Err(StoreError::Conflict { .. })
        ));
        assert_eq!(store.get(&key).map(|e| e.value), Some(json!({"a": 2})));
        store.delete(&key, Expect::Any, "test").expect("a deletion");
        assert!(store.list().is_empty());
        assert!(matches!(store.delete(&key, Expect::Any, "test"), Err(StoreError::NotFound(_))));
    }

    #[test]
    fn every_store_compares_and_sets() {
        behaves(&Memory::default());
        let dir = tempfile::tempdir().expect("a directory");
        let accept = AcceptState::at(dir.path().join("accept-state"));
        accept.begin(&[]).expect("begun");
        let (store, mark) = (dir.path().join("store"), dir.path().join("acknowledged"));
        let opening =
            Opening { dir: &store, mark: &mark, witness: &mark, known: None, accept: &accept };
        behaves(&Durable::open(&opening).expect("a new store").0);
    }
}
