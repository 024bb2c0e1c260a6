//! What is in force instead of an object that guards access and is not served yet.

use serde_json::Value;

use crate::dialect::kind::AS_IF_GONE;

/// A RequestAuthentication, which always guards.
pub(super) fn no_token(_: &Value) -> Option<&'static str> {
    Some(
        "no token is checked or turned away, and none gives anybody a right: a rule that asks for a \
         request's principal or claims never admits",
    )
}

/// An extension of proxies that says when it runs (`WasmPlugin.phase`): whether then access is
/// decided.
pub(super) fn guarding_phase(object: &Value) -> Option<&'static str> {
    let phase = object.pointer("/spec/phase").and_then(Value::as_str);
    matches!(phase, Some("AUTHN" | "AUTHZ")).then_some(AS_IF_GONE)
}
