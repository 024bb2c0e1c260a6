//! Counters and gauges under the names that Istio's dashboards query, and the registry that serves
//! them.
//!
//! A sink: everybody writes, nobody reads back. Labels are bounded by construction.

pub mod admission;
mod count;
mod exposition;

use std::{sync::Arc, time::Duration};

use ferromesh_proto::ResourceType;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

pub use self::{count::Count, exposition::Exposition};

/// Upper bounds of push and convergence times, in seconds (those of istiod).
const PUSH_BUCKETS: [f64; 11] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 1.0, 3.0, 10.0, 20.0];

/// A metric by xDS type.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ByType {
    r#type: &'static str,
}

/// A metric by kind of objects.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ByKind {
    kind: &'static str,
}

/// A metric by how something ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ByOutcome {
    outcome: &'static str,
}

/// A metric by how much something matters.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct BySeverity {
    severity: &'static str,
}

/// A metric by port.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ByPort {
    door: &'static str,
}

/// Refusals of a port by their reason.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ByReason {
    door: &'static str,
    reason: &'static str,
}

/// Every metric of the control plane.
pub struct Metrics {
    registry: Registry,
    /// Open xDS streams.
    pub streams: Gauge,
    pushes: Family<ByType, Count>,
    rejects: Family<ByType, Count>,
    refused: Family<ByType, Gauge>,
    /// Streams closed for a reason of the server's own.
    pub internal_errors: Count,
    /// Time to compile one batch of changes.
    pub push_time: Histogram,
    /// Time from a change of the configuration until a proxy has accepted it.
    pub convergence_time: Histogram,
    /// Batches of configuration changes that were applied.
    pub push_triggers: Count,
    /// Times that everything was compiled again, after the start.
    pub full_rebuilds: Counter,
    /// Streams refused before they began: not authenticated, not permitted, too many.
    pub refused_streams: Counter,
    /// Shared views in use.
    pub views: Gauge,
    /// Files of the watched directories that cannot be read and have objects in force.
    pub kept_files: Gauge,
    /// When the root certificate ends, in seconds since 1970.
    pub root_expiry: Gauge,
    /// Whether this replica leads: 1 or 0.
    pub leader: Gauge,
    /// Proxies that other replicas tell to be connected to them.
    pub connected_elsewhere: Gauge,
    /// Namespaces that hold the mesh's root.
    pub roots_published: Gauge,
    /// Namespaces where the root of an istiod is left in place.
    pub roots_withheld: Gauge,
    token_reviews: Family<ByOutcome, Counter>,
    /// Statuses of objects written to the API server.
    pub status_writes: Counter,
    /// Statuses and Events that the API server did not take.
    pub status_write_errors: Counter,
    /// Events written to the API server.
    pub events_written: Counter,
    /// What the webhooks did.
    pub admission: admission::Admission,
    watches: Family<ByKind, Gauge>,
    watch_errors: Family<ByKind, Counter>,
    connections: Family<ByPort, Gauge>,
    refusals: Family<ByReason, Counter>,
    findings: Family<BySeverity, Gauge>,
    /// Findings about the mesh that were new when they were looked for.
    pub new_findings: Counter,
}

