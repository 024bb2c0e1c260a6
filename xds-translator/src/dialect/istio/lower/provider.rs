//! Providers of telemetry, and what holds where no Telemetry object says otherwise.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    dialect::istio::{
        extension_provider::{
            DynatraceSampler, ExtensionProvider, FileLog, HttpHeader, HttpLogService, HttpService,
            LogFormat, OpenTelemetry, OtelLog, TcpLogService, TraceContext, Zipkin,
        },
        mesh_config::{
            AccessLogEncoding, MeshConfig, MeshTag, MeshTracing, SpanNames, TracerAddress,
        },
    },
    ir::{
        Collector, DynatraceSampler as SamplerItem, Hostname, HttpCall, LogFormat as FormatItem,
        LogService, LogSink, OtlpTracer, OtlpTransport, PerMillion, SpanService, TagValue,
        TelemetryDefaults, TelemetryProvider, Tracer, TracerForm,
    },
};

/// Where Zipkin takes spans.
const ZIPKIN_PATH: &str = "/api/v2/spans";
/// Where Dynatrace says which requests are traced.
const DYNATRACE_PATH: &str = "/api/v2/samplingConfiguration";
/// Limit of a call for which none is given: Envoy asks for one.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Where logs go for which no file is named.
const STANDARD_OUTPUT: &str = "/dev/stdout";

/// What the mesh says of telemetry.
pub(super) fn telemetry_defaults(mesh: &MeshConfig) -> TelemetryDefaults {
    let base = TelemetryDefaults::default();
    let envoy = TelemetryProvider::Log(mesh_log(mesh, STANDARD_OUTPUT));
    let built_in = base.providers.into_iter().chain([("envoy".into(), envoy)]);
    let own = mesh.extension_providers.iter();
    let own = own.map(|p| (p.name.to_lowercase().into(), provider(p)));
    let names = mesh.default_providers.clone().unwrap_or_default();
    let config = mesh.default_config.clone().unwrap_or_default();
    let tracing = config.tracing.or_else(|| zipkin_alone(config.zipkin_address));
    let tracing = tracing.as_ref();
    let marks_requests = mesh.enable_tracing.unwrap_or(base.marks_requests);
    TelemetryDefaults {
        providers: built_in.chain(own).collect(),
        tracing: names.tracing.first().cloned(),
        access_logs: names.access_logging,
        logs: mesh_logs(mesh),
        unmatched: !mesh.disable_envoy_listener_log.unwrap_or_default(),
        tracer: tracing.and_then(mesh_tracer).filter(|_| marks_requests),
        marks_requests,
        sampling: tracing.map_or(base.sampling, |t| mesh_sampling(t.sampling, base.sampling)),
        tags: tracing.map(|t| mesh_tags(&t.custom_tags)).unwrap_or_default(),
        workload_tags: tracing.and_then(|t| t.enable_istio_tags).unwrap_or(base.workload_tags),
        span_service: config.tracing_service_name.map_or(base.span_service, span_service),
        longest_path: tracing.and_then(|t| positive(t.max_path_tag_length)),
    }
}

/// What is logged where no provider is named.
fn mesh_logs(mesh: &MeshConfig) -> Vec<LogSink> {
    let path = &mesh.access_log_file;
    let file = (!path.is_empty()).then(|| mesh_log(mesh, path));
    let service = mesh.default_config.as_ref().and_then(|c| c.envoy_access_log_service.as_ref());
    let service = service.filter(|_| mesh.enable_envoy_access_log_service == Some(true));
    let service = service.and_then(|service| {
        let (host, port) = service.address.rsplit_once(':')?;
        let log = HttpLogService {
            service: host.into(),
            port: port.parse().ok()?,
            ..HttpLogService::default()
        };
        Some(LogSink::HttpService(http_log(&log)))
    });
    file.into_iter().chain(service).collect()
}

/// The log that is written as the mesh says.
fn mesh_log(mesh: &MeshConfig, path: &str) -> LogSink {
    let format = match mesh.access_log_encoding {
        Some(AccessLogEncoding::Json) => FormatItem::Json(mesh.access_log_format.clone()),
        _ => FormatItem::Text(mesh.access_log_format.clone()),
    };
    LogSink::File { path: path.into(), format, omit_empty: false }
}

/// What the deprecated `zipkinAddress` says, in the words of `tracing`.
fn zipkin_alone(address: Arc<str>) -> Option<MeshTracing> {
    let zipkin = (!address.is_empty()).then_some(TracerAddress { address })?;
    Some(MeshTracing { zipkin: Some(zipkin), ..MeshTracing::default() })
}

