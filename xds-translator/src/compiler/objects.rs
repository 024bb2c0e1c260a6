//! The objects in force, with what they were lowered to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Change, Work,
    classes::Classes,
    namespaces::{Namespaces, Renewed},
    nodes::Nodes,
};
use crate::{
    diagnostic::Diagnostic,
    dialect::lower,
    dialect::{Kind, Object},
    ir::{MeshDefaults, ObjectId},
    snapshot::{Audience, ChangeSet, Item, MeshSnapshot},
};

/// Every object, and the settings that hold before any.
#[derive(Default, Debug)]
pub(super) struct Objects {
    base: Arc<MeshDefaults>,
    held: BTreeMap<ObjectId, Held>,
    around: Around,
}

/// What objects say of others, which are lowered with it.
#[derive(Default, Debug)]
struct Around {
    nodes: Nodes,
    namespaces: Namespaces,
    classes: Classes,
}

/// One object.
#[derive(Debug)]
struct Held {
    current: Object,
    /// The last accepted version, while the current one is refused.
    accepted: Option<Object>,
    /// Whether the current version is.
    refused: bool,
    /// What is in force: of the current version, of the accepted one, or what stands in for a
    /// refused guard.
    items: Vec<Item>,
    /// Whether its namespace is seen; what is not seen is not in force.
    seen: bool,
    diagnostics: Vec<Diagnostic>,
}

/// What an object was before it was replaced.
pub(super) struct Replaced {
    pub(super) id: ObjectId,
    pub(super) items: Vec<Item>,
    /// Whether its diagnostics are others now.
    pub(super) diagnosed: bool,
}

impl Objects {
    pub(super) fn new(base: Arc<MeshDefaults>) -> Self {
        Self { base, ..Self::default() }
    }

    pub(super) fn base(&self) -> &MeshDefaults {
        &self.base
    }

    /// The settings in force: of the first mesh object by name, else the base.
    pub(super) fn mesh(&self) -> Arc<MeshDefaults> {
        let items = self.held.values().flat_map(Held::in_force);
        let mesh = items.into_iter().find_map(|item| match item {
            Item::Mesh(mesh) => Some(mesh.clone()),
            _ => None,
        });
        mesh.unwrap_or_else(|| self.base.clone())
    }

    /// What is replaced: the object itself first, then what rests on it.
    pub(super) fn upsert(
        &mut self,
        object: Object,
        mesh: &MeshDefaults,
        work: &mut Work,
    ) -> Vec<Replaced> {
        let id = object.id.clone();
        let old = self.held.remove(&id);
        let moved = self.around.nodes.replace(old.as_ref().map(|old| &old.current), Some(&object));
        let (old_items, old_diagnostics) = old
            .as_ref()
            .map(|h| (h.in_force().to_vec(), h.diagnostics.clone()))
            .unwrap_or_default();
        let renewed = self.around.namespaces.replace(&id, Some(&object));
        let classified = self.around.classes.replace(&id, Some(&object));
        let settings = if id.kind == Kind::MESH_CONFIG { &self.base } else { mesh };
        let mut held = Held::new(object, old, settings, &self.around, work);
        held.seen = self.around.namespaces.sees(&id, mesh);
        let diagnosed = held.diagnostics != old_diagnostics;
        self.held.insert(id.clone(), held);
        let itself = Replaced { id, items: old_items, diagnosed };
        let mut replaced = vec![itself];
        replaced.extend(self.move_pods(moved, mesh, work));
        replaced.extend(self.look_again(renewed, mesh, work));
        if classified {
            replaced.extend(self.classify(mesh, work));
        }
        replaced
    }

    /// As [`Self::upsert`]; empty if there is no such object.
    pub(super) fn delete(
        &mut self,
        id: &ObjectId,
        mesh: &MeshDefaults,
        work: &mut Work,
    ) -> Vec<Replaced> {
        let Some(held) = self.held.remove(id) else { return Vec::new() };
        let moved = self.around.nodes.replace(Some(&held.current), None);
        let renewed = self.around.namespaces.replace(id, None);
        let classified = self.around.classes.replace(id, None);
        let diagnosed = !held.diagnostics.is_empty();
        let itself = Replaced { id: id.clone(), items: held.in_force().to_vec(), diagnosed };
        let mut replaced = vec![itself];
        replaced.extend(self.move_pods(moved, mesh, work));
        replaced.extend(self.look_again(renewed, mesh, work));
        if classified {
            replaced.extend(self.classify(mesh, work));
        }
        replaced
    }

    /// Looks again at the objects of a namespace that says something else now: whether they are seen,
    /// and what services in it prefer.
    fn look_again(
        &mut self,
        renewed: Option<Renewed>,
        mesh: &MeshDefaults,
        work: &mut Work,
    ) -> Vec<Replaced> {
        let Some(renewed) = renewed.filter(|renewed| renewed.matters(mesh)) else {
            return Vec::new();
        };
        let mut replaced = Vec::new();
        let own = self.held.iter_mut().filter(|(id, _)| id.namespace == renewed.namespace);
        for (id, held) in own {
            let items = held.in_force().to_vec();
            held.seen = self.around.namespaces.sees(id, mesh);
            if held.items.iter().any(|item| matches!(item, Item::Service(_))) {
                held.lower(mesh, &self.around, work);
            }
            if held.in_force() != items {
                replaced.push(Replaced { id: id.clone(), items, diagnosed: false });
            }
        }
        replaced
    }

