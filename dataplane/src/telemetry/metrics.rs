//! Istio's standard metrics: one set of counters per worker and label set, merged and rendered when
//! scraped.
//!
//! A worker alone writes its counters, so that an increment touches no contended cache line; its
//! table is locked only to add a label set and to scrape. Names and labels: Istio "standard
//! metrics"; what is not known is `unknown`.

use std::{
    collections::BTreeMap,
    fmt::Write,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustc_hash::{FxHashMap, FxHashSet};

use super::trace::Origin;
use crate::{
    identity::IdentityWatch,
    runtime::{
        cluster::ServiceLabel, endpoint::Workload, filter::Counter, flags::Flags, limits::Limit,
        listener::TrafficDirection,
    },
};

/// Upper bounds of Envoy's default histogram buckets, in milliseconds or bytes.
const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Hosts that a worker tells apart, of those that requests name and no cluster is for: clients
/// choose such names, and each is kept, and told in every scrape.
const MOST_HOSTS: usize = 64;
/// What is longer is no name of a host, with or without a port (RFC 1035 section 2.3.4).
const LONGEST_HOST: usize = 253 + ":65535".len();

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
pub struct Service {
    /// Host name.
    pub host: Arc<str>,
    /// Short name.
    pub name: Arc<str>,
    /// Namespace; may be empty.
    pub namespace: Arc<str>,
}

impl From<&ServiceLabel> for Service {
    fn from(label: &ServiceLabel) -> Self {
        Self {
            host: label.host.clone(),
            name: label.name.clone(),
            namespace: label.namespace.clone(),
        }
    }
}

/// What labels a TCP connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionKey {
    /// Which side we are.
    pub reporter: Reporter,
    /// The other side.
    pub peer: Peer,
    /// The service.
    pub service: Service,
    /// Whether both sides have proven who they are.
    pub mutual_tls: bool,
    /// Response flags.
    pub flags: Flags,
}

/// What labels a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RequestKey {
    /// What labels a connection, too.
    pub connection: ConnectionKey,
    /// Response status; 0 if there was none.
    pub status: u16,
    /// `grpc-status` of a gRPC request; `None` for plain HTTP.
    pub grpc_status: Option<u32>,
}

/// Counters of requests with equal labels.
#[derive(Debug, Default)]
pub struct RequestSeries {
    total: AtomicU64,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl RequestSeries {
    /// Counts a finished request.
    pub fn record(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        self.total.fetch_add(1, Relaxed);
        self.duration.record(duration.as_secs_f64() * 1000.0);
        self.request_bytes.record(request_bytes as f64);
        self.response_bytes.record(response_bytes as f64);
    }
}

/// Counters of TCP connections with equal labels.
#[derive(Debug, Default)]
pub struct ConnectionSeries {
    /// Connections begun.
    pub opened: AtomicU64,
    /// Connections ended.
    pub closed: AtomicU64,
    /// Bytes of the response, as Istio counts: sent towards downstream.
    pub sent: AtomicU64,
    /// Bytes received from downstream.
    pub received: AtomicU64,
}

/// A histogram over [`BUCKETS`]; the sum is kept in thousandths.
#[derive(Debug, Default)]
struct Histogram {
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum_thousandths: AtomicU64,
}

impl Histogram {
    fn record(&self, value: f64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_thousandths.fetch_add((value * 1000.0) as u64, Relaxed);
    }
}

/// One worker's counters by labels.
#[derive(Debug)]
struct Table<K, S>(Mutex<FxHashMap<K, Arc<S>>>);

impl<K, S> Default for Table<K, S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone, S: Default> Table<K, S> {
    fn series(&self, key: &K) -> Arc<S> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = table.get(key) {
            return Arc::clone(series);
        }
        Arc::clone(table.entry(key.clone()).or_default())
    }

    fn each(&self, mut visit: impl FnMut(&K, &S)) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.iter().for_each(|(key, series)| visit(key, series));
    }
}

/// Which peer of ours is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Clients.
    Downstream,
    /// Servers.
    Upstream,
}

/// How often each limit was crossed, by clients and by servers.
type Crossings = [[AtomicU64; Limit::ALL.len()]; 2];

/// One worker's part of the metrics.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    requests: Table<RequestKey, RequestSeries>,
    connections: Table<ConnectionKey, ConnectionSeries>,
    crossings: Crossings,
    filters: Table<(Counter, Arc<str>), AtomicU64>,
    hosts: Mutex<FxHashSet<Arc<str>>>,
}

