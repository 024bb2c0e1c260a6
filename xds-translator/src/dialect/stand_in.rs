//! What is in force in the place of a guard that is refused and of which no version was accepted:
//! the same guard with every door closed.
//!
//! Without it a slip of the pen in a policy would leave open what the policy was written to close.
//! It is the only place that says what a closed guard is, or asks the row of its kind, whoever
//! refuses one: the reader of a
//! file, a rule of values, or lowering.

mod extensions;
mod filters;
mod parts;
mod tokens;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Kind, Object,
    fragment::Fragment,
    istio::{dry_run, security::AuthorizationPolicy},
    load::{Rejected, parse_value},
    scalar,
};
use crate::ir::ObjectId;

/// The parts of a spec that say whom a policy is about.
const SCOPES: [&str; 2] = ["selector", "workloadSelector"];

/// Labels of the pods of a Gateway and of a GatewayClass (Gateway API).
const TARGETS: [(&str, &str); 2] = [
    ("Gateway", "gateway.networking.k8s.io/gateway-name"),
    ("GatewayClass", "gateway.networking.k8s.io/gateway-class-name"),
];

/// The closed guard in the place of the object `id`, of which `raw` is what was written; `None` for
/// what guards nothing. About whom it is, is what was written, or, if that cannot be read or needs
/// more than a selector, everybody in its namespace.
pub fn closed(id: &ObjectId, raw: &Value) -> Option<Object> {
    closed_door(id, raw, Extent::Whole)
}

/// [`closed`] for an object that was refused.
pub fn of_rejected(rejected: &Rejected) -> Option<Object> {
    closed(&rejected.id, &rejected.object.raw())
}

/// [`closed`] for what could be read of an object in a text that cannot be read whole.
pub fn of_fragment(fragment: &Fragment) -> Option<Object> {
    closed_door(&fragment.id, &fragment.value, Extent::Part { guards: fragment.guards })
}

/// Whether what was written was read to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// Something may stand behind what was read; whether the text names what guards.
    Part {
        guards: bool,
    },
}

fn closed_door(id: &ObjectId, raw: &Value, extent: Extent) -> Option<Object> {
    let doors = match id.kind {
        kind if kind == Kind::AUTHORIZATION_POLICY => access(raw, extent)?,
        kind if kind == Kind::REQUEST_AUTHENTICATION => tokens::closed(raw, extent),
        kind if kind == Kind::ENVOY_FILTER => filters::closed(raw, extent)?,
        kind if [Kind::WASM_PLUGIN, Kind::TRAFFIC_EXTENSION].contains(&kind) => {
            extensions::closed(kind, raw, extent)?
        }
        kind if kind == Kind::MESH_CONFIG => parts::mesh(raw, extent)?,
        kind if kind == Kind::DESTINATION_RULE => return parts::rule(id, raw, extent),
        kind if kind == Kind::GATEWAY => return parts::gateway(id, raw),
        kind if kind == Kind::SIDECAR => return parts::sidecar(id, raw),
        kind => kind.serving()?.closed?(raw)?,
    };
    let Value::Object(doors) = doors else { return None };
    let scope = scope(raw);
    let narrow = |name: &str| {
        let spec = scope.clone().into_iter().chain(doors.clone()).collect();
        object(id, name, raw, spec).filter(|_| !scope.is_empty())
    };
    let wide = |name: &str| object(id, name, raw, doors.clone()).map(of_old);
    let about = |name: &str| narrow(name).or_else(|| wide(name));
    // A name that is refused cannot be its own.
    let other_name = || format!("refused-{:016x}", xxh3_64(id.name.as_bytes()));
    about(&id.name).or_else(|| about(&other_name()))
}

/// Whom a policy is about, as a selector: the one that was written, or that of its only target. One
/// that is attached elsewhere is about all of its namespace.
fn scope(raw: &Value) -> Map<String, Value> {
    let Some(spec) = raw.get("spec").and_then(Value::as_object) else { return Map::new() };
    let several = match spec.get("targetRefs") {
        Some(Value::Array(targets)) => &targets[..],
        Some(unreadable) => std::slice::from_ref(unreadable),
        None => &[],
    };
    let mut targets = several.iter().chain(spec.get("targetRef"));
    let Some(first) = targets.next() else {
        let part = |name: &&str| Some(((*name).to_owned(), spec.get(*name)?.clone()));
        return SCOPES.iter().filter_map(part).collect();
    };
    match (label(first), targets.next(), spec.contains_key("selector")) {
        (Some((label, name)), None, false) => {
            Map::from_iter([("selector".to_owned(), json!({ "matchLabels": { label: name } }))])
        }
        _ => Map::new(),
    }
}

