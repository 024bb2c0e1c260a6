//! `MeshConfig.extensionProviders`: what telemetry is sent to and who is asked about access; fields
//! only. One type per provider; exactly one of them stands beside the name.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;

use crate::dialect::{
    decode::Decoder,
    schema::{Decode, ObjectSchema, Shape, choice, object},
};

object! { no_null;
    /// A provider, named by policies and telemetry.
    ExtensionProvider {
        /// How others refer to it; without case.
        "name" name: Arc<str> [required],
        /// Asked about access, over HTTP.
        "envoyExtAuthzHttp" ext_authz_http: Option<ExtAuthzHttp>,
        /// Asked about access, over gRPC.
        "envoyExtAuthzGrpc" ext_authz_grpc: Option<ExtAuthzGrpc>,
        /// Takes spans in Zipkin's form.
        "zipkin" zipkin: Option<Zipkin>,
        /// Takes spans in Lightstep's form; Envoy has no such tracer any more.
        "lightstep" lightstep: Option<Value>,
        /// Takes spans in Datadog's form.
        "datadog" datadog: Option<Datadog>,
        /// Takes spans and logs in Stackdriver's form; Envoy has no such tracer any more.
        "stackdriver" stackdriver: Option<Value>,
        /// Takes spans in OpenCensus' form; Envoy has no such tracer any more.
        "opencensus" opencensus: Option<Value>,
        /// Takes spans in SkyWalking's form.
        "skywalking" skywalking: Option<SkyWalking>,
        /// Takes spans over OTLP.
        "opentelemetry" opentelemetry: Option<OpenTelemetry>,
        /// Fetches metrics.
        "prometheus" prometheus: Option<Empty>,
        /// A file of log lines.
        "envoyFileAccessLog" file_log: Option<FileLog>,
        /// Takes log entries of requests over gRPC.
        "envoyHttpAls" http_log: Option<HttpLogService>,
        /// Takes log entries of connections over gRPC.
        "envoyTcpAls" tcp_log: Option<TcpLogService>,
        /// Takes log entries over OTLP (Loki, for instance).
        "envoyOtelAls" otel_log: Option<OtelLog>,
        /// Gives out secrets.
        "sds" sds: Option<Value>
            [refused("credentials come from Secrets of the gateway's namespace alone")],
    }
}

/// Something of which only the presence says anything.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Empty;

impl Empty {
    const SCHEMA: &'static ObjectSchema =
        &ObjectSchema { name: "Empty", doc: "Has no settings.\n", open: false, fields: &[] };
}

impl Decode for Empty {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        at.object(value, Self::SCHEMA, |_, _, _| {});
        Self
    }

    fn shape() -> Shape {
        Shape::Object(Self::SCHEMA)
    }
}

object! { no_null;
    /// Spans over OTLP.
    OpenTelemetry {
        /// Host of the collector, or `NAMESPACE/HOST`.
        "service" service: Arc<str> [required],
        /// Its port.
        "port" port: u16 [required],
        /// Longest path in a span; 0: 256.
        "maxTagLength" max_tag_length: u32,
        /// Over HTTP instead of gRPC.
        "http" http: Option<HttpService>,
        /// What spans say of where they come from.
        "resourceDetectors" resource_detectors: Option<ResourceDetectors>,
        /// Which requests are traced, decided by Dynatrace.
        "dynatraceSampler" dynatrace_sampler: Option<DynatraceSampler>,
        /// Settings of gRPC.
        "grpc" grpc: Option<GrpcService>,
    }
}

object! { no_null;
    /// A service that is called over HTTP.
    HttpService {
        /// The path.
        "path" path: Arc<str> [required],
        /// Limit of a call; absent: 5 s.
        "timeout" timeout: Option<Duration>,
        /// Headers of every call.
        "headers" headers: Vec<HttpHeader>,
    }
}

object! { no_null;
    /// A service that is called over gRPC.
    GrpcService {
        /// Limit of a call; absent: none.
        "timeout" timeout: Option<Duration>,
        /// Metadata of every call.
        "initialMetadata" initial_metadata: Vec<HttpHeader>,
    }
}

object! { no_null;
    /// A header.
    HttpHeader {
        /// Its name.
        "name" name: Arc<str> [required],
        /// Its value.
        "value" value: Option<Arc<str>>,
        /// A variable of the control plane's environment that has it.
        "envName" env_name: Option<Arc<str>>,
    }
}

object! { no_null;
    /// What spans say of where they come from.
    ResourceDetectors {
        /// `OTEL_RESOURCE_ATTRIBUTES` of the proxy.
        "environment" environment: Option<Empty>,
        /// Dynatrace's files on the proxy's machine.
        "dynatrace" dynatrace: Option<Empty>,
    }
}

object! { no_null;
    /// Which requests are traced, decided by Dynatrace.
    DynatraceSampler {
        /// The tenant.
        "tenant" tenant: Arc<str> [required],
        /// The cluster.
        "clusterId" cluster_id: i32 [required],
        /// Target of traces until Dynatrace gives one; 0: 1000.
        "rootSpansPerMinute" root_spans_per_minute: u32,
        /// Where it is asked; absent: where spans are sent.
        "httpService" http_service: Option<DynatraceApi>,
    }
}

