//! Chooses a filter chain as Envoy does: destination port, then destination prefix, server name,
//! transport protocol and application protocol, each time the most specific entry that exists.
//!
//! It never backtracks: once an entry is chosen, the more general ones beside it are out, and only
//! the listener's default chain remains. Spec: Envoy `FilterChainMatch`.

use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::facts::{ConnectionFacts, TransportProtocol};

/// What a chain asks for; what is empty or `None` accepts everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FilterChainMatch {
    /// Destination port.
    pub destination_port: Option<u16>,
    /// Destination address prefixes.
    pub prefixes: Vec<IpNet>,
    /// Server names in lower case: exact or `*.suffix`.
    pub server_names: Vec<Arc<str>>,
    /// What the connection starts with.
    pub transport: Option<TransportProtocol>,
    /// Any of these in the client's ALPN list, or found by the HTTP inspector.
    pub application_protocols: Vec<Arc<str>>,
}

/// Two chains accept the same connections.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("filter chains {0} and {1} match the same connections")]
pub struct DuplicateMatch(pub usize, pub usize);

/// A decision tree over the chains of one listener; leaves are indices of chains.
#[derive(Debug, Default)]
pub struct FilterChainMatcher {
    by_port: FxHashMap<u16, Prefixes>,
    any_port: Prefixes,
}

#[derive(Debug, Default)]
struct Prefixes {
    /// Longest prefix first.
    nets: Vec<(IpNet, ServerNames)>,
    any: ServerNames,
}

#[derive(Debug, Default)]
struct ServerNames {
    exact: FxHashMap<Arc<str>, Transports>,
    /// By suffix with its leading dot.
    suffix: FxHashMap<Arc<str>, Transports>,
    any: Transports,
}

#[derive(Debug, Default)]
struct Transports {
    raw: Option<Protocols>,
    tls: Option<Protocols>,
    any: Option<Protocols>,
}

#[derive(Debug, Default)]
struct Protocols {
    named: FxHashMap<Arc<str>, usize>,
    any: Option<usize>,
}

impl FilterChainMatcher {
    /// Builds the tree; the n-th match leads to chain n.
    ///
    /// # Errors
    /// [`DuplicateMatch`] if two chains accept the same.
    pub fn build<'a>(
        matches: impl IntoIterator<Item = &'a FilterChainMatch>,
    ) -> Result<Self, DuplicateMatch> {
        let mut tree = Self::default();
        for (chain, wanted) in matches.into_iter().enumerate() {
            let prefixes = match wanted.destination_port {
                Some(port) => tree.by_port.entry(port).or_default(),
                None => &mut tree.any_port,
            };
            prefixes.insert(wanted, chain)?;
        }
        Ok(tree)
    }

    /// The index of the chain for a connection, or `None` if only the default chain remains.
    pub fn find(&self, connection: &ConnectionFacts) -> Option<usize> {
        let prefixes = self.by_port.get(&connection.destination.port()).unwrap_or(&self.any_port);
        let names = prefixes.find(connection);
        names.find(connection)?.find(connection)
    }
}

impl Prefixes {
    fn insert(&mut self, wanted: &FilterChainMatch, chain: usize) -> Result<(), DuplicateMatch> {
        if wanted.prefixes.is_empty() {
            return self.any.insert(wanted, chain);
        }
        for net in &wanted.prefixes {
            self.entry(net.trunc()).insert(wanted, chain)?;
        }
        Ok(())
    }

    fn entry(&mut self, net: IpNet) -> &mut ServerNames {
        let found = self.nets.iter().position(|(known, _)| *known == net);
        let index = found.unwrap_or_else(|| {
            let place =
                self.nets.partition_point(|(known, _)| known.prefix_len() >= net.prefix_len());
            self.nets.insert(place, (net, ServerNames::default()));
            place
        });
        &mut self.nets[index].1
    }

    fn find(&self, connection: &ConnectionFacts) -> &ServerNames {
        let address = connection.destination.ip();
        let most_specific = self.nets.iter().find(|(net, _)| net.contains(&address));
        most_specific.map_or(&self.any, |(_, names)| names)
    }
}

