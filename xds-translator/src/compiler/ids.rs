//! Places in the memos: numbers instead of keys, so that what refers to items and views stays small.

/// An item's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct ItemId(pub(super) u32);

/// A view's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct ViewId(pub(super) u32);
