//! Planning: every decision about what a proxy gets, as plain values.
//!
//! Reads the snapshot only through [`Reader`], which records what was read; takes nothing but a key. An outline says
//! which resources a view consists of; an item is one of them with every decision made.

mod assignment;
mod authz;
mod client;
mod cluster;
mod defaults;
mod egress;
#[cfg(test)]
mod fixture;
mod gateway;
mod gateway_servers;
mod identity;
mod inbound;
mod inbound_chain;
pub mod keys;
mod locality;
mod mtls;
mod naming;
mod origins;
mod outbound_listener;
pub mod outline;
mod place;
mod route;
mod sidecar;
mod tcp_route;
#[cfg(test)]
mod tests;
mod traffic;
pub mod types;
mod virtual_host;

pub use keys::*;
pub use outline::*;
pub use types::*;

pub(crate) use traffic::Traffic;

use std::collections::BTreeSet;

use crate::{ir::ObjectId, snapshot::Reader};

/// What is planned for a view of one kind.
pub(crate) trait PlansView {
    /// Which resources the view consists of.
    fn outline(&self, reader: &Reader<'_>) -> Outline;
    /// The objects that shaped an item which the view plans as its own.
    fn origins_of(&self, reader: &Reader<'_>, item: &PlanItem) -> BTreeSet<ObjectId>;
}

/// The only place that tells kinds of proxies apart.
fn planner(key: &ViewKey) -> &dyn PlansView {
    match key {
        ViewKey::Outbound(key) => key,
        ViewKey::Inbound(key) => key,
        ViewKey::Gateway(key) => key,
    }
}

/// Plans which resources a view consists of.
pub fn plan_outline(reader: &Reader<'_>, key: &ViewKey) -> Outline {
    planner(key).outline(reader)
}

/// The objects that shaped an own item of a view (a listener, the cluster of a workload's port); sorted, unique. Empty
/// where only the mesh's settings did, and for listeners that every service of a port shares: their routes tell the
/// services apart.
pub fn origins_of(reader: &Reader<'_>, key: &ViewKey, item: &PlanItem) -> BTreeSet<ObjectId> {
    planner(key).origins_of(reader, item)
}

/// Plans one shared item; `None`: what it stands for is gone.
pub fn plan_item(reader: &Reader<'_>, key: &ItemKey) -> Option<PlanItem> {
    match key {
        ItemKey::Cluster(key) => cluster::plan_cluster(reader, key),
        ItemKey::Assignment(key) => assignment::plan_assignment(reader, key),
        ItemKey::Fixed(key) => Some(cluster::plan_fixed(reader, key)),
        ItemKey::VirtualHost(key) => virtual_host::plan_virtual_host(reader, key),
    }
}
