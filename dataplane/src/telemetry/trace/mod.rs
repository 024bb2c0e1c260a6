//! Spans of requests: what they say, and how it is told.
//!
//! A span is kept of a request that is traced and told, and of no other. Names and values of its
//! tags are Envoy's. Spec: Envoy "Tracing", `type.tracing.v3.CustomTag`.

mod otlp;
mod zipkin;

use std::{borrow::Cow, collections::BTreeMap, fmt, net::IpAddr, sync::Arc, time::SystemTime};

use http::HeaderMap;

use super::access_log::{Entry, cut};
use crate::runtime::{
    facts::HeaderLookup,
    filter::Call,
    trace::{CallSide, SpanContext, Tag, TagValue, TraceForm, Tracer, Tracing},
};

/// Who tells spans.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The node's id.
    pub id: Arc<str>,
    /// The node's own cluster, as Envoys call it: the name of the service.
    pub cluster: Arc<str>,
    /// The node's zone; may be empty.
    pub zone: Arc<str>,
    /// The workload's address.
    pub address: Option<IpAddr>,
    /// What tags may tell of.
    pub environment: Environment,
}

/// Variables of the process. Their values, which may be secrets, are in no debug form.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Environment(pub BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The span of a request that is under way.
#[derive(Debug)]
pub struct Span {
    /// Where it belongs.
    pub context: SpanContext,
    /// Which side of the call we are on.
    pub side: CallSide,
    /// What it is called.
    pub name: String,
    /// What vendors add to the context (`tracestate`).
    pub state: String,
    /// The request's headers, as they are sent.
    pub headers: HeaderMap,
    /// The host that the request is for, as it is sent.
    pub authority: String,
    /// Its path, as it is sent.
    pub path: String,
}

/// A span that is over.
#[derive(Clone, PartialEq, Debug)]
pub struct Finished {
    context: SpanContext,
    side: CallSide,
    name: String,
    state: String,
    start: SystemTime,
    end: SystemTime,
    tags: Tags,
    failed: bool,
}

/// Names and values; a name occurs once.
#[derive(Clone, PartialEq, Debug, Default)]
struct Tags(Vec<(Cow<'static, str>, String)>);

impl Tags {
    fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, other)) => *other = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Span {
    /// Ends it, with what is known of its request now.
    pub fn finish(self, tracing: &Tracing, entry: &Entry<'_>, origin: &Origin) -> Finished {
        let mut tags = Tags::default();
        tags.set("node_id", &*origin.id);
        tags.set("zone", &*origin.zone);
        self.tell_request(&mut tags, tracing, entry);
        tell_outcome(&mut tags, entry);
        for tag in &tracing.tags {
            if let Some(value) = self.custom(tag, entry, origin).filter(|text| !text.is_empty()) {
                tags.set(tag.name.to_string(), value);
            }
        }
        let failing = if self.side == CallSide::Client { 400 } else { 500 };
        Finished {
            context: self.context,
            side: self.side,
            name: self.name,
            state: self.state,
            start: entry.start,
            end: entry.start + entry.duration,
            tags,
            failed: entry.status >= failing,
        }
    }

    fn tell_request(&self, tags: &mut Tags, tracing: &Tracing, entry: &Entry<'_>) {
        let header = |name: &str| self.headers.header(name);
        if let Some(id) = header("x-request-id") {
            tags.set("guid:x-request-id", id);
        }
        let scheme = header("x-forwarded-proto").unwrap_or(entry.scheme.into());
        let path = header("x-envoy-original-path").unwrap_or(self.path.as_str().into());
        let path = cut(&path, Some(tracing.longest_path));
        tags.set("http.url", format!("{scheme}://{}{path}", self.authority));
        tags.set("http.method", entry.method);
        let caller = header("x-envoy-downstream-service-cluster").unwrap_or("-".into());
        tags.set("downstream_cluster", caller);
        tags.set("user_agent", header("user-agent").unwrap_or("-".into()));
        tags.set("http.protocol", entry.protocol);
        tags.set("peer.address", entry.connection.direct_source.ip().to_string());
        if let Some(id) = header("x-client-trace-id") {
            tags.set("guid:x-client-trace-id", id);
        }
        if let Some(kind) = header("content-type").filter(|kind| is_grpc(kind)) {
            tags.set("grpc.path", self.path.as_str());
            tags.set("grpc.authority", self.authority.as_str());
            tags.set("grpc.content_type", kind);
        }
    }

    fn custom(&self, tag: &Tag, entry: &Entry<'_>, origin: &Origin) -> Option<String> {
        let text = |text: &str| Some(text.to_owned());
        match &tag.value {
            TagValue::Literal(value) => text(value),
            TagValue::Environment(name, default) => {
                text(origin.environment.0.get(&**name).map_or(&**default, String::as_str))
            }
            TagValue::Header(name, default) => {
                let headers = Entry { request_headers: Some(&self.headers), ..*entry };
                text(&headers.request_header(name).unwrap_or(Cow::Borrowed(default)))
            }
            TagValue::Metadata(namespace, path, default) => {
                let found = entry.metadata_at(namespace, path);
                text(&found.unwrap_or(Cow::Borrowed(default)))
            }
            TagValue::Format(format) => {
                let headers = Entry { request_headers: Some(&self.headers), ..*entry };
                Some(headers.render(format, ""))
            }
        }
    }
}

fn is_grpc(kind: &str) -> bool {
    let rest = kind.strip_prefix("application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

fn tell_outcome(tags: &mut Tags, entry: &Entry<'_>) {
    tags.set("request_size", entry.bytes_received.to_string());
    tags.set("response_size", entry.bytes_sent.to_string());
    tags.set("component", "proxy");
    if !entry.cluster.is_empty() {
        tags.set("upstream_cluster", entry.cluster);
        tags.set("upstream_cluster.name", entry.cluster);
    }
    tags.set("http.status_code", entry.status.to_string());
    tags.set("response_flags", entry.flags.to_string());
    let grpc = |name: &str| {
        let trailer = entry.trailers.and_then(|trailers| trailers.header(name));
        trailer.or_else(|| entry.response_headers.and_then(|headers| headers.header(name)))
    };
    let status = grpc("grpc-status");
    if matches!(entry.status, 0 | 500..) || status.as_deref().is_some_and(is_fault) {
        tags.set("error", "true");
    }
    if let Some(status) = status {
        tags.set("grpc.status_code", status);
        if let Some(message) = grpc("grpc-message") {
            tags.set("grpc.message", message);
        }
    }
}

/// Whether a status of gRPC is the callee's fault: UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED,
/// UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
fn is_fault(status: &str) -> bool {
    matches!(status, "2" | "4" | "8" | "12" | "13" | "14" | "15")
}

/// The call that tells spans, in their tracer's form.
pub fn told(tracer: &Tracer, spans: &[Finished], origin: &Origin) -> Option<Call> {
    match &tracer.form {
        TraceForm::OpenTelemetry(resource) => {
            let message = otlp::request(resource, spans, &origin.environment);
            tracer.collector.call(otlp::EXPORT, "application/x-protobuf", message)
        }
        TraceForm::Zipkin(_) => {
            let message = zipkin::list(spans, origin);
            tracer.collector.call("", "application/json", message)
        }
    }
}

#[cfg(test)]
mod tests;
