//! Spans as OpenTelemetry's collectors take them. Spec: opentelemetry-proto,
//! `collector/trace/v1/trace_service.proto`, `trace/v1/trace.proto`.

use prost::Message;

use super::{
    super::otlp::{Attribute, Attributes, Scope, attribute, nanos},
    Environment, Finished,
};
use crate::runtime::trace::{CallSide, Resource};

/// The method that takes spans over gRPC.
pub(super) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// `Span.SpanKind`.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
/// `Status.StatusCode`.
const ERROR: i32 = 2;
/// `SpanFlags`: whether the caller is another process is known, and it is.
const HAS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Attributes>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) spans: Vec<WireSpan>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireSpan {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(super) trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(int32, tag = "6")]
    pub(super) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<Attribute>,
    #[prost(message, optional, tag = "15")]
    pub(super) status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    pub(super) flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "3")]
    pub(super) code: i32,
}

/// `ExportTraceServiceRequest`.
pub(super) fn request(
    resource: &Resource,
    spans: &[Finished],
    environment: &Environment,
) -> Vec<u8> {
    let scope = resource.names_program.then(Scope::ours);
    let scope_spans = vec![ScopeSpans { scope, spans: spans.iter().map(span).collect() }];
    let own = resource.attributes.iter().map(|(key, value)| attribute(key, value));
    let named = environment.0.get("OTEL_RESOURCE_ATTRIBUTES").filter(|_| resource.from_environment);
    let attributes = own.chain(named.into_iter().flat_map(|text| listed(text))).collect();
    let resource = Some(Attributes { attributes });
    Request { resource_spans: vec![ResourceSpans { resource, scope_spans }] }.encode_to_vec()
}

/// `KEY=VALUE,…` (OpenTelemetry "Resource SDK").
fn listed(text: &str) -> impl Iterator<Item = Attribute> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| attribute(key.trim(), value.trim()))
}

fn span(span: &Finished) -> WireSpan {
    let context = &span.context;
    let remote = if context.parent.is_some() { IS_REMOTE } else { 0 };
    WireSpan {
        trace_id: context.trace.wide().to_be_bytes().to_vec(),
        span_id: context.span.to_be_bytes().to_vec(),
        trace_state: span.state.clone(),
        parent_span_id: context.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        name: span.name.clone(),
        kind: if span.side == CallSide::Client { CLIENT } else { SERVER },
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: span.tags.0.iter().map(|(key, value)| attribute(key, value)).collect(),
        status: span.failed.then_some(Status { code: ERROR }),
        flags: u32::from(context.sampled) | HAS_REMOTE | remote,
    }
}
