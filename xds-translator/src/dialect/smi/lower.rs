//! What SMI's objects mean.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    route_group::{RouteGroup, RouteMatch},
    traffic_split::{Backend, TrafficSplit},
};
use crate::{
    diagnostic::FieldPath,
    dialect::lowering::Lowering,
    ir::{
        Attachment, Destination, DestinationPort, Field, HeaderOps, Hostname, HttpMatch, HttpRule,
        Kind, MatchSet, ObjectId, PathMatch, RouteFields, RouteTable, RuleOrder, SharedMatches,
        Standing, StringMatch, TcpRule, Unreachable, Visibility, WeightedDestination,
    },
    snapshot::Item,
};

impl Lowering<'_> {
    /// A split is a table of routes for its service. What no condition of it matches goes to the
    /// service itself.
    pub(super) fn traffic_split(&self, split: &TrafficSplit) -> Item {
        let root = self.host(&split.service);
        let at = FieldPath::of("spec");
        let backends = split.backends.iter().enumerate();
        let shares: Vec<WeightedDestination> = backends
            .map(|(i, backend)| self.share(&at.field("backends").index(i), backend))
            .collect();
        let groups = split.matches.iter().enumerate().map(|(i, reference)| SharedMatches {
            at: at.field("matches").index(i).field("name").to_string().into(),
            set: ObjectId {
                kind: Kind::HTTP_ROUTE_GROUP,
                namespace: self.namespace().clone(),
                name: reference.name.clone(),
            },
            names: Vec::new(),
        });
        let groups: Vec<SharedMatches> = groups.collect();
        let own: Field = at.field("service").to_string().into();
        let itself = || vec![to(&own, root.clone(), 1, Unreachable::Fail)];
        let conditional = !groups.is_empty();
        // Conditions are on requests, which connections of other protocols do not have.
        let connections = if conditional { itself() } else { shares.clone() };
        let split_at: Field = at.field("backends").to_string().into();
        let mut http = vec![forward(&split_at, groups, shares)];
        http.extend(conditional.then(|| forward(&own, Vec::new(), itself())));
        Item::Routes(Arc::new(RouteTable {
            origin: self.origin(),
            hosts: vec![root.clone()],
            attachments: vec![Attachment::Mesh],
            export_to: Visibility::Public,
            http,
            order: RuleOrder::AsWritten,
            standing: Standing::Usual,
            tls: Vec::new(),
            tcp: vec![TcpRule { at: split_at, matches: Vec::new(), destinations: connections }],
            fields: RouteFields {
                hosts: vec![own.clone()],
                gateways: Vec::new(),
                // Unless there are conditions, no request is led to the service that is split.
                idle: itself().into_iter().map(|d| d.destination).collect(),
            },
        }))
    }

    fn share(&self, at: &FieldPath, backend: &Backend) -> WeightedDestination {
        let at = at.field("service").to_string().into();
        to(&at, self.host(&backend.service), backend.weight.0, Unreachable::Skip)
    }

    /// A group is a set of conditions that others refer to.
    pub(super) fn route_group(&self, group: &RouteGroup) -> Item {
        let matches = group.matches.iter().map(conditions).collect();
        Item::MatchSet(Arc::new(MatchSet { origin: self.origin(), matches }))
    }
}

fn to(at: &Field, host: Hostname, weight: u32, unreachable: Unreachable) -> WeightedDestination {
    WeightedDestination {
        destination: Destination {
            host,
            port: DestinationPort::Requested,
            subset: "".into(),
            at: at.clone(),
            of: None,
        },
        weight,
        unreachable,
        headers: HeaderOps::default(),
    }
}

fn forward(
    at: &Field,
    groups: Vec<SharedMatches>,
    destinations: Vec<WeightedDestination>,
) -> HttpRule {
    HttpRule { shared_matches: groups, ..HttpRule::forward(at.clone(), destinations) }
}

fn conditions(one: &RouteMatch) -> HttpMatch {
    let any_method = one.methods.is_empty() || one.methods.iter().any(|m| &**m == "*");
    let methods =
        || format!("(?:{})", one.methods.iter().map(|m| escaped(m)).collect::<Vec<_>>().join("|"));
    let headers: BTreeMap<Arc<str>, StringMatch> = one
        .headers
        .0
        .iter()
        .map(|(name, regex)| (name.to_ascii_lowercase().into(), StringMatch::Regex(regex.clone())))
        .collect();
    HttpMatch {
        name: one.name.clone(),
        // The expression is anchored at the beginning of the path alone.
        path: (!one.path_regex.is_empty())
            .then(|| PathMatch::Regex(format!("(?:{}).*", one.path_regex).into())),
        method: (!any_method).then(|| StringMatch::Regex(methods().into())),
        headers,
        ..HttpMatch::default()
    }
}

/// The text as an expression that matches it alone.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| (!c.is_ascii_alphanumeric()).then_some('\\').into_iter().chain([c]))
        .collect()
}