fn span_service(names: SpanNames) -> SpanService {
    match names {
        SpanNames::AppLabelAndNamespace => SpanService::AppAndNamespace,
        SpanNames::CanonicalNameOnly => SpanService::Canonical,
        SpanNames::CanonicalNameAndNamespace => SpanService::CanonicalAndNamespace,
    }
}

/// Who takes spans by `defaultConfig.tracing`.
fn mesh_tracer(tracing: &MeshTracing) -> Option<Tracer> {
    let zipkin = tracing.zipkin.as_ref().map(|z| (&z.address, zipkin_form(None)));
    let datadog = tracing.datadog.as_ref().map(|d| (&d.address, TracerForm::Datadog));
    let (address, form) = zipkin.or(datadog)?;
    let (host, port) = address.rsplit_once(':')?;
    Some(Tracer { collector: collector(host, port.parse().ok()?), longest_path: None, form })
}

/// Nothing said: the default; as in Istio, 0 says nothing.
fn mesh_sampling(percent: f64, default: PerMillion) -> PerMillion {
    if percent == 0.0 { default } else { share(percent) }
}

/// A share in percent, which was checked to be one.
pub(super) fn share(percent: f64) -> PerMillion {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e6")]
    let parts = (percent.clamp(0.0, 100.0) * 10_000.0).round() as u32;
    PerMillion(parts)
}

fn mesh_tags(written: &BTreeMap<Arc<str>, MeshTag>) -> BTreeMap<Arc<str>, TagValue> {
    let tags = written.iter().filter_map(|(name, tag)| Some((name.clone(), tag.value()?)));
    tags.collect()
}

impl MeshTag {
    /// What the tag says; `None`: nothing.
    fn value(&self) -> Option<TagValue> {
        let literal = self.literal.as_ref().map(|l| TagValue::Literal(l.value.clone()));
        let environment = self.environment.as_ref();
        let environment =
            environment.map(|e| TagValue::Environment(e.name.clone(), e.default_value.clone()));
        let header = self.header.as_ref();
        let header = header.map(|h| TagValue::Header(h.name.clone(), h.default_value.clone()));
        literal.or(environment).or(header)
    }
}

fn provider(written: &ExtensionProvider) -> TelemetryProvider {
    tracer(written)
        .map(TelemetryProvider::Tracer)
        .or_else(|| log(written).map(TelemetryProvider::Log))
        .or_else(|| written.prometheus.map(|_| TelemetryProvider::Metrics))
        .unwrap_or(TelemetryProvider::Other)
}

fn tracer(written: &ExtensionProvider) -> Option<Tracer> {
    let tracer = |service: &str, port, longest, form| Tracer {
        collector: collector(service, port),
        longest_path: positive(longest),
        form,
    };
    if let Some(o) = &written.opentelemetry {
        return Some(tracer(&o.service, o.port, o.max_tag_length, otlp(o)));
    }
    if let Some(z) = &written.zipkin {
        return Some(tracer(&z.service, z.port, z.max_tag_length, zipkin_form(Some(z))));
    }
    if let Some(d) = &written.datadog {
        return Some(tracer(&d.service, d.port, d.max_tag_length, TracerForm::Datadog));
    }
    let s = written.skywalking.as_ref()?;
    Some(tracer(&s.service, s.port, 0, TracerForm::SkyWalking))
}

fn zipkin_form(written: Option<&Zipkin>) -> TracerForm {
    let written = written.cloned().unwrap_or_default();
    let path = if written.path.is_empty() { ZIPKIN_PATH.into() } else { written.path };
    TracerForm::Zipkin {
        call: HttpCall {
            path,
            timeout: written.timeout.unwrap_or(CALL_TIMEOUT),
            headers: headers(&written.headers),
        },
        short_ids: written.short_trace_ids,
        w3c: written.trace_context == TraceContext::B3AndW3c,
    }
}

fn otlp(written: &OpenTelemetry) -> TracerForm {
    let detectors = written.resource_detectors.as_ref();
    let transport = match (&written.http, &written.grpc) {
        (Some(http), _) => OtlpTransport::Http(call(http)),
        (None, grpc) => OtlpTransport::Grpc {
            timeout: grpc.as_ref().and_then(|grpc| grpc.timeout),
            metadata: grpc.as_ref().map(|g| headers(&g.initial_metadata)).unwrap_or_default(),
        },
    };
    TracerForm::OpenTelemetry(OtlpTracer {
        environment: detectors.is_some_and(|d| d.environment.is_some()),
        dynatrace: detectors.is_some_and(|d| d.dynatrace.is_some()),
        sampler: written.dynatrace_sampler.as_ref().and_then(|s| sampler(s, written)),
        transport,
    })
}

