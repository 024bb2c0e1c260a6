//! Filter chains of TCP and TLS ports: who gets the bytes, by SNI and destination.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;

use super::{
    ChainMatch, FilterChainPlan, TcpProxyPlan, TerminalFilter, TransportMatch,
    client::{Client, StaticMatch, resolve_alias},
    defaults::{self, HANDSHAKE},
    naming,
    route::{Target, effective, find_service, named_port},
};
use crate::{
    ir::{
        Balancing, Destination, DestinationPort, HashKey, L4Match, Resolution, RouteTable, Service,
        ServicePort, Tunnel, WeightedDestination,
    },
    snapshot::Reader,
};

/// What TCP chains are planned for.
pub(crate) struct TcpScope<'a> {
    pub(crate) reader: &'a Reader<'a>,
    pub(crate) client: &'a Client<'a>,
    pub(crate) conditions: StaticMatch<'a>,
}

/// One service port whose bytes are routed.
pub(crate) struct TcpPort<'a> {
    pub(crate) service: &'a Arc<Service>,
    pub(crate) port: &'a ServicePort,
    /// Networks that the listener tells apart; empty when it is bound to the service's address.
    pub(crate) prefixes: Vec<IpNet>,
    /// Whether only the SNI can tell the service from others on the listener.
    pub(crate) shared: bool,
}

impl TcpScope<'_> {
    /// Chains of a service port: the rules of `tables` (those that speak of the host, oldest
    /// first), else the service.
    pub(crate) fn service_chains(
        &self,
        target: &TcpPort<'_>,
        tables: &[&Arc<RouteTable>],
    ) -> Vec<FilterChainPlan> {
        if target.port.protocol.is_tls() {
            self.tls_chains(target, tables)
        } else {
            self.tcp_chains(target, tables)
        }
    }

    fn tls_chains(
        &self,
        target: &TcpPort<'_>,
        tables: &[&Arc<RouteTable>],
    ) -> Vec<FilterChainPlan> {
        let chains = self.tls_rules(tables, &target.prefixes);
        if !chains.is_empty() {
            return chains;
        }
        let mut chain = self.service_chain(target);
        if target.shared || !target.prefixes.is_empty() {
            chain.matches.server_names = vec![target.service.key.host.shared()];
        }
        vec![chain]
    }

    /// Chains of the TLS rules that apply; a runtime condition that came before is never reached
    /// again.
    pub(crate) fn tls_rules(
        &self,
        tables: &[&Arc<RouteTable>],
        prefixes: &[IpNet],
    ) -> Vec<FilterChainPlan> {
        let mut known: BTreeSet<(Vec<Arc<str>>, Vec<IpNet>)> = BTreeSet::new();
        let mut chains = Vec::new();
        for table in tables {
            for rule in &table.tls {
                for m in rule.matches.iter().filter(|m| self.conditions.l4(m)) {
                    let matches = sni_match(m, prefixes);
                    if known.insert((matches.server_names.clone(), matches.prefixes.clone())) {
                        chains.push(self.rule_chain(table, &rule.destinations, matches));
                    }
                }
            }
        }
        chains
    }

    fn tcp_chains(
        &self,
        target: &TcpPort<'_>,
        tables: &[&Arc<RouteTable>],
    ) -> Vec<FilterChainPlan> {
        let mut chains = self.tcp_rules(tables, &target.prefixes);
        let covered = chains.iter().any(|c| c.matches.prefixes == target.prefixes);
        if !covered {
            chains.push(self.service_chain(target));
        }
        chains
    }

    /// Chains of the TCP rules that apply, up to the first that takes everything.
    pub(crate) fn tcp_rules(
        &self,
        tables: &[&Arc<RouteTable>],
        prefixes: &[IpNet],
    ) -> Vec<FilterChainPlan> {
        let mut chains: Vec<FilterChainPlan> = Vec::new();
        for table in tables {
            for rule in &table.tcp {
                let unconditional = rule.matches.is_empty().then(Vec::new);
                let matched = rule.matches.iter().filter(|m| self.conditions.l4(m));
                let networks =
                    unconditional.into_iter().chain(matched.map(|m| m.destination_subnets.clone()));
                for subnets in networks {
                    let everything = subnets.is_empty();
                    let own = if everything { prefixes.to_vec() } else { subnets };
                    if chains.iter().all(|c| c.matches.prefixes != own) {
                        let matches = ChainMatch { prefixes: own, ..ChainMatch::default() };
                        chains.push(self.rule_chain(table, &rule.destinations, matches));
                    }
                    if everything {
                        return chains;
                    }
                }
            }
        }
        chains
    }

    fn rule_chain(
        &self,
        table: &RouteTable,
        destinations: &[WeightedDestination],
        matches: ChainMatch,
    ) -> FilterChainPlan {
        let weighted = effective(destinations, |d| self.target(d).is_there());
        let share = |d: &&WeightedDestination| {
            (self.target(&d.destination).cluster(&d.destination), d.weight.max(1))
        };
        let clusters: Vec<(Arc<str>, u32)> = weighted.iter().map(share).collect();
        let stat_prefix: Arc<str> = match clusters.as_slice() {
            [(only, _)] => only.clone(),
            _ => format!("{}.{}", table.origin.id.name, table.origin.id.namespace).into(),
        };
        let settings = weighted.first().map(|d| self.settings(&d.destination)).unwrap_or_default();
        let named = weighted.iter().map(|d| self.target(&d.destination)).find(Target::is_named);
        let resolves_sni = named.map(|target| target.port);
        let proxy = settings.apply();
        chain(matches, TcpProxyPlan { stat_prefix, clusters, resolves_sni, ..proxy })
    }

    fn service_chain(&self, target: &TcpPort<'_>) -> FilterChainPlan {
        let service = resolve_alias(self.reader, target.service, self.client.namespace)
            .unwrap_or(target.service);
        let cluster = naming::outbound_cluster(target.port.number, "", service.key.host.as_str());
        let settings = Settings::of(self, service, target.port.number, "");
        let matches = ChainMatch { prefixes: target.prefixes.clone(), ..ChainMatch::default() };
        let port = target.port.number;
        let proxy = TcpProxyPlan {
            stat_prefix: cluster.clone(),
            clusters: vec![(cluster, 1)],
            resolves_sni: (service.resolution == Resolution::Named).then_some(port),
            ..settings.apply()
        };
        chain(matches, proxy)
    }

    fn target(&self, destination: &Destination) -> Target<'_> {
        let service = find_service(self.reader, &destination.host, self.client.namespace);
        let port = match (&destination.port, service.map(|s| s.ports.as_slice())) {
            (DestinationPort::Number(number), _) => *number,
            (DestinationPort::Named(name), ports) => named_port(name, ports.unwrap_or_default()),
            (DestinationPort::Inferred, Some([only])) => only.number,
            (DestinationPort::Inferred | DestinationPort::Requested, _) => self.conditions.port,
        };
        Target { service, port }
    }

    fn settings(&self, destination: &Destination) -> Settings {
        let target = self.target(destination);
        let Some(service) = target.service else { return Settings::default() };
        Settings::of(self, service, target.port, &destination.subset)
    }
}

