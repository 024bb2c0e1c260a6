//! Changes that users make to the messages that proxies are sent.
//!
//! A patch is opaque: it says which messages it is about and carries one that was checked to be of
//! the right type. What a message means is not looked at, so that a patch cannot bend any other
//! item.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use ferromesh_proto::ResourceType;
use serde::Serialize;

use super::{Field, GatewayRoutes, Labels, ObjectId, Origin, Selector};

/// The patches that one object gives, for the proxies that it selects.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct PatchSet {
    /// The object.
    pub origin: Origin,
    /// Workloads of its namespace, or of every one if it stands in the root namespace.
    pub selector: Selector,
    /// When it is applied.
    pub stage: PatchStage,
    /// Of one stage, smaller ones are applied earlier.
    pub priority: i32,
    /// In the order in which they are applied.
    pub patches: Vec<Arc<Patch>>,
    /// The Secret of its namespace with which images are pulled that it speaks of.
    pub pull_secret: Option<Arc<str>>,
}

impl PatchSet {
    /// Whether proxies of workloads with these labels get it. `root`: the root namespace.
    pub fn governs(&self, root: &str, namespace: &str, labels: &Labels) -> bool {
        let own = &*self.origin.id.namespace;
        (own == namespace || own == root) && self.selector.matches(labels)
    }

    /// Whether it has a patch for proxies on this side.
    pub fn concerns(&self, side: ProxySide) -> bool {
        self.patches.iter().any(|patch| patch.concerns(side))
    }

    /// The order in which sets are applied to one proxy: by stage, of changes those of the root
    /// namespace first, then by priority, then by age.
    pub fn by_precedence(&self, other: &Self, root: &str) -> Ordering {
        let is_late =
            |set: &Self| set.stage == PatchStage::Change && *set.origin.id.namespace != *root;
        let rank = |set: &Self| (set.stage, is_late(set), set.priority);
        rank(self).cmp(&rank(other)).then_with(|| self.origin.by_age(&other.origin))
    }
}

/// When a set of patches is applied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum PatchStage {
    /// It adds a filter of its own at this place; so that filters of one place stand in the order
    /// of their priorities, whatever others change then.
    Extension(FilterPlace),
    /// It changes what there is.
    Change,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Patch {
    /// The object that it stands in.
    pub origin: ObjectId,
    /// Where it stands there.
    pub at: Field,
    /// Which configuration is meant; `None`: any. A resource that is added for any side is added to
    /// what clients see.
    pub side: Option<ProxySide>,
    /// Which proxies are meant.
    pub proxy: ProxyCondition,
    /// What is changed.
    pub subject: PatchSubject,
    /// How it is changed.
    pub operation: PatchOperation,
    /// What it is changed with; `None` only for [`PatchOperation::Remove`].
    pub message: Option<PatchMessage>,
    /// Whether it decides who passes, so that it must not be lost.
    pub guards: bool,
}

impl Patch {
    /// Whether it is for proxies on this side.
    pub fn concerns(&self, side: ProxySide) -> bool {
        match (self.side, self.subject.resource(), self.operation) {
            // A proxy starts once, whatever its sides are.
            (None, Some(ResourceType::Bootstrap), _) | (None, Some(_), PatchOperation::Add) => {
                side != ProxySide::Inbound
            }
            (own, ..) => own.is_none_or(|own| own == side),
        }
    }
}

/// Conditions on what a proxy says of itself.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct ProxyCondition {
    /// Found in its version; `None`: any.
    pub version: Option<Expression>,
    /// Texts of its metadata; all of them.
    pub metadata: BTreeMap<Arc<str>, Arc<str>>,
}

impl ProxyCondition {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.version.is_none() && self.metadata.is_empty()
    }

    /// Whether a proxy with this metadata is meant. Its version is in there.
    pub fn admits(&self, metadata: &BTreeMap<Arc<str>, Arc<str>>) -> bool {
        let version = || metadata.get(VERSION).map(AsRef::as_ref).unwrap_or_default();
        self.version.as_ref().is_none_or(|asked| asked.0.is_match(version()))
            && self.metadata.iter().all(|(key, value)| metadata.get(key) == Some(value))
    }
}

