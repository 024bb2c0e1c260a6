//! Mesh-wide settings (Istio `MeshConfig`), with Istio's defaults.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ferromesh_proto::TrustDomain;
use serde::Serialize;

use super::{
    Authorizer, ConnectionPool, Labels, LocalityPolicy, OutboundTraffic, OutlierDetection,
    ProxyStart, Retry, Selector, TcpKeepalive, TelemetryDefaults, TlsVersion, Visibility,
    ZonePolicy,
};

/// Settings that hold for the whole mesh.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct MeshDefaults {
    /// `trustDomain`.
    #[serde(serialize_with = "as_text")]
    pub trust_domain: TrustDomain,
    /// `trustDomainAliases`; sorted, unique.
    pub trust_domain_aliases: Vec<Arc<str>>,
    /// `rootNamespace`.
    pub root_namespace: Arc<str>,
    /// DNS suffix of Kubernetes services, `cluster.local`.
    pub domain: Arc<str>,
    /// `connectTimeout`.
    pub connect_timeout: Duration,
    /// `protocolDetectionTimeout`; zero means our own finite default for inbound listeners
    /// (ARCHITECTURE.md).
    pub detection_timeout: Duration,
    /// `outboundTrafficPolicy`.
    pub outbound_traffic: OutboundTraffic,
    /// `inboundTrafficPolicy` PASSTHROUGH (true) or LOCALHOST.
    pub inbound_passthrough: bool,
    /// `enableAutoMtls`.
    pub auto_mtls: bool,
    /// `defaultHttpRetryPolicy`; `MeshDefault` means the built-in.
    pub default_retry: Retry,
    /// Its `perTryTimeout`: of rules that say nothing of retries.
    pub default_try_timeout: Option<Duration>,
    /// `defaultServiceExportTo`.
    pub service_export_to: Option<Visibility>,
    /// `defaultVirtualServiceExportTo`.
    pub route_export_to: Option<Visibility>,
    /// `defaultDestinationRuleExportTo`.
    pub backend_export_to: Option<Visibility>,
    /// `localityLbSetting`.
    pub locality: LocalityPolicy,
    /// `zoneAwareLbSetting`, which comes before `locality`.
    pub zones: Option<ZonePolicy>,
    /// `defaultTrafficPolicy.connectionPool`.
    pub connection_pool: Option<ConnectionPool>,
    /// `defaultTrafficPolicy.outlierDetection`.
    pub outlier: Option<OutlierDetection>,
    /// `tcpKeepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `h2UpgradePolicy` UPGRADE.
    pub h2_upgrade: bool,
    /// What proxies tell of traffic, and whom.
    pub telemetry: TelemetryDefaults,
    /// `proxyListenPort`.
    pub outbound_port: u16,
    /// `proxyInboundListenPort`.
    pub inbound_port: u16,
    /// `proxyHttpPort`; `None`: no explicit HTTP proxy.
    pub http_proxy_port: Option<u16>,
    /// `dnsRefreshRate`.
    pub dns_refresh_rate: Duration,
    /// `pathNormalization`.
    pub path_normalization: PathNormalization,
    /// `meshMTLS.minProtocolVersion`: the least version that a server of the mesh's own mutual TLS
    /// takes.
    pub mesh_tls_min: TlsVersion,
    /// Services that are asked whether calls may pass, by name (`extensionProviders`).
    pub authorizers: BTreeMap<Arc<str>, Authorizer>,
    /// `meshMTLS.cipherSuites`: those that it takes of TLS 1.2; empty: Envoy's.
    pub mesh_tls_suites: Vec<Arc<str>>,
    /// `tlsDefaults`: of all other TLS.
    pub tls: TlsWords,
    /// `defaultInboundHttpRetryPolicy`; `MeshDefault` means the built-in.
    pub inbound_retry: Retry,
    /// Its `perTryTimeout`.
    pub inbound_try_timeout: Option<Duration>,
    /// `defaultConfig.gatewayTopology`.
    pub edge: Edge,
    /// `defaultConfig.proxyHeaders`.
    pub headers: ProxyHeaders,
    /// Which Ingresses gateways serve, and which gateways.
    pub ingress: IngressDefaults,
    /// `defaultConfig`, `enablePrometheusMerge`: what proxies are started with.
    pub proxy: ProxyStart,
    /// `inboundClusterStatName`, `outboundClusterStatName`.
    pub stat_names: StatNames,
    /// `discoverySelectors`: namespaces whose objects are seen; empty: those of all.
    pub discovery: Vec<Selector>,
}

