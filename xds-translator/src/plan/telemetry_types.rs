//! Plan items of what proxies tell: logs, spans and metrics.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::ir::{
    CallSide, LabelChange, LogFormat, LogService, Metric, PerMillion, TagValue, TracerForm,
};

/// A log.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct AccessLogPlan {
    /// Where entries go.
    pub sink: LogSinkPlan,
    /// Only of what this CEL expression is true for; `None`: of everything.
    pub filter: Option<Arc<str>>,
}

/// Where log entries go.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum LogSinkPlan {
    /// A file.
    File {
        /// `/dev/stdout` or a path.
        path: Arc<str>,
        /// What a line says.
        format: LogFormat,
        /// Leaves out what has no value.
        omit_empty: bool,
    },
    /// Envoy's service for entries of requests.
    HttpService {
        /// Where.
        collector: PlannedCollector,
        /// What it gets.
        service: LogService,
    },
    /// Envoy's service for entries of connections.
    TcpService {
        /// Where.
        collector: PlannedCollector,
        /// What it gets.
        service: LogService,
    },
    /// A collector that takes OTLP.
    Otlp {
        /// Where.
        collector: PlannedCollector,
        /// Name of the log.
        name: Arc<str>,
        /// The text of an entry; empty: the default.
        body: Arc<str>,
        /// Its attributes, a JSON object; empty: none.
        attributes: Arc<str>,
    },
}

/// A service that is told something.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct PlannedCollector {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// Its host, as calls name it.
    pub host: Arc<str>,
}

/// Spans of requests.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TracingPlan {
    /// Who takes them; `None`: requests are only marked.
    pub tracer: Option<TracerPlan>,
    /// How many of the requests that nobody decided about are traced.
    pub sampling: PerMillion,
    /// Whether the id of the request tells if it is traced.
    pub by_request_id: bool,
    /// What every span says, by name.
    pub tags: BTreeMap<Arc<str>, TagPlan>,
    /// Longest path in a span; `None`: 256.
    pub longest_path: Option<u32>,
    /// Requests are not told of their trace.
    pub silent: bool,
}

impl TracingPlan {
    /// Requests are marked, and nobody takes spans.
    pub fn marking(sampling: PerMillion, by_request_id: bool) -> Self {
        Self {
            tracer: None,
            sampling,
            by_request_id,
            tags: BTreeMap::new(),
            longest_path: None,
            silent: false,
        }
    }
}

/// Who takes spans.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct TracerPlan {
    /// Where.
    pub collector: PlannedCollector,
    /// Who decides which requests are traced; `None`: a share of them is.
    pub sampler: Option<PlannedCollector>,
    /// In which form.
    pub form: TracerForm,
    /// Whose spans they are, as tracers show it; may be empty.
    pub service: Arc<str>,
}

/// What a tag of a span says.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum TagPlan {
    /// As it is asked for.
    Value(TagValue),
    /// What access policies that are only tried out would have done, by this key of the filter that
    /// tries them.
    TriedOut(Arc<str>),
}

/// Metrics of requests and connections, where somebody makes them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct MetricsPlan {
    /// Whether the proxy itself does, else its agent.
    pub by_proxy: bool,
    /// Which side of calls reports.
    pub side: CallSide,
    /// What stands for the service of a request that goes to none: whoever calls from outside
    /// names what it likes.
    pub unknown_hosts: UnknownHosts,
    /// What is different of some metrics; those that are as usual are not there.
    pub changes: BTreeMap<Metric, MetricPlan>,
}

/// What stands for the service of a request that goes to none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum UnknownHosts {
    /// The host that it names.
    Named,
    /// Nothing.
    Unnamed,
}

/// What is different of a metric.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct MetricPlan {
    /// It is left out.
    pub dropped: bool,
    /// What becomes of its labels, by name.
    pub labels: BTreeMap<Arc<str>, LabelChange>,
}
