//! EnvoyFilters with the doors closed where their guards were to be.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Extent;
use crate::dialect::istio::envoy_filter;

/// What stands in for patches of which one guards: where one of them was to be, nobody passes. If
/// that cannot be read, nobody reaches the workload or passes the gateway.
pub(super) fn closed(raw: &Value, extent: Extent) -> Option<Value> {
    let named = matches!(extent, Extent::Part { guards: true });
    if !named && !raw.get("spec").is_some_and(envoy_filter::guards) {
        return None;
    }
    let patches = raw.pointer("/spec/configPatches").and_then(Value::as_array);
    let guards = patches.into_iter().flatten().filter(|patch| envoy_filter::guards(patch));
    let mut contexts: BTreeSet<&str> = guards.map(context).collect();
    // What was not read may be meant for others.
    if contexts.is_empty() || extent != Extent::Whole {
        contexts.insert(UNKNOWN);
    }
    let contexts = contexts.into_iter().flat_map(|context| match context {
        UNKNOWN => vec!["SIDECAR_INBOUND", "GATEWAY"],
        known => vec![known],
    });
    let contexts: BTreeSet<&str> = contexts.collect();
    let doors = contexts.into_iter().flat_map(|context| {
        ["HTTP_FILTER", "NETWORK_FILTER"].map(
            |at| json!({ "applyTo": at, "match": { "context": context }, "patch": nobody(at) }),
        )
    });
    Some(json!({ "configPatches": doors.collect::<Vec<_>>() }))
}

/// A context that cannot be read.
const UNKNOWN: &str = "";

fn context(patch: &Value) -> &str {
    const KNOWN: [&str; 3] = ["SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY"];
    let written = patch.pointer("/match/context").and_then(Value::as_str);
    written.filter(|written| KNOWN.contains(written)).unwrap_or(UNKNOWN)
}

/// A filter that lets nobody pass: it allows, and nobody is listed.
fn nobody(at: &str) -> Value {
    let (area, prefix) = match at {
        "HTTP_FILTER" => ("http", json!({})),
        _ => ("network", json!({ "stat_prefix": "refused" })),
    };
    let mut config = prefix;
    let kind = format!("type.googleapis.com/envoy.extensions.filters.{area}.rbac.v3.RBAC");
    config["@type"] = json!(kind);
    config["rules"] = json!({ "action": "ALLOW" });
    let filter = json!({ "name": format!("envoy.filters.{area}.rbac"), "typed_config": config });
    json!({ "operation": "INSERT_FIRST", "value": filter })
}