object! { no_null;
    /// Where Dynatrace is asked.
    DynatraceApi {
        /// Host, or `NAMESPACE/HOST`.
        "service" service: Arc<str> [required],
        /// Its port.
        "port" port: u16 [required],
        /// The call.
        "http" http: Option<HttpService> [required],
    }
}

object! { no_null;
    /// Spans in Zipkin's form.
    Zipkin {
        /// Host of the collector, or `NAMESPACE/HOST`.
        "service" service: Arc<str> [required],
        /// Its port.
        "port" port: u16 [required],
        /// Longest path in a span; 0: 256.
        "maxTagLength" max_tag_length: u32,
        /// Ids of traces have 64 bits instead of 128.
        "enable64bitTraceId" short_trace_ids: bool,
        /// Where spans are posted; absent: `/api/v2/spans`.
        "path" path: Arc<str>,
        /// How traces are told to the next proxy.
        "traceContextOption" trace_context: TraceContext,
        /// Limit of a call; absent: 5 s.
        "timeout" timeout: Option<Duration>,
        /// Headers of every call.
        "headers" headers: Vec<HttpHeader>,
    }
}

choice! {
    /// How traces are told to the next proxy.
    TraceContext {
        /// By the headers `x-b3-…`.
        B3 = "USE_B3",
        /// By these and `traceparent`.
        B3AndW3c = "USE_B3_WITH_W3C_PROPAGATION",
    }
}

object! { no_null;
    /// Spans in Datadog's form.
    Datadog {
        /// Host of the agent, or `NAMESPACE/HOST`.
        "service" service: Arc<str> [required],
        /// Its port.
        "port" port: u16 [required],
        /// Longest path in a span; 0: 256.
        "maxTagLength" max_tag_length: u32,
    }
}

object! { no_null;
    /// Spans in SkyWalking's form.
    SkyWalking {
        /// Host of the collector, or `NAMESPACE/HOST`.
        "service" service: Arc<str> [required],
        /// Its port.
        "port" port: u16 [required],
        /// What proves the proxy to the collector.
        "accessToken" access_token: Arc<str>,
    }
}

object! { no_null;
    /// A file of log lines.
    FileLog {
        /// Path of the file; absent: `/dev/stdout`.
        "path" path: Arc<str>,
        /// What a line says; absent: Istio's default.
        "logFormat" log_format: Option<LogFormat>,
        /// Leaves out what has no value.
        "omitEmptyValues" omit_empty_values: bool,
    }
}

object! { no_null;
    /// What an entry of a log says: text, or fields.
    LogFormat {
        /// A line of text.
        "text" text: Option<Arc<str>>,
        /// Fields.
        "labels" labels: Option<BTreeMap<Arc<str>, Value>>,
    }
}

object! { no_null;
    /// Log entries of requests over gRPC.
    HttpLogService {
        /// Host of the service, or `NAMESPACE/HOST`.
        "service" service: Arc<str> [required],
        /// Its port.
        "port" port: u16 [required],
        /// Name of the log; absent: `http_envoy_accesslog`.
        "logName" log_name: Arc<str>,
        /// Objects of the filter state that entries have.
        "filterStateObjectsToLog" filter_state_objects: Vec<Arc<str>>,
        /// Request headers that entries have.
        "additionalRequestHeadersToLog" request_headers: Vec<Arc<str>>,
        /// Response headers that entries have.
        "additionalResponseHeadersToLog" response_headers: Vec<Arc<str>>,
        /// Response trailers that entries have.
        "additionalResponseTrailersToLog" response_trailers: Vec<Arc<str>>,
    }
}

object! { no_null;
    /// Log entries of connections over gRPC.
    TcpLogService {
        /// Host of the service, or `NAMESPACE/HOST`.
        "service" service: Arc<str> [required],
        /// Its port.
        "port" port: u16 [required],
        /// Name of the log; absent: `tcp_envoy_accesslog`.
        "logName" log_name: Arc<str>,
        /// Objects of the filter state that entries have.
        "filterStateObjectsToLog" filter_state_objects: Vec<Arc<str>>,
    }
}

object! { no_null;
    /// Log entries over OTLP.
    OtelLog {
        /// Host of the collector, or `NAMESPACE/HOST`.
        "service" service: Arc<str> [required],
        /// Its port.
        "port" port: u16 [required],
        /// Name of the log; absent: `otel_envoy_accesslog`.
        "logName" log_name: Arc<str>,
        /// What entries say.
        "logFormat" log_format: Option<LogFormat>,
    }
}

