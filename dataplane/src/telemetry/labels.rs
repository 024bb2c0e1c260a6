//! What labels a series: of a request or connection what Istio's metrics say of it, and how that is
//! spelled. Whoever counts, a worker of this proxy or the agent of an Envoy, says here what it has
//! seen ([`Observed`]), and the labels follow. Names and labels: Istio "standard metrics"; what is
//! not known is `unknown`.

use std::{borrow::Cow, fmt::Write, sync::Arc};

use ferromesh_proto::bootstrap::NodeSettings;

use super::{
    access_log::{Entry, cut},
    series::Bounded,
    trace::{Environment, Origin},
};
use crate::runtime::{
    cluster::ServiceLabel,
    endpoint::Workload,
    flags::Flags,
    listener::TrafficDirection,
    metric_rules::{LabelRule, Metric, MetricRules, OwnMetrics},
};

/// Stands for values that come after too many others.
const OVERFLOW: &str = "overflow";
/// Longest value that a caller may choose, in bytes.
const LONGEST: usize = 128;
/// The largest number of gRPC's statuses (gRPC "Status codes and their use in gRPC").
const LAST_GRPC_STATUS: u32 = 16;
const GRPC_UNKNOWN: u32 = 2;
/// Clusters without a service, which stand for its name.
const SERVE_NOBODY: [&str; 3] =
    ["BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster"];

/// Who we are, as labels name us; empty parts are written as `unknown`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// The workload, as endpoint metadata would describe it.
    pub workload: Workload,
    /// Label `app`.
    pub app: Arc<str>,
    /// Label `version`.
    pub version: Arc<str>,
    /// Who tells spans.
    pub origin: Origin,
}

impl From<&NodeSettings> for Node {
    /// Without the variables of the process, of which settings know nothing.
    fn from(node: &NodeSettings) -> Self {
        let first =
            |keys: &[&str]| keys.iter().find_map(|key| node.labels.get(*key)).map(String::as_str);
        let name = node.workload.as_ref().unwrap_or(&node.name);
        let service = first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
        let revision =
            first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
        Self {
            workload: Workload {
                name: name.as_str().into(),
                namespace: node.namespace.as_str().into(),
                canonical_service: service.unwrap_or(name).into(),
                canonical_revision: revision.unwrap_or("latest").into(),
                kube_cluster: node.cluster_id.as_str().into(),
            },
            app: first(&["app"]).unwrap_or_default().into(),
            version: first(&["version"]).unwrap_or_default().into(),
            origin: Origin {
                id: node.id().into(),
                cluster: node.cluster().into(),
                zone: node.locality.as_ref().map_or("", |locality| &locality.zone).into(),
                address: Some(node.address),
                environment: Environment::default(),
            },
        }
    }
}

/// Which side of a request reports it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reporter {
    /// The client's proxy, or a gateway.
    Source,
    /// The server's proxy.
    Destination,
}

impl From<TrafficDirection> for Reporter {
    fn from(direction: TrafficDirection) -> Self {
        match direction {
            TrafficDirection::Inbound => Self::Destination,
            TrafficDirection::Outbound | TrafficDirection::Unspecified => Self::Source,
        }
    }
}

/// The other side, as far as it is known.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Peer {
    /// The SPIFFE id it has proven.
    pub principal: Option<Arc<str>>,
    /// The workload, from endpoint metadata.
    pub workload: Option<Arc<Workload>>,
}

/// The service that was called.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Service {
    host: Arc<str>,
    name: Arc<str>,
    namespace: Arc<str>,
    /// Only the caller says so.
    guessed: bool,
}

impl Service {
    fn new(seen: &Observed<'_>) -> Self {
        if let Some(label) = seen.service {
            let ServiceLabel { host, name, namespace } = label.clone();
            return Self { host, name, namespace, guessed: false };
        }
        let host = Arc::clone(&seen.host);
        let nobody = SERVE_NOBODY.contains(&seen.cluster);
        let name = if nobody { seen.cluster.into() } else { Arc::clone(&host) };
        Self { guessed: !host.is_empty(), namespace: Arc::default(), host, name }
    }
}

/// What is seen of a request or connection.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// Which side we are.
    pub reporter: Reporter,
    /// The SPIFFE id that the other side has proven.
    pub principal: Option<&'a Arc<str>>,
    /// The workload behind the endpoint; of callers none is known.
    pub workload: Option<&'a Arc<Workload>>,
    /// The service that the cluster stands for.
    pub service: Option<&'a ServiceLabel>,
    /// The cluster; may be empty.
    pub cluster: &'a str,
    /// The host that the request names, where it may stand for a service
    /// ([`super::metrics::WorkerMetrics::host`]); else empty.
    pub host: Arc<str>,
    /// Response flags.
    pub flags: Flags,
    /// What is different of the metrics.
    pub changed: Option<&'a Changed>,
}

