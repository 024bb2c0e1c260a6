//! Extensions of proxies with the doors closed that they may guard.

use serde_json::{Value, json};

use super::{Extent, Kind};

/// What stands in for an extension: one without code, so that nobody passes where it was to be. An
/// extension without which everybody passes guards nothing.
pub(super) fn closed(kind: Kind, raw: &Value, extent: Extent) -> Option<Value> {
    let is_plugin = kind == Kind::WASM_PLUGIN;
    let place = if is_plugin { "/spec" } else { "/spec/wasm" };
    let written = raw.pointer(place);
    let says = |field: &str, word: &str| {
        written.and_then(|spec| spec.get(field)).and_then(Value::as_str) == Some(word)
    };
    if extent == Extent::Whole && says("failStrategy", "FAIL_OPEN") {
        return None;
    }
    let mut module = json!({ "url": "file:///dev/null" });
    if says("type", "NETWORK") {
        module["type"] = json!("NETWORK");
    }
    Some(if is_plugin { module } else { json!({ "wasm": module }) })
}
