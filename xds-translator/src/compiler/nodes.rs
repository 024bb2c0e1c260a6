//! Nodes: where pods run, as far as pods do not say so themselves.
//!
//! API servers since 1.35 copy the labels for region and zone to pods; older ones do not, and none
//! copies the sub-zone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    dialect::locality_of,
    dialect::{Kind, Object, kubernetes::Pod},
    ir::{Locality, ObjectId, Workload},
    snapshot::Item,
};

/// The places of nodes, and who is on them.
#[derive(Default, Debug)]
pub(super) struct Nodes {
    places: BTreeMap<Arc<str>, Locality>,
    aboard: BTreeMap<Arc<str>, BTreeSet<ObjectId>>,
}

impl Nodes {
    /// An object is another now, or gone. The pods that are in another place because of it: those
    /// of a node.
    pub(super) fn replace(
        &mut self,
        old: Option<&Object>,
        new: Option<&Object>,
    ) -> BTreeSet<ObjectId> {
        let Some(either) = new.or(old) else { return BTreeSet::new() };
        if either.id.kind == Kind::NODE {
            return self.place(&either.id.name, new.map(|node| locality_of(&node.meta.labels)));
        }
        if either.id.kind == Kind::POD {
            let (before, after) = (old.and_then(node_of), new.and_then(node_of));
            if before != after {
                self.move_pod(&either.id, before, after);
            }
        }
        BTreeSet::new()
    }

    fn move_pod(&mut self, pod: &ObjectId, before: Option<&Arc<str>>, after: Option<&Arc<str>>) {
        if let Some(node) = before
            && let Some(pods) = self.aboard.get_mut(node)
        {
            pods.remove(pod);
            if pods.is_empty() {
                self.aboard.remove(node);
            }
        }
        if let Some(node) = after {
            self.aboard.entry(node.clone()).or_default().insert(pod.clone());
        }
    }

    fn place(&mut self, node: &Arc<str>, place: Option<Locality>) -> BTreeSet<ObjectId> {
        let before = match place.clone().filter(|place| *place != Locality::default()) {
            Some(place) => self.places.insert(node.clone(), place),
            None => self.places.remove(node),
        };
        if before.unwrap_or_default() == place.unwrap_or_default() {
            return BTreeSet::new();
        }
        self.aboard.get(node).cloned().unwrap_or_default()
    }

    /// The items of an object; a pod's workload is where its node is, as far as it does not say so
    /// itself.
    pub(super) fn locate(&self, object: &Object, items: Vec<Item>) -> Vec<Item> {
        let Some(place) = node_of(object).and_then(|node| self.places.get(node)) else {
            return items;
        };
        let located = |item| match item {
            Item::Workload(workload) => Item::Workload(Arc::new(Workload {
                locality: filled(&workload.locality, place),
                ..Arc::unwrap_or_clone(workload)
            })),
            other => other,
        };
        items.into_iter().map(located).collect()
    }
}

/// The node of a pod.
fn node_of(object: &Object) -> Option<&Arc<str>> {
    let pod = object.content::<Pod>()?;
    Some(&pod.spec.node_name).filter(|name| !name.is_empty())
}

/// What a pod says of its place, completed by its node's unless they contradict.
fn filled(own: &Locality, node: &Locality) -> Locality {
    let agrees = |own: &Arc<str>, node: &Arc<str>| own.is_empty() || own == node;
    if !agrees(&own.region, &node.region) || !agrees(&own.zone, &node.zone) {
        return own.clone();
    }
    let either =
        |own: &Arc<str>, node: &Arc<str>| if own.is_empty() { node.clone() } else { own.clone() };
    Locality {
        region: either(&own.region, &node.region),
        zone: either(&own.zone, &node.zone),
        sub_zone: either(&own.sub_zone, &node.sub_zone),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        compiler::{Change, Compiler},
        dialect::parse_value,
        ir::MeshDefaults,
    };

    fn locality(text: &str) -> Locality {
        let mut parts = text.split('/').map(Arc::from);
        let mut next = || parts.next().unwrap_or_else(|| "".into());
        Locality { region: next(), zone: next(), sub_zone: next() }
    }

    #[test]
    fn a_pods_own_place_goes_first_and_is_completed_by_its_node() {
        for (own, node, expected) in [
            ("//", "eu/a/r1", "eu/a/r1"),
            ("eu//", "eu/a/r1", "eu/a/r1"),
            ("eu/a/", "eu/a/r1", "eu/a/r1"),
            ("eu/a/r2", "eu/a/r1", "eu/a/r2"),
            ("us//", "eu/a/r1", "us//"),
            ("eu/b/", "eu/a/r1", "eu/b/"),
            ("eu/b/", "//", "eu/b/"),
        ] {
            assert_eq!(
                filled(&locality(own), &locality(node)),
                locality(expected),
                "{own} on {node}"
            );
        }
    }

    fn upsert(mut value: Value) -> Change {
        value["apiVersion"] = json!("v1");
        Change::Upsert(Box::new(parse_value(value).expect("an object").0))
    }

    fn pod(node: &str) -> Change {
        let metadata = json!({ "name": "cart", "namespace": "shop" });
        upsert(json!({ "kind": "Pod", "metadata": metadata, "spec": { "nodeName": node } }))
    }

    fn node(name: &str, zone: &str) -> Change {
        let labels =
            json!({ "topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": zone });
        upsert(json!({ "kind": "Node", "metadata": { "name": name, "labels": labels } }))
    }

    #[test]
    fn a_pod_is_where_its_node_is_whichever_came_first() {
        let mut compiler = Compiler::new(MeshDefaults::default());
        let gone =
            Change::Delete(ObjectId { kind: Kind::NODE, namespace: "".into(), name: "n2".into() });
        for (change, zone, lowered) in [
            (pod("n1"), "", 1),
            (node("n1", "a"), "a", 2),
            // The same again, and a node without pods of ours, touch nobody.
            (node("n1", "a"), "a", 1),
            (node("n2", "b"), "a", 1),
            (pod("n2"), "b", 1),
            (node("n1", "c"), "b", 1),
            (node("n2", "d"), "d", 2),
            (gone, "", 1),
        ] {
            let before = compiler.work().objects_lowered;
            compiler.apply(vec![change.clone()]);
            let zones: Vec<Arc<str>> =
                compiler.snapshot().all_workloads().map(|w| w.locality.zone.clone()).collect();
            assert_eq!(zones, [zone.into()], "{change:?}");
            assert_eq!(compiler.work().objects_lowered - before, lowered, "{change:?}");
        }
    }
}
