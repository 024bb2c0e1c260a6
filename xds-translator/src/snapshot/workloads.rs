//! Workloads, by name and by address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
};

use super::{
    family::{Family, Fed, Touch},
    reader::{Dep, Reader},
};
use crate::ir::{ObjectId, Workload, WorkloadId, WorkloadSet};

/// Every workload of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct Workloads {
    /// Of a pod and a WorkloadEntry with the same name the pod counts.
    by_id: BTreeMap<WorkloadId, BTreeMap<ObjectId, Arc<Workload>>>,
    by_address: BTreeMap<IpAddr, BTreeSet<WorkloadId>>,
}

impl Workloads {
    pub(crate) fn get(&self, id: &WorkloadId) -> Option<&Arc<Workload>> {
        self.by_id.get(id)?.values().next()
    }

    /// The workload at an address that is not on the host's network; the first by name when several
    /// claim it. A machine that came by itself takes no other's place.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        let ids = self.by_address.get(&address).into_iter().flatten();
        let claiming = ids.filter_map(|id| self.get(id)).filter(|w| !w.host_network);
        claiming.min_by_key(|workload| workload.registered)
    }

    pub(crate) fn in_namespace(
        &self,
        namespace: &Arc<str>,
    ) -> impl Iterator<Item = &Arc<Workload>> {
        let first = WorkloadId { namespace: namespace.clone(), name: "".into() };
        let range = self.by_id.range(first..).take_while(move |(id, _)| id.namespace == *namespace);
        range.filter_map(|(_, definitions)| definitions.values().next())
    }

    /// Addresses of a set; of what two objects define under one name, both count.
    fn addresses(&self, set: &WorkloadSet) -> Addresses {
        let first = set
            .namespace
            .as_ref()
            .map(|namespace| WorkloadId { namespace: namespace.clone(), name: "".into() });
        let from = first.map_or(Bound::Unbounded, Bound::Included);
        let within = |id: &WorkloadId| set.namespace.as_ref().is_none_or(|n| id.namespace == *n);
        let ids = self.by_id.range((from, Bound::Unbounded)).take_while(|(id, _)| within(id));
        let mut addresses = Addresses::default();
        for workload in ids.flat_map(|(_, definitions)| definitions.values()) {
            if set.contains(workload) {
                let shared = workload.host_network;
                let kind = if shared { &mut addresses.shared } else { &mut addresses.own };
                kind.extend(workload.addresses.iter().copied());
            }
        }
        addresses
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_id.values().filter_map(|definitions| definitions.values().next())
    }
}

impl Family for Workloads {
    type Item = Workload;

    fn insert(&mut self, workload: &Arc<Workload>) {
        for address in &workload.addresses {
            self.by_address.entry(*address).or_default().insert(workload.id.clone());
        }
        self.by_id
            .entry(workload.id.clone())
            .or_default()
            .insert(workload.origin.id.clone(), workload.clone());
    }

    fn remove(&mut self, workload: &Workload) {
        let Some(definitions) = self.by_id.get_mut(&workload.id) else { return };
        definitions.remove(&workload.origin.id);
        let kept: BTreeSet<IpAddr> =
            definitions.values().flat_map(|w| w.addresses.iter().copied()).collect();
        if definitions.is_empty() {
            self.by_id.remove(&workload.id);
        }
        for address in workload.addresses.iter().filter(|a| !kept.contains(a)) {
            if let Some(ids) = self.by_address.get_mut(address) {
                ids.remove(&workload.id);
                if ids.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
    }

    fn touch(versions: &[&Arc<Workload>], touch: &mut Touch<'_>) {
        touch.changes.touch(Dep::Workload(versions[0].id.clone()));
        touch_sets(versions, touch);
        if versions.windows(2).any(|w| same_class(w[0], w[1])) {
            return;
        }
        versions.iter().for_each(|workload| touch.changes.reclassify.workload(workload));
    }

    fn feeds(workload: &Arc<Workload>, fed: &mut Fed) {
        fed.workloads.push(workload.clone());
    }
}

/// Addresses of workloads.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Addresses {
    /// Those that are nobody else's.
    pub own: BTreeSet<IpAddr>,
    /// Those of nodes, which others on the node have too.
    pub shared: BTreeSet<IpAddr>,
}

impl<'a> Reader<'a> {
    /// The addresses of a set of workloads.
    pub fn addresses(&self, set: &WorkloadSet) -> Addresses {
        self.record(Dep::Addresses(set.clone()));
        self.snapshot().workloads().addresses(set)
    }

    /// One workload.
    pub fn workload(&self, id: &WorkloadId) -> Option<&'a Arc<Workload>> {
        self.record(Dep::Workload(id.clone()));
        self.snapshot().workloads().get(id)
    }
}