/// Where proxies say their version.
const VERSION: &str = "ISTIO_VERSION";

/// A regular expression; equal to another of the same text.
#[derive(Clone, Debug)]
pub struct Expression(regex::Regex);

impl Expression {
    /// `None`: not an expression.
    pub fn new(text: &str) -> Option<Self> {
        regex::Regex::new(text).ok().map(Self)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Expression {}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl Serialize for Expression {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.0.as_str())
    }
}

/// Which part of a proxy's configuration is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum ProxySide {
    /// What leads to a workload.
    Inbound,
    /// What leads from a workload to others.
    Outbound,
    /// A gateway's.
    Gateway,
}

/// What is done to a message, or to a list of named ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum PatchOperation {
    /// Merged into those that match.
    Merge(MergedLists),
    /// Put at the end.
    Add,
    /// Those that match are taken out.
    Remove,
    /// Put before the first that matches; at the front if none is named.
    InsertBefore,
    /// Put behind the first that matches; at the end if none is named.
    InsertAfter,
    /// Put at the front, if the one that is named is there.
    InsertFirst,
    /// Put in the place of those that match.
    Replace,
    /// A filter, put where its like belongs among those of the mesh.
    InsertAt(FilterPlace),
}

/// A place among the filters that the mesh gives a proxy, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum FilterPlace {
    /// Before those that authenticate.
    BeforeAuthentication,
    /// Before those that authorize, behind those that authenticate.
    BeforeAuthorization,
    /// Behind those that authorize.
    BehindAuthorization,
    /// As it comes: behind all of these.
    Unspecified,
}

impl PatchOperation {
    /// Whether those that match are merged with something.
    pub fn merges(self) -> bool {
        matches!(self, Self::Merge(_))
    }
}

/// What becomes of a list when a message is merged into another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum MergedLists {
    /// The new elements stand behind the old ones, as protobuf has it.
    Joined,
    /// The new elements stand instead of the old ones.
    Replaced,
}

/// A message that was checked to be of its type.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct PatchMessage {
    /// Its fully qualified type.
    pub kind: Arc<str>,
    /// What it is called by its field `name`; may be empty.
    pub name: Arc<str>,
    /// Its canonical bytes.
    pub body: Arc<[u8]>,
}

/// Which messages a patch is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PatchSubject {
    /// Clusters.
    Cluster(ClusterMatch),
    /// Listeners.
    Listener(ListenerMatch),
    /// Filters of a listener itself, which see a connection before a chain is chosen.
    ListenerFilter(ListenerMatch),
    /// A listener's chains.
    FilterChain(ListenerMatch),
    /// Filters of a listener's chains.
    NetworkFilter(ListenerMatch),
    /// Filters of HTTP connections.
    HttpFilter(ListenerMatch),
    /// Route configurations.
    RouteConfiguration(RouteConfigurationMatch),
    /// Virtual hosts of route configurations.
    VirtualHost(RouteConfigurationMatch),
    /// Routes of virtual hosts.
    Route(RouteConfigurationMatch),
    /// Configurations that filters ask for by their names.
    Extension,
    /// What a proxy starts with.
    Bootstrap,
}

impl PatchSubject {
    /// The type of the whole resources that are meant, which come and go by the operations that
    /// add and remove; `None`: parts of resources are.
    pub fn resource(&self) -> Option<ResourceType> {
        match self {
            Self::Cluster(_) => Some(ResourceType::Cluster),
            Self::Listener(_) => Some(ResourceType::Listener),
            Self::Extension => Some(ResourceType::Extension),
            Self::Bootstrap => Some(ResourceType::Bootstrap),
            _ => None,
        }
    }

    /// Whether filters are meant.
    pub fn is_filter(&self) -> bool {
        matches!(self, Self::ListenerFilter(_) | Self::NetworkFilter(_) | Self::HttpFilter(_))
    }

