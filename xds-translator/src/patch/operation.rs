//! What each operation does to a list of named messages.

use prost_reflect::DynamicMessage;

use super::{edit, merge::merge_patch};
use crate::ir::{Patch, PatchOperation};

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

fn is_terminal(filter: &DynamicMessage) -> bool {
    TERMINAL.contains(&&*edit::text(filter, "name"))
}
