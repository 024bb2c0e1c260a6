//! The client of a view, as route tables see it.

use std::sync::Arc;

use super::{client::StaticMatch, route::effective};
use crate::{
    ir::{Attachment, Destination, L4Match, Labels, ObjectId, RouteTable, WeightedDestination},
    snapshot::Reader,
};

/// The client of a view.
pub(crate) struct Caller<'a> {
    pub(crate) namespace: &'a Arc<str>,
    /// The Sidecar object chosen for it.
    pub(crate) scope: Option<&'a ObjectId>,
    pub(crate) labels: &'a Labels,
    pub(crate) attachments: Vec<Attachment>,
}

impl Caller<'_> {
    /// The tables with rules for connections that it may use.
    pub(crate) fn tables(&self, reader: &Reader<'_>) -> Vec<Arc<RouteTable>> {
        let attached =
            self.attachments.iter().map(|at| reader.route_tables(at, self.namespace).to_vec());
        let l4 = |table: &Arc<RouteTable>| !(table.tls.is_empty() && table.tcp.is_empty());
        attached.flatten().filter(l4).collect()
    }

    /// What a table's rules for connections may lead it to.
    pub(crate) fn destinations<'t>(&self, table: &'t RouteTable) -> Vec<&'t Destination> {
        let tls = table.tls.iter().map(|rule| (&rule.matches, &rule.destinations));
        let tcp = table.tcp.iter().map(|rule| (&rule.matches, &rule.destinations));
        let applies = |(matches, _): &(&Vec<L4Match>, &Vec<WeightedDestination>)| {
            matches.is_empty() || matches.iter().any(|m| self.may_hold(m))
        };
        let rules = tls.chain(tcp).filter(applies);
        rules.flat_map(|(_, to)| effective(to, |_| true)).map(|d| &d.destination).collect()
    }

    fn may_hold(&self, m: &L4Match) -> bool {
        let conditions = StaticMatch {
            port: m.port.unwrap_or_default(),
            namespace: self.namespace,
            labels: self.labels,
            attachments: &self.attachments,
        };
        conditions.l4(m)
    }
}
