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

pub(crate) use origins::origins_of;
pub(crate) use traffic::Traffic;

use crate::snapshot::Reader;

/// Plans which resources a view consists of. The only place that tells kinds of proxies apart.
pub fn plan_outline(reader: &Reader<'_>, key: &ViewKey) -> Outline {
    match key {
        ViewKey::Outbound(key) => sidecar::plan_outbound(reader, key),
        ViewKey::Inbound(key) => inbound::plan_inbound(reader, key),
        ViewKey::Gateway(key) => gateway::plan_gateway(reader, key),
    }
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
