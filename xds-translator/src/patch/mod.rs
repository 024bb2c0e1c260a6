//! Patching: the last stage before bytes are final. What [`emit`](crate::emit) spelled is opened,
//! changed as users' patches say, and made canonical again.
//!
//! ```text
//! PlanItem ─emit─▶ message ─patch─▶ message ─encode─▶ bytes
//! ```
//! Patches come in the order in which they are applied. Within a listener what is outer is changed
//! first: the listener, the filters of its chains, the filters of HTTP connections, the routes in
//! them; likewise within a route configuration. A patch that would make a message that every proxy
//! refuses is left out and reported, and the message stays as it was before. Resources come and go
//! by the outline, never here; an item without patches passes through as it is.

mod cluster;
mod edit;
mod listener;
mod merge;
mod operation;
mod report;
mod route;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use ferromesh_proto::ResourceType;
use prost::Message;
use prost_reflect::DynamicMessage;

pub use self::{
    report::{Refused, Report},
    table::RoutePatches,
};
use crate::{
    descriptors::{canonicalize, pool},
    emit::{self, Content},
    ir::{Patch, PatchSubject},
    plan::PlanItem,
};

const LISTENER: &str = "envoy.config.listener.v3.Listener";

/// The item as an encoded message with `patches` in it, and what each of them did.
pub fn encode(item: &PlanItem, patches: &[Arc<Patch>]) -> (Bytes, Report) {
    let body = emit::emit(item);
    let concerning = concerning(item, patches);
    if concerning.is_empty() {
        return (body, Report::default());
    }
    match item {
        PlanItem::Listener(plan) => changed(LISTENER, body, |message, report| {
            listener::patch(message, &plan.port_names, &concerning, report);
        }),
        _ => patched(item.resource_type(), body, &concerning),
    }
}

/// The item and the patches that may change it as a hash: where both are equal, so are the bytes.
pub fn content(item: &PlanItem, patches: &[Arc<Patch>]) -> Content {
    match concerning(item, patches) {
        none if none.is_empty() => emit::content(item),
        some => Content::of(&(item, some)),
    }
}

/// Those that may change an item's message.
fn concerning<'a>(item: &PlanItem, patches: &'a [Arc<Patch>]) -> Vec<&'a Arc<Patch>> {
    let about = |patch: &&Arc<Patch>| match (item, &patch.subject) {
        (PlanItem::Cluster(_), PatchSubject::Cluster(_))
        | (PlanItem::Listener(_), PatchSubject::Listener(_)) => patch.operation.merges(),
        (PlanItem::Listener(_), PatchSubject::Cluster(_) | PatchSubject::Bootstrap) => false,
        (PlanItem::Listener(_), _) => true,
        // Endpoints have no patches; virtual hosts have theirs in the route configuration; what a
        // patch gives is as its author wants it.
        _ => false,
    };
    patches.iter().filter(about).collect()
}

/// An encoded cluster or route configuration with patches in it.
fn patched(kind: ResourceType, body: Bytes, patches: &[&Arc<Patch>]) -> (Bytes, Report) {
    let name = kind.type_url().rsplit('/').next().unwrap_or_default();
    changed(name, body, |message, report| match kind {
        ResourceType::Cluster => cluster::patch(message, patches, report),
        ResourceType::Route => route::patch(message, patches, report),
        _ => {}
    })
}

/// An encoded message of the type `name` after a change; as it is when nothing was done to it.
fn changed(
    name: &str,
    body: Bytes,
    change: impl FnOnce(&mut DynamicMessage, &mut Report),
) -> (Bytes, Report) {
    let mut report = Report::default();
    let opened = pool().get_message_by_name(name);
    let Some(mut message) = opened.and_then(|m| DynamicMessage::decode(m, body.clone()).ok())
    else {
        return (body, report);
    };
    change(&mut message, &mut report);
    if report.is_empty() {
        return (body, report);
    }
    let mut body = message.encode_to_vec();
    canonicalize(name, &mut body);
    (body.into(), report)
}
