//! Outbound listeners: which address and port leads where, and who wins when two services want the
//! same.
//!
//! Services are offered in the order of age; a draft collects what the services of one address and
//! port need, and is spelled once all have been seen. HTTP services share a wildcard listener and
//! are told apart by `Host`; others need an address, a network or an SNI of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    Bind, ChainMatch, Direction, FilterChainPlan, FixedCluster, HttpRole, ListenerFilter,
    ListenerPlan, RouteSource, TerminalFilter, TransportMatch,
    defaults::{self, HANDSHAKE},
    egress_proxy::Unknown,
    mtls::texts,
    naming,
};
use crate::ir::{MeshDefaults, PortNames, Protocol, ServiceKey};

/// What http_inspector finds in plaintext.
pub(crate) const PLAIN_HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// Listeners being collected, by address and port.
pub(crate) struct Drafts<'a> {
    mesh: &'a MeshDefaults,
    /// Where bytes for unknown destinations go; `None`: the application calls by address, so
    /// nothing is unknown.
    unknown: Option<&'a Unknown<'a>>,
    /// Whether routes of any listener lead to names that are still to be resolved.
    resolves_names: bool,
    drafts: BTreeMap<(IpAddr, u16), Draft>,
    displaced: Vec<Displaced>,
}

/// A port of a service at which a client finds another service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Displaced {
    /// The service that is not found.
    pub(crate) service: ServiceKey,
    /// Its port.
    pub(crate) port: u16,
    /// The older service that keeps the place; `None`: the explicit HTTP proxy.
    pub(crate) by: Option<ServiceKey>,
}

/// A service's wish for a place.
pub(crate) struct Offer<'a> {
    /// Address and port.
    pub(crate) at: (IpAddr, u16),
    /// Whether the listener is really opened.
    pub(crate) bind: bool,
    /// The service.
    pub(crate) service: &'a ServiceKey,
    /// What the service calls its port.
    pub(crate) port_name: &'a Arc<str>,
}

/// What the services of one address and port need.
#[derive(Default)]
struct Draft {
    bind: bool,
    /// The first HTTP service.
    http_of: Option<ServiceKey>,
    /// The service of [`Self::plain`].
    plain_of: Option<ServiceKey>,
    /// Route configuration of the HTTP services.
    http: Option<Arc<str>>,
    /// Serves as an explicit HTTP proxy.
    http_proxy: bool,
    /// Routes lead to names that are still to be resolved.
    resolves_names: bool,
    /// Chains with an SNI or network of their own.
    distinct: Vec<FilterChainPlan>,
    /// The service whose bytes come without anything to tell them by; the oldest keeps the place.
    plain: Option<FilterChainPlan>,
    /// The plain service speaks first: nothing may wait for the client.
    server_first: bool,
    /// What the services call their ports here.
    port_names: BTreeSet<Arc<str>>,
}

/// Whether a service's bytes may be mixed with HTTP on one listener.
pub(crate) fn speaks_first(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Mongo | Protocol::Mysql)
}

impl<'a> Drafts<'a> {
    pub(crate) fn new(mesh: &'a MeshDefaults, unknown: Option<&'a Unknown<'a>>) -> Self {
        Self {
            mesh,
            unknown,
            drafts: BTreeMap::new(),
            resolves_names: false,
            displaced: Vec::new(),
        }
    }

    fn draft(&mut self, at: (IpAddr, u16), bind: bool) -> &mut Draft {
        let draft = self.drafts.entry(at).or_default();
        draft.bind |= bind;
        draft
    }

    /// The draft of an offer, whoever keeps the place in the end.
    fn offered(&mut self, offer: &Offer<'_>) -> &mut Draft {
        let draft = self.draft(offer.at, offer.bind);
        draft.port_names.extend((!offer.port_name.is_empty()).then(|| offer.port_name.clone()));
        draft
    }

    /// Lets HTTP in, routed by `rds`; `false`: an older service keeps the place, because it speaks
    /// first or has HTTP routes of its own here.
    pub(crate) fn offer_http(&mut self, offer: &Offer<'_>, rds: &Arc<str>) -> bool {
        let draft = self.offered(offer);
        let by = if draft.server_first {
            draft.plain_of.clone()
        } else if *draft.http.get_or_insert_with(|| rds.clone()) == *rds {
            draft.http_of.get_or_insert_with(|| offer.service.clone());
            return true;
        } else {
            draft.http_of.clone()
        };
        self.displace(offer, by);
        false
    }

