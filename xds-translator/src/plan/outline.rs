//! Outlines: which resources a view consists of.
//!
//! An outline is planned again only when something coarse changes (a service appears, a policy
//! object is chosen); the items it names are planned once for the whole mesh and change on their
//! own.

use std::sync::Arc;

use ferromesh_proto::ResourceType;
use serde::Serialize;

use super::{ItemKey, PlanItem};
use crate::ir::Patch;

/// The resources of a view. Every list is in the order of resource names; names are unique within a
/// list.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Outline {
    /// Whole resources, by [`ResourceType::index`].
    entries: [Vec<Entry>; ResourceType::COUNT],
    /// RDS: put together from parts.
    pub routes: Vec<RouteFrame>,
    /// What is done to the messages of own resources and route configurations, in order. Shared
    /// items have theirs by their key.
    pub patches: Vec<Arc<Patch>>,
    /// Those of [`Self::patches`] by which a whole resource came or went.
    pub(crate) effective: Vec<Arc<Patch>>,
}

impl Outline {
    /// The whole resources of a type.
    pub fn of(&self, kind: ResourceType) -> &[Entry] {
        &self.entries[kind.index()]
    }

    /// As [`Self::of`]; names and order are to stay.
    pub(crate) fn of_mut(&mut self, kind: ResourceType) -> &mut [Entry] {
        &mut self.entries[kind.index()]
    }

    /// Adds clusters, each with its assignment if it has one.
    pub(crate) fn add_clusters(
        &mut self,
        clusters: impl IntoIterator<Item = (Entry, Option<Entry>)>,
    ) {
        for (cluster, assignment) in clusters {
            self.extend([cluster].into_iter().chain(assignment));
        }
    }

    /// Adds whole resources, each to its type's.
    pub(crate) fn extend(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.entries[entry.resource_type().index()].push(entry);
        }
    }

    /// Keeps of the whole resources of a type those that `stays` says.
    pub(crate) fn retain(&mut self, kind: ResourceType, stays: impl FnMut(&Entry) -> bool) {
        self.entries[kind.index()].retain(stays);
    }

    /// Puts every list in the order of resource names.
    pub(crate) fn sort(&mut self) {
        for entries in &mut self.entries {
            entries.sort_by_cached_key(Entry::resource_name);
        }
    }
}

/// One resource of an outline.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Entry {
    /// Shared by every view that names it: planned by its key.
    Shared(Arc<ItemKey>),
    /// The view's own, planned with the outline (listeners, inbound clusters).
    Own(Arc<PlanItem>),
}

impl Entry {
    /// The item with this key.
    pub(crate) fn shared(key: ItemKey) -> Self {
        Self::Shared(Arc::new(key))
    }

    /// A view's own item.
    pub(crate) fn own(item: PlanItem) -> Self {
        Self::Own(Arc::new(item))
    }

    /// The type of the resource that it becomes, or becomes a part of.
    pub fn resource_type(&self) -> ResourceType {
        match self {
            Self::Shared(key) => key.resource_type(),
            Self::Own(item) => item.resource_type(),
        }
    }

    /// The name of the resource it becomes, known without planning it.
    pub fn resource_name(&self) -> Arc<str> {
        match self {
            Self::Shared(key) => key.resource_name(),
            Self::Own(item) => item.name().clone(),
        }
    }
}

impl ItemKey {
    /// The name of the resource it becomes, known without planning it.
    pub(crate) fn resource_name(&self) -> Arc<str> {
        match self {
            Self::Cluster(key) | Self::Assignment(key) => key.resource_name(),
            Self::Fixed(fixed) => fixed.resource_name().into(),
            // A virtual host is a part of a resource; its target's name is the nearest there is.
            Self::VirtualHost(key) => format!("{:?}", key.target).into(),
            Self::Patched(key) => key.item.resource_name(),
        }
    }
}

/// A route configuration: spliced from encoded virtual hosts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RouteFrame {
    /// Resource name: `80`, `http.8080`, `reviews.default.svc.cluster.local:9080`.
    pub name: Arc<str>,
    /// Ports in `Host` are ignored when matching domains.
    pub ignore_port_in_host: bool,
    /// In order: sorted by name, catch-all last. Each is an [`ItemKey::VirtualHost`]. Domains are
    /// disjoint.
    pub virtual_hosts: Vec<Arc<ItemKey>>,
}
