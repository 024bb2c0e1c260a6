//! Istio's standard metrics: one set of counters per worker and label set, merged and rendered when
//! scraped.
//!
//! A worker alone writes its counters, so that an increment touches no contended cache line; its
//! table is locked only to find a label set and to scrape.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    labels::{ConnectionKey, Labels, Node, RequestKey, Speller, spell},
    series::{Counters, Few, Hosts, Seen, Table},
};
use crate::{
    identity::IdentityWatch,
    runtime::{filter::Counter, limits::Limit, metric_rules::Metric},
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

/// Counters of requests with equal labels.
#[derive(Debug, Default)]
pub struct RequestSeries {
    total: AtomicU64,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl RequestSeries {
    fn parts(&self) -> [Sum; 4] {
        let requests = Sum { total: self.total.load(Relaxed), ..Sum::default() };
        [requests, self.duration.sum(), self.request_bytes.sum(), self.response_bytes.sum()]
    }

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

impl ConnectionSeries {
    fn parts(&self) -> [Sum; 4] {
        [&self.opened, &self.closed, &self.sent, &self.received]
            .map(|counter| Sum { total: counter.load(Relaxed), ..Sum::default() })
    }
}

/// A histogram over [`BUCKETS`]; the sum is kept in thousandths.
#[derive(Debug, Default)]
struct Histogram {
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum_thousandths: AtomicU64,
}

impl Histogram {
    fn sum(&self) -> Sum {
        let mut buckets = [0; BUCKETS.len() + 1];
        let counts = buckets.iter_mut().zip(&self.counts);
        counts.for_each(|(count, from)| *count = from.load(Relaxed));
        Sum { total: self.sum_thousandths.load(Relaxed), buckets }
    }

    fn record(&self, value: f64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_thousandths.fetch_add((value * 1000.0) as u64, Relaxed);
    }
}

impl Counters for RequestSeries {
    fn count(&self) -> u64 {
        self.total.load(Relaxed)
    }
}

impl Counters for ConnectionSeries {
    fn count(&self) -> u64 {
        let all = [&self.opened, &self.closed, &self.sent, &self.received];
        all.into_iter().fold(0, |sum, counter| sum.wrapping_add(counter.load(Relaxed)))
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
    filters: Few<(Counter, Arc<str>)>,
    hosts: Hosts,
}

impl WorkerMetrics {
    /// The host of a request for one that no cluster is for, as labels name it; empty, which is
    /// unknown, where clients have named too many.
    pub fn host(&self, named: &str) -> Arc<str> {
        self.hosts.known(named)
    }

    /// Counts one more for a filter; `value` is its label's.
    pub fn count(&self, counter: Counter, value: &Arc<str>) {
        self.count_many(counter, value, 1);
    }

    /// The same for several.
    pub fn count_many(&self, counter: Counter, value: &Arc<str>, many: u64) {
        self.filters.count((counter, Arc::clone(value)), many);
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
    remains: Mutex<Remains>,
}

impl Metrics {
    /// No counters yet. `identity` names us as principal.
    pub fn new(node: Node, identity: IdentityWatch) -> Self {
        Self { node, identity, workers: Mutex::default(), remains: Mutex::default() }
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

    /// Every counter in Prometheus' text format. What has not changed for an hour is then
    /// forgotten.
    pub fn render(&self) -> String {
        self.render_at(Instant::now())
    }

    /// Istio's metrics alone, for who has none of this proxy's own.
    pub fn render_istio(&self) -> String {
        self.render_istio_at(Instant::now())
    }

    fn render_at(&self, now: Instant) -> String {
        let mut text = self.render_istio_at(now);
        self.render_own(&mut text);
        text
    }

    fn workers(&self) -> Vec<Arc<WorkerMetrics>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn render_istio_at(&self, now: Instant) -> String {
        let speller = Speller { node: &self.node, principal: self.principal() };
        // Held to the end, so that of two scrapes at a time each finds sums that are whole.
        let mut remains = self.remains.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = self.workers();
        let mut requests = Merged::default();
        let mut connections = Merged::default();
        for (place, worker) in workers.iter().enumerate() {
            for seen in worker.requests.look(now) {
                let connection = &seen.key.connection;
                let labels = speller.request(&seen.key);
                let names = Metric::OF_REQUESTS.map(|metric| spelled(&labels, connection, metric));
                requests.add(place, seen, names, RequestSeries::parts);
            }
            for seen in worker.connections.look(now) {
                let labels = speller.connection(&seen.key);
                let names =
                    Metric::OF_CONNECTIONS.map(|metric| spelled(&labels, &seen.key, metric));
                connections.add(place, seen, names, ConnectionSeries::parts);
            }
        }
        requests.add_remains(&mut remains.requests);
        connections.add_remains(&mut remains.connections);
        let mut text = String::new();
        requests.render(&mut text, Metric::OF_REQUESTS);
        connections.render(&mut text, Metric::OF_CONNECTIONS);
        requests
            .forget(&mut remains.requests, |place, key| workers[place].requests.forget(key, now));
        connections.forget(&mut remains.connections, |place, key| {
            workers[place].connections.forget(key, now)
        });
        text
    }

    /// Limits that were crossed, and what filters have counted.
    fn render_own(&self, text: &mut String) {
        let mut crossings = [[0; Limit::ALL.len()]; 2];
        let mut filters: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
        for worker in self.workers() {
            worker.filters.each(|(counter, value), count| {
                let mut labels = String::new();
                spell(&mut labels, counter.label, value);
                *filters.entry(counter.name).or_default().entry(labels).or_default() += count;
            });
            let counters = crossings.iter_mut().flatten().zip(worker.crossings.iter().flatten());
            counters.for_each(|(sum, counter)| *sum += counter.load(Relaxed));
        }
        render_crossings(text, &crossings);
        render_filters(text, &filters);
    }

    fn principal(&self) -> String {
        self.identity
            .borrow()
            .as_ref()
            .map_or_else(String::new, |identity| identity.spiffe_id.to_string())
    }
}

/// The labels of a metric in text; `None`: it is left out.
fn spelled(labels: &Labels<'_>, key: &ConnectionKey, metric: Metric) -> Option<String> {
    (!key.drops(metric)).then(|| labels.spell(key, metric))
}

/// What a metric has counted under some labels.
#[derive(Clone, Default, Debug)]
struct Sum {
    /// The counter, or the sum of the distribution in thousandths.
    total: u64,
    /// How often a value was in each bucket; all zero for a counter.
    buckets: [u64; BUCKETS.len() + 1],
}

impl Sum {
    fn add(&mut self, part: &Self) {
        self.total += part.total;
        self.buckets.iter_mut().zip(part.buckets).for_each(|(count, more)| *count += more);
    }
}

/// Sums of four metrics by their labels in text.
type Sums = [BTreeMap<String, Sum>; 4];

/// What forgotten series have counted under labels under which others still count: a sum of which a
/// part went would seem to begin anew.
#[derive(Default, Debug)]
struct Remains {
    requests: Sums,
    connections: Sums,
}

/// A series that may go.
struct Idle<K> {
    worker: usize,
    key: K,
    names: [Option<String>; 4],
    parts: [Sum; 4],
}

/// The series of all workers for the four metrics that they give.
struct Merged<K> {
    metrics: Sums,
    idle: Vec<Idle<K>>,
    /// Labels that somebody still counts under, by metric.
    alive: [HashSet<String>; 4],
}

impl<K> Default for Merged<K> {
    fn default() -> Self {
        Self { metrics: Default::default(), idle: Vec::new(), alive: Default::default() }
    }
}

impl<K> Merged<K> {
    fn add<S>(
        &mut self,
        worker: usize,
        seen: Seen<K, S>,
        names: [Option<String>; 4],
        parts: impl Fn(&S) -> [Sum; 4],
    ) {
        let parts = parts(&seen.series);
        for ((metric, name), part) in self.metrics.iter_mut().zip(&names).zip(&parts) {
            if let Some(name) = name {
                metric.entry(name.clone()).or_default().add(part);
            }
        }
        match seen.idle {
            true => self.idle.push(Idle { worker, key: seen.key, names, parts }),
            false => self.live(names),
        }
    }

    fn live(&mut self, names: [Option<String>; 4]) {
        self.alive.iter_mut().zip(names).for_each(|(alive, name)| alive.extend(name));
    }

    /// Adds what remains of forgotten series, and drops that under labels that nobody has any more.
    fn add_remains(&mut self, remains: &mut Sums) {
        for (metric, remains) in self.metrics.iter_mut().zip(remains) {
            remains.retain(|name, part| {
                let sum = metric.get_mut(name);
                sum.map(|sum| sum.add(part)).is_some()
            });
        }
    }

    /// Has series forgotten that nobody counts under any more, and keeps what they have counted where
    /// others count under the same labels. `forget` says whether a worker has done so.
    fn forget(mut self, remains: &mut Sums, forget: impl Fn(usize, &K) -> bool) {
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.idle)
            .into_iter()
            .partition(|idle| forget(idle.worker, &idle.key));
        kept.into_iter().for_each(|idle| self.live(idle.names));
        for idle in gone {
            let alive = self.alive.iter().zip(remains.iter_mut());
            for ((name, part), (alive, remains)) in
                idle.names.into_iter().zip(&idle.parts).zip(alive)
            {
                if let Some(name) = name.filter(|name| alive.contains(name)) {
                    remains.entry(name).or_default().add(part);
                }
            }
        }
    }

    fn render(&self, text: &mut String, metrics: [Metric; 4]) {
        for (metric, sums) in metrics.into_iter().zip(&self.metrics) {
            let name = metric.full_name();
            let counter = name.ends_with("_total");
            let _ =
                writeln!(text, "# TYPE {name} {}", if counter { "counter" } else { "histogram" });
            for (labels, sum) in sums {
                if counter {
                    let _ = writeln!(text, "{name}{{{labels}}} {}", sum.total);
                } else {
                    render_histogram(text, name, labels, sum);
                }
            }
        }
    }
}

fn render_histogram(text: &mut String, name: &str, labels: &str, sum: &Sum) {
    let mut total = 0;
    // All labels may have been removed.
    let before = if labels.is_empty() { String::new() } else { format!("{labels},") };
    let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    for (count, bound) in sum.buckets.iter().zip(bounds) {
        total += count;
        let _ = writeln!(text, "{name}_bucket{{{before}le=\"{bound}\"}} {total}");
    }
    let _ = writeln!(text, "{name}_sum{{{labels}}} {}", sum.total as f64 / 1000.0);
    let _ = writeln!(text, "{name}_count{{{labels}}} {total}");
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

#[cfg(test)]
mod tests {
    use ferromesh_proto::stats::{MetricConfig, PluginConfig};
    use tokio::sync::watch;

    use super::*;
    use crate::{
        runtime::{
            cluster::ServiceLabel, endpoint::Workload, flags::Flags, metric_rules::MetricRules,
        },
        telemetry::{
            labels::{Changed, Observed, Reporter},
            series::{IDLE, LONGEST_HOST, MOST, MOST_FREE, MOST_HOSTS},
        },
    };

    fn metrics() -> Metrics {
        let node = Node {
            workload: Workload::parse("productpage-v1;default;productpage;v1;Kubernetes"),
            app: "productpage".into(),
            version: "v1".into(),
            ..Node::default()
        };
        Metrics::new(node, watch::channel(None).1)
    }

    fn connection(reporter: Reporter, changed: Option<&Changed>) -> ConnectionKey {
        let workload = Arc::new(Workload::parse("reviews-v1;default;reviews;;Kubernetes"));
        let service = ServiceLabel {
            host: "reviews.default.svc".into(),
            name: "reviews".into(),
            namespace: "default".into(),
        };
        ConnectionKey::from(Observed {
            reporter,
            principal: Some(&"spiffe://cluster.local/ns/shop/sa/reviews".into()),
            workload: (reporter == Reporter::Source).then_some(&workload),
            service: Some(&service),
            cluster: "outbound|80||reviews.default.svc",
            host: Arc::default(),
            flags: Flags::default(),
            changed,
        })
    }

    fn request(connection: ConnectionKey) -> RequestKey {
        RequestKey { connection, status: 200, grpc_status: None }
    }

    /// The samples of a metric, by what stands in braces.
    fn samples<'a>(text: &'a str, metric: &str) -> Vec<(&'a str, u64)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
        let pair = |line: &'a str| {
            let (labels, value) = line.rsplit_once("} ").expect("a sample");
            (labels, value.parse().expect("a number"))
        };
        lines.map(pair).collect()
    }

    #[test]
    fn workers_are_merged_under_istios_labels() {
        let metrics = metrics();
        let key = request(connection(Reporter::Source, None));
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
        let key = connection(Reporter::Destination, None);
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

    /// Rules by which requests say `a` and no longer their source's app, and sizes are left out.
    fn rules() -> Arc<MetricRules> {
        let requests = MetricConfig {
            name: "requests_total".into(),
            dimensions: [("a", "'x'"), ("request_protocol", "'y'")]
                .map(|(label, text)| (label.to_owned(), text.to_owned()))
                .into(),
            tags_to_remove: vec!["source_app".into(), "destination_principal".into()],
            drop: false,
        };
        let bytes = MetricConfig { name: "request_bytes".into(), drop: true, ..Default::default() };
        let config = PluginConfig { metrics: vec![requests, bytes], ..Default::default() };
        Arc::new(MetricRules::new(config).expect("rules"))
    }

    fn changed(a: &str) -> Changed {
        Changed::new(&rules(), [Some(a.into()), None])
    }

    #[test]
    fn rules_change_the_labels_of_their_metric_alone() {
        let metrics = metrics();
        let key = request(connection(Reporter::Source, Some(&changed("1"))));
        metrics.worker().requests(&key).record(Duration::from_millis(3), 10, 20);
        let text = metrics.render();
        let [(labels, 1)] = samples(&text, "istio_requests_total")[..] else { panic!("{text}") };
        assert!(labels.ends_with(",a=\"1\""), "{labels}");
        assert!(labels.contains("request_protocol=\"unknown\""), "it has no value: {labels}");
        assert!(!labels.contains("source_app") && !labels.contains("destination_principal"));
        let [(labels, 1)] = samples(&text, "istio_response_bytes_count")[..] else {
            panic!("{text}")
        };
        assert!(labels.contains("source_app=") && !labels.contains(",a="), "{labels}");
        assert!(!text.contains("istio_request_bytes_count"));
    }

    #[test]
    fn what_callers_choose_fills_no_memory_and_displaces_nobody() {
        let metrics = metrics();
        let worker = metrics.worker();
        let count = |value: &str| {
            let key = request(connection(Reporter::Source, Some(&changed(value))));
            worker.requests(&key).record(Duration::ZERO, 0, 0);
        };
        (0..3 * MOST_FREE).for_each(|value| count(&value.to_string()));
        count(&"long".repeat(100_000));
        let text = metrics.render();
        let found = samples(&text, "istio_requests_total");
        assert_eq!(found.len(), MOST_FREE + 1);
        let rest: u64 = found
            .iter()
            .filter(|(labels, _)| labels.ends_with("a=\"overflow\""))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(rest, 2 * MOST_FREE as u64 + 1);
        // What the mesh names has a series of its own all the same.
        let usual = request(connection(Reporter::Destination, None));
        worker.requests(&usual).record(Duration::ZERO, 0, 0);
        let text = metrics.render();
        let found = samples(&text, "istio_requests_total");
        assert!(found.iter().any(|(labels, _)| labels.starts_with("reporter=\"destination\"")));
    }

    #[test]
    fn names_that_clients_invent_are_told_apart_up_to_a_limit() {
        let worker = WorkerMetrics::default();
        let named = |host: &str| worker.host(host).to_string();
        for number in 0..MOST_HOSTS {
            assert_eq!(named(&format!("h{number}")), format!("h{number}"));
        }
        assert_eq!((named("one-more"), named("h0")), (String::new(), "h0".to_owned()));
        assert_eq!(WorkerMetrics::default().host(&"a".repeat(LONGEST_HOST + 1)), "".into());
    }

    #[test]
    fn a_full_table_counts_the_rest_under_one_series() {
        let metrics = metrics();
        let worker = metrics.worker();
        let statuses = 1_000..=u16::MAX;
        for status in statuses.clone() {
            let key = RequestKey { status, ..request(connection(Reporter::Source, None)) };
            worker.requests(&key).record(Duration::ZERO, 0, 0);
        }
        let text = metrics.render();
        let found = samples(&text, "istio_requests_total");
        assert_eq!(found.len(), MOST + 1);
        let all: u64 = found.iter().map(|(_, count)| count).sum();
        assert_eq!(all, statuses.len() as u64, "nothing is lost");
        assert!(found.iter().any(|(l, _)| l.contains("destination_service=\"overflow\"")));
    }

    #[test]
    fn a_series_that_stands_still_is_forgotten_unless_others_count_under_its_labels() {
        let metrics = metrics();
        let (one, other) = (metrics.worker(), metrics.worker());
        let moving = request(connection(Reporter::Source, None));
        let still = request(connection(Reporter::Source, Some(&changed("still"))));
        for (worker, key) in [(&one, &moving), (&other, &moving), (&one, &still)] {
            worker.requests(key).record(Duration::ZERO, 0, 0);
        }
        let open = one.connections(&connection(Reporter::Source, None));
        open.opened.fetch_add(1, Relaxed);
        let start = Instant::now();
        let count = |text: &str| samples(text, "istio_requests_total").len();
        // Of this metric both have the same labels.
        let sizes = |text: &str| {
            let [(_, all)] = samples(text, "istio_response_bytes_count")[..] else {
                panic!("{text}")
            };
            all
        };
        assert_eq!(count(&metrics.render_at(start)), 2);
        one.requests(&moving).record(Duration::ZERO, 0, 0);
        assert_eq!(count(&metrics.render_at(start + IDLE - Duration::from_secs(1))), 2);
        let text = metrics.render_at(start + IDLE);
        assert_eq!((count(&text), sizes(&text)), (2, 4), "it is told a last time");
        let text = metrics.render_at(start + IDLE);
        let [(_, 3)] = samples(&text, "istio_requests_total")[..] else { panic!("{text}") };
        assert_eq!(sizes(&text), 4, "nothing that others count under begins anew");
        assert_eq!(samples(&text, "istio_tcp_connections_opened_total").len(), 1, "it is open");
        drop(open);
        metrics.render_at(start + IDLE);
        let text = metrics.render_at(start + IDLE);
        assert_eq!(samples(&text, "istio_tcp_connections_opened_total").len(), 0);
    }
}