object! { no_null;
    /// A service that is asked about access over HTTP.
    ExtAuthzHttp {
        /// Host of the service, or `NAMESPACE/HOST`.
        "service" service: Arc<str> [required],
        /// Its port.
        "port" port: u16 [required],
        /// Limit of a call; absent: 600 s.
        "timeout" timeout: Option<Duration>,
        /// Before the path of the request that is asked about.
        "pathPrefix" path_prefix: Arc<str>,
        /// A request passes if nobody answers.
        "failOpen" fail_open: bool,
        /// A request that passes with other headers is routed anew.
        "clearRouteCache" clear_route_cache: bool,
        /// What a request is answered if nobody answers; absent: 403.
        "statusOnError" status_on_error: Arc<str>,
        /// The former name of `includeRequestHeadersInCheck`.
        "includeHeadersInCheck" include_headers: Vec<Arc<str>>,
        /// Headers of the request that are shown; a `*` at either end stands for anything.
        "includeRequestHeadersInCheck" include_request_headers: Vec<Arc<str>>,
        /// Headers that are shown beside them.
        "includeAdditionalHeadersInCheck" include_additional_headers: BTreeMap<Arc<str>, Arc<str>>,
        /// Shows the request's body.
        "includeRequestBodyInCheck" include_body: Option<ExtAuthzBody>,
        /// Headers of the answer that the request goes on with.
        "headersToUpstreamOnAllow" upstream_on_allow: Vec<Arc<str>>,
        /// Headers of the answer that a refusal has.
        "headersToDownstreamOnDeny" downstream_on_deny: Vec<Arc<str>>,
        /// Headers of the answer that a response has.
        "headersToDownstreamOnAllow" downstream_on_allow: Vec<Arc<str>>,
    }
}

object! { no_null;
    /// A service that is asked about access over gRPC.
    ExtAuthzGrpc {
        /// Host of the service, or `NAMESPACE/HOST`.
        "service" service: Arc<str> [required],
        /// Its port.
        "port" port: u16 [required],
        /// Limit of a call; absent: 600 s.
        "timeout" timeout: Option<Duration>,
        /// A request passes if nobody answers.
        "failOpen" fail_open: bool,
        /// A request that passes with other headers is routed anew.
        "clearRouteCache" clear_route_cache: bool,
        /// What a request is answered if nobody answers; absent: 403.
        "statusOnError" status_on_error: Arc<str>,
        /// Shows the request's body.
        "includeRequestBodyInCheck" include_body: Option<ExtAuthzBody>,
    }
}

object! { no_null;
    /// How much of a request's body is shown.
    ExtAuthzBody {
        /// Most bytes.
        "maxRequestBytes" max_request_bytes: u32,
        /// Shows the beginning of a longer body, instead of refusing the request.
        "allowPartialMessage" allow_partial_message: bool,
        /// As bytes instead of text (gRPC).
        "packAsBytes" pack_as_bytes: bool,
    }
}

/// What a provider is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Spans.
    Tracing,
    /// Metrics.
    Metrics,
    /// Log entries.
    AccessLog,
    /// Decisions about access.
    Access,
    /// Secrets.
    Secrets,
    /// Something that proxies have no part for any more.
    Gone,
}

impl ExtensionProvider {
    /// The fields of providers that are set, and what each is for; exactly one in an object
    /// without mistakes.
    pub(super) fn given(&self) -> Vec<(&'static str, Purpose)> {
        let table = [
            ("envoyExtAuthzHttp", self.ext_authz_http.is_some(), Purpose::Access),
            ("envoyExtAuthzGrpc", self.ext_authz_grpc.is_some(), Purpose::Access),
            ("zipkin", self.zipkin.is_some(), Purpose::Tracing),
            ("lightstep", self.lightstep.is_some(), Purpose::Gone),
            ("datadog", self.datadog.is_some(), Purpose::Tracing),
            ("stackdriver", self.stackdriver.is_some(), Purpose::Gone),
            ("opencensus", self.opencensus.is_some(), Purpose::Gone),
            ("skywalking", self.skywalking.is_some(), Purpose::Tracing),
            ("opentelemetry", self.opentelemetry.is_some(), Purpose::Tracing),
            ("prometheus", self.prometheus.is_some(), Purpose::Metrics),
            ("envoyFileAccessLog", self.file_log.is_some(), Purpose::AccessLog),
            ("envoyHttpAls", self.http_log.is_some(), Purpose::AccessLog),
            ("envoyTcpAls", self.tcp_log.is_some(), Purpose::AccessLog),
            ("envoyOtelAls", self.otel_log.is_some(), Purpose::AccessLog),
            ("sds", self.sds.is_some(), Purpose::Secrets),
        ];
        let given = table.into_iter().filter(|(_, is_given, _)| *is_given);
        given.map(|(field, _, purpose)| (field, purpose)).collect()
    }
}

object! { no_null;
    /// Providers that are used where nothing says otherwise; names.
    DefaultProviders {
        /// Of spans; the first counts.
        "tracing" tracing: Vec<Arc<str>>,
        /// Of metrics.
        "metrics" metrics: Vec<Arc<str>>,
        /// Of log entries.
        "accessLogging" access_logging: Vec<Arc<str>>,
    }
}
