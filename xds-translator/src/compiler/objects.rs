//! The objects in force, with what they were lowered to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Change, Work, nodes::Nodes};
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
    nodes: Nodes,
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
        let items = self.held.values().flat_map(|held| &held.items);
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
        let moved = self.nodes.replace(old.as_ref().map(|old| &old.current), Some(&object));
        let (old_items, old_diagnostics) =
            old.as_ref().map(|h| (h.items.clone(), h.diagnostics.clone())).unwrap_or_default();
        let settings = if id.kind == Kind::MESH_CONFIG { &self.base } else { mesh };
        let held = Held::new(object, old, settings, &self.nodes, work);
        let diagnosed = held.diagnostics != old_diagnostics;
        self.held.insert(id.clone(), held);
        let itself = Replaced { id, items: old_items, diagnosed };
        std::iter::once(itself).chain(self.move_pods(moved, mesh, work)).collect()
    }

    /// As [`Self::upsert`]; empty if there is no such object.
    pub(super) fn delete(
        &mut self,
        id: &ObjectId,
        mesh: &MeshDefaults,
        work: &mut Work,
    ) -> Vec<Replaced> {
        let Some(held) = self.held.remove(id) else { return Vec::new() };
        let moved = self.nodes.replace(Some(&held.current), None);
        let itself =
            Replaced { id: id.clone(), items: held.items, diagnosed: !held.diagnostics.is_empty() };
        std::iter::once(itself).chain(self.move_pods(moved, mesh, work)).collect()
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
            let items = std::mem::take(&mut held.items);
            held.lower(mesh, &self.nodes, work);
            // Where a pod runs is no mistake of it.
            replaced.push(Replaced { id, items, diagnosed: false });
        }
        replaced
    }

    pub(super) fn items(&self, id: &ObjectId) -> &[Item] {
        self.held.get(id).map_or(&[], |held| &held.items)
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
                &self.nodes,
                work,
            );
            if before != held.diagnostics {
                diagnosed.push(id.clone());
            }
        }
        diagnosed
    }

    /// A snapshot of everything, with the credentials, connections and keys of `former`.
    pub(super) fn build(&self, former: &MeshSnapshot) -> MeshSnapshot {
        let mut snapshot = MeshSnapshot::new(self.mesh());
        let (nobody, mut ignored) = (Audience::default(), ChangeSet::default());
        for held in self.held.values() {
            snapshot.replace(&[], &held.items, &nobody, &mut ignored);
        }
        snapshot.restore_mesh(self.mesh());
        snapshot.take_credentials(former);
        snapshot.take_connections(former);
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
        nodes: &Nodes,
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
            diagnostics: Vec::new(),
        };
        held.lower(mesh, nodes, work);
        held
    }

    fn lower(&mut self, mesh: &MeshDefaults, nodes: &Nodes, work: &mut Work) {
        work.objects_lowered += 1;
        let lowered = lower(&self.current, mesh);
        self.refused = lowered.is_refused();
        self.diagnostics = lowered.diagnostics;
        if !self.refused {
            self.accepted = None;
        }
        self.items = match &self.accepted {
            Some(accepted) => nodes.locate(accepted, lower(accepted, mesh).items),
            None if self.refused => nodes.locate(&self.current, lowered.closed),
            None => nodes.locate(&self.current, lowered.items),
        };
    }
}