/// What is different of metrics, and the values for it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Changed {
    rules: Arc<MetricRules>,
    /// Of [`MetricRules::expressions`], in their places; empty: unknown.
    values: Vec<Arc<str>>,
}

impl Changed {
    /// `values` are those of the rules' expressions, in their places.
    pub fn new(
        rules: &Arc<MetricRules>,
        values: impl IntoIterator<Item = Option<Arc<str>>>,
    ) -> Self {
        let short = |value: Option<Arc<str>>| match value {
            Some(long) if long.len() > LONGEST => cut(&long, Some(LONGEST)).into(),
            short => short.unwrap_or_default(),
        };
        Self { rules: Arc::clone(rules), values: values.into_iter().map(short).collect() }
    }

    /// Of a request or connection, of which this is known.
    pub fn of(own: &OwnMetrics, entry: &Entry<'_>) -> Self {
        Self::new(&own.rules, own.values.iter().map(|value| value.text(entry)))
    }
}

/// What labels a TCP connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionKey {
    reporter: Reporter,
    peer: Peer,
    service: Service,
    flags: Flags,
    changed: Option<Changed>,
}

impl From<Observed<'_>> for ConnectionKey {
    fn from(seen: Observed<'_>) -> Self {
        let peer = Peer { principal: seen.principal.cloned(), workload: seen.workload.cloned() };
        let Observed { reporter, flags, .. } = seen;
        let service = Service::new(&seen);
        Self { reporter, peer, service, flags, changed: seen.changed.cloned() }
    }
}

impl ConnectionKey {
    /// Whether both sides have proven who they are.
    fn mutual_tls(&self) -> bool {
        self.peer.principal.is_some()
    }

    /// Whether a metric of it is left out.
    pub(super) fn drops(&self, metric: Metric) -> bool {
        self.changed.as_ref().is_some_and(|changed| changed.rules.drops(metric))
    }
}

impl Bounded for ConnectionKey {
    fn is_free(&self) -> bool {
        let chosen = |value: &Arc<str>| !matches!(&**value, "" | OVERFLOW);
        let values = self.changed.as_ref().is_some_and(|own| own.values.iter().any(chosen));
        values || self.service.guessed
    }

    fn narrowed(&self) -> Self {
        let mut key = self.clone();
        if let Some(changed) = &mut key.changed {
            changed.values.fill(OVERFLOW.into());
        }
        if key.service.guessed {
            let nobody = SERVE_NOBODY.contains(&&*key.service.name);
            let name = if nobody { key.service.name.clone() } else { OVERFLOW.into() };
            key.service = Service { host: OVERFLOW.into(), name, ..Service::default() };
        }
        key
    }

    fn overflow(&self) -> Self {
        let service =
            Service { host: OVERFLOW.into(), name: OVERFLOW.into(), ..Service::default() };
        let (peer, flags) = (Peer::default(), Flags::NONE);
        Self { service, peer, flags, ..self.narrowed() }
    }
}

/// What labels a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RequestKey {
    /// What labels a connection, too.
    pub connection: ConnectionKey,
    /// Response status; 0 if there was none.
    pub status: u16,
    /// `grpc-status` of a gRPC request ([`known_grpc_status`]); `None` for plain HTTP.
    pub grpc_status: Option<u32>,
}

/// A `grpc-status` as labels say it: one that gRPC does not have is `UNKNOWN`, so that no server makes
/// up labels.
pub fn known_grpc_status(status: u32) -> u32 {
    if status <= LAST_GRPC_STATUS { status } else { GRPC_UNKNOWN }
}

impl Bounded for RequestKey {
    fn is_free(&self) -> bool {
        self.connection.is_free()
    }

    fn narrowed(&self) -> Self {
        Self { connection: self.connection.narrowed(), ..self.clone() }
    }

    fn overflow(&self) -> Self {
        Self { connection: self.connection.overflow(), status: 0, grpc_status: None }
    }
}

/// The labels of one side of a call.
type SideNames = [&'static str; 8];

const SOURCE: SideNames = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
];

const DESTINATION: SideNames = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
];

/// Labels and their values, in the order in which they are spelled.
pub(super) struct Labels<'a>(Vec<(&'static str, Cow<'a, str>)>);

/// Says what we are in labels.
pub(super) struct Speller<'a> {
    pub(super) node: &'a Node,
    pub(super) principal: String,
}

/// One side of a call.
struct Side<'a> {
    workload: &'a Workload,
    principal: &'a str,
    app: &'a str,
    version: &'a str,
}