    fn displace(&mut self, offer: &Offer<'_>, by: Option<ServiceKey>) {
        if by.as_ref() != Some(offer.service) {
            let (service, port) = (offer.service.clone(), offer.at.1);
            self.displaced.push(Displaced { service, port, by });
        }
    }

    /// The explicit HTTP proxy.
    pub(crate) fn offer_http_proxy(&mut self, at: (IpAddr, u16), rds: &Arc<str>) {
        let draft = self.draft(at, true);
        draft.http.get_or_insert_with(|| rds.clone());
        draft.http_proxy = true;
    }

    /// Adds chains; those with nothing to tell them by compete for one place, which the first
    /// keeps.
    pub(crate) fn offer_tcp(
        &mut self,
        offer: &Offer<'_>,
        protocol: Protocol,
        chains: Vec<FilterChainPlan>,
    ) {
        let draft = self.offered(offer);
        let mut by = None;
        for chain in chains {
            if chain.matches != ChainMatch::default() {
                draft.distinct.push(chain);
            } else if draft.plain.is_some() {
                by = Some(draft.plain_of.clone());
            } else if draft.http.is_some() && speaks_first(protocol) {
                by = Some(draft.http_of.clone());
            } else {
                draft.server_first = speaks_first(protocol);
                draft.plain = Some(chain);
                draft.plain_of = Some(offer.service.clone());
            }
        }
        if let Some(by) = by.filter(|_| protocol != Protocol::Auto) {
            self.displace(offer, by);
        }
    }

    /// Ports of services that have no place of their own, because an older service keeps it.
    pub(crate) fn displaced(&self) -> &[Displaced] {
        &self.displaced
    }

    /// Has the listener of a place resolve the names that requests ask for.
    pub(crate) fn resolve_names(&mut self, at: (IpAddr, u16)) {
        self.drafts.entry(at).or_default().resolves_names = true;
    }

    /// Has every listener do so.
    pub(crate) fn resolve_names_everywhere(&mut self) {
        self.resolves_names = true;
    }

    /// The listeners, by name; drafts that nobody filled are dropped.
    pub(crate) fn finish(self) -> Vec<ListenerPlan> {
        let (mesh, unknown, everywhere) = (self.mesh, self.unknown, self.resolves_names);
        let drafts = self.drafts.into_iter().filter(|(_, draft)| !draft.is_empty());
        let drafts = drafts.map(|(at, draft)| {
            let resolves_names = draft.resolves_names || everywhere;
            (at, Draft { resolves_names, ..draft })
        });
        drafts.map(|(at, draft)| draft.spell(at, mesh, unknown)).collect()
    }
}

impl Draft {
    fn is_empty(&self) -> bool {
        self.http.is_none() && self.distinct.is_empty() && self.plain.is_none()
    }

    fn spell(
        self,
        (address, port): (IpAddr, u16),
        mesh: &MeshDefaults,
        unknown: Option<&Unknown<'_>>,
    ) -> ListenerPlan {
        let name = naming::listener(address, port);
        // Whoever calls the listener itself is going nowhere else.
        let unknown = unknown.filter(|_| !self.bind).map(passthrough);
        let only_http = self.distinct.is_empty() && self.plain.is_none();
        let alone = only_http && unknown.is_none();
        let http = self.http.as_ref().map(|rds| {
            // When only HTTP can come, nothing needs to be looked at first.
            let matches = if alone { ChainMatch::default() } else { plain_http_match() };
            http_chain(mesh, &name, rds, matches, (self.http_proxy, self.resolves_names))
        });
        let mut chains = distinct(self.distinct);
        let mut default_chain = None;
        match (http, self.plain) {
            (None, Some(plain)) if chains.is_empty() => chains.push(plain),
            (http, plain) => {
                let fallback = plain
                    .map(|chain| FilterChainPlan { connect_timeout: None, ..chain })
                    .or(unknown);
                default_chain = fallback.filter(|_| !alone);
                chains.extend(http);
            }
        }
        let listener_filters = inspectors(&chains);
        ListenerPlan {
            name,
            address,
            port,
            bind: if self.bind { Bind::Chosen } else { Bind::Captured },
            use_original_dst: false,
            direction: Direction::Outbound,
            // A client may connect long before it asks: what it asks a declared HTTP service must
            // still be taken as HTTP.
            filters_timeout: (!listener_filters.is_empty()).then(|| match only_http {
                true => mesh.detection_timeout,
                false => defaults::detection_timeout(mesh),
            }),
            continue_on_timeout: true,
            listener_filters,
            chains,
            default_chain,
            accept_one: false,
            access_logs: Vec::new(),
            port_names: PortNames::from([(port, self.port_names)]),
        }
    }
}

