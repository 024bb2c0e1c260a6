//! What is in force instead of an object that guards access and is not served yet.

use serde_json::Value;

use crate::dialect::kind::AS_IF_GONE;

/// An extension of proxies that says when it runs (`WasmPlugin.phase`): whether then access is
/// decided.
pub(super) fn guarding_phase(object: &Value) -> Option<&'static str> {
    let phase = object.pointer("/spec/phase").and_then(Value::as_str);
    matches!(phase, Some("AUTHN" | "AUTHZ")).then_some(AS_IF_GONE)
}
