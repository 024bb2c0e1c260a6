//! Planning: every decision about what a proxy gets, as plain values.
//!
//! Reads the snapshot only through [`Reader`], which records what was read; takes nothing but a
//! key. An outline says which resources a view consists of; an item is one of them with every
//! decision made.

mod assignment;
mod authorizer;
mod authz;
mod caller;
mod client;
mod cluster;
pub mod cluster_types;
mod credentials;
mod defaults;
mod egress;
mod egress_proxy;
#[cfg(test)]
mod fixture;
mod gateway;
mod gateway_servers;
mod host_map;
mod identity;
mod inbound;
mod inbound_chain;
pub mod keys;
mod locality;
mod metrics;
mod mtls;
mod naming;
mod order;
mod origins;
mod outbound_listener;
pub mod outline;
mod patches;
mod path;
mod peers;
mod place;
mod rate_limit;
mod reasons;
mod references;
mod relay;
mod route;
pub mod route_types;
mod sidecar;
mod stat_name;
mod tcp_route;
mod telemetry;
pub mod telemetry_types;
#[cfg(test)]
mod tests;
mod token;
mod traffic;
pub mod types;
mod virtual_host;

pub use cluster_types::*;
pub use keys::*;
pub use outline::*;
pub use route_types::*;
pub use telemetry_types::*;
pub use token::{MetadataMatch, MetadataSource, TextPlace, TokenFilter};
pub use types::*;

pub(crate) use authorizer::{NobodyAsked, authorizer};
pub(crate) use caller::Caller;
pub(crate) use client::{Client, destinations, l4_destinations};
pub(crate) use credentials::{CredentialPart, NamedCredential, credentials};
pub(crate) use egress_proxy::find_proxy;
pub(crate) use gateway_servers::{Contested, Overruled, bound_hosts, closer_hosts};
pub(crate) use outbound_listener::Displaced;
pub(crate) use rate_limit::{NobodyCounts, counter};
pub use reasons::RouteRule;
pub(crate) use reasons::{
    access_policies_of, access_rule_of, peer_tls_of, rule_of, token_policies_of,
};
pub(crate) use references::{Lack, lack_in, references};
pub(crate) use route::find_service;
pub(crate) use sidecar::displaced;
pub(crate) use telemetry::{find_collector, names_workload, told_by, unknown_providers};
pub(crate) use traffic::Traffic;

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    ir::{Labels, ObjectId, Patch, ProxySide},
    snapshot::Reader,
};

/// What is planned for a view of one kind.
pub(crate) trait PlansView {
    /// Which resources the view consists of, in any order.
    fn outline(&self, reader: &Reader<'_>) -> Outline;
    /// The objects that shaped an item which the view plans as its own.
    fn origins_of(&self, reader: &Reader<'_>, item: &PlanItem) -> BTreeSet<ObjectId>;
    /// Which patches are for the view, and on which side it is.
    fn patches(&self) -> (&PatchesKey, ProxySide);
    /// The client, as route tables see it; `None`: the view is no client.
    fn caller(&self) -> Option<Caller<'_>>;
    /// The workload whose policies guard what the view takes in, by namespace and labels; `None`:
    /// it takes nothing in.
    fn guarded(&self) -> Option<(&Arc<str>, &Labels)> {
        None
    }
    /// The listener port behind a port of the services that lead to the proxy; `None`: none does.
    fn port_behind(&self, _port: u16) -> Option<u16> {
        None
    }
    /// Servers of gateway objects that the view leaves out; none, unless it is a gateway's.
    fn overruled(&self, _reader: &Reader<'_>) -> BTreeSet<Overruled> {
        BTreeSet::new()
    }
}

/// The only place that tells kinds of proxies apart.
fn planner(key: &ViewKey) -> &dyn PlansView {
    match key {
        ViewKey::Outbound(key) => key,
        ViewKey::Inbound(key) => key,
        ViewKey::Peers(key) => key,
        ViewKey::Gateway(key) => key,
    }
}

/// Plans which resources a view consists of.
pub fn plan_outline(reader: &Reader<'_>, key: &ViewKey) -> Outline {
    let mut outline = planner(key).outline(reader);
    let (key, side) = planner(key).patches();
    patches::plan(reader, key, side, &mut outline);
    outline.sort();
    outline
}

/// The objects that shaped an own item of a view (a listener, the cluster of a workload's port);
/// sorted, unique. Empty where only the mesh's settings did, and for listeners that every service
/// of a port shares: their routes tell the services apart.
pub fn origins_of(reader: &Reader<'_>, key: &ViewKey, item: &PlanItem) -> BTreeSet<ObjectId> {
    match item {
        PlanItem::Given(given) => {
            let (key, side) = planner(key).patches();
            patches::givers(reader, key, side, given)
        }
        _ => planner(key).origins_of(reader, item),
    }
}

/// The client of a view; `None`: the view is of a workload's own ports.
pub(crate) fn caller(key: &ViewKey) -> Option<Caller<'_>> {
    planner(key).caller()
}

/// The listener port behind a port that clients of a gateway call; `None`: no service leads from
/// it.
pub(crate) fn gateway_port(key: &ViewKey, port: u16) -> Option<u16> {
    planner(key).port_behind(port)
}

/// The servers of a view's gateway objects that it does not serve, wholly or for one host, because
/// another server has the place; sorted, unique.
pub(crate) fn overruled(reader: &Reader<'_>, key: &ViewKey) -> BTreeSet<Overruled> {
    planner(key).overruled(reader)
}

/// Plans one shared item; `None`: what it stands for is gone.
pub fn plan_item(reader: &Reader<'_>, key: &ItemKey) -> Option<PlanItem> {
    match key {
        ItemKey::Cluster(key) => cluster::plan_cluster(reader, key),
        ItemKey::Assignment(key) => assignment::plan_assignment(reader, key),
        ItemKey::Fixed(key) => Some(cluster::plan_fixed(reader, key)),
        ItemKey::VirtualHost(key) => virtual_host::plan_virtual_host(reader, key),
        ItemKey::Patched(key) => plan_item(reader, &key.item),
    }
}

/// What is done to the message of a shared item, in order; empty for all but
/// [`ItemKey::Patched`].
pub fn item_patches(reader: &Reader<'_>, key: &ItemKey) -> Vec<Arc<Patch>> {
    match key {
        ItemKey::Patched(key) => patches::of_item(reader, key),
        _ => Vec::new(),
    }
}
