//! Entries of logs as OpenTelemetry's collectors take them. Spec: opentelemetry-proto,
//! `collector/logs/v1/logs_service.proto`, `logs/v1/logs.proto`; Envoy
//! `OpenTelemetryAccessLogConfig`.

use std::sync::Arc;

use prost::Message;

use super::{
    access_log::Entry,
    otlp::{AnyValue, Attribute, Attributes, List, Scope, Value, attribute, nanos},
    trace::Origin,
};
use crate::runtime::{
    access_log::{LogService, OtlpFormat},
    filter::Call,
};

/// The method that takes entries over gRPC.
const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Attributes>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<Record>,
}

/// An entry: `LogRecord`.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<Attribute>,
    #[prost(bytes = "vec", tag = "9")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    span_id: Vec<u8>,
}

/// What a service is told of a request or connection.
pub fn record(service: &LogService, entry: &Entry<'_>) -> Record {
    let span = entry.span;
    Record {
        time_unix_nano: nanos(entry.start),
        body: service.body.as_ref().map(|body| value(body, entry)),
        attributes: pairs(&service.attributes, entry),
        trace_id: span.map(|s| s.trace.wide().to_be_bytes().to_vec()).unwrap_or_default(),
        span_id: span.map(|s| s.span.to_be_bytes().to_vec()).unwrap_or_default(),
    }
}

fn pairs(formats: &[(Arc<str>, OtlpFormat)], entry: &Entry<'_>) -> Vec<Attribute> {
    let pair = |(key, format): &(Arc<str>, OtlpFormat)| Attribute {
        key: key.to_string(),
        value: Some(value(format, entry)),
    };
    formats.iter().map(pair).collect()
}

fn value(format: &OtlpFormat, entry: &Entry<'_>) -> AnyValue {
    match format {
        OtlpFormat::Text(format) => AnyValue::text(entry.render(format, "-")),
        OtlpFormat::List(items) => {
            let values = items.iter().map(|item| value(item, entry)).collect();
            AnyValue { value: Some(Value::List(List { values })) }
        }
        OtlpFormat::Map(fields) => {
            let attributes = pairs(fields, entry);
            AnyValue { value: Some(Value::Map(Attributes { attributes })) }
        }
    }
}

/// The call that tells entries.
pub fn told(service: &LogService, records: Vec<Record>, origin: &Origin) -> Option<Call> {
    let named = service.names_origin.as_ref().map(|log| {
        [
            ("log_name", log),
            ("zone_name", &origin.zone),
            ("cluster_name", &origin.cluster),
            ("node_name", &origin.id),
        ]
    });
    let named = named.into_iter().flatten().map(|(key, value)| attribute(key, value));
    let own = service.resource.iter().map(|(key, value)| attribute(key, value));
    let resource = Some(Attributes { attributes: named.chain(own).collect() });
    let scope_logs = vec![ScopeLogs { scope: None, log_records: records }];
    let request = Request { resource_logs: vec![ResourceLogs { resource, scope_logs }] };
    service.collector.call(EXPORT, "application/x-protobuf", request.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::{HeaderMap, Uri};

    use super::*;
    use crate::runtime::{
        ConnectionFacts,
        collector::{Collector, HttpCollector},
        format::{Field, FormatOp},
    };

    fn text(ops: Vec<FormatOp>) -> OtlpFormat {
        OtlpFormat::Text(ops.into())
    }

    fn field(field: Field) -> FormatOp {
        FormatOp::Field { field, limit: None }
    }

    fn service(names_origin: Option<&str>) -> LogService {
        let list =
            OtlpFormat::List(vec![text(vec![field(Field::RequestHeader(":method".into(), None))])]);
        LogService {
            collector: Collector::Http(HttpCollector {
                cluster: "c".into(),
                uri: Uri::from_static("http://c.test/v1/logs"),
                headers: HeaderMap::new(),
                timeout: Duration::from_secs(1),
            }),
            resource: vec![("own".into(), "yes".into())],
            names_origin: names_origin.map(Into::into),
            body: Some(text(vec![FormatOp::Literal("a ".into()), field(Field::ResponseCode)])),
            attributes: vec![
                ("absent".into(), text(vec![field(Field::RouteName)])),
                ("inner".into(), OtlpFormat::Map(vec![("list".into(), list)])),
            ],
        }
    }

    #[test]
    fn entries_say_what_is_asked_for_and_whose_they_are() {
        let connection =
            ConnectionFacts::plaintext(([10, 0, 0, 5], 4000).into(), ([10, 0, 0, 9], 80).into());
        let start = SystemTime::UNIX_EPOCH + Duration::from_nanos(7);
        let entry = Entry {
            method: "GET",
            status: 404,
            ..Entry::of_connection(&connection, start, Duration::ZERO)
        };
        let named = service(Some("log"));
        let record = record(&named, &entry);
        assert_eq!(record.time_unix_nano, 7);
        assert_eq!(record.body, Some(AnyValue::text("a 404")));
        assert_eq!(record.attributes[0], attribute("absent", "-"));
        let list = Value::List(List { values: vec![AnyValue::text("GET")] });
        let inner =
            Attribute { key: "list".to_owned(), value: Some(AnyValue { value: Some(list) }) };
        let map = Value::Map(Attributes { attributes: vec![inner] });
        assert_eq!(record.attributes[1].value, Some(AnyValue { value: Some(map) }));
        assert!(record.trace_id.is_empty() && record.span_id.is_empty());

        let origin =
            Origin { id: "n".into(), cluster: "s".into(), zone: "z".into(), ..Origin::default() };
        for (service, expected) in [
            (
                named,
                vec!["log_name=log", "zone_name=z", "cluster_name=s", "node_name=n", "own=yes"],
            ),
            (service(None), vec!["own=yes"]),
        ] {
            let call = told(&service, vec![record.clone()], &origin).unwrap();
            let request = Request::decode(&call.request.body()[..]).unwrap();
            let logs = &request.resource_logs[0];
            let shown = |a: &Attribute| match &a.value.as_ref().unwrap().value {
                Some(Value::Text(text)) => format!("{}={text}", a.key),
                other => panic!("expected a text, got {other:?}"),
            };
            let resource = &logs.resource.as_ref().unwrap().attributes;
            assert_eq!(resource.iter().map(shown).collect::<Vec<_>>(), expected);
            assert_eq!(logs.scope_logs[0].log_records, std::slice::from_ref(&record));
        }
    }
}
