//! What workloads tell of their traffic, by level: which policies are in force for a workload.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    family::{Family, Touch},
    levels::Levels,
    reader::{Dep, Reader},
};
use crate::ir::{Labels, ObjectId, TelemetryPolicy};

/// Every telemetry policy of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct TelemetryPolicies {
    levels: Levels<TelemetryPolicy>,
    by_id: BTreeMap<ObjectId, Arc<TelemetryPolicy>>,
}

impl TelemetryPolicies {
    /// The policies in force for workloads with these labels, the least special first: each adds to
    /// those before it.
    pub(crate) fn of(
        &self,
        root: &str,
        namespace: &str,
        labels: &Labels,
    ) -> Vec<&Arc<TelemetryPolicy>> {
        let levels = self.levels.levels(root, namespace, labels);
        let mut policies: Vec<_> = levels.into_iter().rev().flatten().collect();
        policies.dedup_by(|a, b| a.origin.id == b.origin.id);
        policies
    }
}

impl Family for TelemetryPolicies {
    type Item = TelemetryPolicy;

    fn insert(&mut self, policy: &Arc<TelemetryPolicy>) {
        self.levels.insert(policy);
        self.by_id.insert(policy.origin.id.clone(), policy.clone());
    }

    fn remove(&mut self, policy: &TelemetryPolicy) {
        self.levels.remove(policy);
        self.by_id.remove(&policy.origin.id);
    }

    /// What a policy says decides also whether spans name the workload, and with it who shares a
    /// view.
    fn touch(versions: &[&Arc<TelemetryPolicy>], touch: &mut Touch<'_>) {
        let id = &versions[0].origin.id;
        touch.changes.touch(Dep::Object(id.clone()));
        touch.reclassify(&id.namespace);
    }
}

impl<'a> Reader<'a> {
    /// One telemetry policy; `None` while it is not there.
    pub fn telemetry_policy(&self, id: &ObjectId) -> Option<&'a Arc<TelemetryPolicy>> {
        self.record(Dep::Object(id.clone()));
        self.snapshot().telemetry().by_id.get(id)
    }
}
