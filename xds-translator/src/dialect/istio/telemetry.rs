//! `telemetry.istio.io Telemetry`: fields only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::shared::{TargetRef, WorkloadSelector};
use crate::dialect::schema::{choice, object};

object! { no_null;
    /// What workloads tell of their traffic.
    Telemetry {
        /// Workloads of the namespace; absent: all (in the root namespace: all of the mesh).
        "selector" selector: Option<WorkloadSelector>,
        /// Deprecated: use `targetRefs`.
        "targetRef" target_ref: Option<TargetRef>,
        /// Gateways, services or waypoints instead of a selector.
        "targetRefs" target_refs: Vec<TargetRef>,
        /// Spans.
        "tracing" tracing: Vec<Tracing>,
        /// Metrics.
        "metrics" metrics: Vec<Metrics>,
        /// Log entries.
        "accessLogging" access_logging: Vec<AccessLogging>,
    }
}

object! { no_null;
    /// Spans.
    Tracing {
        /// Which side of a call; absent: both.
        "match" matches: Option<ModeMatch>,
        /// Who takes them; the first counts.
        "providers" providers: Vec<ProviderRef>,
        /// How many percent of the requests are traced about which nobody decided.
        "randomSamplingPercentage" random_sampling: Option<f64>,
        /// Sends none.
        "disableSpanReporting" disabled: Option<bool>,
        /// What they say, by name.
        "customTags" custom_tags: Option<BTreeMap<Arc<str>, CustomTag>>,
        /// Whether the id of the request tells if it is traced (true).
        "useRequestIdForTraceSampling" by_request_id: Option<bool>,
        /// Whether they say what workload they are of (true).
        "enableIstioTags" enable_istio_tags: Option<bool>,
        /// Whether requests are not told of their trace (false).
        "disableContextPropagation" disable_context_propagation: Option<bool>,
    }
}

object! { no_null;
    /// Which side of a call is meant.
    ModeMatch {
        /// The side.
        "mode" mode: WorkloadMode,
    }
}

choice! {
    /// A side of a call.
    WorkloadMode {
        /// Both.
        Both = "CLIENT_AND_SERVER",
        /// Who calls; gateways too.
        Client = "CLIENT",
        /// Who is called.
        Server = "SERVER",
    }
}

object! { no_null;
    /// A provider of the mesh configuration.
    ProviderRef {
        /// Its name.
        "name" name: Arc<str> [required],
    }
}

object! { no_null;
    /// What a span says; one of these.
    CustomTag {
        /// Always the same.
        "literal" literal: Option<Literal>,
        /// A variable of the proxy's environment.
        "environment" environment: Option<Looked>,
        /// A header of the request.
        "header" header: Option<Looked>,
        /// What a format of log lines gives.
        "formatter" formatter: Option<Literal>,
    }
}

object! { no_null;
    /// A text.
    Literal {
        /// The text.
        "value" value: Arc<str> [required],
    }
}

object! { no_null;
    /// Something that is looked up.
    Looked {
        /// Its name.
        "name" name: Arc<str> [required],
        /// What is said without it.
        "defaultValue" default_value: Arc<str>,
    }
}

object! { no_null;
    /// Metrics.
    Metrics {
        /// Who fetches them.
        "providers" providers: Vec<ProviderRef>,
        /// What of them is different.
        "overrides" overrides: Vec<MetricsOverride>,
        /// How often they are reported.
        "reportingInterval" reporting_interval: Option<Duration>,
    }
}

object! { no_null;
    /// What is different of some metrics.
    MetricsOverride {
        /// Of which; absent: of all.
        "match" matches: Option<MetricMatch>,
        /// Leaves them out.
        "disabled" disabled: Option<bool>,
        /// Their labels, by name.
        "tagOverrides" tag_overrides: BTreeMap<Arc<str>, TagOverride>,
    }
}

object! { no_null;
    /// Some metrics.
    MetricMatch {
        /// One of Istio's, or all.
        "metric" metric: Option<IstioMetric>,
        /// Another one, by name.
        "customMetric" custom_metric: Option<Arc<str>>,
        /// On which side of a call.
        "mode" mode: WorkloadMode,
    }
}

choice! {
    /// Istio's metrics.
    IstioMetric {
        /// Every one.
        All = "ALL_METRICS",
        /// `istio_requests_total`.
        RequestCount = "REQUEST_COUNT",
        /// `istio_request_duration_milliseconds`.
        RequestDuration = "REQUEST_DURATION",
        /// `istio_request_bytes`.
        RequestSize = "REQUEST_SIZE",
        /// `istio_response_bytes`.
        ResponseSize = "RESPONSE_SIZE",
        /// `istio_tcp_connections_opened_total`.
        TcpOpened = "TCP_OPENED_CONNECTIONS",
        /// `istio_tcp_connections_closed_total`.
        TcpClosed = "TCP_CLOSED_CONNECTIONS",
        /// `istio_tcp_sent_bytes_total`.
        TcpSent = "TCP_SENT_BYTES",
        /// `istio_tcp_received_bytes_total`.
        TcpReceived = "TCP_RECEIVED_BYTES",
        /// `istio_request_messages_total`.
        GrpcRequests = "GRPC_REQUEST_MESSAGES",
        /// `istio_response_messages_total`.
        GrpcResponses = "GRPC_RESPONSE_MESSAGES",
    }
}

object! { no_null;
    /// A label of a metric.
    TagOverride {
        /// What is done with it.
        "operation" operation: TagOperation,
        /// Its value, a CEL expression.
        "value" value: Arc<str>,
    }
}

choice! {
    /// What is done with a label.
    TagOperation {
        /// It is added, or has another value.
        Upsert = "UPSERT",
        /// It is left out.
        Remove = "REMOVE",
    }
}

object! { no_null;
    /// Log entries.
    AccessLogging {
        /// Which side of a call; absent: both.
        "match" matches: Option<ModeMatch>,
        /// Who takes them.
        "providers" providers: Vec<ProviderRef>,
        /// Writes none.
        "disabled" disabled: Option<bool>,
        /// Of what entries are written; absent: of everything.
        "filter" filter: Option<LogFilter>,
    }
}

object! { no_null;
    /// Of what entries are written.
    LogFilter {
        /// A CEL expression that is true for it.
        "expression" expression: Arc<str> [required],
    }
}
