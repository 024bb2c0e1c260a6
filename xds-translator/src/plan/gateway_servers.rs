//! The servers of all gateway objects that select a proxy, merged by the port they listen on.
//!
//! Several objects may speak about one port. The oldest decides what kind of port it is; on a TLS port a host belongs
//! to the first server that names it.

use std::{collections::BTreeMap, collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{DownstreamTls, GatewayKey, SanMatch, SecretRef, TrustRef, mtls};
use crate::{
    ir::{
        GatewayConfig, GatewayHost, GatewayProtocol, GatewayServer, Hostname, MeshDefaults, RouteTable, ServerTls,
        ServerTlsMode,
    },
    snapshot::Reader,
};

/// A server with the object it is from.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) gateway: Arc<GatewayConfig>,
    pub(crate) server: GatewayServer,
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

/// Merges the servers of every gateway object of a key; by address and port.
pub(crate) fn merged_servers(reader: &Reader<'_>, key: &GatewayKey) -> Vec<PortServers> {
    let mut ports: BTreeMap<(Option<IpAddr>, u16), PortServers> = BTreeMap::new();
    for gateway in key.gateways.iter().filter_map(|id| reader.gateway(id)) {
        for server in &gateway.servers {
            let kind = PortKind::of(server);
            let bind = server.bind;
            for port in listener_ports(key, server.port) {
                let merged =
                    ports.entry((bind, port)).or_insert_with(|| PortServers { bind, port, kind, servers: Vec::new() });
                if merged.kind == kind {
                    merged.servers.push(Served { gateway: gateway.clone(), server: server.clone() });
                }
            }
        }
    }
    let mut merged: Vec<PortServers> = ports.into_values().collect();
    for port in merged.iter_mut().filter(|p| p.kind == PortKind::Tls) {
        keep_first_host(&mut port.servers);
    }
    merged.retain(|port| !port.servers.is_empty());
    merged
}

/// The Services in front of the proxy say where a server's port arrives; without one it arrives as it is.
fn listener_ports(key: &GatewayKey, server_port: u16) -> Vec<u16> {
    let mapped: BTreeSet<u16> = key.ports.iter().filter(|(from, _)| *from == server_port).map(|(_, to)| *to).collect();
    if mapped.is_empty() { vec![server_port] } else { mapped.into_iter().collect() }
}

fn keep_first_host(servers: &mut Vec<Served>) {
    let mut known: BTreeSet<Hostname> = BTreeSet::new();
    for served in servers.iter_mut() {
        let mut own: BTreeSet<Hostname> = BTreeSet::new();
        served.server.hosts.retain(|h| own.contains(&h.host) || !known.contains(&h.host) && own.insert(h.host.clone()));
        known.append(&mut own);
    }
    servers.retain(|served| !served.server.hosts.is_empty());
}

/// The hosts for which a table may serve a server: the narrower of each overlapping pair whose namespace fits.
pub(crate) fn bound_hosts(server: &GatewayServer, table: &RouteTable) -> BTreeSet<Hostname> {
    let pairs = server.hosts.iter().flat_map(|own| table.hosts.iter().map(move |host| (own, host)));
    pairs.filter_map(|(own, host)| narrower(own, host, &table.origin.id.namespace)).collect()
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

/// SNI names of a server; empty: any.
pub(crate) fn server_names(server: &GatewayServer) -> Vec<Arc<str>> {
    let hosts: BTreeSet<&Hostname> = server.hosts.iter().map(|h| &h.host).collect();
    if hosts.iter().any(|host| host.as_str() == "*") {
        return Vec::new();
    }
    hosts.into_iter().map(|host| host.shared()).collect()
}

/// The TLS context of a server that terminates TLS; `None`: it names no certificate, so it can serve nobody.
pub(crate) fn server_context(mesh: &MeshDefaults, tls: &ServerTls, alpn: &[&str]) -> Option<DownstreamTls> {
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
        alpn: mtls::texts(alpn),
        min_version: tls.min_version,
        max_version: tls.max_version,
        cipher_suites: tls.cipher_suites.clone(),
    })
}

fn mesh_context(mesh: &MeshDefaults, tls: &ServerTls, alpn: &[&str]) -> DownstreamTls {
    let own = mtls::mesh_server(mesh, alpn);
    let named: Vec<SanMatch> = tls.subject_alt_names.iter().cloned().map(SanMatch::Exact).collect();
    DownstreamTls {
        sans: if named.is_empty() { own.sans } else { named },
        min_version: tls.min_version.or(own.min_version),
        max_version: tls.max_version.or(own.max_version),
        cipher_suites: tls.cipher_suites.clone(),
        ..own
    }
}

fn certificates(tls: &ServerTls) -> Vec<SecretRef> {
    if !tls.credentials.is_empty() {
        return tls.credentials.iter().cloned().map(SecretRef::Credential).collect();
    }
    let complete = !tls.certificate_file.is_empty() && !tls.key_file.is_empty();
    complete.then(|| SecretRef::Files(tls.certificate_file.clone(), tls.key_file.clone())).into_iter().collect()
}

/// Who signs clients' certificates. Without anything named it is the credential itself, which must then carry a CA:
/// a server that asks for certificates must never accept all of them.
fn client_trust(tls: &ServerTls) -> TrustRef {
    let named = tls.ca_credential.as_ref().or(tls.credentials.first().filter(|_| tls.ca_file.is_empty()));
    match named {
        Some(name) => TrustRef::Credential(name.clone()),
        None => TrustRef::File(tls.ca_file.clone()),
    }
}