fn http_chain(
    mesh: &MeshDefaults,
    listener: &str,
    rds: &Arc<str>,
    matches: ChainMatch,
    (http_proxy, resolves_names): (bool, bool),
) -> FilterChainPlan {
    let mut http = defaults::http(
        mesh,
        &format!("outbound_{listener};"),
        RouteSource::Rds(rds.clone()),
        HttpRole::Outbound,
    );
    http.http_proxy = http_proxy;
    http.resolves_names = resolves_names;
    FilterChainPlan {
        name: "".into(),
        matches,
        tls: None,
        connect_timeout: Some(HANDSHAKE),
        ask: None,
        access: Vec::new(),
        terminal: TerminalFilter::Http(Box::new(http)),
    }
}

/// Plaintext HTTP; `raw_buffer`, or the application's own TLS that offers `http/1.1` would be
/// caught too (ARCHITECTURE.md).
fn plain_http_match() -> ChainMatch {
    ChainMatch {
        transport: Some(TransportMatch::Raw),
        alpn: texts(&PLAIN_HTTP),
        ..ChainMatch::default()
    }
}

/// Where bytes for unknown destinations go.
fn unknown_cluster<'u>(unknown: &'u Unknown<'_>) -> &'u str {
    match unknown {
        Unknown::Passes => FixedCluster::Passthrough.resource_name(),
        Unknown::Refused => FixedCluster::BlackHole.resource_name(),
        Unknown::Through(cluster, _) => cluster,
    }
}

fn passthrough(unknown: &Unknown<'_>) -> FilterChainPlan {
    defaults::chain_to("PassthroughFilterChain", None, unknown_cluster(unknown))
}

/// SNI names; `None` stands for any.
type Names = Vec<Option<Arc<str>>>;

/// Chains of which no two take the same connection by the same match, the first of those that
/// would: Envoy refuses a listener with two such, also when they share one of several networks and
/// one of several SNI names. What is left to a later chain may take several of them.
pub(crate) fn distinct(chains: Vec<FilterChainPlan>) -> Vec<FilterChainPlan> {
    let mut known: BTreeSet<(Option<IpNet>, Option<Arc<str>>, String)> = BTreeSet::new();
    let mut kept: Vec<FilterChainPlan> = Vec::with_capacity(chains.len());
    for chain in chains {
        let whole =
            ChainMatch { prefixes: Vec::new(), server_names: Vec::new(), ..chain.matches.clone() };
        let rest = format!("{whole:?}");
        // Names by the networks in which no earlier chain takes them.
        let mut parts: Vec<(Vec<Option<IpNet>>, Names)> = Vec::new();
        for name in each_or_any(&chain.matches.server_names) {
            let mut free = each_or_any(&chain.matches.prefixes);
            free.retain(|network| {
                let network = network.map(|network| network.trunc());
                known.insert((network, name.clone(), rest.clone()))
            });
            match parts.iter_mut().find(|(networks, _)| *networks == free) {
                Some((_, names)) => names.push(name),
                None => parts.push((free, vec![name])),
            }
        }
        parts.retain(|(networks, _)| !networks.is_empty());
        kept.extend(parts.into_iter().map(|(networks, names)| FilterChainPlan {
            matches: ChainMatch {
                prefixes: networks.into_iter().flatten().collect(),
                server_names: names.into_iter().flatten().collect(),
                ..whole.clone()
            },
            ..chain.clone()
        }));
    }
    kept
}

/// The values of a condition; `None` alone where it has none and takes everything.
fn each_or_any<T: Clone>(values: &[T]) -> Vec<Option<T>> {
    if values.is_empty() { vec![None] } else { values.iter().cloned().map(Some).collect() }
}