/// The label of the pods that a target means, if they can be told from it alone.
fn label(target: &Value) -> Option<(&'static str, &str)> {
    let text = |key: &str| target.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (kind, name) = (text("kind")?, text("name")?);
    TARGETS.iter().find(|(known, _)| *known == kind).map(|(_, label)| (*label, name))
}

/// What stands in for a policy, which may be meant to deny what others allow. An audit guards
/// nothing.
fn access(raw: &Value, extent: Extent) -> Option<Value> {
    match raw.pointer("/spec/action").map(Value::as_str) {
        Some(Some("AUDIT")) => None,
        // Nobody is allowed by it; other policies still allow.
        Some(Some("ALLOW")) if extent == Extent::Whole => Some(json!({})),
        None if extent == Extent::Whole && leaves_action_out(raw) => Some(json!({})),
        None | Some(_) => Some(json!({ "action": "DENY", "rules": [{}] })),
    }
}

/// Whether a policy without an action was written so: no key in it could be a slip of the pen for
/// the action, or for what the action stands below.
fn leaves_action_out(raw: &Value) -> bool {
    const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
    let known = |key: &str| AuthorizationPolicy::SCHEMA.fields.iter().any(|f| f.name == key);
    let top = raw.as_object().is_some_and(|raw| raw.keys().all(|key| TOP.contains(&&**key)));
    let spec = raw.get("spec").and_then(Value::as_object);
    top && spec.is_some_and(|spec| spec.keys().all(|key| known(key)))
}

/// What a policy that is only tried out says of that: what stands in for it is tried out too.
fn marks(raw: &Value) -> Value {
    let written = raw.pointer("/metadata/annotations").and_then(|a| a.get(dry_run::ANNOTATION));
    match written.and_then(Value::as_str) {
        Some(word) if dry_run::means(word) == Some(true) => json!({ dry_run::ANNOTATION: word }),
        _ => json!({}),
    }
}

/// What stands in for everybody of its namespace comes before what others say of all of them.
fn of_old(mut object: Object) -> Object {
    Arc::make_mut(&mut object.meta).created = OLDEST;
    object
}

/// Before everything that was ever made, and that does not say when.
const OLDEST: i64 = i64::MIN;

