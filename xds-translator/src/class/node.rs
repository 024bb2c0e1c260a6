//! What a proxy says of itself when it connects: node id and metadata, in Istio's form.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ferromesh_proto::{
    SpiffeId, discovery,
    stats::{METRICS_BY_AGENT, METRICS_BY_PROXY, METRICS_MAKER},
};
use prost_types::{Struct, Value, value::Kind};

use crate::{
    ir::{Labels, Locality, WorkloadId},
    plan::{CaptureMode, MetricsMaker},
};

/// Who a proxy is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeIdentity {
    /// What kind of proxy.
    pub kind: NodeKind,
    /// Its address.
    pub address: IpAddr,
    /// Namespace and name it gives itself; the namespace is the proven one where an identity is
    /// proven.
    pub workload: WorkloadId,
    /// What its metadata says.
    pub facts: NodeFacts,
    /// The identity that its credentials proved; `None` on the plaintext port, where the node is
    /// believed.
    pub proven: Option<SpiffeId>,
}

/// The kinds of proxies that are served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NodeKind {
    /// Beside an application.
    Sidecar,
    /// At the edge of the mesh.
    Router,
}

impl NodeKind {
    /// The word that begins its node ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

/// What a node's metadata says, as far as it is acted on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeFacts {
    /// `LABELS`; believed only without a proven identity.
    pub labels: Labels,
    /// `SERVICE_ACCOUNT`; believed only without a proven identity.
    pub service_account: Arc<str>,
    /// `INTERCEPTION_MODE` and the addresses of mode NONE.
    pub capture: CaptureMode,
    /// `FERROMESH_METRICS`: who makes its metrics.
    pub metrics: MetricsMaker,
    /// `DNS_CAPTURE`.
    pub captures_dns: bool,
    /// `HTTP_PROXY_PORT`.
    pub http_proxy_port: Option<u16>,
    /// `node.locality`, for workloads whose locality the registry does not know.
    pub locality: Locality,
    /// `CLUSTER_ID`; may be empty.
    pub cluster_id: Arc<str>,
    /// `AUTO_REGISTER_GROUP`: the group that its machine wants to be of.
    pub group: Option<Arc<str>>,
    /// Every text at the top of it, which conditions of patches ask about.
    pub metadata: BTreeMap<Arc<str>, Arc<str>>,
}

/// Why a proxy gets nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The node id is not of Istio's form.
    #[error("bad node id {got:?}: expected TYPE~IP~NAME.NAMESPACE~DOMAIN")]
    NodeId {
        /// What was given.
        got: String,
    },
    /// A kind of proxy that is not served.
    #[error("proxies of type {got:?} are not served: expected sidecar or router")]
    Kind {
        /// What was given.
        got: String,
    },
    /// Neither the id nor the metadata holds an address.
    #[error("node {id:?} names no IP address, neither in its id nor in INSTANCE_IPS")]
    Address {
        /// The node id.
        id: String,
    },
    /// The node claims another namespace or account than it proved.
    #[error("the node claims {what} {claimed:?}, but proved to be {proven}")]
    Claim {
        /// `namespace` or `service account`.
        what: &'static str,
        /// What it claims.
        claimed: String,
        /// What it proved.
        proven: SpiffeId,
    },
    /// The workload of that name belongs to another account.
    #[error(
        "workload {workload:?} runs as service account {account:?}, but the proxy proved to be {proven}"
    )]
    Account {
        /// The workload.
        workload: String,
        /// Its account in the registry.
        account: String,
        /// What the proxy proved.
        proven: SpiffeId,
    },
    /// A metadata field cannot be read.
    #[error("node metadata {field}: expected {expected}, got {got:?}")]
    Metadata {
        /// The field.
        field: &'static str,
        /// What is expected.
        expected: &'static str,
        /// What was given.
        got: String,
    },
}

impl NodeIdentity {
    /// Reads a node, and holds what it claims against what it proved.
    ///
    /// # Errors
    /// A [`Refusal`] that names the field and what was expected.
    pub fn parse(node: &discovery::Node, proven: Option<SpiffeId>) -> Result<Self, Refusal> {
        let parts: Vec<&str> = node.id.split('~').collect();
        let malformed = || Refusal::NodeId { got: node.id.clone() };
        let &[kind, ip, name, _domain] = &parts[..] else { return Err(malformed()) };
        let kind = match kind {
            "sidecar" => NodeKind::Sidecar,
            "router" => NodeKind::Router,
            other => return Err(Refusal::Kind { got: other.to_owned() }),
        };
        let (name, namespace) = name.rsplit_once('.').ok_or_else(malformed)?;
        if name.is_empty() || namespace.is_empty() {
            return Err(malformed());
        }
        let metadata = Metadata(node.metadata.as_ref());
        check_claims(namespace, &metadata, proven.as_ref())?;
        Ok(Self {
            kind,
            address: address(ip, &metadata)
                .ok_or_else(|| Refusal::Address { id: node.id.clone() })?,
            workload: WorkloadId { namespace: namespace.into(), name: name.into() },
            facts: NodeFacts::read(&metadata, node.locality.as_ref())?,
            proven,
        })
    }
}