/// Without a service of its own, Dynatrace is asked where spans are sent.
fn sampler(written: &DynatraceSampler, tracer: &OpenTelemetry) -> Option<SamplerItem> {
    let (collector, call) = match &written.http_service {
        Some(api) => (collector(&api.service, api.port), call(api.http.as_ref()?)),
        None => {
            let sent = call(tracer.http.as_ref()?);
            let asked = HttpCall { path: DYNATRACE_PATH.into(), ..sent };
            (collector(&tracer.service, tracer.port), asked)
        }
    };
    Some(SamplerItem {
        tenant: written.tenant.clone(),
        cluster_id: written.cluster_id,
        root_spans_per_minute: written.root_spans_per_minute,
        collector,
        call,
    })
}

fn log(written: &ExtensionProvider) -> Option<LogSink> {
    let file = written.file_log.as_ref().map(file_log);
    let http = written.http_log.as_ref().map(|log| LogSink::HttpService(http_log(log)));
    let tcp = written.tcp_log.as_ref().map(|log| LogSink::TcpService(tcp_log(log)));
    let otel = written.otel_log.as_ref().map(otel_log);
    file.or(http).or(tcp).or(otel)
}

fn file_log(written: &FileLog) -> LogSink {
    let fields = written.log_format.as_ref().and_then(fields);
    let text = written.log_format.as_ref().and_then(|format| format.text.clone());
    LogSink::File {
        path: if written.path.is_empty() { STANDARD_OUTPUT.into() } else { written.path.clone() },
        format: match fields {
            Some(fields) => FormatItem::Json(fields),
            None => FormatItem::Text(text.unwrap_or_default()),
        },
        omit_empty: written.omit_empty_values,
    }
}

/// The fields of a format as a JSON object; `None`: it has none.
fn fields(format: &LogFormat) -> Option<Arc<str>> {
    let labels = format.labels.as_ref().filter(|labels| !labels.is_empty())?;
    serde_json::to_string(labels).ok().map(Into::into)
}

fn http_log(written: &HttpLogService) -> LogService {
    LogService {
        collector: collector(&written.service, written.port),
        name: named(&written.log_name, "http_envoy_accesslog"),
        filter_state: written.filter_state_objects.clone(),
        request_headers: written.request_headers.clone(),
        response_headers: written.response_headers.clone(),
        response_trailers: written.response_trailers.clone(),
    }
}

fn tcp_log(written: &TcpLogService) -> LogService {
    LogService {
        collector: collector(&written.service, written.port),
        name: named(&written.log_name, "tcp_envoy_accesslog"),
        filter_state: written.filter_state_objects.clone(),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        response_trailers: Vec::new(),
    }
}

fn otel_log(written: &OtelLog) -> LogSink {
    let format = written.log_format.as_ref();
    LogSink::Otlp {
        collector: collector(&written.service, written.port),
        name: named(&written.log_name, "otel_envoy_accesslog"),
        body: format.and_then(|format| format.text.clone()).unwrap_or_default(),
        attributes: format.and_then(fields).unwrap_or_default(),
    }
}

/// `HOST` or `NAMESPACE/HOST`.
fn collector(service: &str, port: u16) -> Collector {
    let (namespace, host) = match service.split_once('/') {
        Some((namespace, host)) => (Some(namespace.into()), host),
        None => (None, service),
    };
    Collector { host: Hostname::new(host), namespace, port }
}

fn call(http: &HttpService) -> HttpCall {
    HttpCall {
        path: http.path.clone(),
        timeout: http.timeout.unwrap_or(CALL_TIMEOUT),
        headers: headers(&http.headers),
    }
}

fn headers(written: &[HttpHeader]) -> Vec<(Arc<str>, Arc<str>)> {
    let pair = |h: &HttpHeader| Some((h.name.clone(), h.value.clone()?));
    written.iter().filter_map(pair).collect()
}

fn named(name: &Arc<str>, default: &str) -> Arc<str> {
    if name.is_empty() { default.into() } else { name.clone() }
}

fn positive(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}
