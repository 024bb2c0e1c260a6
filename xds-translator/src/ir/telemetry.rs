//! What proxies tell of the traffic that they carry: log entries, spans and metrics, and who takes
//! them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use ferromesh_proto::stats::Metric;
use serde::Serialize;

use super::{Field, Hostname, Labels, Origin, PerMillion, Selector};

/// What holds where no policy says otherwise, and what policies may name.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TelemetryDefaults {
    /// By name in lower case; names are compared so.
    pub providers: BTreeMap<Arc<str>, TelemetryProvider>,
    /// Provider of spans; `None`: no policy, no spans.
    pub tracing: Option<Arc<str>>,
    /// Providers of log entries.
    pub access_logs: Vec<Arc<str>>,
    /// Written where no provider of log entries is named by anybody.
    pub logs: Vec<LogSink>,
    /// Whether connections are logged that no chain of a listener takes.
    pub unmatched: bool,
    /// Takes spans where no provider is named by anybody.
    pub tracer: Option<Tracer>,
    /// Whether requests are marked for tracing although nobody may take spans.
    pub marks_requests: bool,
    /// How many of the requests that nobody decided about are traced.
    pub sampling: PerMillion,
    /// What every span says; by name.
    pub tags: BTreeMap<Arc<str>, TagValue>,
    /// Whether spans say what workload they are of.
    pub workload_tags: bool,
    /// After what spans name the service that they are of.
    pub span_service: SpanService,
    /// Longest path in a span, in bytes; `None`: 256.
    pub longest_path: Option<u32>,
}

impl Default for TelemetryDefaults {
    fn default() -> Self {
        Self {
            providers: built_in().map(|(name, provider)| (name.into(), provider)).into(),
            tracing: None,
            access_logs: Vec::new(),
            logs: Vec::new(),
            unmatched: true,
            tracer: None,
            marks_requests: true,
            sampling: PerMillion(10_000),
            tags: BTreeMap::new(),
            workload_tags: true,
            span_service: SpanService::default(),
            longest_path: None,
        }
    }
}

/// Providers that a mesh has though nobody has defined any.
fn built_in() -> [(&'static str, TelemetryProvider); 3] {
    let (path, format) = ("/dev/stdout".into(), LogFormat::Text("".into()));
    let log = LogSink::File { path, format, omit_empty: false };
    [
        ("envoy", TelemetryProvider::Log(log)),
        ("prometheus", TelemetryProvider::Metrics),
        ("stackdriver", TelemetryProvider::Other),
    ]
}

impl TelemetryDefaults {
    /// The provider of this name, in any case.
    pub fn provider(&self, name: &str) -> Option<&TelemetryProvider> {
        self.providers.get(name.to_lowercase().as_str())
    }
}

/// After what spans name the service that they are of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub enum SpanService {
    /// The label `app`, if there is one, and the namespace.
    AppAndNamespace,
    /// The canonical name alone.
    Canonical,
    /// The canonical name and the namespace.
    #[default]
    CanonicalAndNamespace,
}

/// Who takes what proxies tell.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum TelemetryProvider {
    /// Takes spans.
    Tracer(Tracer),
    /// Takes log entries.
    Log(LogSink),
    /// Fetches metrics, which every proxy has.
    Metrics,
    /// Nothing of this kind: proxies have no part for it, or it is asked about access.
    Other,
}

/// A service that is told something.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Collector {
    /// Its host.
    pub host: Hostname,
    /// The namespace of its service, if several have the host; `None`: any.
    pub namespace: Option<Arc<str>>,
    /// Its port.
    pub port: u16,
}

/// Who takes spans, and how.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Tracer {
    /// Where.
    pub collector: Collector,
    /// Longest path in a span, in bytes; `None`: as for all.
    pub longest_path: Option<u32>,
    /// In which form.
    pub form: TracerForm,
}

/// The forms of spans.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum TracerForm {
    /// OTLP.
    OpenTelemetry(OtlpTracer),
    /// Zipkin's, version 2.
    Zipkin {
        /// Where spans are posted.
        call: HttpCall,
        /// Ids of 64 bits.
        short_ids: bool,
        /// Traces are told by `traceparent` beside `x-b3-…`.
        w3c: bool,
    },
    /// Datadog's.
    Datadog,
    /// SkyWalking's.
    SkyWalking,
}

/// Spans over OTLP.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct OtlpTracer {
    /// How they are sent.
    pub transport: OtlpTransport,
    /// They say what the proxy's environment says (`OTEL_RESOURCE_ATTRIBUTES`).
    pub environment: bool,
    /// They say what Dynatrace's files on the proxy's machine say.
    pub dynatrace: bool,
    /// Decides which requests are traced, instead of a share.
    pub sampler: Option<DynatraceSampler>,
}

/// How OTLP is sent.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum OtlpTransport {
    /// gRPC.
    Grpc {
        /// Limit of a call.
        timeout: Option<Duration>,
        /// Metadata of every call.
        metadata: Vec<(Arc<str>, Arc<str>)>,
    },
    /// HTTP.
    Http(HttpCall),
}

/// A call over HTTP.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct HttpCall {
    /// The path.
    pub path: Arc<str>,
    /// Its limit.
    pub timeout: Duration,
    /// Its headers.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
}

