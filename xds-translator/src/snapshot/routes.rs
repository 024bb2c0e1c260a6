//! Route tables, whole and in outline form.

use std::{collections::BTreeMap, sync::Arc};

use crate::ir::{
    Attachment, HeaderOps, HttpAction, HttpMatch, HttpRule, Mirror, ObjectId, Origin, PerMillion, Retry, Rewrite,
    RouteTable, WeightedDestination,
};

/// A place in the order of age: creation, namespace, name.
pub(super) type Age = (i64, Arc<str>, Arc<str>);

/// Items in the order of age.
pub(super) type ByAge<T> = BTreeMap<(Age, ObjectId), Arc<T>>;

pub(super) fn age(origin: &Origin) -> Age {
    (origin.created, origin.id.namespace.clone(), origin.id.name.clone())
}

/// Takes something out of its group, and the group with the last of it: what came and went leaves nothing.
pub(super) fn forget<G: Ord, K: Ord, V>(groups: &mut BTreeMap<G, BTreeMap<K, V>>, of: &G, key: &K) {
    if let Some(group) = groups.get_mut(of) {
        group.remove(key);
        if group.is_empty() {
            groups.remove(of);
        }
    }
}

/// Every route table of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct Routes {
    whole: BTreeMap<ObjectId, Arc<RouteTable>>,
    outlines: BTreeMap<Attachment, ByAge<RouteTable>>,
}

impl Routes {
    pub(super) fn insert(&mut self, table: Arc<RouteTable>) -> Option<Arc<RouteTable>> {
        let old = self.remove(&table.origin.id);
        let outline = Arc::new(outline_of(&table));
        let place = (age(&table.origin), table.origin.id.clone());
        for attachment in &table.attachments {
            self.outlines.entry(attachment.clone()).or_default().insert(place.clone(), outline.clone());
        }
        self.whole.insert(table.origin.id.clone(), table);
        old
    }

    pub(super) fn remove(&mut self, id: &ObjectId) -> Option<Arc<RouteTable>> {
        let old = self.whole.remove(id)?;
        let place = (age(&old.origin), id.clone());
        for attachment in &old.attachments {
            forget(&mut self.outlines, attachment, &place);
        }
        Some(old)
    }

    pub(crate) fn table(&self, id: &ObjectId) -> Option<&Arc<RouteTable>> {
        self.whole.get(id)
    }

    pub(crate) fn outlines(&self, attachment: &Attachment, namespace: &str) -> Arc<[Arc<RouteTable>]> {
        let attached = self.outlines.get(attachment).into_iter().flat_map(BTreeMap::values);
        attached.filter(|table| table.export_to.includes(namespace)).cloned().collect()
    }
}

/// The table with everything blank that cannot decide which resources a view consists of.
pub(super) fn outline_of(table: &RouteTable) -> RouteTable {
    RouteTable { http: table.http.iter().map(outline_of_rule).collect(), ..table.clone() }
}

fn outline_of_rule(rule: &HttpRule) -> HttpRule {
    HttpRule {
        name: "".into(),
        matches: rule.matches.iter().map(outline_of_match).collect(),
        action: outline_of_action(&rule.action),
        headers: HeaderOps::default(),
        fault: None,
        timeout: None,
        retry: Retry::MeshDefault,
        mirrors: rule.mirrors.iter().map(|m| Mirror { share: PerMillion::ALL, ..m.clone() }).collect(),
        cors: None,
    }
}

fn outline_of_match(m: &HttpMatch) -> HttpMatch {
    HttpMatch {
        port: m.port,
        source_labels: m.source_labels.clone(),
        source_namespace: m.source_namespace.clone(),
        attachments: m.attachments.clone(),
        ..HttpMatch::default()
    }
}

fn outline_of_action(action: &HttpAction) -> HttpAction {
    match action {
        HttpAction::Forward { destinations, .. } => {
            let bare = |d: &WeightedDestination| WeightedDestination {
                destination: d.destination.clone(),
                weight: 1,
                headers: HeaderOps::default(),
            };
            HttpAction::Forward { destinations: destinations.iter().map(bare).collect(), rewrite: Rewrite::default() }
        }
        HttpAction::Redirect(_) => HttpAction::Redirect(crate::ir::Redirect::default()),
        HttpAction::Direct { .. } => HttpAction::Direct { status: 200, body: Arc::new([]) },
    }
}