fn check_claims(
    namespace: &str,
    metadata: &Metadata<'_>,
    proven: Option<&SpiffeId>,
) -> Result<(), Refusal> {
    let Some(proven) = proven else { return Ok(()) };
    let claims = [
        ("namespace", namespace, proven.namespace()),
        ("namespace", metadata.text("NAMESPACE").unwrap_or(namespace), proven.namespace()),
        (
            "service account",
            metadata.text("SERVICE_ACCOUNT").unwrap_or(proven.service_account()),
            proven.service_account(),
        ),
    ];
    match claims.into_iter().find(|(_, claimed, proven)| claimed != proven) {
        Some((what, claimed, _)) => {
            Err(Refusal::Claim { what, claimed: claimed.to_owned(), proven: proven.clone() })
        }
        None => Ok(()),
    }
}

fn address(in_id: &str, metadata: &Metadata<'_>) -> Option<IpAddr> {
    let listed = metadata.text("INSTANCE_IPS").unwrap_or_default();
    std::iter::once(in_id).chain(listed.split(',')).find_map(|ip| ip.trim().parse().ok())
}

impl NodeFacts {
    fn read(
        metadata: &Metadata<'_>,
        locality: Option<&discovery::Locality>,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            labels: metadata.labels(),
            service_account: metadata.text("SERVICE_ACCOUNT").unwrap_or_default().into(),
            capture: capture(metadata)?,
            metrics: match metadata.text(METRICS_MAKER) {
                Some(METRICS_BY_PROXY) => MetricsMaker::Proxy,
                Some(METRICS_BY_AGENT) => MetricsMaker::Agent,
                _ => MetricsMaker::Nobody,
            },
            captures_dns: metadata.text("DNS_CAPTURE") == Some("true"),
            http_proxy_port: metadata
                .parsed("HTTP_PROXY_PORT", "a port")?
                .filter(|port| *port != 0),
            locality: locality.map(read_locality).unwrap_or_default(),
            cluster_id: metadata.text("CLUSTER_ID").unwrap_or_default().into(),
            group: metadata
                .text("AUTO_REGISTER_GROUP")
                .filter(|name| !name.is_empty())
                .map(Into::into),
            metadata: metadata.texts(),
        })
    }
}

fn capture(metadata: &Metadata<'_>) -> Result<CaptureMode, Refusal> {
    match metadata.text("INTERCEPTION_MODE") {
        Some("NONE") => Ok(CaptureMode::None {
            outbound: metadata.parsed("FERROMESH_OUTBOUND_ADDRESS", "an IP address")?,
            inbound: metadata.parsed("FERROMESH_INBOUND_ADDRESS", "an IP address")?,
            application: metadata.parsed("FERROMESH_APP_ADDRESS", "an IP address")?,
        }),
        None | Some("" | "REDIRECT" | "TPROXY") => Ok(CaptureMode::Redirect),
        Some(other) => Err(Refusal::Metadata {
            field: "INTERCEPTION_MODE",
            expected: "REDIRECT, TPROXY or NONE",
            got: other.to_owned(),
        }),
    }
}

fn read_locality(locality: &discovery::Locality) -> Locality {
    Locality {
        region: locality.region.as_str().into(),
        zone: locality.zone.as_str().into(),
        sub_zone: locality.sub_zone.as_str().into(),
    }
}

/// Metadata as a node sends it.
struct Metadata<'a>(Option<&'a Struct>);

impl<'a> Metadata<'a> {
    fn value(&self, field: &str) -> Option<&'a Kind> {
        self.0?.fields.get(field)?.kind.as_ref()
    }

    fn text(&self, field: &str) -> Option<&'a str> {
        match self.value(field)? {
            Kind::StringValue(text) => Some(text),
            _ => None,
        }
    }

    fn texts(&self) -> BTreeMap<Arc<str>, Arc<str>> {
        let fields = self.0.into_iter().flat_map(|metadata| metadata.fields.keys());
        fields.filter_map(|key| Some((key.as_str().into(), self.text(key)?.into()))).collect()
    }

    fn parsed<T: std::str::FromStr>(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, Refusal> {
        match self.text(field).filter(|t| !t.is_empty()) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(Refusal::Metadata { field, expected, got: text.to_owned() }),
            },
        }
    }

    fn labels(&self) -> Labels {
        let Some(Kind::StructValue(labels)) = self.value("LABELS") else { return BTreeMap::new() };
        let text = |value: &'a Value| match &value.kind {
            Some(Kind::StringValue(text)) => Some(text.as_str()),
            _ => None,
        };
        labels
            .fields
            .iter()
            .filter_map(|(key, value)| Some((key.as_str().into(), text(value)?.into())))
            .collect()
    }
}