/// The inspectors that the chains' conditions need.
fn inspectors(chains: &[FilterChainPlan]) -> Vec<ListenerFilter> {
    let tls =
        |m: &ChainMatch| !m.server_names.is_empty() || m.transport == Some(TransportMatch::Tls);
    let mut filters = Vec::new();
    if chains.iter().any(|c| tls(&c.matches)) {
        filters.push(ListenerFilter::TlsInspector(Vec::new()));
    }
    if chains
        .iter()
        .any(|c| c.matches.transport == Some(TransportMatch::Raw) && !c.matches.alpn.is_empty())
    {
        filters.push(ListenerFilter::HttpInspector(Vec::new()));
    }
    filters
}

/// `virtualOutbound`: takes every redirected connection and hands it to the listener of its
/// original destination.
pub(crate) fn virtual_outbound(mesh: &MeshDefaults, unknown: &Unknown<'_>) -> ListenerPlan {
    let port = mesh.outbound_port;
    let blackhole =
        defaults::fixed_chain("virtualOutbound-blackhole", Some(port), &FixedCluster::BlackHole);
    let catch_all =
        defaults::chain_to("virtualOutbound-catchall-tcp", None, unknown_cluster(unknown));
    ListenerPlan {
        name: "virtualOutbound".into(),
        address: defaults::ANY_ADDRESS,
        port,
        bind: Bind::Always,
        use_original_dst: true,
        direction: Direction::Outbound,
        listener_filters: Vec::new(),
        filters_timeout: None,
        continue_on_timeout: false,
        chains: vec![blackhole, catch_all],
        default_chain: None,
        accept_one: true,
        access_logs: Vec::new(),
        port_names: PortNames::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::fixture::service_key;

    fn tcp(cluster: &str, server_names: &[&str]) -> FilterChainPlan {
        FilterChainPlan {
            name: cluster.into(),
            matches: ChainMatch { server_names: texts(server_names), ..ChainMatch::default() },
            tls: None,
            connect_timeout: Some(HANDSHAKE),
            ask: None,
            access: Vec::new(),
            terminal: TerminalFilter::Tcp(defaults::tcp(cluster)),
        }
    }

    const AT: (IpAddr, u16) = (defaults::ANY_ADDRESS, 9000);

    fn offer_http(drafts: &mut Drafts<'_>, bind: bool, name: &str, rds: &Arc<str>) -> bool {
        let service = service_key("shop", name);
        drafts.offer_http(&Offer { at: AT, bind, service: &service, port_name: &"".into() }, rds)
    }

    /// Offers bytes of a service, which its cluster has the name of.
    fn offer_tcp(drafts: &mut Drafts<'_>, protocol: Protocol, name: &str) {
        let service = service_key("shop", name);
        let offer = Offer { at: AT, bind: false, service: &service, port_name: &"".into() };
        drafts.offer_tcp(&offer, protocol, vec![tcp(name, &[])]);
    }

    /// Names of the chains, then of the default chain.
    fn check(
        offer: impl FnOnce(&mut Drafts<'_>),
        unknown: Option<&Unknown<'_>>,
    ) -> (Vec<String>, Option<String>) {
        let mesh = MeshDefaults::default();
        let mut drafts = Drafts::new(&mesh, unknown);
        offer(&mut drafts);
        let mut listeners = drafts.finish();
        let Some(listener) = listeners.pop() else { return (Vec::new(), None) };
        let kind = |c: &FilterChainPlan| match &c.terminal {
            TerminalFilter::Http(_) => {
                format!(
                    "http {}",
                    if c.matches == ChainMatch::default() { "all" } else { "sniffed" }
                )
            }
            TerminalFilter::Tcp(proxy) => proxy.clusters[0].0.to_string(),
        };
        (listener.chains.iter().map(kind).collect(), listener.default_chain.as_ref().map(kind))
    }

    /// Offers an HTTP service.
    fn http(bind: bool) -> impl FnOnce(&mut Drafts<'_>) {
        move |drafts| assert!(offer_http(drafts, bind, "web", &"9000".into()))
    }

    fn chains(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn http_under_redirection_leaves_other_bytes_to_their_destination() {
        let (got, default) = check(http(false), Some(&Unknown::Passes));
        assert_eq!(
            (got, default.as_deref()),
            (chains(&["http sniffed"]), Some("PassthroughCluster"))
        );
        let (_, default) = check(http(false), Some(&Unknown::Refused));
        assert_eq!(default.as_deref(), Some("BlackHoleCluster"));
    }

    #[test]
    fn a_first_request_may_come_late_unless_a_server_may_speak_first() {
        let mesh = MeshDefaults::default();
        let timeout = |offer: &dyn Fn(&mut Drafts<'_>)| {
            let mut drafts = Drafts::new(&mesh, Some(&Unknown::Passes));
            offer(&mut drafts);
            drafts.finish().pop().and_then(|listener| listener.filters_timeout)
        };
        let only_http = |drafts: &mut Drafts<'_>| http(false)(drafts);
        assert_eq!(timeout(&only_http), Some(Duration::ZERO), "no limit");
        let shared = |drafts: &mut Drafts<'_>| {
            http(false)(drafts);
            offer_tcp(drafts, Protocol::Tcp, "bytes");
        };
        assert_eq!(timeout(&shared), Some(defaults::detection_timeout(&mesh)));
    }

    #[test]
    fn http_that_is_called_by_address_needs_no_inspection() {
        let (got, default) = check(http(true), None);
        assert_eq!((got, default), (chains(&["http all"]), None));
    }

    #[test]
    fn the_older_service_keeps_a_port_that_nothing_tells_apart() {
        let offer = |d: &mut Drafts<'_>| {
            offer_tcp(d, Protocol::Tcp, "old");
            offer_tcp(d, Protocol::Tcp, "young");
            let lost = Displaced {
                service: service_key("shop", "young"),
                port: 9000,
                by: Some(service_key("shop", "old")),
            };
            assert_eq!(d.displaced(), [lost]);
        };
        assert_eq!(check(offer, None), (chains(&["old"]), None));
    }

    #[test]
    fn http_and_bytes_share_a_port_by_sniffing() {
        let offer = |d: &mut Drafts<'_>| {
            offer_tcp(d, Protocol::Tcp, "bytes");
            assert!(offer_http(d, false, "web", &"9000".into()));
            assert_eq!(d.displaced(), []);
        };
        assert_eq!(check(offer, None), (chains(&["http sniffed"]), Some("bytes".to_owned())));
    }

    #[test]
    fn a_server_that_speaks_first_shares_no_port_with_http() {
        let first = |d: &mut Drafts<'_>| {
            offer_tcp(d, Protocol::Mysql, "mysql");
            assert!(!offer_http(d, false, "web", &"9000".into()));
            assert_eq!(d.displaced()[0].service, service_key("shop", "web"));
        };
        assert_eq!(check(first, None), (chains(&["mysql"]), None));
        let second = |d: &mut Drafts<'_>| {
            assert!(offer_http(d, false, "web", &"9000".into()));
            offer_tcp(d, Protocol::Mysql, "mysql");
            assert_eq!(d.displaced()[0].by, Some(service_key("shop", "web")));
        };
        assert_eq!(check(second, None), (chains(&["http all"]), None));
    }

    #[test]
    fn an_sni_belongs_to_the_first_chain_that_names_it() {
        let kept = distinct(vec![
            tcp("a", &["x", "y"]),
            tcp("b", &["y", "z"]),
            tcp("c", &["x"]),
            tcp("d", &[]),
        ]);
        let names: Vec<Vec<&str>> = kept
            .iter()
            .map(|c| c.matches.server_names.iter().map(AsRef::as_ref).collect())
            .collect();
        assert_eq!(names, [vec!["x", "y"], vec!["z"], vec![]]);
    }

    #[test]
    fn a_network_and_an_sni_together_belong_to_the_first_chain_that_names_both() {
        let within = |networks: &[&str], chain: FilterChainPlan| {
            let prefixes = networks.iter().map(|n| n.parse().expect("a network")).collect();
            let matches = ChainMatch { prefixes, ..chain.matches };
            FilterChainPlan { matches, ..chain }
        };
        let kept = distinct(vec![
            within(&["10.0.0.0/8", "192.168.0.0/16"], tcp("a", &["x", "y"])),
            within(&["10.1.0.0/8", "172.16.0.0/12"], tcp("b", &["y", "z"])),
            within(&["172.16.0.0/12"], tcp("c", &["z", "y"])),
            within(&["192.168.0.0/16"], tcp("d", &[])),
        ]);
        let told = kept.iter().map(|c| {
            let networks: Vec<String> =
                c.matches.prefixes.iter().map(ToString::to_string).collect();
            format!("{} for {}", networks.join(" "), c.matches.server_names.join(" "))
        });
        let expected = [
            "10.0.0.0/8 192.168.0.0/16 for x y",
            "172.16.0.0/12 for y",
            "10.1.0.0/8 172.16.0.0/12 for z",
            "192.168.0.0/16 for ",
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
}