/// Patterns by which clusters are counted; empty: under their own names.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct StatNames {
    /// Those to the application.
    pub inbound: Arc<str>,
    /// Those to others.
    pub outbound: Arc<str>,
}

/// The label that API servers give every namespace, with its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

impl MeshDefaults {
    /// These settings with classes of Ingresses, for lowering one.
    #[must_use]
    pub fn with_classes(&self, classes: &BTreeMap<Arc<str>, IngressClass>) -> Self {
        let ingress = IngressDefaults { classes: classes.clone(), ..self.ingress.clone() };
        Self { ingress, ..self.clone() }
    }

    /// Whether the objects of a namespace are seen at all. `labels` are those of the Namespace
    /// object, if there is one. What belongs to no namespace is seen, and what is in the root
    /// namespace too, since policies there guard all others.
    pub fn sees(&self, namespace: &Arc<str>, labels: Option<&Labels>) -> bool {
        if self.discovery.is_empty() || namespace.is_empty() || *namespace == self.root_namespace {
            return true;
        }
        let mut labels = labels.cloned().unwrap_or_default();
        labels.insert(NAMESPACE_NAME.into(), namespace.clone());
        self.discovery.iter().any(|selector| selector.matches(&labels))
    }
}

/// Which Ingresses gateways serve, and which gateways do.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct IngressDefaults {
    /// `ingressControllerMode`.
    pub scope: IngressScope,
    /// `ingressClass`: those of this class.
    pub class: Arc<str>,
    /// `ingressSelector`, `ingressService`: gateways whose label `istio` has this value.
    pub selector: Arc<str>,
    /// Classes that have an object, by name; only where an Ingress is lowered.
    pub classes: BTreeMap<Arc<str>, IngressClass>,
}

/// A class of Ingresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct IngressClass {
    /// It names the mesh as its controller.
    pub ours: bool,
    /// Ingresses without a class are of it.
    pub by_default: bool,
}

/// `ingressControllerMode`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum IngressScope {
    /// None (`OFF`).
    Nothing,
    /// Those of the class (`STRICT`, the default).
    OwnClass,
    /// Also those of no class (`DEFAULT`).
    NoClass,
}

impl IngressDefaults {
    /// Whether an Ingress is served, by the class that its annotation names and that its
    /// specification does; each may be empty. A class that has an object is the mesh's by its
    /// controller, another by its name; the annotation goes by the name alone, as in Istio.
    pub fn takes(&self, annotated: &str, class: &str) -> bool {
        if self.scope == IngressScope::Nothing {
            return false;
        }
        if !annotated.is_empty() {
            return *annotated == *self.class;
        }
        if class.is_empty() {
            let by_default = self.classes.values().any(|class| class.ours && class.by_default);
            return by_default || self.scope == IngressScope::NoClass;
        }
        self.classes.get(class).map_or(*class == *self.class, |class| class.ours)
    }
}

impl Default for IngressDefaults {
    fn default() -> Self {
        Self {
            scope: IngressScope::OwnClass,
            class: "istio".into(),
            selector: "ingressgateway".into(),
            classes: BTreeMap::new(),
        }
    }
}

/// What may be negotiated by TLS; empty: what the proxy has.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct TlsWords {
    /// Cipher suites of TLS 1.2, by OpenSSL's names.
    pub suites: Vec<Arc<str>>,
    /// Curves.
    pub curves: Vec<Arc<str>>,
}

impl TlsWords {
    /// Suites and curves as written, each once: Envoy refuses a curve that is named again.
    pub fn new(suites: &[Arc<str>], curves: &[Arc<str>]) -> Self {
        Self { suites: each_once(suites), curves: each_once(curves) }
    }

    /// Each list that is given here, and the other's where it is empty.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let first = |own: &Vec<Arc<str>>, other: &Vec<Arc<str>>| {
            if own.is_empty() { other.clone() } else { own.clone() }
        };
        Self {
            suites: first(&self.suites, &other.suites),
            curves: first(&self.curves, &other.curves),
        }
    }
}

fn each_once(words: &[Arc<str>]) -> Vec<Arc<str>> {
    let mut seen = BTreeSet::new();
    words.iter().filter(|word| seen.insert(*word)).cloned().collect()
}

