//! Spans as Zipkin's collectors take them. Spec: Zipkin API version 2, `ListOfSpans`.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

use super::{Finished, Origin};
use crate::runtime::trace::CallSide;

/// A list in JSON.
pub(super) fn list(spans: &[Finished], origin: &Origin) -> Vec<u8> {
    let spans: Vec<Value> = spans.iter().map(|span| self::span(span, origin)).collect();
    Value::Array(spans).to_string().into_bytes()
}

fn span(span: &Finished, origin: &Origin) -> Value {
    let context = &span.context;
    // Envoy leaves out what is empty in this form, and in no other.
    let filled = span.tags.0.iter().filter(|(_, value)| !value.is_empty());
    let tags: Map<String, Value> =
        filled.map(|(key, value)| (key.to_string(), value.as_str().into())).collect();
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("traceId", context.trace.to_string().into());
    set("id", format!("{:016x}", context.span).into());
    if let Some(parent) = context.parent {
        set("parentId", format!("{parent:016x}").into());
    }
    set("name", span.name.as_str().into());
    set("kind", if span.side == CallSide::Client { "CLIENT" } else { "SERVER" }.into());
    let since = |at: SystemTime| micros(at.duration_since(UNIX_EPOCH).unwrap_or_default());
    set("timestamp", since(span.start).into());
    // What took no time is no duration.
    let duration = micros(span.end.duration_since(span.start).unwrap_or_default()).max(1);
    set("duration", duration.into());
    if context.shared {
        set("shared", true.into());
    }
    set("localEndpoint", endpoint(origin));
    set("tags", tags.into());
    Value::Object(fields)
}

fn endpoint(origin: &Origin) -> Value {
    match origin.address {
        Some(IpAddr::V4(ip)) => json!({"serviceName": &*origin.cluster, "ipv4": ip.to_string()}),
        Some(IpAddr::V6(ip)) => json!({"serviceName": &*origin.cluster, "ipv6": ip.to_string()}),
        None => json!({"serviceName": &*origin.cluster}),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
