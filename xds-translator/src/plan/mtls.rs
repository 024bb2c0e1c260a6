//! The mesh's own mutual TLS: client contexts, server contexts, ALPN lists (ARCHITECTURE.md).
//!
//! A TLS connection between sidecars says by its ALPN list what it carries; a server picks its
//! filter chain by the list that the client offers, and never negotiates an `istio-http` name,
//! because Envoy would then force HTTP/1.

use std::sync::Arc;

use ferromesh_proto::TrustDomain;

use super::{
    DownstreamTls, MeshAlpn, SanMatch, SecretRef, Traffic, TrustRef, UpstreamProtocol, UpstreamTls,
    UpstreamTransport, naming,
};
use crate::{
    ir::{
        ClientTls, MeshDefaults, PeerTls, Pins, Protocol, Selector, Service, ServicePort,
        TargetPort, TlsMaterial, TlsVersion, TlsWords,
    },
    plan::{ClusterClient, ClusterKey},
    snapshot::Reader,
};

/// ALPN names of HTTP over mutual TLS.
pub(crate) const HTTP_ALPN: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// ALPN names of other bytes over mutual TLS.
pub(crate) const TCP_ALPN: [&str; 2] = ["istio-peer-exchange", "istio"];
/// Every ALPN name of mutual TLS, in Istio's order.
pub(crate) const MESH_ALPN: [&str; 5] =
    ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

pub(crate) fn texts(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|&text| text.into()).collect()
}

/// What an upstream TLS connection is for.
pub(crate) struct Backend<'a> {
    pub(crate) service: &'a Service,
    pub(crate) port: &'a ServicePort,
    /// The HTTP version that the cluster speaks.
    pub(crate) http: UpstreamProtocol,
    /// Whether endpoints carry metadata that says which of them take mutual TLS.
    pub(crate) listed: bool,
    /// Whether the client may use credentials by name.
    pub(crate) credentials: bool,
}

/// TLS towards a backend: what the user says, else the mesh's own where the endpoint takes it.
pub(crate) fn upstream_transport(
    reader: &Reader<'_>,
    key: &ClusterKey,
    backend: &Backend<'_>,
    traffic: &Traffic,
) -> UpstreamTransport {
    match &traffic.tls {
        _ if key.client == ClusterClient::Relay => UpstreamTransport::Plain,
        Some(ClientTls::Disable) => UpstreamTransport::Plain,
        Some(ClientTls::Mesh { sni, subject_alt_names }) => {
            let mut tls = mesh_client(reader, key, backend);
            if !sni.is_empty() {
                tls.sni = sni.clone();
            }
            if !subject_alt_names.is_empty() {
                tls.sans = exact(subject_alt_names);
            }
            UpstreamTransport::Tls(tls)
        }
        Some(ClientTls::Simple(material)) => {
            UpstreamTransport::Tls(user_client(reader.mesh(), backend, material, false))
        }
        Some(ClientTls::Mutual(material)) => {
            UpstreamTransport::Tls(user_client(reader.mesh(), backend, material, true))
        }
        None => automatic(reader, key, backend),
    }
}

fn automatic(reader: &Reader<'_>, key: &ClusterKey, backend: &Backend<'_>) -> UpstreamTransport {
    if backend.service.external || !reader.mesh().auto_mtls {
        return UpstreamTransport::Plain;
    }
    if backend.listed {
        return UpstreamTransport::PerEndpoint(mesh_client(reader, key, backend));
    }
    // Without listed endpoints nothing says which of them take mutual TLS: all of them, or
    // plaintext.
    if takes_mesh_tls_everywhere(reader, backend.service, &backend.port.target) {
        UpstreamTransport::Tls(mesh_client(reader, key, backend))
    } else {
        UpstreamTransport::Plain
    }
}

fn takes_mesh_tls_everywhere(reader: &Reader<'_>, service: &Service, target: &TargetPort) -> bool {
    if service.selector.is_none() || reader.has_plaintext_endpoint(&service.key) {
        return false;
    }
    let labels = service.selector.as_ref().map(Selector::sample).unwrap_or_default();
    let port = match target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(_) => None,
    };
    reader.peer_tls(&service.key.namespace, &labels, port) != PeerTls::Disable
}

fn mesh_client(reader: &Reader<'_>, key: &ClusterKey, backend: &Backend<'_>) -> UpstreamTls {
    let mesh = reader.mesh();
    let mut sans: Vec<Arc<str>> = reader.identities(&key.service).to_vec();
    sans.extend(backend.service.subject_alt_names.iter().cloned());
    let mut sans: Vec<Arc<str>> = sans.iter().flat_map(|san| with_aliases(mesh, san)).collect();
    sans.sort();
    sans.dedup();
    UpstreamTls {
        certificate: Some(SecretRef::Workload),
        trust: Some(TrustRef::Mesh),
        sans: exact(&sans),
        sni: naming::mesh_sni(backend.port.number, &key.subset, backend.service.key.host.as_str()),
        alpn: static_alpn(backend.port.protocol, backend.http),
        auto_sni: false,
        words: TlsWords::default(),
    }
}