    /// Lowers Ingresses again, because a class is another now.
    fn classify(&mut self, mesh: &MeshDefaults, work: &mut Work) -> Vec<Replaced> {
        let mut replaced = Vec::new();
        let ingresses = self.held.iter_mut().filter(|(id, _)| id.kind == Kind::INGRESS);
        for (id, held) in ingresses {
            let items = held.in_force().to_vec();
            let before = std::mem::take(&mut held.diagnostics);
            held.lower(mesh, &self.around, work);
            let diagnosed = before != held.diagnostics;
            replaced.push(Replaced { id: id.clone(), items, diagnosed });
        }
        replaced
    }

    /// Lowers pods again whose node is in another place now.
    fn move_pods(
        &mut self,
        pods: BTreeSet<ObjectId>,
        mesh: &MeshDefaults,
        work: &mut Work,
    ) -> Vec<Replaced> {
        let mut replaced = Vec::new();
        for id in pods {
            let Some(held) = self.held.get_mut(&id) else { continue };
            let items = held.in_force().to_vec();
            held.lower(mesh, &self.around, work);
            // Where a pod runs is no mistake of it.
            replaced.push(Replaced { id, items, diagnosed: false });
        }
        replaced
    }

    pub(super) fn items(&self, id: &ObjectId) -> &[Item] {
        self.held.get(id).map_or(&[], Held::in_force)
    }

    /// Lowers every object again, because the settings of the mesh changed; those whose diagnostics
    /// did too.
    pub(super) fn lower_all(&mut self, work: &mut Work) -> Vec<ObjectId> {
        let mesh = self.mesh();
        let mut diagnosed = Vec::new();
        for (id, held) in &mut self.held {
            let before = std::mem::take(&mut held.diagnostics);
            // The mesh's own settings rest on the base alone, whatever was in force before.
            held.lower(
                if id.kind == Kind::MESH_CONFIG { &self.base } else { &mesh },
                &self.around,
                work,
            );
            held.seen = self.around.namespaces.sees(id, &mesh);
            if before != held.diagnostics {
                diagnosed.push(id.clone());
            }
        }
        diagnosed
    }

    /// A snapshot of everything, with the credentials, connections, machines and keys of
    /// `former`.
    pub(super) fn build(&self, former: &MeshSnapshot) -> MeshSnapshot {
        let mut snapshot = MeshSnapshot::new(self.mesh());
        let (nobody, mut ignored) = (Audience::default(), ChangeSet::default());
        for held in self.held.values() {
            snapshot.replace(&[], held.in_force(), &nobody, &mut ignored);
        }
        snapshot.restore_mesh(self.mesh());
        snapshot.take_credentials(former);
        snapshot.take_connections(former);
        snapshot.take_members(former);
        snapshot.take_key_sets(former);
        snapshot
    }

    /// Changes that lead from nothing to this: accepted versions first, so that refused ones leave
    /// them in force.
    pub(super) fn history(&self) -> Vec<Change> {
        let accepted = self.held.values().filter_map(|held| held.accepted.clone());
        let current = self.all().cloned();
        accepted.chain(current).map(|object| Change::Upsert(Box::new(object))).collect()
    }

    pub(super) fn current(&self, id: &ObjectId) -> Option<&Object> {
        self.held.get(id).map(|held| &held.current)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Object> {
        self.held.values().map(|held| &held.current)
    }

    pub(super) fn diagnostics(&self) -> impl Iterator<Item = (&ObjectId, &[Diagnostic])> {
        self.held
            .iter()
            .map(|(id, held)| (id, &held.diagnostics[..]))
            .filter(|(_, d)| !d.is_empty())
    }
}

impl Held {
    fn new(
        object: Object,
        old: Option<Self>,
        mesh: &MeshDefaults,
        around: &Around,
        work: &mut Work,
    ) -> Self {
        let accepted = old.and_then(|old| match old.accepted {
            Some(accepted) => Some(accepted),
            None => (!old.refused && !old.items.is_empty()).then_some(old.current),
        });
        let mut held = Self {
            current: object,
            accepted,
            refused: false,
            items: Vec::new(),
            seen: true,
            diagnostics: Vec::new(),
        };
        held.lower(mesh, around, work);
        held
    }

    /// What is in force of it.
    fn in_force(&self) -> &[Item] {
        if self.seen { &self.items } else { &[] }
    }

    fn lower(&mut self, mesh: &MeshDefaults, around: &Around, work: &mut Work) {
        work.objects_lowered += 1;
        let mesh = around.classes.complete(&self.current.id, mesh);
        let lowered = lower(&self.current, &mesh);
        self.refused = lowered.is_refused();
        self.diagnostics = lowered.diagnostics;
        if !self.refused {
            self.accepted = None;
        }
        let (object, items) = match &self.accepted {
            Some(accepted) => (accepted, lower(accepted, &mesh).items),
            None if self.refused => (&self.current, lowered.closed),
            None => (&self.current, lowered.items),
        };
        self.items = around.namespaces.prefer(&object.id, around.nodes.locate(object, items));
    }
}
