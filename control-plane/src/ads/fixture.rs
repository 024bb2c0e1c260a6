//! Views made by hand, for tests of sessions.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use ferromesh_proto::{EncodedResource, ResourceType, Version};
use ferromesh_xds_translator::{
    plan::{CaptureMode, Features, OutboundKey, ViewKey},
    view::{CHANGE_LOG, Table, View, ViewChange},
};

/// A view that tests edit; every edit is a generation.
pub(super) struct Draft {
    view: View,
}

impl Draft {
    pub(super) fn new(name: &str) -> Self {
        let key = OutboundKey {
            namespace: name.into(),
            scope: None,
            client_labels: BTreeMap::new(),
            locality: None,
            knows_peers: false,
            capture: CaptureMode::Redirect,
            features: Features::default(),
            telemetry: Default::default(),
            patches: Default::default(),
        };
        let tables = ResourceType::ALL.map(|_| Arc::new(Table::new()));
        let log: Arc<[Arc<ViewChange>]> = Arc::new([]);
        Self { view: View { key: Arc::new(ViewKey::Outbound(key)), generation: 1, tables, log } }
    }

    /// Sets the version of a resource, or removes it with `None`; all edits are one generation.
    pub(super) fn edit(&mut self, edits: &[(ResourceType, &str, Option<u64>)]) {
        let mut names = Vec::new();
        for (kind, name, version) in edits {
            let table = Arc::make_mut(&mut self.view.tables[kind.index()]);
            let resource = version.map(|v| resource(name, v));
            let name: Arc<str> =
                resource.as_ref().map_or_else(|| Arc::from(*name), |r| r.name.clone());
            match resource {
                Some(r) => drop(table.insert(name.clone(), r)),
                None => drop(table.remove(&name)),
            }
            names.push((*kind, name));
        }
        self.view.generation += 1;
        let change = Arc::new(ViewChange { generation: self.view.generation, names });
        let kept = self.view.log.len().saturating_sub(CHANGE_LOG - 1);
        self.view.log = self.view.log.iter().skip(kept).cloned().chain([change]).collect();
    }

    /// The view as it is now.
    pub(super) fn publish(&self) -> Arc<View> {
        Arc::new(self.view.clone())
    }
}

/// A resource whose body says its name and version.
pub(super) fn resource(name: &str, version: u64) -> Arc<EncodedResource> {
    let body = Bytes::from(format!("{name}={version}"));
    Arc::new(EncodedResource { name: name.into(), version: Version(version), body })
}

/// The type that users know as `CDS`, `EDS`…
pub(super) fn kind(short: &str) -> ResourceType {
    ResourceType::ALL.into_iter().find(|k| k.short_name() == short).expect("a type's short name")
}
