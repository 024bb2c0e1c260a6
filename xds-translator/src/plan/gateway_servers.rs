//! The servers of all gateway objects that select a proxy, merged by the port they listen on.
//!
//! Several objects may speak about one port. The oldest decides what kind of port it is; on a TLS
//! port a host belongs to the first server that names it.

use std::{collections::BTreeMap, collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    DownstreamTls, GatewayKey, SanMatch, SecretRef, TrustRef, defaults::ANY_ADDRESS,
    host_map::HostMap, mtls,
};
use crate::{
    ir::{
        Field, GatewayConfig, GatewayHost, GatewayProtocol, GatewayServer, Hostname, MeshDefaults,
        ObjectId, Pins, RouteTable, ServerTls, ServerTlsMode, TlsVersion,
    },
    snapshot::Reader,
};

/// A server with the object it is from.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) gateway: Arc<GatewayConfig>,
    pub(crate) server: GatewayServer,
    /// On a port with TLS: what other servers name more closely ([`closer_hosts`]).
    pub(crate) closer: HostMap<()>,
}

impl Served {
    pub(crate) fn overruled(&self, by: &Self, contested: Contested) -> Overruled {
        Overruled {
            gateway: self.gateway.origin.id.clone(),
            at: self.server.at.clone(),
            by: by.gateway.origin.id.clone(),
            contested,
        }
    }
}

/// The servers of one listener.
pub(crate) struct PortServers {
    /// Address that the servers ask for.
    pub(crate) bind: Option<IpAddr>,
    /// Port that the proxy listens on.
    pub(crate) port: u16,
    pub(crate) kind: PortKind,
    /// In the order of age; never empty.
    pub(crate) servers: Vec<Served>,
}

/// What a port is for; servers of different kinds cannot share one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PortKind {
    /// Plaintext HTTP.
    Http,
    /// TLS, terminated or passed through, told apart by SNI.
    Tls,
    /// Plain bytes.
    Tcp,
}

impl PortKind {
    fn of(server: &GatewayServer) -> Self {
        match server.protocol {
            GatewayProtocol::Http => Self::Http,
            GatewayProtocol::Https | GatewayProtocol::Tls => Self::Tls,
            GatewayProtocol::Tcp if server.tls.is_some() => Self::Tls,
            GatewayProtocol::Tcp => Self::Tcp,
        }
    }
}

/// What the servers of all gateway objects of a proxy come to.
pub(crate) struct Merged {
    /// By address and port.
    pub(crate) ports: Vec<PortServers>,
    /// What came too late for its port; in the order of age.
    pub(crate) overruled: Vec<Overruled>,
}

/// A server, or one host of it, that the proxy does not serve because another server has its place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Overruled {
    /// The gateway object of the server.
    pub(crate) gateway: ObjectId,
    /// Where the server is written.
    pub(crate) at: Field,
    /// The object that has the place.
    pub(crate) by: ObjectId,
    /// What both ask for.
    pub(crate) contested: Contested,
}

/// What only one of two servers can have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Contested {
    /// A port of the proxy, for another kind of traffic.
    Port(u16),
    /// A host on a port with TLS, where it decides which certificate is shown.
    Host(Hostname),
    /// The connections of a port without TLS, which nothing tells apart.
    Connections(u16),
    /// A host below a wildcard on a port with TLS, which the other names more closely, and guards
    /// otherwise.
    CloserHost(Hostname),
}

/// Merges the servers of every gateway object of a key.
pub(crate) fn merged_servers(reader: &Reader<'_>, key: &GatewayKey) -> Merged {
    let mut ports: BTreeMap<(IpAddr, u16), PortServers> = BTreeMap::new();
    let mut overruled = Vec::new();
    for gateway in key.gateways.iter().filter_map(|id| reader.gateway(id)) {
        for server in &gateway.servers {
            let kind = PortKind::of(server);
            let closer = HostMap::default();
            let served = Served { gateway: gateway.clone(), server: server.clone(), closer };
            for port in listener_ports(key, server.port) {
                // One address may be asked for in several words.
                let address = server.bind.or(key.bind).unwrap_or(ANY_ADDRESS);
                let merged = ports.entry((address, port)).or_insert_with(|| PortServers {
                    bind: server.bind,
                    port,
                    kind,
                    servers: Vec::new(),
                });
                if merged.kind == kind {
                    merged.servers.push(served.clone());
                } else if let Some(first) = merged.servers.first() {
                    overruled.push(served.overruled(first, Contested::Port(port)));
                }
            }
        }
    }
    let mut ports: Vec<PortServers> = ports.into_values().collect();
    for port in ports.iter_mut().filter(|p| p.kind == PortKind::Tls) {
        keep_first_host(&mut port.servers, &mut overruled);
        keep_closest_host(&mut port.servers, &mut overruled);
    }
    ports.retain(|port| !port.servers.is_empty());
    Merged { ports, overruled }
}

/// The Services in front of the proxy say where a server's port arrives; without one it arrives as
/// it is.
pub(crate) fn listener_ports(key: &GatewayKey, server_port: u16) -> Vec<u16> {
    let mapped: BTreeSet<u16> =
        key.ports.iter().filter(|(from, _)| *from == server_port).map(|(_, to)| *to).collect();
    if mapped.is_empty() { vec![server_port] } else { mapped.into_iter().collect() }
}

