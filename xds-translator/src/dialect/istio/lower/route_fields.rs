//! VirtualServices: where their names are written.

use std::{collections::BTreeMap, sync::Arc};

use super::routes::destination_field;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        istio::virtual_service::{Destination, VirtualService},
        lowering::Lowering,
    },
    ir::{self, Attachment, Field, Hostname, ObjectId, RouteFields},
};

/// A rule of any protocol, as far as it names something.
struct Rule<'a> {
    at: FieldPath,
    /// Of each match.
    gateways: Vec<&'a [Arc<str>]>,
    routes: Vec<(&'a Destination, Option<i32>)>,
}

macro_rules! rules {
    ($spec:ident, $kind:ident) => {
        $spec.$kind.iter().enumerate().map(|(i, rule)| Rule {
            at: FieldPath::of("spec").field(stringify!($kind)).index(i),
            gateways: rule.matches.iter().map(|m| &m.gateways[..]).collect(),
            routes: rule.route.iter().map(|r| (&r.destination, r.weight)).collect(),
        })
    };
}

impl Lowering<'_> {
    /// Complete hosts, each once, with their fields.
    pub(super) fn routed_hosts(&mut self, written: &[Arc<str>]) -> (Vec<Hostname>, Vec<Field>) {
        let mut first: BTreeMap<Hostname, usize> = BTreeMap::new();
        let (mut hosts, mut fields) = (Vec::new(), Vec::new());
        for (i, name) in written.iter().enumerate() {
            let host = self.host(name);
            let at = FieldPath::of("spec.hosts").index(i);
            let index = *first.entry(host.clone()).or_insert(i);
            if index == i {
                hosts.push(host);
                fields.push(at.to_string().into());
            } else {
                let message = format!("same service as `hosts[{index}]`");
                self.note(Diagnostic::info(Code::NoEffect, at, message).fix("remove it"));
            }
        }
        (hosts, fields)
    }

    /// The fields of a table whose hosts have the fields `hosts`.
    pub(super) fn route_fields(&self, hosts: Vec<Field>, spec: &VirtualService) -> RouteFields {
        let rules: Vec<Rule<'_>> =
            rules!(spec, http).chain(rules!(spec, tls)).chain(rules!(spec, tcp)).collect();
        let mut gateways = self.named(&FieldPath::of("spec"), &spec.gateways);
        for rule in &rules {
            for (i, names) in rule.gateways.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
                gateways.extend(self.named(&rule.at.field("match").index(i), names));
            }
        }
        let mut idle: Vec<ir::Destination> = rules.iter().flat_map(|r| self.idle(r)).collect();
        for (i, rule) in spec.http.iter().enumerate() {
            let copies = self.mirrors(&FieldPath::of("spec.http").index(i), rule);
            idle.extend(copies.into_iter().filter(|m| m.share.0 == 0).map(|m| m.destination));
        }
        RouteFields { hosts, gateways, idle }
    }

    /// The gateways among `names`, the field `gateways` of `at`.
    fn named(&self, at: &FieldPath, names: &[Arc<str>]) -> Vec<(ObjectId, Field)> {
        let named = names.iter().enumerate().filter_map(|(i, name)| match self.attachment(name) {
            Attachment::Gateway(id) | Attachment::Section(id, _) => {
                Some((id, at.field("gateways").index(i).to_string().into()))
            }
            Attachment::Mesh => None,
        });
        named.collect()
    }

    /// Destinations without a weight beside others that have one ([`super::routes::shares`]).
    fn idle(&self, rule: &Rule<'_>) -> Vec<ir::Destination> {
        let weighs = |weight: Option<i32>| weight.is_some_and(|w| w > 0);
        if !rule.routes.iter().any(|(_, weight)| weighs(*weight)) {
            return Vec::new();
        }
        let routes = rule.routes.iter().enumerate().filter(|(_, (_, weight))| !weighs(*weight));
        routes.map(|(i, (d, _))| self.destination(&destination_field(&rule.at, i), d)).collect()
    }
}
