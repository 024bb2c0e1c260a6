//! The compiler: configuration changes in, changed views out.
//!
//! It owns the snapshot and a memo of everything that was planned: each item with the facts it
//! read, each view with the items it consists of. [`Compiler::apply`] lowers only the objects that
//! changed, repeats only the plans that read a changed fact, and stops where the outcome is equal:
//! an item is known by a hash of its plan, a resource by its bytes, an outline is compared as a
//! value.
//! [`Compiler::rebuild`] does everything from scratch and must give the same (invariant 3). Pure
//! and synchronous; one task owns it.

mod classes;
mod encoded;
mod ids;
mod index;
mod items;
mod namespaces;
mod nodes;
mod objects;
mod reasons;
mod views;

use std::sync::Arc;

use crate::{
    class::{self, NodeIdentity, ProxyClass, Refusal},
    diagnostic::Diagnostic,
    dialect::{Kind, Object},
    ir::{Connection, KeySet, KeySource, Member, MeshDefaults, ObjectId, Presence},
    plan::ViewKey,
    snapshot::{ChangeSet, CredentialFact, CredentialName, MeshSnapshot, Reclassify},
    view::View,
};

use self::{encoded::EncodedMemo, index::DepIndex, items::Items, objects::Objects, views::Views};

/// One change of configuration.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object appeared or is another than before.
    Upsert(Box<Object>),
    /// An object is gone.
    Delete(ObjectId),
    /// A credential appeared, changed or is gone. Its key material stays with the secret provider.
    Credential {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// What is known of it; `None`: it is gone.
        fact: Option<CredentialFact>,
    },
    /// A proxy came to a control plane, or is gone from all of them.
    Connection {
        /// Which proxy.
        connection: Connection,
        /// What is known of it now.
        presence: Presence,
    },
    /// A connected proxy says something of its machine.
    Member {
        /// Which proxy.
        connection: Connection,
        /// What it says; `None`: it is gone, or of no group.
        member: Option<Member>,
    },
    /// Keys that tokens are verified with were fetched, are others, or are in force no more.
    KeySet {
        /// Where they are fetched from.
        source: KeySource,
        /// The keys; `None`: no token is valid.
        keys: Option<KeySet>,
    },
}

/// What a round of changes led to.
#[derive(Clone, Default, Debug)]
pub struct Outcome {
    /// The new states of those views that changed.
    pub views: Vec<Arc<View>>,
    /// Proxies whose class may be another now.
    pub reclassify: Reclassify,
    /// Objects whose diagnostics changed; sorted, unique.
    pub diagnosed: Vec<ObjectId>,
    /// Everything was built again, because the mesh-wide settings changed.
    pub full: bool,
}

/// How much work was done since the compiler was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Work {
    /// Full rebuilds; only a change of the mesh-wide settings causes one.
    pub full_rebuilds: u64,
    /// Objects lowered.
    pub objects_lowered: u64,
    /// Items planned.
    pub items_planned: u64,
    /// Items encoded: planned, with another content than before.
    pub items_encoded: u64,
    /// Outlines planned.
    pub outlines_planned: u64,
    /// Route configurations put together.
    pub routes_spliced: u64,
}

/// Turns configuration into views, and keeps them up to date.
#[derive(Debug, Default)]
pub struct Compiler {
    objects: Objects,
    snapshot: Arc<MeshSnapshot>,
    index: DepIndex,
    items: Items,
    views: Views,
    memo: EncodedMemo,
    work: Work,
}

impl Compiler {
    /// A compiler without configuration. `base` holds what is known before any: domain, trust
    /// domain, root namespace; a MeshConfig object overrides all but the domain.
    pub fn new(base: MeshDefaults) -> Self {
        let base = Arc::new(base);
        let snapshot = Arc::new(MeshSnapshot::new(base.clone()));
        Self { objects: Objects::new(base), snapshot, ..Self::default() }
    }

    /// A compiler of a mesh as it is, which holds none of its objects: to look at views of it
    /// beside the compiler that keeps it up to date.
    pub fn of_snapshot(snapshot: Arc<MeshSnapshot>) -> Self {
        Self { objects: Objects::new(snapshot.mesh().clone()), snapshot, ..Self::default() }
    }

    /// Takes changes in; a later one of the same object replaces an earlier one.
    pub fn apply(&mut self, changes: Vec<Change>) -> Outcome {
        let mut touched = ChangeSet::default();
        let mut diagnosed = Vec::new();
        for change in changes {
            diagnosed.extend(self.take(change, &mut touched));
        }
        if touched.everything {
            self.work.full_rebuilds += 1;
            let relowered = self.objects.lower_all(&mut self.work);
            self.snapshot = Arc::new(self.objects.build(&self.snapshot));
            diagnosed.extend(relowered);
            touched.reclassify.everyone = true;
        }
        diagnosed.sort_unstable();
        diagnosed.dedup();
        let views = self.refresh(&touched);
        Outcome { views, reclassify: touched.reclassify, diagnosed, full: touched.everything }
    }

