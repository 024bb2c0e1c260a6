//! What the API server has in the status of objects of the mesh: told by the source, read by who
//! writes.
//!
//! The source tells of an object here only after the pipeline has heard of it, so that findings
//! that are asked for later are never older than what is read here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use ferromesh_xds_translator::ir::ObjectId;
use serde_json::Value;
use tokio::sync::watch;

const POISONED: &str = "no code panics while it holds this lock";

/// An object as the API server has it, as far as its status is concerned.
#[derive(Clone, PartialEq, Debug)]
pub struct ObservedStatus {
    /// Group and version under which it was read.
    pub api_version: String,
    /// Tells it from an earlier object of the same name.
    pub uid: String,
    /// Number of changes of its specification.
    pub generation: i64,
    /// Its version in the store.
    pub resource_version: String,
    /// Its status; null if it has none.
    pub status: Value,
}

impl ObservedStatus {
    /// Takes the status out of an object of the API server.
    pub fn take(object: &mut Value) -> Self {
        let status =
            object.as_object_mut().and_then(|fields| fields.remove("status")).unwrap_or_default();
        let text = |pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        Self {
            api_version: text("/apiVersion"),
            uid: text("/metadata/uid"),
            generation: object
                .pointer("/metadata/generation")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
            resource_version: text("/metadata/resourceVersion"),
            status,
        }
    }
}

/// Word of the source: an object as it is now, or that it is gone.
pub type StatusChange = (ObjectId, Option<ObservedStatus>);

/// Every object of the mesh in the cluster, with its status.
#[derive(Default, Debug)]
pub struct StatusCache {
    observed: Mutex<BTreeMap<ObjectId, Arc<ObservedStatus>>>,
    changes: watch::Sender<()>,
}

impl StatusCache {
    /// Takes in what the source saw.
    pub fn update(&self, statuses: Vec<StatusChange>) {
        if statuses.is_empty() {
            return;
        }
        let mut observed = self.observed.lock().expect(POISONED);
        for (id, status) in statuses {
            match status {
                Some(seen) => drop(observed.insert(id, Arc::new(seen))),
                None => drop(observed.remove(&id)),
            }
        }
        drop(observed);
        self.changes.send_replace(());
    }

    /// A write turned `before` into `after`; if the source saw something else meanwhile, that
    /// stays.
    pub fn wrote(&self, id: &ObjectId, before: &Arc<ObservedStatus>, after: ObservedStatus) {
        let mut observed = self.observed.lock().expect(POISONED);
        if let Some(current) = observed.get_mut(id).filter(|current| Arc::ptr_eq(current, before)) {
            *current = Arc::new(after);
        }
    }

    /// Everything, sorted by identity.
    pub fn list(&self) -> Vec<(ObjectId, Arc<ObservedStatus>)> {
        self.observed
            .lock()
            .expect(POISONED)
            .iter()
            .map(|(id, observed)| (id.clone(), observed.clone()))
            .collect()
    }

    /// Changes whenever the source saw something.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}
