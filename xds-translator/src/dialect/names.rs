//! Names in objects: hosts, namespaces, localities, addresses.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::lowering::Lowering;
use crate::ir::{
    Distribution, Hostname, Labels, Locality, MeshTls, Protocol, StringMatch, Visibility,
    WorkloadId, topology,
};

/// The annotation that says which endpoints are preferred: of a Service, a ServiceEntry, or of all
/// those of a namespace that say nothing.
pub(super) const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// Which endpoints a word prefers, whatever its case; `None`: it is no such word.
pub(super) fn preferred(word: &str) -> Option<Distribution> {
    match &*word.to_ascii_lowercase() {
        "preferclose" | "prefersamezone" => Some(Distribution::SameZone),
        "prefersamenode" => Some(Distribution::SameNode),
        _ => None,
    }
}

/// Which endpoints annotations prefer; `None`: none.
pub(crate) fn distribution_of(annotations: &Labels) -> Option<Distribution> {
    annotations.get(DISTRIBUTION).and_then(|word| preferred(word))
}

/// Whether a workload's sidecar takes mutual TLS: `istio` or `disabled`.
const TLS_MODE: &str = "security.istio.io/tlsMode";

impl Lowering<'_> {
    /// The full name of a host: a short one is completed with the object's namespace.
    pub(super) fn host(&self, name: &str) -> Hostname {
        match name.contains(['.', '*']) {
            true => Hostname::new(name),
            false => {
                Hostname::new(&format!("{name}.{}.svc.{}", self.namespace(), self.mesh.domain))
            }
        }
    }

    /// `exportTo`: `.` is the object's namespace, `*` everybody, `~` nobody; nothing said: the
    /// mesh's default.
    pub(super) fn visibility(
        &self,
        export_to: &[Arc<str>],
        default: Option<&Visibility>,
    ) -> Visibility {
        match (export_to, default) {
            ([], None | Some(Visibility::Public)) => Visibility::Public,
            ([], Some(Visibility::Namespaces(names))) => self.namespaces(names.iter()),
            (names, _) if names.iter().any(|n| &**n == "*") => Visibility::Public,
            (names, _) => self.namespaces(names.iter()),
        }
    }

    fn namespaces<'n>(&self, names: impl Iterator<Item = &'n Arc<str>>) -> Visibility {
        let real = names.filter(|n| &***n != "~");
        Visibility::Namespaces(
            real.map(|n| if &**n == "." { self.namespace().clone() } else { n.clone() }).collect(),
        )
    }

    /// The workload that the object describes.
    pub(super) fn workload_id(&self) -> WorkloadId {
        WorkloadId { namespace: self.namespace().clone(), name: self.id.name.clone() }
    }
}

/// An address or a network, without the bits beyond its prefix; an address alone is a network of
/// one. What is written as IPv6 and stands for IPv4 (RFC 4291 section 2.5.5.2) is IPv4: no peer
/// comes from the other form.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let net = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?
        .trunc();
    Some(mapped(net).unwrap_or(net))
}

/// The network of IPv4 that one of IPv6 stands for.
fn mapped(net: IpNet) -> Option<IpNet> {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(v6) = net else { return None };
    let address = v6.addr().to_ipv4_mapped()?;
    IpNet::new(address.into(), v6.prefix_len().checked_sub(MAPPED_BITS)?).ok()
}

/// `region/zone/sub-zone`, each part optional.
pub(super) fn locality(text: &str) -> Locality {
    let mut parts = text.splitn(3, '/').map(Arc::from);
    let mut next = || parts.next().unwrap_or_else(|| "".into());
    Locality { region: next(), zone: next(), sub_zone: next() }
}

/// The locality in a workload's labels: Istio's own labels, else Kubernetes' topology labels.
pub(crate) fn locality_of(labels: &Labels) -> Locality {
    let label = |name: &str| labels.get(name).cloned().unwrap_or_else(|| "".into());
    match topology::LOCALITY.iter().find_map(|key| labels.get(*key)) {
        // Labels cannot hold slashes, so that dots stand for them.
        Some(text) if text.contains('/') => locality(text),
        Some(text) => locality(&text.replace('.', "/")),
        None => Locality {
            region: label(topology::REGION),
            zone: label(topology::ZONE),
            sub_zone: label(topology::SUB_ZONE),
        },
    }
}

/// A protocol by its name, without case; `None` for names that stand for none.
pub(super) fn protocol(name: &str) -> Option<Protocol> {
    Some(match name.to_ascii_lowercase().as_str() {
        "http" | "http_proxy" => Protocol::Http,
        "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "grpc-web" => Protocol::GrpcWeb,
        "https" => Protocol::Https,
        "tls" => Protocol::Tls,
        "tcp" => Protocol::Tcp,
        "mongo" => Protocol::Mongo,
        "redis" => Protocol::Redis,
        "mysql" => Protocol::Mysql,
        _ => return None,
    })
}

/// A text with `*` at one end, as policies write conditions; `*` alone asks only that something is
/// there.
pub(super) fn wildcard(text: &str) -> StringMatch {
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(""), _) => StringMatch::Present,
        (Some(suffix), _) => StringMatch::Suffix(suffix.into()),
        (None, Some(prefix)) => StringMatch::Prefix(prefix.into()),
        (None, None) => StringMatch::Exact(text.into()),
    }
}

/// Whether an entry takes mutual TLS: as its label says, else when it has an account.
pub(super) fn takes_mesh_tls(labels: &Labels, service_account: &str) -> MeshTls {
    let usual = if service_account.is_empty() { MeshTls::Never } else { MeshTls::Always };
    labelled_tls(labels).unwrap_or(usual)
}

/// What the label of a workload says of mutual TLS; `None`: nothing.
pub(super) fn labelled_tls(labels: &Labels) -> Option<MeshTls> {
    let mode = labels.get(TLS_MODE)?;
    Some(if &**mode == "istio" { MeshTls::Always } else { MeshTls::Never })
}

#[cfg(test)]
mod tests {
    use super::network;

    #[test]
    fn a_mapped_network_is_one_of_ipv4() {
        let table = [
            ("::ffff:1.2.3.4", "1.2.3.4/32"),
            ("::ffff:10.1.0.0/112", "10.1.0.0/16"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
            ("::1.2.3.4", "::102:304/128"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("fd00::1", "fd00::1/128"),
        ];
        for (text, expected) in table {
            assert_eq!(network(text).map(|net| net.to_string()).as_deref(), Some(expected));
        }
    }
}