impl WorkerMetrics {
    /// The service of a request for a host that no cluster is for: the host itself, or nothing that
    /// is known where clients have named too many.
    pub fn host(&self, named: &str) -> Service {
        if named.len() > LONGEST_HOST {
            return Service::default();
        }
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = hosts.get(named).cloned();
        let host = known.unwrap_or_else(|| {
            let host: Arc<str> = named.into();
            let room = hosts.len() < MOST_HOSTS && hosts.insert(Arc::clone(&host));
            if room { host } else { Arc::default() }
        });
        Service { name: Arc::clone(&host), host, ..Service::default() }
    }

    /// Counts one more for a filter; `value` is its label's.
    pub fn count(&self, counter: Counter, value: &Arc<str>) {
        self.count_many(counter, value, 1);
    }

    /// The same for several.
    pub fn count_many(&self, counter: Counter, value: &Arc<str>, many: u64) {
        self.filters.series(&(counter, Arc::clone(value))).fetch_add(many, Relaxed);
    }

    /// Counts that a peer has crossed a limit.
    pub fn exceeded(&self, direction: Direction, limit: Limit) {
        self.crossings[direction as usize][limit as usize].fetch_add(1, Relaxed);
    }

    /// The counters for a request's labels.
    pub fn requests(&self, key: &RequestKey) -> Arc<RequestSeries> {
        self.requests.series(key)
    }

    /// The counters for a TCP connection's labels.
    pub fn connections(&self, key: &ConnectionKey) -> Arc<ConnectionSeries> {
        self.connections.series(key)
    }
}

/// The metrics of all workers.
#[derive(Debug)]
pub struct Metrics {
    node: Node,
    identity: IdentityWatch,
    workers: Mutex<Vec<Arc<WorkerMetrics>>>,
}

impl Metrics {
    /// No counters yet. `identity` names us as principal.
    pub fn new(node: Node, identity: IdentityWatch) -> Self {
        Self { node, identity, workers: Mutex::default() }
    }

    /// Who we are.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// A part for one more worker.
    pub fn worker(&self) -> Arc<WorkerMetrics> {
        let part = Arc::<WorkerMetrics>::default();
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&part));
        part
    }

    /// Every counter in Prometheus' text format.
    pub fn render(&self) -> String {
        let labels = Labels { node: &self.node, principal: self.principal() };
        let mut requests: BTreeMap<String, MergedRequests> = BTreeMap::new();
        let mut connections: BTreeMap<String, [u64; 4]> = BTreeMap::new();
        let mut crossings = [[0; Limit::ALL.len()]; 2];
        let mut filters: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
        for worker in self.workers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            worker
                .requests
                .each(|key, series| requests.entry(labels.request(key)).or_default().add(series));
            worker.connections.each(|key, series| {
                let merged = connections.entry(labels.connection(key)).or_default();
                let counters = [&series.opened, &series.closed, &series.sent, &series.received];
                merged
                    .iter_mut()
                    .zip(counters)
                    .for_each(|(sum, counter)| *sum += counter.load(Relaxed));
            });
            worker.filters.each(|(counter, value), count| {
                let mut labels = String::new();
                spell(&mut labels, counter.label, value);
                let counted = filters.entry(counter.name).or_default().entry(labels).or_default();
                *counted += count.load(Relaxed);
            });
            let counters = crossings.iter_mut().flatten().zip(worker.crossings.iter().flatten());
            counters.for_each(|(sum, counter)| *sum += counter.load(Relaxed));
        }
        let mut text = String::new();
        render_requests(&mut text, &requests);
        render_connections(&mut text, &connections);
        render_crossings(&mut text, &crossings);
        render_filters(&mut text, &filters);
        text
    }

    fn principal(&self) -> String {
        self.identity
            .borrow()
            .as_ref()
            .map_or_else(String::new, |identity| identity.spiffe_id.to_string())
    }
}

#[derive(Default)]
struct MergedRequests {
    total: u64,
    histograms: [([u64; BUCKETS.len() + 1], u64); 3],
}

impl MergedRequests {
    fn add(&mut self, series: &RequestSeries) {
        self.total += series.total.load(Relaxed);
        let parts = [&series.duration, &series.request_bytes, &series.response_bytes];
        for ((counts, sum), part) in self.histograms.iter_mut().zip(parts) {
            counts
                .iter_mut()
                .zip(&part.counts)
                .for_each(|(count, from)| *count += from.load(Relaxed));
            *sum += part.sum_thousandths.load(Relaxed);
        }
    }
}

