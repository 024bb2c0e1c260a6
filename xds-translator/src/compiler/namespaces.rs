//! What Namespace objects say of the objects in them: whether these are seen, by the labels, and
//! which endpoints their services prefer.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    dialect::{Kind, Object, distribution_of},
    ir::{Distribution, Labels, MeshDefaults, ObjectId, Service},
    snapshot::{Item, ServiceDefinition},
};

/// Namespaces that have an object.
#[derive(Default, Debug)]
pub(super) struct Namespaces(BTreeMap<Arc<str>, Namespace>);

/// A namespace whose object says something else now.
#[derive(Debug)]
pub(super) struct Renewed {
    pub(super) namespace: Arc<str>,
    /// Whether its services prefer others now.
    prefers: bool,
}

impl Renewed {
    /// Whether that may matter to objects in it.
    pub(super) fn matters(&self, mesh: &MeshDefaults) -> bool {
        self.prefers || !mesh.discovery.is_empty()
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Namespace {
    labels: Labels,
    distribution: Option<Distribution>,
}

impl Namespaces {
    /// An object is another now, or gone. The namespace that says something else because of it.
    pub(super) fn replace(&mut self, id: &ObjectId, new: Option<&Object>) -> Option<Renewed> {
        if id.kind != Kind::NAMESPACE {
            return None;
        }
        let namespace = new.map(|object| Namespace {
            labels: object.meta.labels.clone(),
            distribution: distribution_of(&object.meta.annotations),
        });
        let before = match namespace {
            Some(namespace) => self.0.insert(id.name.clone(), namespace),
            None => self.0.remove(&id.name),
        };
        let after = self.0.get(&id.name);
        let preference = |namespace: Option<&Namespace>| namespace.and_then(|n| n.distribution);
        (before.as_ref() != after).then(|| Renewed {
            namespace: id.name.clone(),
            prefers: preference(before.as_ref()) != preference(after),
        })
    }

    /// Whether an object counts at all.
    pub(super) fn sees(&self, object: &ObjectId, mesh: &MeshDefaults) -> bool {
        let namespace = self.0.get(&object.namespace);
        mesh.sees(&object.namespace, namespace.map(|namespace| &namespace.labels))
    }

    /// The items of an object; services that prefer nothing prefer what their namespace does.
    pub(super) fn prefer(&self, object: &ObjectId, items: Vec<Item>) -> Vec<Item> {
        let namespace = self.0.get(&object.namespace);
        let Some(distribution) = namespace.and_then(|namespace| namespace.distribution) else {
            return items;
        };
        let preferring = |item| match item {
            Item::Service(definition) if definition.service.distribution.is_none() => {
                let ServiceDefinition { service, inline } = Arc::unwrap_or_clone(definition);
                let service =
                    Service { distribution: Some(distribution), ..Arc::unwrap_or_clone(service) };
                Item::Service(Arc::new(ServiceDefinition { service: Arc::new(service), inline }))
            }
            other => other,
        };
        items.into_iter().map(preferring).collect()
    }
}