/// Dynatrace's sampler.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct DynatraceSampler {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The cluster.
    pub cluster_id: i32,
    /// Target of traces until Dynatrace gives one; 0: its default.
    pub root_spans_per_minute: u32,
    /// Who is asked.
    pub collector: Collector,
    /// How.
    pub call: HttpCall,
}

/// Where log entries go.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum LogSink {
    /// A file.
    File {
        /// `/dev/stdout` or a path.
        path: Arc<str>,
        /// What a line says.
        format: LogFormat,
        /// Leaves out what has no value.
        omit_empty: bool,
    },
    /// A service of Envoy's that takes entries of requests.
    HttpService(LogService),
    /// A service of Envoy's that takes entries of connections.
    TcpService(LogService),
    /// A collector that takes OTLP.
    Otlp {
        /// Where.
        collector: Collector,
        /// Name of the log.
        name: Arc<str>,
        /// The text of an entry; empty: the default.
        body: Arc<str>,
        /// Its attributes, a JSON object; empty: none.
        attributes: Arc<str>,
    },
}

impl LogSink {
    /// The service that is told; `None`: a file is.
    pub fn collector(&self) -> Option<&Collector> {
        match self {
            Self::File { .. } => None,
            Self::HttpService(service) | Self::TcpService(service) => Some(&service.collector),
            Self::Otlp { collector, .. } => Some(collector),
        }
    }
}

/// A log service of Envoy's.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct LogService {
    /// Where.
    pub collector: Collector,
    /// Name of the log.
    pub name: Arc<str>,
    /// Objects of the filter state that entries have.
    pub filter_state: Vec<Arc<str>>,
    /// Headers of the request that entries have.
    pub request_headers: Vec<Arc<str>>,
    /// Headers of the response that entries have.
    pub response_headers: Vec<Arc<str>>,
    /// Trailers of the response that entries have.
    pub response_trailers: Vec<Arc<str>>,
}

/// What a line of a log says.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum LogFormat {
    /// Text; empty: the default.
    Text(Arc<str>),
    /// A JSON object, as text; empty, or no object: the default.
    Json(Arc<str>),
}

/// What a tag of a span says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum TagValue {
    /// This.
    Literal(Arc<str>),
    /// A variable of the proxy's environment, and what is said without it.
    Environment(Arc<str>, Arc<str>),
    /// A header of the request, and what is said without it.
    Header(Arc<str>, Arc<str>),
    /// What a format of log lines gives.
    Formatted(Arc<str>),
}

/// What one object says of telemetry.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TelemetryPolicy {
    /// The object. In the root namespace without a selector it is mesh-wide.
    pub origin: Origin,
    /// Workloads of its namespace; empty: all of them.
    pub selector: Selector,
    /// Later ones add to what earlier ones say.
    pub tracing: Vec<TracingRule>,
    /// Likewise.
    pub access_logs: Vec<LogRule>,
    /// Likewise.
    pub metrics: Vec<MetricsRule>,
}

impl TelemetryPolicy {
    /// Whether it may speak for workloads with these labels. `root`: the root namespace.
    pub fn governs(&self, root: &str, namespace: &str, labels: &Labels) -> bool {
        let own = *self.origin.id.namespace == *namespace;
        let mesh_wide = *self.origin.id.namespace == *root && self.selector.is_empty();
        (own || mesh_wide) && self.selector.matches(labels)
    }
}

/// Which side of a call tells of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum CallSide {
    /// Who calls; gateways too.
    Client,
    /// Who is called.
    Server,
}

/// Spans; what is `None` stays as a less special rule says.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TracingRule {
    /// Where it is written.
    pub at: Field,
    /// `None`: both.
    pub side: Option<CallSide>,
    /// Who takes them.
    pub provider: Option<Arc<str>>,
    /// How many of the requests that nobody decided about are traced.
    pub sampling: Option<PerMillion>,
    /// Whether none are sent.
    pub disabled: Option<bool>,
    /// What they say, by name.
    pub tags: Option<BTreeMap<Arc<str>, TagValue>>,
    /// Whether the id of the request tells if it is traced.
    pub by_request_id: Option<bool>,
    /// Whether they say what workload they are of.
    pub workload_tags: Option<bool>,
    /// Whether requests are not told of their trace.
    pub silent: Option<bool>,
}

/// Log entries.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct LogRule {
    /// Where it is written.
    pub at: Field,
    /// `None`: both.
    pub side: Option<CallSide>,
    /// Who takes them; empty: as a less special rule says.
    pub providers: Vec<Arc<str>>,
    /// Only of what this CEL expression is true for; `None`: of everything.
    pub filter: Option<Arc<str>>,
    /// None are written.
    pub disabled: bool,
}

/// Metrics.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct MetricsRule {
    /// Where it is written.
    pub at: Field,
    /// Who fetches them; empty: as a less special rule says.
    pub providers: Vec<Arc<str>>,
    /// Later ones add to what earlier ones say.
    pub changes: Vec<MetricChange>,
}

/// What is different of some metrics.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct MetricChange {
    /// On which side of a call; `None`: on both.
    pub side: Option<CallSide>,
    /// Of which; sorted.
    pub metrics: Vec<Metric>,
    /// Whether they are left out; `None`: as before.
    pub dropped: Option<bool>,
    /// Their labels, by name.
    pub labels: BTreeMap<Arc<str>, LabelChange>,
}

/// What becomes of a label.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum LabelChange {
    /// It says what this CEL expression gives.
    Value(Arc<str>),
    /// It is left out.
    Removed,
}