impl ServerNames {
    fn insert(&mut self, wanted: &FilterChainMatch, chain: usize) -> Result<(), DuplicateMatch> {
        if wanted.server_names.is_empty() {
            return self.any.insert(wanted, chain);
        }
        for name in &wanted.server_names {
            let transports = match name.strip_prefix('*') {
                Some(suffix) => self.suffix.entry(suffix.into()).or_default(),
                None => self.exact.entry(name.clone()).or_default(),
            };
            transports.insert(wanted, chain)?;
        }
        Ok(())
    }

    fn find(&self, connection: &ConnectionFacts) -> Option<&Protocols> {
        let name = connection.server_name.as_deref().unwrap_or_default();
        if let Some(exact) = self.exact.get(name) {
            return exact.find(connection);
        }
        // From the longest suffix to the shortest: `.b.c.d`, `.c.d`, `.d` for `a.b.c.d`.
        let dots = name.bytes().enumerate().filter(|(_, byte)| *byte == b'.').map(|(at, _)| at);
        let suffix = dots.filter(|at| *at > 0).find_map(|at| self.suffix.get(&name[at..]));
        suffix.unwrap_or(&self.any).find(connection)
    }
}

impl Transports {
    fn insert(&mut self, wanted: &FilterChainMatch, chain: usize) -> Result<(), DuplicateMatch> {
        let protocols = match wanted.transport {
            Some(TransportProtocol::RawBuffer) => &mut self.raw,
            Some(TransportProtocol::Tls) => &mut self.tls,
            None => &mut self.any,
        };
        protocols.get_or_insert_default().insert(wanted, chain)
    }

    fn find(&self, connection: &ConnectionFacts) -> Option<&Protocols> {
        let specific = match connection.transport {
            TransportProtocol::RawBuffer => &self.raw,
            TransportProtocol::Tls => &self.tls,
        };
        specific.as_ref().or(self.any.as_ref())
    }
}

impl Protocols {
    fn insert(&mut self, wanted: &FilterChainMatch, chain: usize) -> Result<(), DuplicateMatch> {
        if wanted.application_protocols.is_empty() {
            return match self.any.replace(chain) {
                Some(other) if other != chain => Err(DuplicateMatch(other, chain)),
                _ => Ok(()),
            };
        }
        for protocol in &wanted.application_protocols {
            match self.named.insert(protocol.clone(), chain) {
                Some(other) if other != chain => return Err(DuplicateMatch(other, chain)),
                _ => {}
            }
        }
        Ok(())
    }