/// What stands before gateways.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub struct Edge {
    /// How many proxies are trusted for what `x-forwarded-…` says of the client.
    pub trusted_proxies: u32,
    /// What becomes of `x-forwarded-client-cert`.
    pub client_cert: ClientCertHeader,
    /// Connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// What becomes of `x-forwarded-client-cert`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub enum ClientCertHeader {
    /// It is taken off.
    Remove,
    /// Over mutual TLS it is passed on, else taken off.
    PassOn,
    /// Over mutual TLS the client is added, else it is taken off.
    Append,
    /// Over mutual TLS it speaks of the client alone, else it is taken off.
    #[default]
    Set,
    /// It is passed on, whoever sent it.
    PassOnAlways,
}

/// Headers that proxies add.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct ProxyHeaders {
    /// `server` of what sidecars and gateways answer to their callers; `None`: what the application
    /// says.
    pub server: Option<Arc<str>>,
    /// What becomes of `x-forwarded-client-cert`; `None`: at sidecars the client is added, at
    /// gateways what [`Edge`] says.
    pub client_cert: Option<ClientCertHeader>,
    /// What is told of the client's certificate, where it differs from what is usual.
    pub cert_parts: BTreeMap<CertPart, bool>,
    /// Headers that are not added.
    pub omitted: OmittedHeaders,
}

impl Default for ProxyHeaders {
    fn default() -> Self {
        Self {
            server: Some("istio-envoy".into()),
            client_cert: None,
            cert_parts: BTreeMap::new(),
            omitted: OmittedHeaders::default(),
        }
    }
}

/// A part of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum CertPart {
    /// Whose it is, by its subject.
    Subject,
    /// All of it.
    Certificate,
    /// What leads to an authority.
    Chain,
    /// Its DNS names.
    Dns,
    /// Its URIs.
    Uri,
}

/// Headers that proxies add unless told otherwise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub struct OmittedHeaders {
    /// `x-request-id`.
    pub request_id: bool,
    /// `x-envoy-attempt-count`.
    pub attempt_count: bool,
    /// What Envoy tells of itself.
    pub debug: bool,
}

/// `pathNormalization.normalization`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum PathNormalization {
    /// As it came.
    None,
    /// RFC 3986 (`BASE`, the default).
    Base,
    /// Also merges slashes.
    MergeSlashes,
    /// Also decodes escaped slashes.
    DecodeAndMergeSlashes,
}

impl Default for MeshDefaults {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".into(),
            domain: "cluster.local".into(),
            connect_timeout: Duration::from_secs(10),
            detection_timeout: Duration::ZERO,
            outbound_traffic: OutboundTraffic::AllowAny,
            inbound_passthrough: true,
            auto_mtls: true,
            default_retry: Retry::MeshDefault,
            default_try_timeout: None,
            service_export_to: None,
            route_export_to: None,
            backend_export_to: None,
            locality: LocalityPolicy::default(),
            zones: None,
            connection_pool: None,
            outlier: None,
            tcp_keepalive: None,
            h2_upgrade: false,
            telemetry: TelemetryDefaults::default(),
            outbound_port: 15001,
            inbound_port: 15006,
            http_proxy_port: None,
            dns_refresh_rate: Duration::from_secs(60),
            path_normalization: PathNormalization::Base,
            mesh_tls_min: TlsVersion::V1_2,
            authorizers: BTreeMap::new(),
            mesh_tls_suites: Vec::new(),
            tls: TlsWords::default(),
            inbound_retry: Retry::MeshDefault,
            inbound_try_timeout: None,
            edge: Edge::default(),
            headers: ProxyHeaders::default(),
            ingress: IngressDefaults::default(),
            proxy: ProxyStart::default(),
            stat_names: StatNames::default(),
            discovery: Vec::new(),
        }
    }
}

fn as_text<S: serde::Serializer>(v: &impl std::fmt::Display, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_and_suites_are_named_once() {
        let words = |text: &str| text.split(' ').map(Arc::from).collect::<Vec<Arc<str>>>();
        let made = TlsWords::new(&words("b a b"), &words("X25519 P-256 X25519 P-256"));
        assert_eq!(made, TlsWords { suites: words("b a"), curves: words("X25519 P-256") });
    }
}