impl Metrics {
    /// A registry with everything at zero.
    pub fn new() -> Arc<Self> {
        let histogram = || Histogram::new(PUSH_BUCKETS);
        let mut metrics = Self {
            registry: Registry::default(),
            streams: Gauge::default(),
            pushes: Family::default(),
            rejects: Family::default(),
            refused: Family::default(),
            internal_errors: Count::default(),
            push_time: histogram(),
            convergence_time: histogram(),
            push_triggers: Count::default(),
            full_rebuilds: Counter::default(),
            refused_streams: Counter::default(),
            views: Gauge::default(),
            kept_files: Gauge::default(),
            root_expiry: Gauge::default(),
            leader: Gauge::default(),
            connected_elsewhere: Gauge::default(),
            roots_published: Gauge::default(),
            roots_withheld: Gauge::default(),
            token_reviews: Family::default(),
            status_writes: Counter::default(),
            status_write_errors: Counter::default(),
            events_written: Counter::default(),
            admission: admission::Admission::default(),
            watches: Family::default(),
            watch_errors: Family::default(),
            connections: Family::default(),
            refusals: Family::default(),
            findings: Family::default(),
            new_findings: Counter::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        let build = Info::new([("component", "pilot"), ("tag", env!("CARGO_PKG_VERSION"))]);
        r.register("istio_build", "Component build info", build);
        r.register("pilot_xds", "Open xDS streams", self.streams.clone());
        r.register("pilot_xds_pushes", "Responses sent, by type", self.pushes.clone());
        r.register(
            "pilot_total_xds_rejects",
            "Responses that proxies refused, by type",
            self.rejects.clone(),
        );
        let refused = "Resources that proxies refuse now, by type; each proxy counts";
        r.register("mesh_refused_resources", refused, self.refused.clone());
        r.register(
            "pilot_total_xds_internal_errors",
            "Streams closed by an error of the server",
            self.internal_errors.clone(),
        );
        r.register(
            "pilot_xds_push_time",
            "Seconds to compile a batch of changes",
            self.push_time.clone(),
        );
        r.register(
            "pilot_proxy_convergence_time",
            "Seconds from a change until a proxy accepted it",
            self.convergence_time.clone(),
        );
        r.register(
            "pilot_push_triggers",
            "Batches of configuration changes applied",
            self.push_triggers.clone(),
        );
        r.register(
            "mesh_full_rebuilds",
            "Times that everything was compiled again",
            self.full_rebuilds.clone(),
        );
        r.register(
            "mesh_refused_streams",
            "Streams refused before they began",
            self.refused_streams.clone(),
        );
        r.register("mesh_views", "Shared views in use", self.views.clone());
        r.register(
            "mesh_directory_kept_files",
            "Files that cannot be read, whose last good version stays in force",
            self.kept_files.clone(),
        );
        r.register(
            "citadel_server_root_cert_expiry_timestamp",
            "End of the root certificate, seconds since 1970",
            self.root_expiry.clone(),
        );
        r.register(
            "mesh_leader",
            "Whether this replica leads, and writes what is written once",
            self.leader.clone(),
        );
        let elsewhere = "Proxies that are connected to other replicas";
        r.register("mesh_connected_elsewhere", elsewhere, self.connected_elsewhere.clone());
        let (published, withheld) = (self.roots_published.clone(), self.roots_withheld.clone());
        r.register(
            "mesh_roots_published",
            "Namespaces that hold the mesh's root, as the leader knows",
            published,
        );
        r.register(
            "mesh_roots_withheld",
            "Namespaces where an istiod's root is left in place",
            withheld,
        );
        r.register(
            "mesh_token_reviews",
            "Kubernetes tokens presented, by outcome",
            self.token_reviews.clone(),
        );
        r.register("mesh_status_writes", "Statuses of objects written", self.status_writes.clone());
        r.register(
            "mesh_status_write_errors",
            "Statuses and Events that the API server did not take",
            self.status_write_errors.clone(),
        );
        self.admission.register(r);
        r.register("mesh_events_written", "Events written", self.events_written.clone());
        r.register(
            "mesh_kubernetes_listed",
            "Whether every object of a kind in the cluster is known (0: not yet, or the cluster lacks the kind)",
            self.watches.clone(),
        );
        r.register(
            "mesh_kubernetes_watch_errors",
            "Failed questions to the API server, by kind",
            self.watch_errors.clone(),
        );
        r.register("mesh_door_connections", "Connections, by port", self.connections.clone());
        r.register(
            "mesh_door_refusals",
            "Who was not served, by port and reason",
            self.refusals.clone(),
        );
        let findings = "Findings about the mesh that stand now, by severity";
        r.register("mesh_findings", findings, self.findings.clone());
        r.register("mesh_new_findings", "Warnings and errors found", self.new_findings.clone());
    }

    /// So many findings of this severity stand now.
    pub fn findings(&self, severity: &'static str, findings: i64) {
        self.findings.get_or_create(&BySeverity { severity }).set(findings);
    }

    /// A port has so many connections.
    pub fn connected(&self, port: &'static str, connections: usize) {
        self.connections
            .get_or_create(&ByPort { door: port })
            .set(connections.try_into().unwrap_or(i64::MAX));
    }

    /// Somebody was not served.
    pub fn turned_away(&self, port: &'static str, reason: &'static str) {
        self.refusals.get_or_create(&ByReason { door: port, reason }).inc();
    }

    /// A watch of the cluster said something: whether all of the kind is known now, and whether
    /// that was an error.
    pub fn watched(&self, kind: &'static str, listed: bool, failed: bool) {
        self.watches.get_or_create(&ByKind { kind }).set(listed.into());
        if failed {
            self.watch_errors.get_or_create(&ByKind { kind }).inc();
        }
    }

    /// A Kubernetes token was checked: `accepted`, `remembered`, `refused` or `unanswered`.
    pub fn token_review(&self, outcome: &'static str) {
        self.token_reviews.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// A response of this type was sent.
    pub fn pushed(&self, kind: ResourceType) {
        self.pushes.get_or_create(&ByType { r#type: kind.row().label }).inc();
    }

    /// A response of this type was refused.
    pub fn rejected(&self, kind: ResourceType) {
        self.rejects.get_or_create(&ByType { r#type: kind.row().label }).inc();
    }

    /// So many resources of this type are refused now.
    pub fn refused(&self, kind: ResourceType, resources: usize) {
        self.refused
            .get_or_create(&ByType { r#type: kind.row().label })
            .set(i64::try_from(resources).unwrap_or(i64::MAX));
    }

    /// A proxy accepted a change this long after it was made.
    pub fn converged(&self, after: Duration) {
        self.convergence_time.observe(after.as_secs_f64());
    }

    /// Everything as OpenMetrics text.
    ///
    /// # Panics
    /// Never: writing to a string does not fail.
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_dashboards_query() {
        let metrics = Metrics::new();
        metrics.streams.set(3);
        metrics.pushed(ResourceType::Cluster);
        metrics.rejected(ResourceType::Route);
        metrics.converged(Duration::from_millis(2));
        metrics.watched("Pod", true, false);
        metrics.watched("Sidecar", false, true);
        metrics.connected("xds-tls", 7);
        metrics.turned_away("xds-tls", "silent");
        metrics.findings("warn", 2);
        metrics.new_findings.inc();
        let text = metrics.render();
        for line in [
            "pilot_xds 3",
            "pilot_xds_pushes{type=\"cds\"} 1",
            "pilot_total_xds_rejects{type=\"rds\"} 1",
            "pilot_proxy_convergence_time_count 1",
            "istio_build_info{component=\"pilot\"",
            "mesh_kubernetes_listed{kind=\"Pod\"} 1",
            "mesh_kubernetes_listed{kind=\"Sidecar\"} 0",
            "mesh_kubernetes_watch_errors_total{kind=\"Sidecar\"} 1",
            "mesh_findings{severity=\"warn\"} 2",
            "mesh_new_findings_total 1",
            "mesh_door_connections{door=\"xds-tls\"} 7",
            "mesh_door_refusals_total{door=\"xds-tls\",reason=\"silent\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
    #[test]
    fn every_metric_is_described_in_both_forms() {
        let metrics = Metrics::new();
        metrics.turned_away("xds-tls", "silent");
        for form in [Exposition::OpenMetrics, Exposition::Text] {
            let text = form.spell(metrics.render());
            let named = |what: &'static str| {
                let said = text.lines().filter_map(move |line| line.strip_prefix(what));
                said.filter_map(|said| said.split(' ').next()).collect::<Vec<_>>()
            };
            let typed = named("# TYPE ");
            assert!(typed.len() > 20 && typed == named("# HELP "), "{form:?}: {text}");
            let refusals = match form {
                Exposition::OpenMetrics => "mesh_door_refusals",
                Exposition::Text => "mesh_door_refusals_total",
            };
            assert!(typed.contains(&refusals), "{form:?}: {typed:?}");
        }
    }
}
