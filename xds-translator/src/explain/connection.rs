//! A connection, the listener that takes it, and the filter chain that is its own.
//!
//! Chains are told apart as Envoy does: by port, then network, server name, transport, protocol and
//! source, of each the closest, and never back to what was passed over.

use std::net::IpAddr;

use super::{
    pb::{
        core,
        hcm::HttpConnectionManager,
        listener::{
            FilterChain, FilterChainMatch, Listener, ListenerFilter,
            ListenerFilterChainMatchPredicate as Predicate, filter::ConfigType,
            listener_filter_chain_match_predicate::Rule,
        },
        tcp_proxy::TcpProxy,
        unpack,
    },
    truth::net,
};

/// A connection as its server sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Connection {
    /// Where it goes; `None`: an address that DNS alone knows.
    pub(super) destination: Option<IpAddr>,
    pub(super) port: u16,
    /// Where it comes from, as far as that is known.
    pub(super) source: Option<IpAddr>,
    /// The TLS that it begins with.
    pub(super) tls: Option<Tls>,
    /// Whether HTTP is what it carries, in the clear or within [`Self::tls`].
    pub(super) http: bool,
}

/// What a client says as it begins TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tls {
    /// The server name; may be empty.
    pub(super) sni: String,
    pub(super) alpn: Vec<String>,
    /// Who the client can prove to be; `None`: nobody.
    pub(super) identity: Option<String>,
}

/// What a chain does with a connection at last.
pub(super) enum Terminal {
    Http(Box<HttpConnectionManager>),
    Tcp(Box<TcpProxy>),
    /// Something that is not judged here, by name.
    Other(String),
}

/// The listener of a connection among those of one direction: by address and port, then by port
/// alone, then the one that takes whatever is left.
pub(super) fn listener_for<'l>(
    listeners: &'l [Listener],
    connection: &Connection,
) -> Option<&'l Listener> {
    let at = |listener: &&Listener, exact: bool| {
        let Some((address, port)) = place(listener) else { return false };
        let here = match exact {
            true => connection.destination.is_some_and(|to| to == address),
            false => address.is_unspecified(),
        };
        here && port == connection.port && !takes_all(listener)
    };
    let found = |exact| listeners.iter().find(|listener| at(listener, exact));
    let known = found(true).or_else(|| found(false));
    let all = || listeners.iter().find(|listener| takes_all(listener));
    // Without redirection the application calls the proxy by an address of the proxy.
    let own =
        |listener: &&Listener| place(listener).is_some_and(|(_, port)| port == connection.port);
    known.or_else(all).or_else(|| listeners.iter().find(own))
}

/// Whether connections to everywhere come to a listener: behind redirection, those of the
/// listener that hands them over, and inbound ones.
pub(super) fn takes_all(listener: &Listener) -> bool {
    let original = listener.use_original_dst.as_ref().is_some_and(|on| on.value);
    let restores = |filter: &ListenerFilter| filter.name == "envoy.filters.listener.original_dst";
    original || listener.listener_filters.iter().any(restores)
}

/// Address and port of a listener.
pub(super) fn place(listener: &Listener) -> Option<(IpAddr, u16)> {
    socket(listener.address.as_ref()?)
}

/// An address that is an IP address with its port.
pub(super) fn socket(address: &core::Address) -> Option<(IpAddr, u16)> {
    let (host, port) = host_port(address)?;
    Some((host.parse().ok()?, port))
}

/// Host and port of an address; `None`: it is neither.
pub(super) fn host_port(address: &core::Address) -> Option<(&str, u16)> {
    let core::address::Address::SocketAddress(socket) = address.address.as_ref()? else {
        return None;
    };
    let core::socket_address::PortSpecifier::PortValue(port) = socket.port_specifier.as_ref()?
    else {
        return None;
    };
    Some((&socket.address, u16::try_from(*port).ok()?))
}