    /// Takes one change into objects and snapshot; the objects whose diagnostics changed.
    fn take(&mut self, change: Change, touched: &mut ChangeSet) -> Vec<ObjectId> {
        let snapshot = Arc::make_mut(&mut self.snapshot);
        let all = match change {
            Change::Upsert(object) => self.objects.upsert(*object, snapshot.mesh(), &mut self.work),
            Change::Delete(id) => self.objects.delete(&id, snapshot.mesh(), &mut self.work),
            Change::Credential { namespace, name, fact } => {
                snapshot.set_credential(&namespace, &name, fact, touched);
                return Vec::new();
            }
            Change::Connection { connection, presence } => {
                snapshot.set_connection(connection, presence, touched);
                return Vec::new();
            }
            Change::Member { connection, member } => {
                snapshot.set_member(connection, member, self.index.audience(), touched);
                return Vec::new();
            }
            Change::KeySet { source, keys } => {
                snapshot.set_key_set(source, keys, touched);
                return Vec::new();
            }
        };
        for replaced in &all {
            let new = self.objects.items(&replaced.id);
            snapshot.replace(&replaced.items, new, self.index.audience(), touched);
            if replaced.id.kind == Kind::MESH_CONFIG {
                snapshot.restore_mesh(self.objects.mesh());
            }
        }
        all.into_iter().filter(|replaced| replaced.diagnosed).map(|replaced| replaced.id).collect()
    }

    /// The state of the mesh.
    pub fn snapshot(&self) -> &Arc<MeshSnapshot> {
        &self.snapshot
    }

    /// Decides what a proxy gets.
    ///
    /// # Errors
    /// As [`class::classify`].
    pub fn classify(&self, node: &NodeIdentity) -> Result<ProxyClass, Refusal> {
        class::classify(&self.snapshot, node)
    }

    /// Every diagnostic that holds now, by object.
    pub fn diagnostics(&self) -> impl Iterator<Item = (&ObjectId, &[Diagnostic])> {
        self.objects.diagnostics()
    }

    /// The object as it was last given, in force or refused.
    pub fn object(&self, id: &ObjectId) -> Option<&Object> {
        self.objects.current(id)
    }

    /// Every object as it was last given, in the order of ids.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.all()
    }

    /// How much work was done.
    pub fn work(&self) -> Work {
        self.work
    }

    /// The keys of all views that are kept up to date.
    pub fn view_keys(&self) -> impl Iterator<Item = &Arc<ViewKey>> {
        self.views.keys()
    }

    /// Whether nothing is kept: no view, no item, no recorded fact, no encoded resource.
    pub fn is_idle(&self) -> bool {
        self.views.is_empty()
            && self.items.is_empty()
            && self.index.is_empty()
            && self.memo.is_empty()
    }

    /// The same configuration compiled from scratch, without views: for the proof that incremental
    /// equals full.
    pub fn rebuild(&self) -> Self {
        let mut fresh = Self::new(self.objects.base().clone());
        fresh.apply(self.objects.history());
        fresh.apply(self.credential_changes());
        fresh.apply(self.connection_changes());
        fresh.apply(self.member_changes());
        fresh.apply(self.key_set_changes());
        fresh
    }

    /// What is known of proxies, as changes from nothing.
    fn connection_changes(&self) -> Vec<Change> {
        let change = |(connection, presence): (&Connection, &Presence)| Change::Connection {
            connection: connection.clone(),
            presence: *presence,
        };
        self.snapshot.connections().map(change).collect()
    }

    /// What machines are there, as changes from nothing.
    fn member_changes(&self) -> Vec<Change> {
        let change = |(connection, member): (&Connection, &Member)| Change::Member {
            connection: connection.clone(),
            member: Some(member.clone()),
        };
        self.snapshot.members().map(change).collect()
    }

    /// What keys are known, as changes from nothing.
    fn key_set_changes(&self) -> Vec<Change> {
        let change = |(source, keys): (&KeySource, &KeySet)| Change::KeySet {
            source: source.clone(),
            keys: Some(keys.clone()),
        };
        self.snapshot.key_sets().map(change).collect()
    }

    /// What is known of credentials, as changes from nothing.
    fn credential_changes(&self) -> Vec<Change> {
        let change = |((namespace, name), fact): (&CredentialName, &CredentialFact)| {
            let (namespace, name) = (namespace.clone(), name.clone());
            Change::Credential { namespace, name, fact: Some(fact.clone()) }
        };
        self.snapshot.credentials().iter().map(change).collect()
    }
}

#[cfg(test)]
mod tests;
