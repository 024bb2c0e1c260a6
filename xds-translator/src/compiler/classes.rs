//! Classes of Ingresses: an Ingress is lowered anew when one comes, changes or goes.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use crate::{
    dialect::{Kind, Object, kubernetes::ingress_class::class_of},
    ir::{IngressClass, MeshDefaults, ObjectId},
};

/// Classes that have an object, by name.
#[derive(Default, Debug)]
pub(super) struct Classes(BTreeMap<Arc<str>, IngressClass>);

impl Classes {
    /// An object is another now, or gone; whether a class is another because of it.
    pub(super) fn replace(&mut self, id: &ObjectId, new: Option<&Object>) -> bool {
        if id.kind != Kind::INGRESS_CLASS {
            return false;
        }
        let class = new.and_then(class_of);
        let before = match class {
            Some(class) => self.0.insert(id.name.clone(), class),
            None => self.0.remove(&id.name),
        };
        before != class
    }

    /// The settings with which an object is lowered.
    pub(super) fn complete<'m>(
        &self,
        id: &ObjectId,
        mesh: &'m MeshDefaults,
    ) -> Cow<'m, MeshDefaults> {
        match id.kind == Kind::INGRESS && !self.0.is_empty() {
            true => Cow::Owned(mesh.with_classes(&self.0)),
            false => Cow::Borrowed(mesh),
        }
    }
}