/// Takes hosts from the servers that are not the first to name them, and servers without hosts
/// away.
fn keep_first_host(servers: &mut Vec<Served>, overruled: &mut Vec<Overruled>) {
    let mut owners: BTreeMap<Hostname, usize> = BTreeMap::new();
    for number in 0..servers.len() {
        let (former, served) = servers.split_at_mut(number);
        let mut hosts = std::mem::take(&mut served[0].server.hosts);
        hosts.retain(|host| {
            let owner = *owners.entry(host.host.clone()).or_insert(number);
            if let Some(first) = former.get(owner) {
                let contested = Contested::Host(host.host.clone());
                overruled.push(served[0].overruled(first, contested));
            }
            owner == number
        });
        served[0].server.hosts = hosts;
    }
    servers.retain(|served| !served.server.hosts.is_empty());
}

/// Takes from wildcards what other servers name more closely.
fn keep_closest_host(servers: &mut [Served], overruled: &mut Vec<Overruled>) {
    let mut owners: HostMap<usize> = HostMap::default();
    let mut named: Vec<(Hostname, usize)> = Vec::new();
    for (number, served) in servers.iter().enumerate() {
        named.extend(served.server.hosts.iter().map(|host| (host.host.clone(), number)));
    }
    named.iter().for_each(|(host, number)| owners.insert(host.clone(), *number));
    let guards: Vec<_> = servers.iter().map(|served| guards(&served.server)).collect();
    for (host, number) in named {
        let wider: BTreeSet<usize> = owners.containing(&host).map(|(_, wider)| *wider).collect();
        for wider in wider.into_iter().filter(|wider| *wider != number) {
            if guards[wider] != guards[number] {
                let contested = Contested::CloserHost(host.clone());
                overruled.push(servers[wider].overruled(&servers[number], contested));
            }
            servers[wider].closer.insert(host.clone(), ());
        }
    }
}

/// What decides which clients a server lets in; certificates of its own are none of it.
type Guards = (ServerTlsMode, Option<TrustRef>, Vec<Arc<str>>, Pins, [Option<TlsVersion>; 2]);

fn guards(server: &GatewayServer) -> Option<Guards> {
    let tls = server.tls.as_ref()?;
    let asks = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    let trust = asks.then(|| client_trust(tls));
    let versions = [tls.min_version, tls.max_version];
    Some((tls.mode, trust, tls.subject_alt_names.clone(), tls.pins.clone(), versions))
}

/// Hosts of other servers of a port with TLS that lie below wildcards of a server. Clients that name
/// them get the other servers, so that they must not be served over connections to this one.
pub(crate) fn closer_hosts<'a>(
    server: &GatewayServer,
    others: impl IntoIterator<Item = &'a GatewayServer>,
) -> HostMap<()> {
    let hosts = others.into_iter().flat_map(|other| &other.hosts).map(|other| &other.host);
    let below = |host: &&Hostname| server.hosts.iter().any(|own| own.host.contains(host));
    hosts.filter(below).cloned().collect()
}

/// Whether a connection for `name` is one for the host `own` of a server: it lies below it, and
/// below none that other servers name more closely.
fn owns(own: &Hostname, name: &Hostname, closer: &HostMap<()>) -> bool {
    own.contains(name) && !closer.containing(name).any(|(closer, ())| own.contains(closer))
}

impl Served {
    /// Whether a connection for `name` is for the server.
    pub(crate) fn owns(&self, name: &Hostname) -> bool {
        self.server.hosts.iter().any(|own| owns(&own.host, name, &self.closer))
    }
}

/// The hosts for which a table may serve a server: the narrower of each overlapping pair whose
/// namespace fits, without those that other servers of the port name more closely (`closer`).
pub(crate) fn bound_hosts(
    server: &GatewayServer,
    closer: &HostMap<()>,
    table: &RouteTable,
) -> BTreeSet<Hostname> {
    let pairs = server.hosts.iter().flat_map(|own| table.hosts.iter().map(move |host| (own, host)));
    pairs
        .filter_map(|(own, host)| {
            let narrower = narrower(own, host, &table.origin.id.namespace)?;
            owns(&own.host, &narrower, closer).then_some(narrower)
        })
        .collect()
}

fn narrower(own: &GatewayHost, host: &Hostname, namespace: &Arc<str>) -> Option<Hostname> {
    if own.namespace.as_ref().is_some_and(|n| n != namespace) {
        None
    } else if own.host.contains(host) {
        Some(host.clone())
    } else {
        host.contains(&own.host).then(|| own.host.clone())
    }
}

/// SNI names of a server, by filter chain: those that it gives, and none for any name.
pub(crate) fn server_names(server: &GatewayServer) -> Vec<Vec<Arc<str>>> {
    let hosts: BTreeSet<&Hostname> = server.hosts.iter().map(|h| &h.host).collect();
    let (any, named): (Vec<_>, Vec<_>) = hosts.into_iter().partition(|host| host.as_str() == "*");
    let named: Vec<Arc<str>> = named.into_iter().map(Hostname::shared).collect();
    let named = (!named.is_empty()).then_some(named);
    named.into_iter().chain((!any.is_empty()).then(Vec::new)).collect()
}