/// What the listener's filters find out of a connection.
struct Seen<'c> {
    connection: &'c Connection,
    transport: &'static str,
    sni: String,
    protocols: Vec<String>,
}

impl<'c> Seen<'c> {
    fn of(listener: &Listener, connection: &'c Connection) -> Self {
        let looks = |name: &str| {
            let named =
                |filter: &&ListenerFilter| filter.name == format!("envoy.filters.listener.{name}");
            let filter = listener.listener_filters.iter().find(named);
            filter.is_some_and(|filter| !is_off(filter, connection.port))
        };
        let tls = connection.tls.as_ref().filter(|_| looks("tls_inspector"));
        let http = connection.tls.is_none() && connection.http && looks("http_inspector");
        let protocols = match tls {
            Some(tls) => tls.alpn.clone(),
            None if http => vec!["http/1.1".to_owned()],
            None => Vec::new(),
        };
        let sni = tls.map(|tls| tls.sni.to_ascii_lowercase()).unwrap_or_default();
        let transport = if tls.is_some() { "tls" } else { "raw_buffer" };
        Self { connection, transport, sni, protocols }
    }
}

fn is_off(filter: &ListenerFilter, port: u16) -> bool {
    filter.filter_disabled.as_ref().is_some_and(|predicate| holds(predicate, port))
}

fn holds(predicate: &Predicate, port: u16) -> bool {
    match &predicate.rule {
        Some(Rule::OrMatch(set)) => set.rules.iter().any(|rule| holds(rule, port)),
        Some(Rule::AndMatch(set)) => set.rules.iter().all(|rule| holds(rule, port)),
        Some(Rule::NotMatch(rule)) => !holds(rule, port),
        Some(Rule::AnyMatch(any)) => *any,
        Some(Rule::DestinationPortRange(range)) => {
            (range.start..range.end).contains(&i32::from(port))
        }
        None => false,
    }
}

/// How a connection came to its chain, or to none.
pub(super) struct Chosen<'l> {
    /// `None`: the connection is closed.
    pub(super) chain: Option<&'l FilterChain>,
    /// What nothing suited, if there is no chain.
    pub(super) unmet: Option<String>,
    /// What the choice rests on and is not known.
    pub(super) unknown: Option<String>,
}

/// The chain of a connection.
pub(super) fn chain_for<'l>(listener: &'l Listener, connection: &Connection) -> Chosen<'l> {
    let seen = Seen::of(listener, connection);
    let mut left: Vec<&FilterChain> = listener.filter_chains.iter().collect();
    let mut unknown = None;
    let criteria: [(&str, Criterion); 6] = [
        ("port", |m, seen| {
            let port = m.destination_port.as_ref().map(|port| port.value);
            rank_option(port, |port| port == u32::from(seen.connection.port))
        }),
        ("destination address", |m, seen| match seen.connection.destination {
            Some(address) => networks(&m.prefix_ranges, address),
            None => m.prefix_ranges.is_empty().then_some(0),
        }),
        ("server name", |m, seen| match &m.server_names[..] {
            [] => Some(0),
            names => names.iter().filter_map(|name| server_name(name, &seen.sni)).max(),
        }),
        ("transport", |m, seen| match &*m.transport_protocol {
            "" => Some(0),
            wanted => (wanted == seen.transport).then_some(1),
        }),
        ("application protocol", |m, seen| match &m.application_protocols[..] {
            [] => Some(0),
            wanted => {
                let offered = seen.protocols.iter().position(|own| wanted.contains(own))?;
                Some(usize::MAX - offered)
            }
        }),
        ("source address", |m, seen| {
            let ranges = m.direct_source_prefix_ranges.iter().chain(&m.source_prefix_ranges);
            match (ranges.count(), seen.connection.source) {
                (0, _) => Some(0),
                (_, Some(address)) if m.direct_source_prefix_ranges.is_empty() => {
                    networks(&m.source_prefix_ranges, address)
                }
                (_, Some(address)) => networks(&m.direct_source_prefix_ranges, address),
                (_, None) => None,
            }
        }),
    ];
    let mut unmet = None;
    for (what, criterion) in criteria {
        if what == "source address" && connection.source.is_none() && left.iter().any(asks_source) {
            unknown = Some("where the client is".to_owned());
        }
        let nothing = FilterChainMatch::default();
        let rank = |chain: &&FilterChain| {
            criterion(chain.filter_chain_match.as_ref().unwrap_or(&nothing), &seen)
        };
        let Some(best) = left.iter().filter_map(rank).max() else {
            unmet = Some(format!("{what} ({})", value(what, &seen)));
            left.clear();
            break;
        };
        left.retain(|chain| rank(chain) == Some(best));
    }
    if left.iter().any(|chain| chain.filter_chain_match.as_ref().is_some_and(asks_more)) {
        unknown = Some("conditions on the kind or port of the source".to_owned());
    }
    let chain = left.first().copied().or(listener.default_filter_chain.as_ref());
    Chosen { chain, unmet, unknown }
}