fn render_requests(text: &mut String, requests: &BTreeMap<String, MergedRequests>) {
    text.push_str("# TYPE istio_requests_total counter\n");
    for (labels, merged) in requests {
        let _ = writeln!(text, "istio_requests_total{{{labels}}} {}", merged.total);
    }
    let names =
        ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"];
    for (index, name) in names.into_iter().enumerate() {
        let _ = writeln!(text, "# TYPE {name} histogram");
        for (labels, merged) in requests {
            let (counts, sum) = &merged.histograms[index];
            render_histogram(text, name, labels, counts, *sum);
        }
    }
}

fn render_histogram(
    text: &mut String,
    name: &str,
    labels: &str,
    counts: &[u64],
    sum_thousandths: u64,
) {
    let mut total = 0;
    for (count, bound) in
        counts.iter().zip(BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]))
    {
        total += count;
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
    }
    let _ = writeln!(text, "{name}_sum{{{labels}}} {}", sum_thousandths as f64 / 1000.0);
    let _ = writeln!(text, "{name}_count{{{labels}}} {total}");
}

fn render_connections(text: &mut String, connections: &BTreeMap<String, [u64; 4]>) {
    let names = [
        "istio_tcp_connections_opened_total",
        "istio_tcp_connections_closed_total",
        "istio_tcp_sent_bytes_total",
        "istio_tcp_received_bytes_total",
    ];
    for (index, name) in names.into_iter().enumerate() {
        let _ = writeln!(text, "# TYPE {name} counter");
        for (labels, counters) in connections {
            let _ = writeln!(text, "{name}{{{labels}}} {}", counters[index]);
        }
    }
}

fn render_crossings(text: &mut String, crossings: &[[u64; Limit::ALL.len()]; 2]) {
    text.push_str("# TYPE ferromesh_http_limit_exceeded_total counter\n");
    for (direction, counts) in ["downstream", "upstream"].into_iter().zip(crossings) {
        for (limit, count) in Limit::ALL.into_iter().zip(counts) {
            let labels = format!("direction=\"{direction}\",limit=\"{}\"", limit.name());
            let _ = writeln!(text, "ferromesh_http_limit_exceeded_total{{{labels}}} {count}");
        }
    }
}

fn render_filters(text: &mut String, filters: &BTreeMap<&str, BTreeMap<String, u64>>) {
    for (name, series) in filters {
        let _ = writeln!(text, "# TYPE {name} counter");
        for (labels, count) in series {
            let _ = writeln!(text, "{name}{{{labels}}} {count}");
        }
    }
}

/// Spells label sets.
struct Labels<'a> {
    node: &'a Node,
    principal: String,
}

/// One side of a call.
struct Side<'a> {
    workload: &'a Workload,
    principal: &'a str,
    app: &'a str,
    version: &'a str,
}

impl Labels<'_> {
    fn request(&self, key: &RequestKey) -> String {
        let mut text =
            self.common(&key.connection, if key.grpc_status.is_some() { "grpc" } else { "http" });
        let grpc_status = key.grpc_status.map(|status| status.to_string()).unwrap_or_default();
        let _ = write!(
            text,
            ",response_code=\"{}\",grpc_response_status=\"{grpc_status}\"",
            key.status
        );
        text
    }

    fn connection(&self, key: &ConnectionKey) -> String {
        self.common(key, "tcp")
    }

    fn common(&self, key: &ConnectionKey, protocol: &str) -> String {
        let nobody = Workload::default();
        let ours = Side {
            workload: &self.node.workload,
            principal: if key.mutual_tls { &self.principal } else { "" },
            app: &self.node.app,
            version: &self.node.version,
        };
        let workload = key.peer.workload.as_deref().unwrap_or(&nobody);
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
        let mut text = format!("reporter=\"{reporter}\"");
        side_labels(&mut text, "source", source);
        side_labels(&mut text, "destination", destination);
        label(&mut text, "destination_service", &key.service.host);
        label(&mut text, "destination_service_name", &key.service.name);
        label(&mut text, "destination_service_namespace", &key.service.namespace);
        label(&mut text, "request_protocol", protocol);
        label(&mut text, "response_flags", &key.flags.to_string());
        label(&mut text, "connection_security_policy", security(key));
        text
    }
}

