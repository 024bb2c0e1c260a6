//! The machines that are there: connected proxies that name a group and prove its account are
//! workloads like any other.
//!
//! Which proxies are there comes from the streams of control planes, and from no object: it outlives
//! a rebuild.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Audience, ChangeSet, Item, MeshSnapshot, groups::key};
use crate::ir::{Connection, Member, WorkloadGroup};

/// Every connected proxy that names a group.
pub(super) type Members = BTreeMap<Connection, Member>;

impl MeshSnapshot {
    /// The group of a name in a namespace.
    pub fn workload_group(&self, namespace: &str, name: &Arc<str>) -> Option<&WorkloadGroup> {
        self.groups().get(namespace, name).map(AsRef::as_ref)
    }

    /// Every connected proxy that names a group; sorted.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&Connection, &Member)> {
        self.members.iter()
    }

    /// Records what a proxy says of its machine; `None`: it is gone, or names no group.
    pub(crate) fn set_member(
        &mut self,
        connection: Connection,
        member: Option<Member>,
        audience: &Audience,
        changes: &mut ChangeSet,
    ) {
        let before = self.machine(&connection);
        let members = Arc::make_mut(&mut self.members);
        match member {
            Some(member) => drop(members.insert(connection.clone(), member)),
            None => drop(members.remove(&connection)),
        }
        let after = self.machine(&connection);
        self.exchange(before.as_slice(), after.as_slice(), audience, changes);
    }

    /// Takes over the machines of a former state.
    pub(crate) fn take_members(&mut self, former: &Self) {
        let (nobody, mut ignored) = (Audience::default(), ChangeSet::default());
        for (connection, member) in former.members() {
            self.set_member(connection.clone(), Some(member.clone()), &nobody, &mut ignored);
        }
    }

    /// The machines of those groups that are among items.
    pub(super) fn machines<'a>(
        &self,
        items: impl Iterator<Item = &'a Item>,
    ) -> BTreeMap<Connection, Item> {
        let groups: BTreeSet<_> = items
            .filter_map(|item| match item {
                Item::Group(group) => Some(key(&group.origin.id)),
                _ => None,
            })
            .collect();
        if groups.is_empty() {
            return BTreeMap::new();
        }
        let named = |connection: &Connection, member: &Member| {
            groups.contains(&(connection.identity.namespace().into(), member.group.clone()))
        };
        let named = self.members.iter().filter(|(connection, member)| named(connection, member));
        named.filter_map(|(c, _)| Some((c.clone(), self.machine(c)?))).collect()
    }

    /// The workload that a proxy is by the group that it names.
    fn machine(&self, connection: &Connection) -> Option<Item> {
        let member = self.members.get(connection)?;
        let group = self.groups().get(connection.identity.namespace(), &member.group)?;
        Some(Item::Workload(Arc::new(group.workload(connection, member)?)))
    }
}