/// How closely a chain suits; `None`: not at all.
type Criterion = fn(&FilterChainMatch, &Seen<'_>) -> Option<usize>;

fn rank_option<T>(wanted: Option<T>, suits: impl Fn(T) -> bool) -> Option<usize> {
    match wanted {
        None => Some(0),
        Some(wanted) => suits(wanted).then_some(1),
    }
}

fn networks(ranges: &[core::CidrRange], address: IpAddr) -> Option<usize> {
    if ranges.is_empty() {
        return Some(0);
    }
    let around = ranges.iter().filter_map(net).filter(|network| network.contains(&address));
    around.map(|network| usize::from(network.prefix_len()) + 1).max()
}

/// An exact name, or `*.b.c` for what is below it.
fn server_name(wanted: &str, sni: &str) -> Option<usize> {
    match wanted.strip_prefix('*') {
        Some(suffix) => {
            (sni.len() > suffix.len() && sni.ends_with(suffix)).then_some(suffix.len() + 1)
        }
        None => (wanted == sni).then_some(usize::MAX),
    }
}

fn asks_source(chain: &&FilterChain) -> bool {
    chain.filter_chain_match.as_ref().is_some_and(|m| {
        !m.direct_source_prefix_ranges.is_empty() || !m.source_prefix_ranges.is_empty()
    })
}

fn asks_more(m: &FilterChainMatch) -> bool {
    m.source_type != 0 || !m.source_ports.is_empty()
}

fn value(what: &str, seen: &Seen<'_>) -> String {
    match what {
        "port" => seen.connection.port.to_string(),
        "server name" if seen.sni.is_empty() => "none".to_owned(),
        "server name" => seen.sni.clone(),
        "transport" if seen.transport == "tls" => "TLS".to_owned(),
        "transport" => "plaintext".to_owned(),
        "application protocol" if seen.protocols.is_empty() => "none".to_owned(),
        "application protocol" => seen.protocols.join(", "),
        "source address" => seen.connection.source.map_or("unknown".to_owned(), |a| a.to_string()),
        _ => seen.connection.destination.map_or("unknown".to_owned(), |a| a.to_string()),
    }
}

/// What a chain does at last, and the filters before that.
pub(super) fn terminal(chain: &FilterChain) -> Option<Terminal> {
    let last = chain.filters.last()?;
    let Some(ConfigType::TypedConfig(any)) = &last.config_type else {
        return Some(Terminal::Other(last.name.clone()));
    };
    if let Some(manager) = unpack::<HttpConnectionManager>(any) {
        return Some(Terminal::Http(Box::new(manager)));
    }
    if let Some(proxy) = unpack::<TcpProxy>(any) {
        return Some(Terminal::Tcp(Box::new(proxy)));
    }
    Some(Terminal::Other(last.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::pb::{core::CidrRange, protobuf::UInt32Value};

    fn chain(name: &str, m: FilterChainMatch) -> FilterChain {
        FilterChain { name: name.to_owned(), filter_chain_match: Some(m), ..FilterChain::default() }
    }

    fn inspected(chains: Vec<FilterChain>) -> Listener {
        let filter = |name: &str| ListenerFilter {
            name: format!("envoy.filters.listener.{name}"),
            ..ListenerFilter::default()
        };
        Listener {
            filter_chains: chains,
            listener_filters: vec![filter("tls_inspector"), filter("http_inspector")],
            ..Listener::default()
        }
    }

    fn connection(tls: Option<(&str, &[&str])>) -> Connection {
        let tls = tls.map(|(sni, alpn)| Tls {
            sni: sni.to_owned(),
            alpn: alpn.iter().map(|text| (*text).to_owned()).collect(),
            identity: None,
        });
        Connection {
            destination: Some([10, 0, 0, 1].into()),
            port: 80,
            source: None,
            tls,
            http: true,
        }
    }

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    fn names(all: &[&str]) -> FilterChainMatch {
        FilterChainMatch { server_names: texts(all), ..FilterChainMatch::default() }
    }

    fn check(listener: &Listener, connection: &Connection, expected: Option<&str>) {
        let chosen = chain_for(listener, connection);
        assert_eq!(chosen.chain.map(|chain| &*chain.name), expected, "{connection:?}");
    }

    #[test]
    fn the_closest_server_name_takes_a_connection_and_nothing_is_tried_twice() {
        let asks =
            FilterChainMatch { application_protocols: texts(&["h2"]), ..names(&["a.b.test"]) };
        let listener = inspected(vec![
            chain("any", FilterChainMatch::default()),
            chain("below", names(&["*.b.test"])),
            chain("exact", asks),
        ]);
        check(&listener, &connection(Some(("x.b.test", &[]))), Some("below"));
        check(&listener, &connection(Some(("b.test", &[]))), Some("any"));
        check(&listener, &connection(Some(("a.b.test", &["h2"]))), Some("exact"));
        check(&listener, &connection(Some(("a.b.test", &[]))), None);
    }

    #[test]
    fn the_protocol_that_is_offered_first_decides() {
        let of = |protocol: &str, transport: &str| FilterChainMatch {
            application_protocols: texts(&[protocol]),
            transport_protocol: transport.to_owned(),
            ..FilterChainMatch::default()
        };
        let listener = inspected(vec![
            chain("plain", of("http/1.1", "raw_buffer")),
            chain("h2", of("h2", "tls")),
            chain("mesh", of("istio", "tls")),
        ]);
        check(&listener, &connection(None), Some("plain"));
        check(&listener, &connection(Some(("", &["istio", "h2"]))), Some("mesh"));
        check(&listener, &connection(Some(("", &["h2", "istio"]))), Some("h2"));
        let chosen = chain_for(&listener, &connection(Some(("", &["x"]))));
        assert_eq!(chosen.unmet.as_deref(), Some("application protocol (x)"));
    }

    #[test]
    fn a_port_with_chains_of_its_own_never_falls_back_to_others() {
        let port = |port: u32, prefix: Option<&str>| FilterChainMatch {
            destination_port: Some(UInt32Value { value: port }),
            prefix_ranges: prefix
                .iter()
                .map(|prefix| CidrRange {
                    address_prefix: (*prefix).to_owned(),
                    prefix_len: Some(UInt32Value { value: 16 }),
                })
                .collect(),
            ..FilterChainMatch::default()
        };
        let mut listener = inspected(vec![
            chain("others", FilterChainMatch::default()),
            chain("far", port(80, Some("192.168.0.0"))),
        ]);
        check(&listener, &connection(None), None);
        listener.filter_chains.push(chain("near", port(80, Some("10.0.0.0"))));
        check(&listener, &connection(None), Some("near"));
        listener.filter_chains.pop();
        listener.default_filter_chain = Some(chain("default", FilterChainMatch::default()));
        check(&listener, &connection(None), Some("default"));
    }
}
