//! Route tables, whole and in outline form.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    age::{ByAge, age, forget},
    family::{Family, Touch},
    parts,
    reader::{Dep, Reader},
};
use crate::ir::{
    Attachment, Destination, Field, HeaderOps, HttpAction, HttpMatch, HttpRule, Mirror, ObjectId,
    PerMillion, Retry, Rewrite, RouteFields, RouteTable, SharedMatches, Standing, Timeouts,
    WeightedDestination,
};

/// Every route table of the mesh.
#[derive(Clone, Default, Debug)]
pub(crate) struct Routes {
    /// As lowered.
    whole: BTreeMap<ObjectId, Arc<RouteTable>>,
    /// Of tables in which others may continue.
    part_outlines: BTreeMap<ObjectId, Arc<RouteTable>>,
    /// By what they are attached to, or to a part of.
    outlines: BTreeMap<Attachment, ByAge<RouteTable>>,
}

/// What a table is attached to, or to a part of.
fn wholes(table: &RouteTable) -> BTreeSet<Attachment> {
    table.attachments.iter().map(Attachment::whole).collect()
}

impl Routes {
    /// A table as it was lowered, its rules not continued in others.
    pub(crate) fn table(&self, id: &ObjectId) -> Option<&Arc<RouteTable>> {
        self.whole.get(id)
    }

    fn outlines(&self, attachment: &Attachment, namespace: &str) -> Arc<[Arc<RouteTable>]> {
        let attached = self.outlines.get(attachment).into_iter().flat_map(BTreeMap::values);
        let seen = attached.filter(|table| table.export_to.includes(namespace)).cloned();
        let mut seen: Vec<Arc<RouteTable>> = seen.collect();
        // Stable: of equals the oldest stays first.
        seen.sort_by_key(|table| {
            let foreign = *table.origin.id.namespace != *namespace;
            (table.standing, table.standing == Standing::First && foreign)
        });
        seen.into()
    }
}

impl Family for Routes {
    type Item = RouteTable;

    fn insert(&mut self, table: &Arc<RouteTable>) {
        let outline = Arc::new(outline_of(table));
        let place = (age(&table.origin), table.origin.id.clone());
        for attachment in wholes(table) {
            self.outlines.entry(attachment).or_default().insert(place.clone(), outline.clone());
        }
        if table.is_part() {
            self.part_outlines.insert(table.origin.id.clone(), outline);
        }
        self.whole.insert(table.origin.id.clone(), table.clone());
    }

    fn remove(&mut self, table: &RouteTable) {
        self.whole.remove(&table.origin.id);
        self.part_outlines.remove(&table.origin.id);
        let place = (age(&table.origin), table.origin.id.clone());
        for attachment in wholes(table) {
            forget(&mut self.outlines, &attachment, &place);
        }
    }

    fn touch(versions: &[&Arc<RouteTable>], touch: &mut Touch<'_>) {
        touch.changes.touch(Dep::Object(versions[0].origin.id.clone()));
        if versions.windows(2).any(|w| outline_of(w[0]) == outline_of(w[1])) {
            return;
        }
        touch.changes.touch(Dep::RoutePart(versions[0].origin.id.clone()));
        for table in versions {
            for attachment in wholes(table) {
                for namespace in touch.audience.seeing(&table.export_to, &table.origin.id.namespace)
                {
                    touch.changes.touch(Dep::RouteTables(attachment.clone(), namespace.clone()));
                }
            }
        }
    }

    fn label_keys(table: &RouteTable, keys: &mut BTreeSet<Arc<str>>) {
        let http = table.http.iter().flat_map(|rule| &rule.matches).map(|m| &m.source_labels);
        let tls = table.tls.iter().flat_map(|rule| &rule.matches).map(|m| &m.source_labels);
        let tcp = table.tcp.iter().flat_map(|rule| &rule.matches).map(|m| &m.source_labels);
        keys.extend(http.chain(tls).chain(tcp).flat_map(BTreeMap::keys).cloned());
    }
}

impl<'a> Reader<'a> {
    /// Route tables attached to `attachment`, which is no section, or to a part of it, that
    /// `namespace` may use, by [`Standing`], then oldest first, with the parts in which they continue, in outline form:
    /// HTTP rules keep what decides whether they apply to a client (port, source, attachments) and
    /// where they lead; conditions on the request, weights and every other setting are blank, so
    /// that changing those does not repeat an outline. A rule of a part may be here that conditions
    /// on the request rule out. Virtual hosts read the whole table with [`Self::route_table`].
    pub fn route_tables(&self, attachment: &Attachment, namespace: &str) -> Arc<[Arc<RouteTable>]> {
        self.record(Dep::RouteTables(attachment.clone(), namespace.into()));
        let tables = self.snapshot().routes().outlines(attachment, namespace);
        if tables.iter().all(|table| table.parts().next().is_none()) {
            return tables;
        }
        let part = |id: &ObjectId| {
            self.record(Dep::RoutePart(id.clone()));
            self.snapshot().routes().part_outlines.get(id)
        };
        tables.iter().map(|table| parts::whole(table, part)).collect()
    }

    /// One route table, whole: with the rules of the parts in which it continues.
    pub fn route_table(&self, id: &ObjectId) -> Option<Arc<RouteTable>> {
        let read = |id: &ObjectId| {
            self.record(Dep::Object(id.clone()));
            self.snapshot().routes().table(id)
        };
        Some(parts::whole(read(id)?, read))
    }
}

/// The table with everything blank that cannot decide which resources a view consists of.
fn outline_of(table: &RouteTable) -> RouteTable {
    RouteTable {
        http: table.http.iter().map(outline_of_rule).collect(),
        fields: RouteFields::default(),
        ..table.clone()
    }
}

fn outline_of_rule(rule: &HttpRule) -> HttpRule {
    HttpRule {
        at: Field::default(),
        name: "".into(),
        hosts: rule.hosts.clone(),
        matches: rule.matches.iter().map(outline_of_match).collect(),
        shared_matches: rule.shared_matches.iter().map(outline_of_shared).collect(),
        action: outline_of_action(&rule.action),
        headers: HeaderOps::default(),
        fault: None,
        timeouts: Timeouts::default(),
        retry: Retry::MeshDefault,
        mirrors: rule
            .mirrors
            .iter()
            .map(|m| Mirror { destination: bare(&m.destination), share: PerMillion::ALL })
            .collect(),
        cors: None,
    }
}

fn bare(destination: &Destination) -> Destination {
    Destination { at: Field::default(), ..destination.clone() }
}

fn outline_of_shared(shared: &SharedMatches) -> SharedMatches {
    SharedMatches { at: Field::default(), ..shared.clone() }
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
            let blank = |d: &WeightedDestination| WeightedDestination {
                destination: bare(&d.destination),
                unreachable: d.unreachable,
                weight: 1,
                headers: HeaderOps::default(),
            };
            HttpAction::Forward {
                destinations: destinations.iter().map(blank).collect(),
                rewrite: Rewrite::default(),
            }
        }
        HttpAction::Redirect(_) => HttpAction::Redirect(crate::ir::Redirect::default()),
        HttpAction::Direct { .. } => HttpAction::Direct { status: 200, body: Arc::new([]) },
        HttpAction::Continue { part, .. } => {
            HttpAction::Continue { part: part.clone(), rewrite: Rewrite::default() }
        }
    }
}