/// What a destination's policy says about connections.
#[derive(Default)]
struct Settings {
    idle_timeout: Option<std::time::Duration>,
    max_duration: Option<std::time::Duration>,
    hash_source_ip: bool,
    tunnel: Option<Tunnel>,
}

impl Settings {
    fn of(scope: &TcpScope<'_>, service: &Service, port: u16, subset: &str) -> Self {
        let traffic = scope.client.traffic(scope.reader, service, port, subset);
        let algorithm = &traffic.load_balancer.algorithm;
        Self {
            tunnel: traffic.tunnel.clone(),
            idle_timeout: traffic.pool.tcp_idle_timeout,
            max_duration: traffic.pool.max_connection_duration,
            hash_source_ip: matches!(
                algorithm,
                Balancing::ConsistentHash { key: HashKey::SourceIp, .. }
            ),
        }
    }

    fn apply(&self) -> TcpProxyPlan {
        TcpProxyPlan {
            idle_timeout: self.idle_timeout,
            max_duration: self.max_duration,
            hash_source_ip: self.hash_source_ip,
            tunnel: self.tunnel.clone(),
            ..defaults::tcp("")
        }
    }
}

fn sni_match(m: &L4Match, prefixes: &[IpNet]) -> ChainMatch {
    let own = if m.destination_subnets.is_empty() {
        prefixes.to_vec()
    } else {
        m.destination_subnets.clone()
    };
    let names = m.sni_hosts.iter().filter(|host| host.as_str() != "*").map(|host| host.shared());
    ChainMatch {
        prefixes: own,
        server_names: names.collect(),
        // `*` is every SNI, but still only TLS.
        transport: m
            .sni_hosts
            .iter()
            .any(|host| host.as_str() == "*")
            .then_some(TransportMatch::Tls),
        ..ChainMatch::default()
    }
}

fn chain(matches: ChainMatch, proxy: TcpProxyPlan) -> FilterChainPlan {
    FilterChainPlan {
        name: "".into(),
        matches,
        tls: None,
        connect_timeout: Some(HANDSHAKE),
        ask: None,
        access: Vec::new(),
        terminal: TerminalFilter::Tcp(proxy),
    }
}
