//! Names in objects: hosts, namespaces, localities, addresses.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::Lowering;
use crate::{
    dialect::Kind,
    ir::{Attachment, Hostname, Labels, Locality, ObjectId, Protocol, StringMatch, Visibility},
};

impl Lowering<'_> {
    /// The full name of a host: a short one is completed with the object's namespace.
    pub(super) fn host(&self, name: &str) -> Hostname {
        match name.contains(['.', '*']) {
            true => Hostname::new(name),
            false => Hostname::new(&format!("{name}.{}.svc.{}", self.namespace(), self.mesh.domain)),
        }
    }

    /// `exportTo`: `.` is the object's namespace, `*` everybody, `~` nobody; nothing said: the mesh's default.
    pub(super) fn visibility(&self, export_to: &[Arc<str>], default: Option<&Visibility>) -> Visibility {
        match (export_to, default) {
            ([], None | Some(Visibility::Public)) => Visibility::Public,
            ([], Some(Visibility::Namespaces(names))) => self.namespaces(names.iter()),
            (names, _) if names.iter().any(|n| &**n == "*") => Visibility::Public,
            (names, _) => self.namespaces(names.iter()),
        }
    }

    fn namespaces<'n>(&self, names: impl Iterator<Item = &'n Arc<str>>) -> Visibility {
        let real = names.filter(|n| &***n != "~");
        Visibility::Namespaces(real.map(|n| if &**n == "." { self.namespace().clone() } else { n.clone() }).collect())
    }

    /// A VirtualService's gateways; none means the mesh.
    pub(super) fn attachments(&self, gateways: &[Arc<str>]) -> Vec<Attachment> {
        let mut attachments: Vec<_> = gateways.iter().map(|name| self.attachment(name)).collect();
        attachments.sort();
        attachments.dedup();
        attachments
    }

    fn attachment(&self, name: &str) -> Attachment {
        if name == "mesh" {
            return Attachment::Mesh;
        }
        let (namespace, name) = match name.split_once('/') {
            Some((".", name)) => (self.namespace().clone(), name),
            Some((namespace, name)) => (namespace.into(), name),
            None => (self.namespace().clone(), name),
        };
        Attachment::Gateway(ObjectId { kind: Kind::Gateway, namespace, name: name.into() })
    }
}

/// An address or a network, without the bits beyond its prefix; an address alone is a network of one.
pub(super) fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|net| net.trunc()).or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// `region/zone/sub-zone`, each part optional.
pub(super) fn locality(text: &str) -> Locality {
    let mut parts = text.splitn(3, '/').map(Arc::from);
    let mut next = || parts.next().unwrap_or_else(|| "".into());
    Locality { region: next(), zone: next(), sub_zone: next() }
}

/// The locality in a workload's labels: Istio's own label, else Kubernetes' topology labels.
pub(crate) fn locality_of(labels: &Labels) -> Locality {
    let label = |name: &str| labels.get(name).cloned().unwrap_or_else(|| "".into());
    match labels.get("istio-locality") {
        // Labels cannot hold slashes, so that dots stand for them.
        Some(text) if text.contains('/') => locality(text),
        Some(text) => locality(&text.replace('.', "/")),
        None => Locality {
            region: label("topology.kubernetes.io/region"),
            zone: label("topology.kubernetes.io/zone"),
            sub_zone: label("topology.istio.io/subzone"),
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

/// A text with `*` at one end, as policies write conditions; `*` alone asks only that something is there.
pub(super) fn wildcard(text: &str) -> StringMatch {
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(""), _) => StringMatch::Present,
        (Some(suffix), _) => StringMatch::Suffix(suffix.into()),
        (None, Some(prefix)) => StringMatch::Prefix(prefix.into()),
        (None, None) => StringMatch::Exact(text.into()),
    }
}
