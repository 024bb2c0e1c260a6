//! The typed content of an object.

use std::{any::Any, fmt::Debug, sync::Arc};

use super::{decode::Decoder, lowering::Lowering};
use crate::snapshot::Item;

/// What an object of a served kind says: a type of a dialect, which knows what its values must
/// keep to and what they mean.
pub(crate) trait Spec: Any + Debug + Send + Sync {
    /// Notes what is wrong with the values, seen on their own. The decoder stands at the object's
    /// top.
    fn check(&self, _at: &mut Decoder) {}

    /// What it means to a proxy; empty for objects that say nothing to one.
    fn lower(&self, _lowering: &mut Lowering<'_>) -> Vec<Item> {
        Vec::new()
    }
}

/// Content of an object, shared by its copies.
pub(crate) type Content = Arc<dyn Spec>;