/// The TLS context of a server that terminates TLS; `None`: it names no certificate, so it can
/// serve nobody.
pub(crate) fn server_context(
    mesh: &MeshDefaults,
    tls: &ServerTls,
    alpn: &[&str],
) -> Option<DownstreamTls> {
    let (trust, require_client) = match tls.mode {
        ServerTlsMode::Simple => (None, false),
        ServerTlsMode::Mutual => (Some(client_trust(tls)), true),
        ServerTlsMode::OptionalMutual => (Some(client_trust(tls)), false),
        ServerTlsMode::MeshMutual => return Some(mesh_context(mesh, tls, alpn)),
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => return None,
    };
    let certificates = certificates(tls);
    (!certificates.is_empty()).then(|| DownstreamTls {
        certificates,
        trust,
        require_client,
        sans: tls.subject_alt_names.iter().cloned().map(SanMatch::Exact).collect(),
        pins: tls.pins.clone(),
        alpn: mtls::texts(alpn),
        min_version: tls.min_version,
        max_version: tls.max_version,
        words: tls.words.or(&mesh.tls),
    })
}

fn mesh_context(mesh: &MeshDefaults, tls: &ServerTls, alpn: &[&str]) -> DownstreamTls {
    let own = mtls::mesh_server(mesh, alpn);
    let named: Vec<SanMatch> = tls.subject_alt_names.iter().cloned().map(SanMatch::Exact).collect();
    DownstreamTls {
        sans: if named.is_empty() { own.sans } else { named },
        min_version: tls.min_version.or(own.min_version),
        max_version: tls.max_version.or(own.max_version),
        words: tls.words.or(&own.words),
        pins: tls.pins.clone(),
        ..own
    }
}

fn certificates(tls: &ServerTls) -> Vec<SecretRef> {
    if !tls.credentials.is_empty() {
        return tls.credentials.iter().cloned().map(SecretRef::Credential).collect();
    }
    let pair = |(chain, key): &(Arc<str>, Arc<str>)| SecretRef::Files(chain.clone(), key.clone());
    tls.files.iter().map(pair).collect()
}

/// Who signs clients' certificates. Without anything named it is the credential itself, which must
/// then carry a CA: a server that asks for certificates must never accept all of them.
fn client_trust(tls: &ServerTls) -> TrustRef {
    let named =
        tls.ca_credential.as_ref().or(tls.credentials.first().filter(|_| tls.ca_file.is_empty()));
    match named {
        Some(name) => TrustRef::Credential(name.clone()),
        None => TrustRef::Files { roots: tls.ca_file.clone(), revoked: tls.crl_file.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dialect::Kind, ir::Selector, plan::fixture::origin};

    fn served(host: &str, protocol: GatewayProtocol) -> Served {
        let server = GatewayServer {
            at: host.into(),
            port: 443,
            port_name: host.into(),
            protocol,
            bind: None,
            hosts: vec![GatewayHost { namespace: None, host: host.into() }],
            https_redirect: false,
            tls: None,
        };
        let origin = origin(Kind::GATEWAY, "edge", host);
        let gateway = GatewayConfig { origin, selector: Selector::default(), servers: Vec::new() };
        Served { gateway: gateway.into(), server, closer: HostMap::default() }
    }

    /// So many that nobody waits for a comparison of each with each.
    #[test]
    fn of_very_many_servers_each_keeps_what_it_is_first_and_closest_to() {
        const MANY: usize = 50_000;
        let host = |number: usize| format!("h{number}.d{}.test", number % 100);
        let named = (0..MANY).map(|number| served(&host(number), GatewayProtocol::Tls));
        let again = (0..MANY).map(|number| served(&host(number), GatewayProtocol::Https));
        let wide = ["*", "*.d7.test"].map(|host| served(host, GatewayProtocol::Tls));
        let mut servers: Vec<Served> = named.chain(again).chain(wide).collect();
        let mut overruled = Vec::new();
        keep_first_host(&mut servers, &mut overruled);
        assert_eq!((servers.len(), overruled.len()), (MANY + 2, MANY));
        keep_closest_host(&mut servers, &mut overruled);
        let [.., all, some] = &servers[..] else { panic!("servers") };
        assert_eq!(all.closer.hosts().count(), MANY + 1);
        assert_eq!(some.closer.hosts().count(), MANY / 100);
        assert!(servers[..MANY].iter().all(|served| served.closer.hosts().next().is_none()));
        assert_eq!(overruled.len(), MANY, "all of them let everybody in");
        let name = |text: &str| Hostname::new(text);
        for number in 0..MANY {
            assert!(!all.owns(&name(&host(number))), "{number}");
        }
        assert!(all.owns(&name("b.test")) && !all.owns(&name("x.d7.test")));
        assert!(some.owns(&name("x.d7.test")) && !some.owns(&name("h7.d7.test")));
    }
}