    /// Whether route configurations or parts of them are meant, and which.
    pub fn routes(&self) -> Option<&RouteConfigurationMatch> {
        match self {
            Self::RouteConfiguration(m) | Self::VirtualHost(m) | Self::Route(m) => Some(m),
            _ => None,
        }
    }
}

/// Conditions on a cluster. Here and below an empty text and an absent number ask for nothing.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct ClusterMatch {
    /// The whole name; with it nothing else counts.
    pub name: Arc<str>,
    /// Host of the service that it leads to.
    pub service: Arc<str>,
    /// Subset.
    pub subset: Arc<str>,
    /// Service port; the workload's own for what leads to it.
    pub port: Option<u16>,
}

impl ClusterMatch {
    /// Whether the cluster of this name is meant. `hosts`: of the services that it stands for, as
    /// far as the name does not say so.
    pub fn admits<'a>(&self, name: &str, mut hosts: impl Iterator<Item = &'a str>) -> bool {
        if !self.name.is_empty() {
            return *self.name == *name;
        }
        let mut parts = name.splitn(4, '|').skip(1);
        let mut part = || parts.next().unwrap_or_default();
        let (port, subset, host) = (part(), part(), part());
        let asked = |text: &str, is: &str| text.is_empty() || text == is;
        asked(&self.subset, subset)
            && self.port.is_none_or(|asked| port.parse() == Ok(asked))
            && (asked(&self.service, host) || hosts.any(|host| *self.service == *host))
    }
}

/// Conditions on a listener, and on what it consists of.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct ListenerMatch {
    /// Its name.
    pub name: Arc<str>,
    /// Its port; of the listeners that take what was redirected, the port of a chain.
    pub port: Option<u16>,
    /// What somebody calls that port; the case says nothing.
    pub port_name: Arc<str>,
    /// Its filter chains.
    pub chain: ChainCondition,
    /// Name of a filter of the listener itself.
    pub listener_filter: Arc<str>,
    /// Name of a filter of a chain.
    pub filter: Arc<str>,
    /// Name of a filter of an HTTP connection.
    pub sub_filter: Arc<str>,
}

/// What services and gateways call the ports that connections come to, by number: of a listener, or
/// of the chains of one that takes what was redirected.
pub type PortNames = BTreeMap<u16, BTreeSet<Arc<str>>>;

/// Conditions on a filter chain.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct ChainCondition {
    /// Its name.
    pub name: Arc<str>,
    /// One of its SNI names.
    pub sni: Arc<str>,
    /// Its transport protocol.
    pub transport: Arc<str>,
    /// The name of its transport socket.
    pub socket: Arc<str>,
    /// All of these are among its application protocols.
    pub alpn: Vec<Arc<str>>,
    /// Its destination port.
    pub port: Option<u16>,
}

/// Conditions on a route configuration, and on what it consists of.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct RouteConfigurationMatch {
    /// Its name.
    pub name: Arc<str>,
    /// Its port.
    pub port: Option<u16>,
    /// Name of a gateway's port.
    pub port_name: Arc<str>,
    /// The gateway, `NAMESPACE/NAME`.
    pub gateway: Arc<str>,
    /// Name of a virtual host.
    pub host: Arc<str>,
    /// A domain of a virtual host.
    pub domain: Arc<str>,
    /// Name of a route.
    pub route: Arc<str>,
    /// What a route does.
    pub action: Option<RouteActionKind>,
}

impl ListenerMatch {
    /// Whether the port is meant, by its number and by its names.
    pub fn admits_port(&self, port: Option<u16>, names: &PortNames) -> bool {
        let called = || {
            let own = port.and_then(|port| names.get(&port));
            own.is_some_and(|own| own.iter().any(|n| n.eq_ignore_ascii_case(&self.port_name)))
        };
        self.port.is_none_or(|asked| port == Some(asked)) && (self.port_name.is_empty() || called())
    }
}

