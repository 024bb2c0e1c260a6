//! Patches in a plan: which whole resources come and go by them, which shared items they change,
//! and what is left to do to messages.
//!
//! Only names are looked at here. Clusters and listeners are removed and added by the outline, so
//! that the names of a view are known without a message; what changes inside a message is done
//! when it is encoded.

use std::{collections::BTreeSet, sync::Arc};

use ferromesh_proto::{BOOTSTRAP, ResourceType};

use super::{Entry, GivenPlan, ItemKey, Outline, PatchedKey, PatchesKey, PlanItem};
use crate::{
    ir::{ListenerMatch, ObjectId, Patch, PatchMessage, PatchOperation, PatchSubject, ProxySide},
    snapshot::Reader,
};

/// Takes the patches of a view into its outline.
pub(super) fn plan(reader: &Reader<'_>, key: &PatchesKey, side: ProxySide, outline: &mut Outline) {
    let all = patches(reader, key, side);
    for patch in &all {
        match patch.operation {
            PatchOperation::Remove => remove(patch, outline),
            PatchOperation::Add => add(patch, outline),
            _ => {}
        }
    }
    start(&all, outline);
    share(key, side, &all, outline);
    outline.patches = all;
}

/// Those of the patches of an item's key that change it.
pub(super) fn of_item(reader: &Reader<'_>, key: &PatchedKey) -> Vec<Arc<Patch>> {
    let name = key.item.resource_name();
    let mut all = patches(reader, &key.patches, key.side);
    all.retain(|patch| changes_cluster(patch, &name));
    all
}

/// The objects that add a resource: several that say the same of it.
pub(super) fn givers(
    reader: &Reader<'_>,
    key: &PatchesKey,
    side: ProxySide,
    given: &GivenPlan,
) -> BTreeSet<ObjectId> {
    let adds = |patch: &Arc<Patch>| match given.kind {
        ResourceType::Bootstrap => patch.subject == PatchSubject::Bootstrap,
        kind => {
            patch.operation == PatchOperation::Add
                && patch.subject.resource() == Some(kind)
                && patch.message.as_ref() == Some(&given.message)
        }
    };
    let all = patches(reader, key, side).into_iter();
    all.filter(adds).map(|patch| patch.origin.clone()).collect()
}

/// The patches of a key for one side, in the order in which they are applied.
fn patches(reader: &Reader<'_>, key: &PatchesKey, side: ProxySide) -> Vec<Arc<Patch>> {
    let sets = key.sets.iter().filter_map(|id| reader.patch_set(id));
    let is_out =
        |patch: &Patch| key.left_out.iter().any(|(id, at)| (id, at) == (&patch.origin, &patch.at));
    let all = sets.flat_map(|set| &set.patches);
    all.filter(|patch| patch.concerns(side) && !is_out(patch)).cloned().collect()
}

/// Whether a shared cluster of this name is another with the patch.
fn changes_cluster(patch: &Patch, name: &str) -> bool {
    match &patch.subject {
        PatchSubject::Cluster(matches) => {
            patch.operation.merges() && matches.admits(name, std::iter::empty())
        }
        _ => false,
    }
}

/// Gives shared clusters that patches change keys of their own.
fn share(key: &PatchesKey, side: ProxySide, all: &[Arc<Patch>], outline: &mut Outline) {
    for entry in outline.of_mut(ResourceType::Cluster) {
        let Entry::Shared(item) = entry else { continue };
        let name = item.resource_name();
        let changing = |id: &&ObjectId| {
            all.iter().any(|patch| patch.origin == **id && changes_cluster(patch, &name))
        };
        let sets: Vec<ObjectId> = key.sets.iter().filter(changing).cloned().collect();
        if !sets.is_empty() {
            let left_out = key.left_out.iter().filter(|(id, _)| sets.contains(id)).cloned();
            let patches = PatchesKey { left_out: left_out.collect(), sets };
            let patched = PatchedKey { item: item.clone(), patches, side };
            *entry = Entry::shared(ItemKey::Patched(patched));
        }
    }
}

fn remove(patch: &Arc<Patch>, outline: &mut Outline) {
    let mut gone = Vec::new();
    match &patch.subject {
        PatchSubject::Cluster(matches) => outline.retain(ResourceType::Cluster, |entry| {
            let (name, hosts) = (entry.resource_name(), hosts(entry));
            let goes = matches.admits(&name, hosts.iter().map(|host| &**host));
            gone.extend(goes.then_some(name));
            !goes
        }),
        PatchSubject::Listener(matches) => outline.retain(ResourceType::Listener, |entry| {
            let goes = is_listener(entry, matches);
            gone.extend(goes.then(|| entry.resource_name()));
            !goes
        }),
        _ => return,
    }
    // Endpoints go with their cluster.
    outline.retain(ResourceType::Endpoint, |entry| !gone.contains(&entry.resource_name()));
    outline.effective.extend((!gone.is_empty()).then(|| patch.clone()));
}

/// The hosts of the services that a view's own cluster stands for.
fn hosts(entry: &Entry) -> Vec<Arc<str>> {
    match entry {
        Entry::Own(item) => match &**item {
            PlanItem::Cluster(plan) => {
                plan.provenance.services.iter().map(|(host, ..)| host.clone()).collect()
            }
            _ => Vec::new(),
        },
        Entry::Shared(_) => Vec::new(),
    }
}

fn is_listener(entry: &Entry, matches: &ListenerMatch) -> bool {
    let Entry::Own(item) = entry else { return false };
    let PlanItem::Listener(plan) = &**item else { return false };
    (matches.name.is_empty() || matches.name == plan.name)
        && matches.admits_port(Some(plan.port), &plan.port_names)
}

/// Adds a whole resource, unless the view has one of this name: the first one stays.
fn add(patch: &Arc<Patch>, outline: &mut Outline) {
    let Some(kind) = patch.subject.resource() else { return };
    let Some(message) = patch.message.clone() else { return };
    let item = PlanItem::Given(GivenPlan { kind, name: message.name.clone(), message });
    let known = outline.of(item.resource_type()).iter().map(Entry::resource_name);
    if !known.into_iter().any(|name| name == *item.name()) {
        outline.extend([Entry::own(item)]);
        outline.effective.push(patch.clone());
    }
}

/// Puts what proxies start with into one resource: bytes of messages of one type behind each other
/// are their merge (protobuf, "last one wins").
fn start(all: &[Arc<Patch>], outline: &mut Outline) {
    let starting = || all.iter().filter(|patch| patch.subject == PatchSubject::Bootstrap);
    let messages: Vec<&PatchMessage> =
        starting().filter_map(|patch| patch.message.as_ref()).collect();
    let Some(first) = messages.first() else { return };
    let name: Arc<str> = BOOTSTRAP.into();
    let body = messages.iter().flat_map(|message| message.body.iter().copied()).collect();
    let message = PatchMessage { kind: first.kind.clone(), name: name.clone(), body };
    let given = GivenPlan { kind: ResourceType::Bootstrap, name, message };
    outline.extend([Entry::own(PlanItem::Given(given))]);
    outline.effective.extend(starting().cloned());
}