/// Touches the addresses of the sets that a workload belonged to or belongs to.
fn touch_sets(versions: &[&Arc<Workload>], touch: &mut Touch<'_>) {
    // With the ports by name, which are read of a set as its addresses are.
    let facts = |w: &Workload| {
        (w.labels.clone(), w.addresses.clone(), w.host_network, w.named_ports.clone())
    };
    if versions.windows(2).any(|w| facts(w[0]) == facts(w[1])) {
        return;
    }
    for set in touch.audience.workload_sets() {
        if versions.iter().any(|workload| set.contains(workload)) {
            touch.changes.touch(Dep::Addresses(set.clone()));
        }
    }
}

/// Whether a class that was computed from one workload holds for the other.
fn same_class(a: &Workload, b: &Workload) -> bool {
    let facts = |w: &Workload| {
        (w.labels.clone(), w.service_account.clone(), w.addresses.clone(), w.locality.clone())
    };
    let place = |w: &Workload| (w.network.clone(), w.node.clone());
    let more =
        |w: &Workload| (w.named_ports.clone(), w.host_network, w.edge, w.workload_name.clone());
    facts(a) == facts(b) && place(a) == place(b) && more(a) == more(b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        dialect::Kind,
        ir::{Discovery, Labels, Locality, MeshDefaults, MeshTls, Origin, Selector},
        snapshot::{Audience, ChangeSet, Item, MeshSnapshot},
    };

    fn labelled(app: &str) -> Labels {
        [("app".into(), app.into())].into()
    }

    /// What an object makes of a workload: its label, its address, and whose the address is.
    fn workload(kind: Kind, number: u8, (app, address, node): (u8, u8, bool)) -> Item {
        let name: Arc<str> = format!("w{number}").into();
        let namespace = format!("ns{}", number % 2).into();
        let id = WorkloadId { namespace, name: name.clone() };
        let origin = Origin {
            id: ObjectId { kind, namespace: id.namespace.clone(), name: name.clone() },
            created: 0,
        };
        Item::Workload(Arc::new(Workload {
            id,
            origin,
            addresses: vec![IpAddr::from([10, 0, 0, address])],
            host: None,
            labels: labelled(if app < 2 { "web" } else { "other" }),
            service_account: "default".into(),
            mesh_tls: MeshTls::Never,
            locality: Locality::default(),
            discovery: Discovery::Slices,
            named_ports: BTreeMap::new(),
            container_ports: Vec::new(),
            weight: None,
            network: "".into(),
            node: "".into(),
            workload_name: name,
            ready: true,
            registered: false,
            host_network: node,
            edge: None,
        }))
    }

    fn sets() -> Vec<WorkloadSet> {
        let web = Selector::from(labelled("web"));
        let of = |namespace: Option<&str>, selector: &Selector| WorkloadSet {
            namespace: namespace.map(Into::into),
            selector: selector.clone(),
        };
        let all = Selector::default();
        vec![of(None, &web), of(Some("ns0"), &web), of(Some("ns1"), &all), of(None, &all)]
    }

    /// Label, address, and whether it is its node's.
    fn facts() -> impl Strategy<Value = (u8, u8, bool)> {
        (0u8..4, 0u8..3, any::<bool>())
    }

    proptest! {
        /// A set whose addresses changed is named, so that whoever read it is planned again.
        #[test]
        fn no_change_of_a_sets_addresses_is_left_out(
            steps in prop::collection::vec((0u8..3, any::<bool>(), prop::option::of(facts())), 1..20)
        ) {
            let sets = sets();
            let mut audience = Audience::default();
            sets.iter().for_each(|set| audience.join(&Dep::Addresses(set.clone())));
            let mut mesh = MeshSnapshot::new(Arc::new(MeshDefaults::default()));
            let mut held: BTreeMap<(u8, bool), Item> = BTreeMap::new();
            for (name, pod, made) in steps {
                let kind = if pod { Kind::POD } else { Kind::WORKLOAD_ENTRY };
                let new = made.map(|facts| workload(kind, name, facts));
                let old = match &new {
                    Some(item) => held.insert((name, pod), item.clone()),
                    None => held.remove(&(name, pod)),
                };
                let before: Vec<_> = sets.iter().map(|s| mesh.workloads().addresses(s)).collect();
                let (old, new): (Vec<Item>, Vec<Item>) =
                    (old.into_iter().collect(), new.into_iter().collect());
                let mut changes = ChangeSet::default();
                mesh.replace(&old, &new, &audience, &mut changes);
                for (set, before) in sets.iter().zip(before) {
                    let changed = mesh.workloads().addresses(set) != before;
                    let named = changes.deps.contains(&Dep::Addresses(set.clone()));
                    prop_assert!(!changed || named, "{set:?}");
                }
            }
        }
    }
}
