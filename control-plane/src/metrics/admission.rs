//! Metrics of the webhooks, under istiod's names.

use std::time::Duration;

use ferromesh_xds_translator::dialect::Kind;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::count::Count;

/// Upper bounds of the time that an injection takes, in seconds.
const BUCKETS: [f64; 8] = [0.0005, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];

/// How an injection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Injection {
    /// The pod is part of the mesh.
    Success,
    /// The pod was refused, or could not be read.
    Failure,
    /// The pod was left alone.
    Skip,
}

/// What the webhooks did.
pub struct Admission {
    requests: Counter,
    success: Counter,
    failure: Counter,
    skip: Counter,
    time: Histogram,
    passed: Family<ByResource, Count>,
    failed: Family<Failed, Count>,
    http_errors: Family<ByStatus, Count>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByResource {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Failed {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ByStatus {
    status: u16,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            requests: Counter::default(),
            success: Counter::default(),
            failure: Counter::default(),
            skip: Counter::default(),
            time: Histogram::new(BUCKETS),
            passed: Family::default(),
            failed: Family::default(),
            http_errors: Family::default(),
        }
    }
}

impl Admission {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "sidecar_injection_requests",
            "Pods that the injector was asked about",
            self.requests.clone(),
        );
        r.register("sidecar_injection_success", "Pods injected", self.success.clone());
        r.register(
            "sidecar_injection_failure",
            "Pods refused, or not readable",
            self.failure.clone(),
        );
        r.register("sidecar_injection_skip", "Pods left alone", self.skip.clone());
        r.register("sidecar_injection_time_seconds", "Seconds to inject a pod", self.time.clone());
        r.register("galley_validation_passed", "Objects found valid", self.passed.clone());
        r.register("galley_validation_failed", "Objects refused", self.failed.clone());
        r.register(
            "galley_validation_http_error",
            "Questions that could not be answered",
            self.http_errors.clone(),
        );
    }

    /// The injector was asked, and how that ended.
    pub fn injected(&self, how: Injection, took: Duration) {
        self.requests.inc();
        self.time.observe(took.as_secs_f64());
        match how {
            Injection::Success => self.success.inc(),
            Injection::Failure => self.failure.inc(),
            Injection::Skip => self.skip.inc(),
        };
    }

    /// An object was found valid; `None`: its kind is unknown.
    pub fn passed(&self, kind: Option<Kind>) {
        let (group, version, resource) = labels(kind);
        self.passed.get_or_create(&ByResource { group, version, resource }).inc();
    }

    /// An object was refused for a finding with this code.
    pub fn failed(&self, kind: Option<Kind>, reason: &'static str) {
        let (group, version, resource) = labels(kind);
        self.failed.get_or_create(&Failed { group, version, resource, reason }).inc();
    }

    /// The validator answered with an HTTP error.
    pub fn http_error(&self, status: u16) {
        self.http_errors.get_or_create(&ByStatus { status }).inc();
    }
}

fn labels(kind: Option<Kind>) -> (&'static str, &'static str, &'static str) {
    kind.map_or(("", "", "other"), |kind| (kind.group(), kind.versions()[0], kind.plural()))
}
