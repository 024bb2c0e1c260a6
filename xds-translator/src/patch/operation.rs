//! What each operation does to a list of named messages.

use prost_reflect::DynamicMessage;

use super::{edit, merge::merge_patch};
use crate::ir::{FilterPlace, Patch, PatchOperation};

/// A list that a patch changes.
pub(super) struct Target<'a> {
    /// The list.
    pub(super) list: &'a mut Vec<DynamicMessage>,
    /// Whether the patch names one of the list; else all are meant.
    pub(super) named: bool,
    /// What the list is of.
    pub(super) of: Elements,
}

/// What a list is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Elements {
    /// Filters: they run in order, and nothing runs behind one that ends the chain.
    Filters,
    /// Anything else.
    Others,
}

/// Filters behind which no other may stand; Envoy refuses the whole listener otherwise.
const TERMINAL: [&str; 3] = [
    "envoy.filters.http.router",
    "envoy.filters.network.http_connection_manager",
    "envoy.filters.network.tcp_proxy",
];

/// Changes a list as a patch says; `selects`: which of its messages are meant. Whether it is
/// another now.
pub(super) fn apply(
    patch: &Patch,
    target: Target<'_>,
    selects: impl Fn(&DynamicMessage) -> bool,
) -> bool {
    let Target { list, named, of } = target;
    let message = patch.message.as_ref().and_then(edit::open);
    let Some(message) = message else {
        return patch.operation == PatchOperation::Remove && remove(list, selects);
    };
    let found = list.iter().position(&selects);
    let at = match patch.operation {
        PatchOperation::Merge(_) => {
            return each(list, selects, |known| merge_patch(patch, known, &message));
        }
        PatchOperation::Replace => return each(list, selects, |known| *known = message.clone()),
        PatchOperation::Remove => return remove(list, selects),
        PatchOperation::Add => Some(list.len()),
        PatchOperation::InsertFirst if named => found.map(|_| 0),
        PatchOperation::InsertFirst => Some(0),
        PatchOperation::InsertBefore if named => found,
        PatchOperation::InsertBefore => Some(0),
        PatchOperation::InsertAfter if named => found.map(|at| at + 1),
        PatchOperation::InsertAfter => Some(list.len()),
        PatchOperation::InsertAt(place) => Some(position(list, place)),
    };
    // A guard is not lost because its neighbour is not there: it comes before everything.
    let lost = (of == Elements::Filters && patch.guards).then_some(0);
    let Some(at) = at.or(lost) else { return false };
    let end = match of {
        Elements::Filters => list.iter().position(is_terminal).unwrap_or(list.len()),
        Elements::Others => list.len(),
    };
    list.insert(at.min(end), message);
    true
}

fn each(
    list: &mut [DynamicMessage],
    selects: impl Fn(&DynamicMessage) -> bool,
    mut change: impl FnMut(&mut DynamicMessage),
) -> bool {
    let mut changed = false;
    for known in list.iter_mut().filter(|known| selects(known)) {
        change(known);
        changed = true;
    }
    changed
}

fn remove(list: &mut Vec<DynamicMessage>, selects: impl Fn(&DynamicMessage) -> bool) -> bool {
    let before = list.len();
    list.retain(|known| !selects(known));
    list.len() != before
}

/// The services that are asked whether a call may pass, which stand before all else.
const ASKING: [&str; 2] = ["envoy.filters.http.ext_authz", "envoy.filters.network.ext_authz"];

/// Filters of the mesh, in their order.
const AUTHENTICATING: [&str; 1] = ["envoy.filters.http.jwt_authn"];
const AUTHORIZING: [&str; 2] = ["envoy.filters.http.rbac", "envoy.filters.network.rbac"];
const BEHIND: [&str; 8] = [
    "envoy.filters.http.local_ratelimit",
    "envoy.filters.http.grpc_stats",
    "envoy.filters.http.fault",
    "envoy.filters.http.cors",
    "envoy.filters.http.set_filter_state",
    "envoy.filters.http.dynamic_forward_proxy",
    "envoy.filters.network.set_filter_state",
    "envoy.filters.network.sni_dynamic_forward_proxy",
];

/// The position of a place in a list of filters: before the first filter of the mesh that belongs
/// behind it, so that filters of others, put there earlier, stay before.
fn position(list: &[DynamicMessage], place: FilterPlace) -> usize {
    let names: Vec<String> = list.iter().map(|filter| edit::text(filter, "name")).collect();
    let is_of = |list: &[&str], name: &String| list.contains(&&**name);
    let start = names.iter().rposition(|name| is_of(&ASKING, name)).map_or(0, |at| at + 1);
    let ends = |name: &String| {
        let behind = is_of(&BEHIND, name) || is_of(&TERMINAL, name);
        match place {
            FilterPlace::BeforeAuthentication => {
                behind || is_of(&AUTHORIZING, name) || is_of(&AUTHENTICATING, name)
            }
            FilterPlace::BeforeAuthorization => behind || is_of(&AUTHORIZING, name),
            FilterPlace::BehindAuthorization | FilterPlace::Unspecified => behind,
        }
    };
    names[start..].iter().position(ends).map_or(names.len(), |at| start + at)
}

fn is_terminal(filter: &DynamicMessage) -> bool {
    TERMINAL.contains(&&*edit::text(filter, "name"))
}