impl Speller<'_> {
    /// The labels of a request.
    pub(super) fn request<'k>(&'k self, key: &'k RequestKey) -> Labels<'k> {
        let protocol = if key.grpc_status.is_some() { "grpc" } else { "http" };
        let mut labels = self.common(&key.connection, protocol);
        let grpc_status = key.grpc_status.map(|status| status.to_string()).unwrap_or_default();
        labels.0.push(("response_code", key.status.to_string().into()));
        labels.0.push(("grpc_response_status", grpc_status.into()));
        labels
    }

    /// The labels of a connection.
    pub(super) fn connection<'k>(&'k self, key: &'k ConnectionKey) -> Labels<'k> {
        self.common(key, "tcp")
    }

    fn common<'k>(&'k self, key: &'k ConnectionKey, protocol: &'k str) -> Labels<'k> {
        static NOBODY: std::sync::LazyLock<Workload> = std::sync::LazyLock::new(Workload::default);
        let ours = Side {
            workload: &self.node.workload,
            principal: if key.mutual_tls() { &self.principal } else { "" },
            app: &self.node.app,
            version: &self.node.version,
        };
        let workload = key.peer.workload.as_deref().unwrap_or(&NOBODY);
        let theirs = Side {
            workload,
            principal: key.peer.principal.as_deref().unwrap_or_default(),
            app: &workload.canonical_service,
            version: &workload.canonical_revision,
        };
        let (reporter, source, destination) = match key.reporter {
            Reporter::Source => ("source", &ours, &theirs),
            Reporter::Destination => ("destination", &theirs, &ours),
        };
        let flags = key.flags.to_string();
        let mut labels = Labels(vec![("reporter", reporter.into())]);
        labels.side(SOURCE, source);
        labels.side(DESTINATION, destination);
        for (name, value) in [
            ("destination_service", &*key.service.host),
            ("destination_service_name", &key.service.name),
            ("destination_service_namespace", &key.service.namespace),
            ("request_protocol", protocol),
        ] {
            labels.push(name, value);
        }
        labels.0.push(("response_flags", flags.into()));
        labels.push("connection_security_policy", security(key));
        labels
    }
}

impl<'a> Labels<'a> {
    fn push(&mut self, name: &'static str, value: &'a str) {
        self.0.push((name, known(value).into()));
    }

    fn side(&mut self, names: SideNames, of: &Side<'a>) {
        let namespace_of_principal =
            of.principal.split("/ns/").nth(1).and_then(|rest| rest.split('/').next());
        let namespace =
            Some(&*of.workload.namespace).filter(|n| !n.is_empty()).or(namespace_of_principal);
        let values = [
            &*of.workload.name,
            namespace.unwrap_or_default(),
            of.principal,
            of.app,
            of.version,
            &of.workload.kube_cluster,
            &of.workload.canonical_service,
            canonical_revision(of.workload),
        ];
        names.into_iter().zip(values).for_each(|(name, value)| self.push(name, value));
    }

    /// As a metric has them in Prometheus' text, by what is different of it.
    pub(super) fn spell(&self, key: &ConnectionKey, metric: Metric) -> String {
        let mut text = String::new();
        let changed = key.changed.as_ref();
        let rules = changed.map(|changed| changed.rules.labels(metric)).unwrap_or_default();
        let value = |place: usize| {
            let values = changed.map(|changed| &changed.values[..]).unwrap_or_default();
            known(values.get(place).map_or("", |value| value))
        };
        for (name, usual) in &self.0 {
            match rules.iter().find(|(label, _)| **label == **name) {
                None => append(&mut text, name, usual),
                Some((_, LabelRule::Value(place))) => append(&mut text, name, value(*place)),
                Some((_, LabelRule::Removed)) => {}
            }
        }
        for (label, rule) in rules {
            if let LabelRule::Value(place) = rule
                && !self.0.iter().any(|(name, _)| **name == **label)
            {
                append(&mut text, label, value(*place));
            }
        }
        text
    }
}

/// Istio calls a workload without a revision label `latest`.
fn canonical_revision(workload: &Workload) -> &str {
    match (workload.canonical_service.is_empty(), workload.canonical_revision.is_empty()) {
        (false, true) => "latest",
        _ => &workload.canonical_revision,
    }
}

/// Only the server's side knows whether the connection that reached it was encrypted.
fn security(key: &ConnectionKey) -> &'static str {
    match (key.reporter, key.mutual_tls()) {
        (Reporter::Source, _) => "unknown",
        (Reporter::Destination, true) => "mutual_tls",
        (Reporter::Destination, false) => "none",
    }
}

fn known(value: &str) -> &str {
    if value.is_empty() { "unknown" } else { value }
}

fn append(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    spell(text, name, value);
}

/// Appends `NAME="VALUE"`, escaped as Prometheus' text has it.
pub(super) fn spell(text: &mut String, name: &str, value: &str) {
    let _ = write!(text, "{name}=\"");
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut text = String::new();
        append(&mut text, "a", "x\"\\\n");
        append(&mut text, "b", known(""));
        assert_eq!(text, r#"a="x\"\\\n",b="unknown""#);
    }
}