impl RouteConfigurationMatch {
    /// Whether the route configuration of this name is meant: `PORT`, `HOST:PORT`, `http.PORT`,
    /// `https.PORT.PORTNAME.GATEWAY.NAMESPACE` or `inbound|PORT||`.
    pub fn admits(&self, name: &str) -> bool {
        let asked = |text: &str, is: &str| text.is_empty() || text == is;
        let place = RoutePlace::of(name);
        asked(&self.name, name)
            && self.port.is_none_or(|port| place.port == Some(port))
            && asked(&self.port_name, &place.port_name)
            && (self.gateway.is_empty() || place.gateway.as_deref() == Some(&*self.gateway))
    }
}

/// What the name of a route configuration says.
struct RoutePlace {
    port: Option<u16>,
    port_name: Arc<str>,
    /// `NAMESPACE/NAME`.
    gateway: Option<String>,
}

impl RoutePlace {
    fn of(name: &str) -> Self {
        let plain = |port: Option<u16>| Self { port, port_name: "".into(), gateway: None };
        match GatewayRoutes::read(name) {
            Some(GatewayRoutes::Http { port, .. }) => plain(Some(port)),
            Some(GatewayRoutes::Https { port, port_name, namespace, gateway, .. }) => Self {
                port: Some(port),
                port_name,
                gateway: Some(format!("{namespace}/{gateway}")),
            },
            None => match name.strip_prefix("inbound|") {
                Some(rest) => plain(rest.split('|').next().and_then(|port| port.parse().ok())),
                None => plain(name.rsplit(':').next().and_then(|port| port.parse().ok())),
            },
        }
    }
}

/// What a route does, as conditions ask for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum RouteActionKind {
    /// It forwards.
    Forward,
    /// It redirects.
    Redirect,
    /// It answers.
    Answer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_told_apart_by_their_names() {
        let outbound = "outbound|80|v1|cart.shop.svc.cluster.local";
        let host = |service: &str| ClusterMatch { service: service.into(), ..Default::default() };
        let table = [
            (ClusterMatch::default(), outbound, true),
            (ClusterMatch { name: outbound.into(), ..host("other") }, outbound, true),
            (host("cart.shop.svc.cluster.local"), outbound, true),
            (host("cart"), outbound, false),
            (ClusterMatch { port: Some(80), ..Default::default() }, outbound, true),
            (ClusterMatch { port: Some(81), ..Default::default() }, outbound, false),
            (ClusterMatch { subset: "v1".into(), ..Default::default() }, outbound, true),
            (ClusterMatch { subset: "v2".into(), ..Default::default() }, outbound, false),
            (ClusterMatch { port: Some(8080), ..Default::default() }, "inbound|8080||", true),
            (host("own.shop"), "inbound|8080||", true),
            (ClusterMatch { port: Some(80), ..Default::default() }, "BlackHoleCluster", false),
        ];
        for (condition, name, expected) in table {
            let hosts = ["own.shop"].into_iter().filter(|_| name.starts_with("inbound"));
            assert_eq!(condition.admits(name, hosts), expected, "{condition:?} of {name}");
        }
    }

    #[test]
    fn route_configurations_are_told_apart_by_their_names() {
        let port = |port| RouteConfigurationMatch { port: Some(port), ..Default::default() };
        let gateway = |gateway: &str| RouteConfigurationMatch {
            gateway: gateway.into(),
            ..Default::default()
        };
        let https = "https.443.web.my.edge.istio-system";
        let table = [
            (port(80), "80", true),
            (port(80), "reviews.shop.svc.cluster.local:80", true),
            (port(8080), "http.8080", true),
            (port(9080), "inbound|9080||", true),
            (port(443), https, true),
            (port(80), https, false),
            (gateway("istio-system/my.edge"), https, true),
            (gateway("istio-system/edge"), https, false),
            (gateway("istio-system/edge"), "http.8080", false),
            (RouteConfigurationMatch { port_name: "web".into(), ..port(443) }, https, true),
            (RouteConfigurationMatch { port_name: "web".into(), ..port(80) }, "80", false),
        ];
        for (condition, name, expected) in table {
            assert_eq!(condition.admits(name), expected, "{condition:?} of {name}");
        }
    }
}