/// What stands in for `raw`: as old as it is, since of several guards the oldest may count, and tried
/// out as it is.
fn object(id: &ObjectId, name: &str, raw: &Value, spec: Map<String, Value>) -> Option<Object> {
    let mut metadata =
        json!({ "name": name, "namespace": &*id.namespace, "annotations": marks(raw) });
    let created = raw.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
    if let Some(created) = created.filter(|text| scalar::parse_timestamp(text).is_some()) {
        metadata["creationTimestamp"] = json!(created);
    }
    let value = json!({
        "apiVersion": id.kind.api_version(),
        "kind": id.kind.kind_name(),
        "metadata": metadata,
        "spec": spec,
    });
    parse_value(value).ok().map(|(object, _)| object)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_guard_stands_in_closed_for_whom_it_is_about_or_its_namespace() {
        let selector = json!({ "matchLabels": { "app": "cart" } });
        let strict = json!({ "mtls": { "mode": "STRICT" } });
        let deny = json!({ "action": "DENY", "rules": [{}] });
        let gateway = json!({ "kind": "Gateway", "name": "edge" });
        let nobody = tokens::closed(&json!({}), Extent::Part { guards: true })["jwtRules"].clone();
        let scoped = |spec: &Value| {
            let mut spec = spec.clone();
            spec["selector"] = selector.clone();
            Some(spec)
        };
        let table = [
            (
                Kind::PEER_AUTHENTICATION,
                json!({ "selector": selector, "mtls": { "mode": "STRONG" } }),
                scoped(&strict),
            ),
            (Kind::PEER_AUTHENTICATION, json!({ "selectr": selector }), Some(strict.clone())),
            (Kind::PEER_AUTHENTICATION, json!({ "selector": ["cart"] }), Some(strict)),
            (
                Kind::AUTHORIZATION_POLICY,
                json!({ "selector": selector, "rules": 1 }),
                scoped(&json!({})),
            ),
            (
                Kind::AUTHORIZATION_POLICY,
                json!({ "selector": selector, "rulez": [], "action": "ALLOW" }),
                scoped(&json!({})),
            ),
            (
                Kind::AUTHORIZATION_POLICY,
                json!({ "selector": selector, "actoin": "DENY" }),
                scoped(&deny),
            ),
            (
                Kind::AUTHORIZATION_POLICY,
                json!({ "selector": selector, "action": "DENY", "rules": 1 }),
                scoped(&deny),
            ),
            (
                Kind::AUTHORIZATION_POLICY,
                json!({ "selector": 7, "action": "DENI" }),
                Some(deny.clone()),
            ),
            (Kind::AUTHORIZATION_POLICY, json!({ "action": 7 }), Some(deny.clone())),
            (Kind::AUTHORIZATION_POLICY, json!([]), Some(deny)),
            (Kind::REQUEST_AUTHENTICATION, json!([]), Some(json!({ "jwtRules": nobody }))),
            (
                Kind::REQUEST_AUTHENTICATION,
                json!({ "selector": selector, "jwtRules": [], "jwtRulez": [] }),
                scoped(&json!({ "jwtRules": nobody })),
            ),
            (Kind::AUTHORIZATION_POLICY, json!({ "action": "AUDIT", "rules": 1 }), None),
            (Kind::VIRTUAL_SERVICE, json!({ "hosts": 1 }), None),
            (
                Kind::AUTHORIZATION_POLICY,
                json!({ "targetRefs": [gateway], "action": "ALLOW", "rules": 1 }),
                Some(json!({ "selector": { "matchLabels": { TARGETS[0].1: "edge" } } })),
            ),
            (
                Kind::AUTHORIZATION_POLICY,
                json!({ "targetRefs": [gateway, gateway], "rules": 1 }),
                Some(json!({})),
            ),
            (
                Kind::AUTHORIZATION_POLICY,
                json!({ "targetRef": { "kind": "Service", "name": "cart" }, "rules": 1 }),
                Some(json!({})),
            ),
            (
                Kind::AUTHORIZATION_POLICY,
                json!({ "targetRef": gateway, "selector": selector, "rules": 1 }),
                Some(json!({})),
            ),
        ];
        for (kind, spec, expected) in table {
            let id = ObjectId { kind, namespace: "shop".into(), name: "p".into() };
            let closed = closed(&id, &json!({ "spec": spec }));
            assert!(closed.as_ref().is_none_or(|object| object.id == id));
            assert_eq!(closed.map(|object| object.raw()["spec"].clone()), expected, "{spec}");
        }
        let id = ObjectId {
            kind: Kind::PEER_AUTHENTICATION,
            namespace: "shop".into(),
            name: "No_Name".into(),
        };
        assert!(
            closed(&id, &json!({})).is_some_and(|object| object.id.name.starts_with("refused"))
        );
    }

    #[test]
    fn an_action_that_may_be_meant_denies_everything() {
        let id = ObjectId {
            kind: Kind::AUTHORIZATION_POLICY,
            namespace: "shop".into(),
            name: "p".into(),
        };
        let allow = json!({ "spec": { "rules": 1 } });
        let action = |object: Option<Object>| object.map(|o| o.raw()["spec"]["action"].clone());
        assert_eq!(action(closed(&id, &allow)), Some(Value::Null));
        let fragment = Fragment { id: id.clone(), value: allow, guards: false };
        assert_eq!(action(of_fragment(&fragment)), Some(json!("DENY")));
        for raw in [
            json!({ "spec": null, "action": "DENY" }),
            json!({ "specs": { "action": "DENY" } }),
            json!({ "spec": { "Action": "DENY" } }),
            json!({}),
        ] {
            assert_eq!(action(closed(&id, &raw)), Some(json!("DENY")), "{raw}");
        }
    }

    #[test]
    fn what_is_only_tried_out_stands_in_to_be_tried_out() {
        let id = ObjectId {
            kind: Kind::AUTHORIZATION_POLICY,
            namespace: "shop".into(),
            name: "p".into(),
        };
        for (word, kept) in [("true", true), ("1", true), ("false", false), ("tRuE", false)] {
            let metadata = json!({ "annotations": { dry_run::ANNOTATION: word } });
            let raw = json!({ "metadata": metadata, "spec": { "action": "DENY", "rulez": [] } });
            let object = closed(&id, &raw).expect("it guards");
            let annotations = object.raw()["metadata"]["annotations"].clone();
            assert_eq!(annotations.get(dry_run::ANNOTATION).is_some(), kept, "{word}");
        }
    }

    #[test]
    fn what_stands_in_is_as_old_as_what_it_stands_in_for_or_comes_first() {
        let id = ObjectId {
            kind: Kind::PEER_AUTHENTICATION,
            namespace: "shop".into(),
            name: "p".into(),
        };
        let selector = json!({ "matchLabels": { "app": "cart" } });
        for (written, selector, created) in [
            ("2024-02-29T12:30:05Z", Some(selector.clone()), 1_709_209_805),
            ("yesterday", Some(selector), 0),
            ("2024-02-29T12:30:05Z", Some(json!(7)), OLDEST),
            ("2024-02-29T12:30:05Z", None, OLDEST),
        ] {
            let mut raw = json!({ "metadata": { "creationTimestamp": written }, "spec": {} });
            if let Some(selector) = selector {
                raw["spec"]["selector"] = selector;
            }
            let stands = closed(&id, &raw).map(|object| object.meta.created);
            assert_eq!(stands, Some(created), "{raw}");
        }
    }

    #[test]
    fn an_extension_stands_in_closed_unless_it_would_open() {
        let selector = json!({ "matchLabels": { "app": "cart" } });
        let nothing = json!({ "url": "file:///dev/null" });
        let table = [
            (
                Kind::WASM_PLUGIN,
                json!({ "selector": selector, "url": "oci://a.test/m" }),
                Some(json!({ "selector": selector, "url": "file:///dev/null" })),
            ),
            (
                Kind::WASM_PLUGIN,
                json!({ "url": 7, "type": "NETWORK" }),
                Some(json!({ "url": "file:///dev/null", "type": "NETWORK" })),
            ),
            (Kind::WASM_PLUGIN, json!({ "url": "oci://a", "failStrategy": "FAIL_OPEN" }), None),
            (
                Kind::TRAFFIC_EXTENSION,
                json!({ "wasm": { "url": "oci://a.test/m" } }),
                Some(json!({ "wasm": nothing })),
            ),
            (Kind::TRAFFIC_EXTENSION, json!({ "lua": 7 }), Some(json!({ "wasm": nothing }))),
            (
                Kind::TRAFFIC_EXTENSION,
                json!({ "wasm": { "url": "oci://a", "failStrategy": "FAIL_OPEN" } }),
                None,
            ),
        ];
        for (kind, spec, expected) in table {
            let id = ObjectId { kind, namespace: "shop".into(), name: "p".into() };
            let stands = closed(&id, &json!({ "spec": spec }));
            assert_eq!(stands.map(|object| object.raw()["spec"].clone()), expected, "{spec}");
        }
    }

    #[test]
    fn patches_that_guard_stand_in_closed_where_they_were_to_be() {
        let guard = |context: &str| {
            json!({
                "applyTo": "EXTENSION_CONFIG", "match": { "context": context },
                "patch": { "operation": "ADD", "value": { "name": "envoy.filters.http.ext_authz" } },
            })
        };
        let both = vec!["GATEWAY", "SIDECAR_INBOUND"];
        let table = [
            (json!([guard("SIDECAR_OUTBOUND")]), Some(vec!["SIDECAR_OUTBOUND"])),
            (json!([guard("GATEWAY"), guard("SIDECAR_INBOUND")]), Some(both.clone())),
            (json!([guard("ANY")]), Some(both.clone())),
            (json!("ext_authz"), Some(both)),
            (json!([{ "applyTo": "BOOTSTRAP" }]), None),
        ];
        let id = ObjectId { kind: Kind::ENVOY_FILTER, namespace: "shop".into(), name: "p".into() };
        let selector = json!({ "labels": { "app": "cart" } });
        for (patches, expected) in table {
            let raw = json!({ "spec": { "workloadSelector": selector, "configPatches": patches } });
            let stands = closed(&id, &raw).map(|object| object.raw()["spec"].clone());
            assert_eq!(stands.is_some(), expected.is_some(), "{raw}");
            let (Some(stands), Some(expected)) = (stands, expected) else { continue };
            assert_eq!(stands["workloadSelector"], selector);
            let patches = stands["configPatches"].as_array().expect("patches");
            let contexts: BTreeSet<_> =
                patches.iter().filter_map(|patch| patch["match"]["context"].as_str()).collect();
            assert_eq!(contexts.into_iter().collect::<Vec<_>>(), expected, "{raw}");
            assert_eq!(patches.len(), 2 * expected.len());
        }
    }
}
