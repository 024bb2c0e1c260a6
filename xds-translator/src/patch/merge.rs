//! Merging a message into another of its type.
//!
//! Protobuf's rules: a number or text that is set replaces the other, lists are appended, messages
//! are merged field by field, and of alternatives the new one replaces the old. Beyond them, as
//! Istio's users expect: an `Any` is merged with one of its type and replaces one of another, also
//! as the value of a map, and what is one value in JSON (a duration, a number that may be absent)
//! is replaced as one.

use prost_reflect::{DynamicMessage, ReflectMessage, Value};

use super::edit;
use crate::ir::{MergedLists, Patch, PatchOperation};

/// Messages that stand for one value.
const VALUES: [&str; 11] = [
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
    "google.protobuf.BoolValue",
    "google.protobuf.StringValue",
    "google.protobuf.BytesValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.FloatValue",
    "google.protobuf.DoubleValue",
];

/// Merges the message of a patch into another, as the patch says.
pub(super) fn merge_patch(patch: &Patch, target: &mut DynamicMessage, source: &DynamicMessage) {
    let lists = match patch.operation {
        PatchOperation::Merge(lists) => lists,
        _ => MergedLists::Joined,
    };
    merge(target, source, lists);
}

/// Merges `source` into `target`, which are of one type.
fn merge(target: &mut DynamicMessage, source: &DynamicMessage, lists: MergedLists) {
    let descriptor = source.descriptor();
    match descriptor.full_name() {
        "google.protobuf.Any" => return merge_any(target, source, lists),
        name if VALUES.contains(&name) => return *target = source.clone(),
        _ => {}
    }
    for (field, value) in source.fields() {
        if !target.has_field(&field) {
            target.set_field(&field, value.clone());
            continue;
        }
        merge_value(target.get_field_mut(&field), value, lists);
    }
}

fn merge_value(target: &mut Value, source: &Value, lists: MergedLists) {
    match (target, source) {
        (Value::List(target), Value::List(source)) if lists == MergedLists::Joined => {
            target.extend(source.iter().cloned());
        }
        (Value::Map(target), Value::Map(source)) => {
            for (key, value) in source {
                match target.get_mut(key) {
                    Some(known) => merge_value(known, value, lists),
                    None => drop(target.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Message(target), Value::Message(source)) => merge(target, source, lists),
        (target, source) => *target = source.clone(),
    }
}

fn merge_any(target: &mut DynamicMessage, source: &DynamicMessage, lists: MergedLists) {
    let opened = edit::unpack(target).zip(edit::unpack(source));
    let same = |(a, b): &(DynamicMessage, DynamicMessage)| a.descriptor() == b.descriptor();
    match opened.filter(same) {
        Some((mut inner, added)) => {
            merge(&mut inner, &added, lists);
            edit::repack(target, &inner);
        }
        None => *target = source.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::descriptors::pool;

    fn message(kind: &str, json: &Json) -> DynamicMessage {
        let descriptor = pool().get_message_by_name(kind).expect(kind);
        DynamicMessage::deserialize(descriptor, json).expect("a message")
    }

    /// Merges two messages in their JSON form.
    fn check(kind: &str, target: &Json, source: &Json, expected: &Json) {
        let mut merged = message(kind, target);
        merge(&mut merged, &message(kind, source), MergedLists::Joined);
        assert_eq!(merged, message(kind, expected), "{target} and {source}: {merged}");
    }

    #[test]
    fn each_kind_of_field_is_merged_in_its_way() {
        let cluster = "envoy.config.cluster.v3.Cluster";
        let table = [
            (
                json!({"name": "a"}),
                json!({"alt_stat_name": "b"}),
                json!({"name": "a", "alt_stat_name": "b"}),
            ),
            (
                json!({"connect_timeout": "1.5s"}),
                json!({"connect_timeout": "2s"}),
                json!({"connect_timeout": "2s"}),
            ),
            (
                json!({"per_connection_buffer_limit_bytes": 5}),
                json!({"per_connection_buffer_limit_bytes": 0}),
                json!({"per_connection_buffer_limit_bytes": 0}),
            ),
            (
                json!({"circuit_breakers": {"thresholds": [{"max_requests": 1}]}}),
                json!({"circuit_breakers": {"thresholds": [{"max_retries": 2}]}}),
                json!({"circuit_breakers": {"thresholds": [{"max_requests": 1}, {"max_retries": 2}]}}),
            ),
            (
                json!({"ring_hash_lb_config": {"minimum_ring_size": 5}}),
                json!({"maglev_lb_config": {"table_size": 7}}),
                json!({"maglev_lb_config": {"table_size": 7}}),
            ),
            (
                json!({"metadata": {"filter_metadata": {"a": {"x": 1, "y": 2}, "b": {"x": 3}}}}),
                json!({"metadata": {"filter_metadata": {"a": {"y": 4}}}}),
                json!({"metadata": {"filter_metadata": {"a": {"x": 1, "y": 4}, "b": {"x": 3}}}}),
            ),
        ];
        for (target, source, expected) in table {
            check(cluster, &target, &source, &expected);
        }
    }

    #[test]
    fn lists_may_be_replaced_at_any_depth() {
        let thresholds = |requests: u32| json!({"circuit_breakers": {"thresholds": [{"max_requests": requests}]}});
        let cluster = "envoy.config.cluster.v3.Cluster";
        let mut merged = message(cluster, &thresholds(1));
        merge(&mut merged, &message(cluster, &thresholds(2)), MergedLists::Replaced);
        assert_eq!(merged, message(cluster, &thresholds(2)));
    }

    #[test]
    fn packed_messages_are_merged_with_their_own_type_and_replace_others() {
        let options = |fields: Json| {
            let mut options = fields;
            let kind = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            options["@type"] = json!(kind);
            json!({ "typed_extension_protocol_options": { "http": options } })
        };
        let idle = json!({ "idle_timeout": "9s" });
        check(
            "envoy.config.cluster.v3.Cluster",
            &options(
                json!({ "use_downstream_protocol_config": {}, "common_http_protocol_options": { "max_requests_per_connection": 3 } }),
            ),
            &options(
                json!({ "explicit_http_config": { "http_protocol_options": {} }, "common_http_protocol_options": idle }),
            ),
            &options(json!({
                "explicit_http_config": { "http_protocol_options": {} },
                "common_http_protocol_options": { "max_requests_per_connection": 3, "idle_timeout": "9s" },
            })),
        );
        let socket = |kind: &str| json!({ "name": "s", "typed_config": { "@type": format!("x/envoy.extensions.transport_sockets.{kind}") } });
        let other = socket("raw_buffer.v3.RawBuffer");
        check(
            "envoy.config.core.v3.TransportSocket",
            &socket("tls.v3.UpstreamTlsContext"),
            &other,
            &other,
        );
    }
}
