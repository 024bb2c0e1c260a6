//! What stands in for a refused guard of which no version was ever accepted. Policies and
//! authentications need nothing: they only let pass, so that without them nobody does.

use serde_json::{Value, json};

/// A Server lets nobody pass at its port, for the pods that can be told, else for all of its
/// namespace. Where its port cannot be told, nothing can be closed.
pub(super) fn server(raw: &Value) -> Option<Value> {
    let spec = raw.get("spec")?;
    let port = spec.get("port").filter(|port| port.is_number() || port.is_string())?;
    // Machines, which no pod is.
    if spec.get("externalWorkloadSelector").is_some() && spec.get("podSelector").is_none() {
        return None;
    }
    let labels = spec.pointer("/podSelector/matchLabels").and_then(Value::as_object);
    let simple = labels.filter(|labels| labels.values().all(Value::is_string));
    let alone = spec.pointer("/podSelector/matchExpressions").is_none();
    let selector = match simple.filter(|_| alone) {
        Some(labels) => json!({ "matchLabels": labels }),
        None => json!({}),
    };
    Some(json!({ "podSelector": selector, "port": port, "accessPolicy": "deny" }))
}

/// A route of a Server lets nothing pass that it does not match, and none is matched.
pub(super) fn route(raw: &Value) -> Option<Value> {
    let parents = raw.pointer("/spec/parentRefs")?.as_array()?;
    let server = |parent: &&Value| parent.get("kind").and_then(Value::as_str) == Some("Server");
    let servers: Vec<Value> = parents
        .iter()
        .filter(server)
        .filter_map(|parent| {
            let name = parent.get("name")?.as_str()?;
            Some(json!({ "group": super::reference::POLICY, "kind": "Server", "name": name }))
        })
        .collect();
    (!servers.is_empty()).then(|| json!({ "parentRefs": servers, "rules": [] }))
}

/// What may have been meant to keep traffic in keeps it in.
pub(super) fn egress(raw: &Value) -> Option<Value> {
    let written = raw.pointer("/spec/trafficPolicy").and_then(Value::as_str);
    (written != Some("Allow")).then(|| json!({ "trafficPolicy": "Deny" }))
}
