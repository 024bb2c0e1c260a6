//! Outlines: which resources a view consists of.
//!
//! An outline is planned again only when something coarse changes (a service appears, a policy object is chosen);
//! the items it names are planned once for the whole mesh and change on their own.

use std::sync::Arc;

use serde::Serialize;

use super::{ItemKey, PlanItem};

/// The resources of a view. Every list is in the order of resource names; names are unique within a list.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Outline {
    /// CDS.
    pub clusters: Vec<Entry>,
    /// EDS.
    pub assignments: Vec<Entry>,
    /// LDS.
    pub listeners: Vec<Entry>,
    /// RDS.
    pub routes: Vec<RouteFrame>,
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

    /// The name of the resource it becomes, known without planning it.
    pub fn resource_name(&self) -> Arc<str> {
        match self {
            Self::Shared(key) => match &**key {
                ItemKey::Cluster(key) | ItemKey::Assignment(key) => key.resource_name(),
                ItemKey::Fixed(fixed) => fixed.resource_name().into(),
                // A virtual host is a part of a resource; its target's name is the nearest there is.
                ItemKey::VirtualHost(key) => format!("{:?}", key.target).into(),
            },
            Self::Own(item) => item.name().clone(),
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
    /// In order: sorted by name, catch-all last. Each is an [`ItemKey::VirtualHost`]. Domains are disjoint.
    pub virtual_hosts: Vec<Arc<ItemKey>>,
}