    fn find(&self, connection: &ConnectionFacts) -> Option<usize> {
        let offered = connection.application_protocols.iter();
        let named = offered.filter_map(|protocol| self.named.get(protocol)).next().copied();
        named.or(self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(port: u16, names: &[&str], transport: &str, protocols: &[&str]) -> FilterChainMatch {
        FilterChainMatch {
            destination_port: (port != 0).then_some(port),
            prefixes: vec![],
            server_names: names.iter().map(|n| (*n).into()).collect(),
            transport: match transport {
                "tls" => Some(TransportProtocol::Tls),
                "raw_buffer" => Some(TransportProtocol::RawBuffer),
                _ => None,
            },
            application_protocols: protocols.iter().map(|p| (*p).into()).collect(),
        }
    }

    fn connection(destination: &str, name: &str, tls: bool, protocols: &[&str]) -> ConnectionFacts {
        let mut facts =
            ConnectionFacts::plaintext(([127, 0, 0, 1], 9).into(), destination.parse().unwrap());
        facts.server_name = (!name.is_empty()).then(|| name.into());
        facts.transport = if tls { TransportProtocol::Tls } else { TransportProtocol::RawBuffer };
        facts.application_protocols = protocols.iter().map(|p| (*p).into()).collect();
        facts
    }

    fn check(chains: &[FilterChainMatch], facts: &ConnectionFacts, expected: Option<usize>) {
        let tree = FilterChainMatcher::build(chains).unwrap();
        assert_eq!(tree.find(facts), expected, "{facts:?}");
    }

    /// The five chains of a PERMISSIVE port whose protocol is found out.
    fn permissive() -> Vec<FilterChainMatch> {
        vec![
            chain(9080, &[], "tls", &["istio-http/1.0", "istio-http/1.1", "istio-h2"]),
            chain(9080, &[], "raw_buffer", &["http/1.0", "http/1.1", "h2c"]),
            chain(9080, &[], "tls", &["istio-peer-exchange", "istio"]),
            chain(9080, &[], "raw_buffer", &[]),
            chain(9080, &[], "tls", &[]),
        ]
    }

    #[test]
    fn a_permissive_port_tells_five_kinds_apart() {
        let chains = permissive();
        let at = |tls, protocols: &[&str]| connection("10.0.0.1:9080", "", tls, protocols);
        check(&chains, &at(true, &["istio-http/1.1", "istio", "http/1.1"]), Some(0));
        check(&chains, &at(true, &["istio-h2", "istio", "h2"]), Some(0));
        check(&chains, &at(false, &["http/1.1"]), Some(1));
        check(&chains, &at(false, &["h2c"]), Some(1));
        check(&chains, &at(true, &["istio"]), Some(2));
        check(&chains, &at(true, &["istio", "istio-h2"]), Some(2));
        check(&chains, &at(false, &[]), Some(3));
        check(&chains, &at(true, &["h2", "http/1.1"]), Some(4));
        check(&chains, &at(true, &[]), Some(4));
        check(&chains, &connection("10.0.0.1:9081", "", false, &[]), None);
    }

    #[test]
    fn matching_never_backtracks() {
        // The HTTP chain claims plaintext; a TCP chain for any transport is not reached by plain
        // TCP.
        let chains = [chain(0, &[], "raw_buffer", &["http/1.1"]), chain(0, &[], "", &[])];
        check(&chains, &connection("10.0.0.1:80", "", false, &[]), None);
        check(&chains, &connection("10.0.0.1:80", "", true, &[]), Some(1));
        // The port has an entry, so the chain for any port is out.
        let chains = [chain(80, &[], "tls", &[]), chain(0, &[], "", &[])];
        check(&chains, &connection("10.0.0.1:80", "", false, &[]), None);
        check(&chains, &connection("10.0.0.1:81", "", false, &[]), Some(1));
    }

    #[test]
    fn the_longest_server_name_wins() {
        let chains = [
            chain(443, &["www.example.com"], "", &[]),
            chain(443, &["*.example.com"], "", &[]),
            chain(443, &["*.com"], "", &[]),
            chain(443, &[], "", &[]),
        ];
        for (name, expected) in [
            ("www.example.com", 0),
            ("a.b.example.com", 1),
            ("example.com", 2),
            ("example.org", 3),
            ("", 3),
            (".example.com", 2),
        ] {
            check(&chains, &connection("10.0.0.1:443", name, true, &[]), Some(expected));
        }
    }

    #[test]
    fn the_longest_prefix_wins() {
        let with = |nets: &[&str]| FilterChainMatch {
            prefixes: nets.iter().map(|n| n.parse().unwrap()).collect(),
            ..Default::default()
        };
        let chains = [with(&["10.0.0.0/8"]), with(&["10.1.0.0/16", "fd00::/8"]), with(&[])];
        for (destination, expected) in [
            ("10.2.0.1:1", 0),
            ("10.1.0.1:1", 1),
            ("[fd00::1]:1", 1),
            ("192.0.2.1:1", 2),
            ("[::1]:1", 2),
        ] {
            check(&chains, &connection(destination, "", false, &[]), Some(expected));
        }
    }

    #[test]
    fn equal_matches_are_refused() {
        let same = [chain(80, &[], "tls", &["h2"]), chain(80, &[], "tls", &["http/1.1", "h2"])];
        assert_eq!(FilterChainMatcher::build(&same).unwrap_err(), DuplicateMatch(0, 1));
        let within = [chain(80, &["a", "a"], "tls", &["h2", "h2"])];
        assert!(FilterChainMatcher::build(&within).is_ok());
    }
}