fn side_labels(text: &mut String, side: &str, of: &Side<'_>) {
    let namespace_of_principal =
        of.principal.split("/ns/").nth(1).and_then(|rest| rest.split('/').next());
    let namespace =
        Some(&*of.workload.namespace).filter(|n| !n.is_empty()).or(namespace_of_principal);
    for (name, value) in [
        ("workload", &*of.workload.name),
        ("workload_namespace", namespace.unwrap_or_default()),
        ("principal", of.principal),
        ("app", of.app),
        ("version", of.version),
        ("cluster", &of.workload.kube_cluster),
        ("canonical_service", &of.workload.canonical_service),
        ("canonical_revision", canonical_revision(of.workload)),
    ] {
        label(text, &format!("{side}_{name}"), value);
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
    match (key.reporter, key.mutual_tls) {
        (Reporter::Source, _) => "unknown",
        (Reporter::Destination, true) => "mutual_tls",
        (Reporter::Destination, false) => "none",
    }
}

fn label(text: &mut String, name: &str, value: &str) {
    text.push(',');
    spell(text, name, if value.is_empty() { "unknown" } else { value });
}

fn spell(text: &mut String, name: &str, value: &str) {
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
    use tokio::sync::watch;

    use super::*;

    fn metrics() -> Metrics {
        let node = Node {
            workload: Workload::parse("productpage-v1;default;productpage;v1;Kubernetes"),
            app: "productpage".into(),
            version: "v1".into(),
            ..Node::default()
        };
        Metrics::new(node, watch::channel(None).1)
    }

    fn connection(reporter: Reporter) -> ConnectionKey {
        ConnectionKey {
            reporter,
            peer: Peer {
                principal: Some("spiffe://cluster.local/ns/shop/sa/reviews".into()),
                workload: Some(Arc::new(Workload::parse("reviews-v1;default;reviews;;Kubernetes"))),
            },
            service: Service {
                host: "reviews.default.svc".into(),
                name: "reviews".into(),
                namespace: "default".into(),
            },
            mutual_tls: true,
            flags: Flags::default(),
        }
    }

    #[test]
    fn workers_are_merged_under_istios_labels() {
        let metrics = metrics();
        let key =
            RequestKey { connection: connection(Reporter::Source), status: 200, grpc_status: None };
        for _ in 0..2 {
            metrics.worker().requests(&key).record(Duration::from_millis(3), 10, 20);
        }
        let text = metrics.render();
        let line =
            text.lines().find(|line| line.starts_with("istio_requests_total")).expect("a sample");
        for part in [
            "reporter=\"source\"",
            "source_workload=\"productpage-v1\"",
            "source_principal=\"unknown\"",
            "destination_workload=\"reviews-v1\"",
            "destination_workload_namespace=\"default\"",
            "destination_principal=\"spiffe://cluster.local/ns/shop/sa/reviews\"",
            "destination_canonical_revision=\"latest\"",
            "destination_service=\"reviews.default.svc\"",
            "request_protocol=\"http\"",
            "response_code=\"200\"",
            "grpc_response_status=\"\"",
            "response_flags=\"-\"",
            "connection_security_policy=\"unknown\"",
        ] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
        assert!(line.ends_with("} 2"), "{line}");
        let bucket = |bound| format!("le=\"{bound}\"}} 2");
        assert!(text.lines().any(|l| l.starts_with("istio_request_duration_milliseconds_bucket")
            && l.ends_with(&bucket("5"))));
        assert!(
            text.lines().any(|l| l.starts_with("istio_request_bytes_sum") && l.ends_with(" 20"))
        );
    }

    #[test]
    fn the_server_knows_whether_the_connection_was_encrypted() {
        let metrics = metrics();
        let unknown = Peer { workload: None, ..connection(Reporter::Destination).peer };
        let key = ConnectionKey { peer: unknown, ..connection(Reporter::Destination) };
        metrics.worker().connections(&key).opened.fetch_add(1, Relaxed);
        let text = metrics.render();
        let line = text
            .lines()
            .find(|line| line.starts_with("istio_tcp_connections_opened_total"))
            .expect("a sample");
        assert!(line.contains("connection_security_policy=\"mutual_tls\""), "{line}");
        assert!(line.contains("source_workload_namespace=\"shop\""), "{line}");
        assert!(line.contains("destination_workload=\"productpage-v1\""), "{line}");
    }

    #[test]
    fn names_that_clients_invent_are_told_apart_up_to_a_limit() {
        let worker = WorkerMetrics::default();
        let named = |host: &str| worker.host(host).host.to_string();
        for number in 0..MOST_HOSTS {
            assert_eq!(named(&format!("h{number}")), format!("h{number}"));
        }
        assert_eq!((named("one-more"), named("h0")), (String::new(), "h0".to_owned()));
        assert_eq!(WorkerMetrics::default().host(&"a".repeat(LONGEST_HOST + 1)).host, "".into());
    }

    #[test]
    fn label_values_are_escaped() {
        let mut text = String::new();
        label(&mut text, "a", "x\"\\\n");
        assert_eq!(text, r#",a="x\"\\\n""#);
    }
}