/// A SPIFFE id of the mesh's trust domain also under its former names, so that a migration breaks
/// nothing.
fn with_aliases(mesh: &MeshDefaults, san: &Arc<str>) -> Vec<Arc<str>> {
    let mut all = vec![san.clone()];
    let rest =
        san.strip_prefix("spiffe://").and_then(|id| id.strip_prefix(mesh.trust_domain.as_str()));
    if let Some(path) = rest.filter(|path| path.starts_with('/')) {
        all.extend(
            mesh.trust_domain_aliases.iter().map(|alias| format!("spiffe://{alias}{path}").into()),
        );
    }
    all
}

/// The list a cluster offers by itself; HTTP requests override it by [`mesh_alpn`], mirrored ones
/// cannot.
fn static_alpn(protocol: Protocol, http: UpstreamProtocol) -> Vec<Arc<str>> {
    match http {
        UpstreamProtocol::Http2 => texts(&["istio-h2", "istio", "h2"]),
        _ if protocol.is_http() => texts(&["istio-http/1.1", "istio"]),
        _ => texts(&["istio"]),
    }
}

/// The lists that HTTP requests offer; `None` where no mutual TLS of the mesh is used, or no HTTP.
pub(crate) fn mesh_alpn(
    transport: &UpstreamTransport,
    protocol: Protocol,
    http: UpstreamProtocol,
) -> Option<MeshAlpn> {
    let (UpstreamTransport::Tls(tls) | UpstreamTransport::PerEndpoint(tls)) = transport else {
        return None;
    };
    let speaks_http =
        protocol.is_http() || protocol == Protocol::Auto || http == UpstreamProtocol::Http2;
    if tls.certificate != Some(SecretRef::Workload) || !speaks_http {
        return None;
    }
    let (h1, h2): (Arc<str>, Arc<str>) =
        ("istio-http/1.1,istio,http/1.1".into(), "istio-h2,istio,h2".into());
    match http {
        UpstreamProtocol::Http2 => Some(MeshAlpn { h1: h2.clone(), h2 }),
        // A cluster that always speaks HTTP/1.1 must not negotiate HTTP/2, whatever the request
        // came in as.
        UpstreamProtocol::Http1 | UpstreamProtocol::ExplicitHttp1 => {
            Some(MeshAlpn { h1: h1.clone(), h2: h1 })
        }
        UpstreamProtocol::Downstream => Some(MeshAlpn { h1, h2 }),
    }
}

fn user_client(
    mesh: &MeshDefaults,
    backend: &Backend<'_>,
    material: &TlsMaterial,
    mutual: bool,
) -> UpstreamTls {
    let credential = (!material.credential.is_empty() && backend.credentials)
        .then(|| material.credential.clone());
    UpstreamTls {
        certificate: mutual.then(|| client_certificate(material, credential.clone())),
        trust: (!material.skip_verify).then(|| server_trust(material, credential)),
        sans: exact(expected_names(backend.service, material)),
        sni: material.sni.clone(),
        alpn: if backend.http == UpstreamProtocol::Http2 { texts(&["h2"]) } else { Vec::new() },
        auto_sni: material.sni.is_empty(),
        words: mesh.tls.clone(),
    }
}

/// The names that the server's certificate may carry: the policy's, else the service's. Empty, and
/// no SNI given: the request's host, since a certificate of just anybody proves nothing. A given
/// SNI only picks the certificate: as in Istio, it is no name that the certificate must carry.
fn expected_names<'a>(service: &'a Service, material: &'a TlsMaterial) -> &'a [Arc<str>] {
    match (&*material.subject_alt_names, material.skip_verify) {
        (_, true) => &[],
        ([], false) => &service.subject_alt_names,
        (names, false) => names,
    }
}

fn client_certificate(material: &TlsMaterial, credential: Option<Arc<str>>) -> SecretRef {
    match credential {
        Some(name) => SecretRef::Credential(name),
        None => SecretRef::Files(material.certificate_file.clone(), material.key_file.clone()),
    }
}

fn server_trust(material: &TlsMaterial, credential: Option<Arc<str>>) -> TrustRef {
    match credential {
        Some(name) => TrustRef::Credential(name),
        None => {
            TrustRef::Files { roots: material.ca_file.clone(), revoked: material.crl_file.clone() }
        }
    }
}

fn exact(names: &[Arc<str>]) -> Vec<SanMatch> {
    names.iter().cloned().map(SanMatch::Exact).collect()
}

/// Whether the client may name credentials: gateways, and sidecars that a policy selects.
pub(crate) fn may_use_credentials(client: ClusterClient, selected: bool) -> bool {
    client == ClusterClient::Gateway || selected
}

/// Server-side mutual TLS of a workload: any identity of the mesh's trust domains.
pub(crate) fn mesh_server(mesh: &MeshDefaults, alpn: &[&str]) -> DownstreamTls {
    let aliases = mesh.trust_domain_aliases.iter().map(|alias| format!("spiffe://{alias}/").into());
    let own = trust_domain_prefix(&mesh.trust_domain);
    DownstreamTls {
        certificates: vec![SecretRef::Workload],
        trust: Some(TrustRef::Mesh),
        require_client: true,
        sans: std::iter::once(own).chain(aliases).map(SanMatch::Prefix).collect(),
        pins: Pins::default(),
        alpn: texts(alpn),
        min_version: Some(mesh.mesh_tls_min),
        max_version: Some(TlsVersion::V1_3),
        words: TlsWords { suites: mesh.mesh_tls_suites.clone(), curves: Vec::new() },
    }
}

fn trust_domain_prefix(trust_domain: &TrustDomain) -> Arc<str> {
    format!("spiffe://{trust_domain}/").into()
}
