//! VirtualServices: TLS and TCP rules.

use std::sync::Arc;

use ipnet::IpNet;

use super::routes::{destination_field, shares};
use crate::dialect::{lowering::Lowering, names::network};
use crate::{
    diagnostic::FieldPath,
    dialect::istio::virtual_service::{RouteDestination, TcpMatch, TcpRoute, TlsMatch, TlsRoute},
    ir::{HeaderOps, Hostname, L4Match, TcpRule, TlsRule, WeightedDestination},
};

impl Lowering<'_> {
    pub(in crate::dialect) fn tls_rules(&mut self, rules: &[TlsRoute]) -> Vec<TlsRule> {
        let mut lowered = Vec::with_capacity(rules.len());
        for (i, rule) in rules.iter().enumerate() {
            let at = FieldPath::of("spec.tls").index(i);
            let matches = rule.matches.iter().enumerate();
            let matches = matches
                .map(|(j, m)| self.tls_match(&at.field("match").index(j), m))
                .collect::<Vec<_>>();
            let destinations = self.l4_destinations(&at, &rule.route);
            if !matches.is_empty() && !destinations.is_empty() {
                lowered.push(TlsRule { at: at.to_string().into(), matches, destinations });
            }
        }
        lowered
    }

    pub(in crate::dialect) fn tcp_rules(&mut self, rules: &[TcpRoute]) -> Vec<TcpRule> {
        let mut lowered = Vec::with_capacity(rules.len());
        for (i, rule) in rules.iter().enumerate() {
            let at = FieldPath::of("spec.tcp").index(i);
            let matches = rule.matches.iter().enumerate();
            let matches =
                matches.map(|(j, m)| self.tcp_match(&at.field("match").index(j), m)).collect();
            let destinations = self.l4_destinations(&at, &rule.route);
            if !destinations.is_empty() {
                lowered.push(TcpRule { at: at.to_string().into(), matches, destinations });
            }
        }
        lowered
    }

    fn tls_match(&mut self, at: &FieldPath, m: &TlsMatch) -> L4Match {
        L4Match {
            sni_hosts: each_once(m.sni_hosts.iter().map(|h| Hostname::new(h))),
            destination_subnets: self.subnets(at, &m.destination_subnets),
            port: m.port,
            source_labels: m.source_labels.clone(),
            source_namespace: (!m.source_namespace.is_empty()).then(|| m.source_namespace.clone()),
            attachments: self.attachments(&m.gateways),
        }
    }

    fn tcp_match(&mut self, at: &FieldPath, m: &TcpMatch) -> L4Match {
        L4Match {
            sni_hosts: Vec::new(),
            destination_subnets: self.subnets(at, &m.destination_subnets),
            port: m.port,
            source_labels: m.source_labels.clone(),
            source_namespace: (!m.source_namespace.is_empty()).then(|| m.source_namespace.clone()),
            attachments: self.attachments(&m.gateways),
        }
    }

    fn subnets(&mut self, at: &FieldPath, texts: &[Arc<str>]) -> Vec<IpNet> {
        let mut subnets = Vec::with_capacity(texts.len());
        for (i, text) in texts.iter().enumerate() {
            match network(text) {
                Some(net) => subnets.push(net),
                None => self.invalid(
                    at.field("destinationSubnets").index(i),
                    "an IP address or CIDR network",
                    text,
                ),
            }
        }
        each_once(subnets)
    }

    fn l4_destinations(
        &self,
        at: &FieldPath,
        routes: &[RouteDestination],
    ) -> Vec<WeightedDestination> {
        let weighted = routes.iter().enumerate().map(|(i, r)| {
            let destination = self.destination(&destination_field(at, i), &r.destination);
            (destination, r.weight, HeaderOps::default())
        });
        shares(weighted.collect())
    }
}

/// Values in their order, each at its first place: with one of them twice, Envoy takes a filter
/// chain for two that overlap.
fn each_once<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut once: Vec<T> = Vec::new();
    for value in values {
        if !once.contains(&value) {
            once.push(value);
        }
    }
    once
}
