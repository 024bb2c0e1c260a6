//! Objects of which some part guards: what of them can be read stays in force, and the part that
//! guards is closed if it cannot be read.

use serde_json::{Map, Value, json};

use super::{Extent, object};
use crate::{
    dialect::{
        Kind, Object,
        fragment::Fragment,
        istio::{mesh_config::MeshConfig, sidecar::Sidecar},
        load::parse_value,
        schema::ObjectSchema,
    },
    ir::ObjectId,
    yaml,
};

const OUTBOUND: &str = "outboundTrafficPolicy";

/// The settings of a mesh that guard, closed.
fn closed_settings() -> [(&'static str, Value); 3] {
    [
        (OUTBOUND, registry_only()),
        // Spellings of a path that one server takes for the same do not dodge a policy.
        ("pathNormalization", json!({ "normalization": "DECODE_AND_MERGE_SLASHES" })),
        ("meshMTLS", json!({ "minProtocolVersion": "TLSV1_3" })),
    ]
}

fn registry_only() -> Value {
    json!({ "mode": "REGISTRY_ONLY" })
}

/// What stands in for a mesh configuration, be it an object or the text in a ConfigMap: without it
/// the mesh would have another root namespace and another trust domain than its policies.
pub(super) fn mesh(raw: &Value, extent: Extent) -> Option<Value> {
    if let Some(spec) = raw.get("spec") {
        return Some(settings(spec, extent));
    }
    let text = raw.pointer("/data/mesh")?.as_str()?;
    match yaml::parse(text) {
        Ok(read) => {
            Some(settings(&read.map_or_else(|| json!({}), |read| read.to_json()), Extent::Whole))
        }
        Err(_) => {
            let Fragment { value, guards, .. } = Fragment::of_mesh_text(text);
            Some(settings(&value["spec"], Extent::Part { guards }))
        }
    }
}

fn settings(written: &Value, extent: Extent) -> Value {
    let fields = written.as_object();
    let mut kept = taken(Kind::MESH_CONFIG, fields.into_iter().flatten());
    // A key that nobody knows may be a slip of the pen for one of these.
    let maybe = extent != Extent::Whole
        || fields.is_none_or(|fields| fields.keys().any(|key| !knows(MeshConfig::SCHEMA, key)));
    let lost = |key: &str| maybe || fields.is_some_and(|fields| fields.contains_key(key));
    for (key, closed) in closed_settings() {
        if !kept.contains_key(key) && lost(key) {
            kept.insert(key.to_owned(), closed);
        }
    }
    Value::Object(kept)
}

/// What stands in for a Sidecar that says where traffic for unknown hosts may go.
pub(super) fn sidecar(id: &ObjectId, raw: &Value) -> Option<Object> {
    let written = raw.get("spec")?.as_object()?;
    let mut kept = taken(id.kind, written);
    let guards = |(key, value): (&String, &Value)| match &**key {
        OUTBOUND => value.get("mode").is_none_or(|mode| *mode == "REGISTRY_ONLY"),
        key => !knows(Sidecar::SCHEMA, key),
    };
    let lost = written.contains_key(OUTBOUND) && !kept.contains_key(OUTBOUND);
    // Of others than it was for, it would be in the place of their own.
    let about = |key: &str| !written.contains_key(key) || kept.contains_key(key);
    if !about("workloadSelector") || !(lost || written.iter().any(guards)) {
        return None;
    }
    kept.entry(OUTBOUND).or_insert_with(registry_only);
    object(id, &id.name, raw, kept)
}

/// What stands in for a Gateway: its servers with TLS keep their hosts from wider servers of others,
/// which may let other clients in, and serve nobody.
pub(super) fn gateway(id: &ObjectId, raw: &Value) -> Option<Object> {
    let written = raw.get("spec")?.as_object()?;
    let servers = written.get("servers")?.as_array()?.iter().enumerate();
    let servers: Vec<Value> = servers.filter_map(|(i, server)| unserved(i, server)).collect();
    if servers.is_empty() {
        return None;
    }
    let spec = Map::from_iter([("servers".to_owned(), Value::Array(servers))]);
    let selector = written.get_key_value("selector");
    let narrow = spec.clone().into_iter().chain(selector.map(|(k, v)| (k.clone(), v.clone())));
    let own = |spec| object(id, &id.name, raw, spec);
    own(narrow.collect()).or_else(|| own(spec))
}

/// A server with TLS in the place of one that was written: without routes, connections to its hosts
/// lead nowhere. `None`: it is for plaintext, or for nobody knows whom.
fn unserved(number: usize, written: &Value) -> Option<Value> {
    const PLAIN: [&str; 5] = ["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"];
    let protocol = written.pointer("/port/protocol").and_then(Value::as_str).unwrap_or_default();
    let protocol = protocol.to_ascii_uppercase();
    let is_secure = written.get("tls").is_some() || matches!(&*protocol, "HTTPS" | "TLS");
    if !is_secure || PLAIN.contains(&&*protocol) {
        return None;
    }
    let port = written.pointer("/port/number")?;
    let closed = json!({
        "port": { "number": port, "name": format!("refused-{number}"), "protocol": "TLS" },
        "hosts": written.get("hosts")?,
        "tls": { "mode": "PASSTHROUGH" },
    });
    let mut bound = closed.clone();
    if let Some(bind) = written.get("bind") {
        bound["bind"] = bind.clone();
    }
    let is_taken = |server: &Value| {
        let spec = Map::from_iter([("servers".to_owned(), json!([server]))]);
        is_taken(Kind::GATEWAY, &spec)
    };
    [bound, closed].into_iter().find(is_taken)
}

/// What stands in for a DestinationRule that asks for TLS: plaintext would go to the servers that it
/// is about. What of its TLS cannot be read is the mesh's own, which no server of others has.
pub(super) fn rule(id: &ObjectId, raw: &Value, extent: Extent) -> Option<Object> {
    let written = raw.get("spec")?.as_object()?;
    if !written.values().any(asks_for_tls) {
        return None;
    }
    let host = written.get("host")?;
    let rule = Rule { host, extent };
    // First what the others are refused without.
    let about = ["host", "exportTo", "workloadSelector"];
    let about = about.into_iter().filter_map(|key| written.get_key_value(key));
    let mut kept = taken(id.kind, about);
    let elsewhere = |(key, value): (&String, &Value)| {
        !matches!(&**key, "subsets" | "trafficPolicy") && asks_for_tls(value)
    };
    match written.get("trafficPolicy") {
        Some(policy) => drop(kept.insert("trafficPolicy".to_owned(), rule.policy(policy))),
        None if written.iter().any(elsewhere) => {
            kept.insert("trafficPolicy".to_owned(), json!({ "tls": mutual() }));
        }
        None => {}
    }
    if let Some(subsets) = written.get("subsets").and_then(Value::as_array) {
        let subsets = subsets.iter().filter_map(|subset| rule.subset(subset));
        kept.insert("subsets".to_owned(), subsets.collect());
    }
    object(id, &id.name, raw, kept)
}

/// TLS that a server outside of the mesh refuses.
fn mutual() -> Value {
    json!({ "mode": "ISTIO_MUTUAL" })
}

/// Whether TLS is asked for anywhere in a value, by its own name or by what is said of it.
fn asks_for_tls(value: &Value) -> bool {
    const MODES: [&str; 3] = ["SIMPLE", "MUTUAL", "ISTIO_MUTUAL"];
    match value {
        Value::Array(items) => items.iter().any(asks_for_tls),
        Value::Object(fields) => fields.iter().any(|(key, value)| match &**key {
            "tls" => value.get("mode").is_none_or(|mode| *mode != "DISABLE"),
            "mode" => value.as_str().is_some_and(|mode| MODES.contains(&mode)),
            _ => asks_for_tls(value),
        }),
        _ => false,
    }
}

/// A DestinationRule that is refused.
struct Rule<'a> {
    host: &'a Value,
    extent: Extent,
}

impl Rule<'_> {
    fn takes(&self, key: &str, value: &Value) -> bool {
        let spec = Map::from_iter([
            ("host".to_owned(), self.host.clone()),
            (key.to_owned(), value.clone()),
        ]);
        is_taken(Kind::DESTINATION_RULE, &spec)
    }

    /// A `trafficPolicy`: as it is written, or its TLS alone.
    fn policy(&self, written: &Value) -> Value {
        if self.extent == Extent::Whole && self.takes("trafficPolicy", written) {
            return written.clone();
        }
        let mut closed = Map::new();
        let settings = written.get("portLevelSettings");
        let ports = settings.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let by_port: Vec<Value> = ports.iter().filter_map(|port| self.port(port)).collect();
        let elsewhere = |(key, value): (&String, &Value)| {
            !matches!(&**key, "tls" | "portLevelSettings") && asks_for_tls(value)
        };
        let lost = by_port.len() < ports.len()
            || settings.is_some_and(|settings| !settings.is_array())
            || written.as_object().is_none_or(|fields| fields.iter().any(elsewhere));
        match written.get("tls") {
            Some(tls) => drop(closed.insert("tls".to_owned(), self.tls(tls))),
            None if lost => drop(closed.insert("tls".to_owned(), mutual())),
            None => {}
        }
        if !by_port.is_empty() {
            closed.insert("portLevelSettings".to_owned(), by_port.into());
        }
        Value::Object(closed)
    }

    fn tls(&self, written: &Value) -> Value {
        let readable = self.takes("trafficPolicy", &json!({ "tls": written }));
        // Of what was not read to its end, what a certificate must be may be missing.
        let whole = self.extent == Extent::Whole || written["mode"] == "DISABLE";
        if readable && whole { written.clone() } else { mutual() }
    }

    /// The TLS of a port; `None`: it cannot be told which port.
    fn port(&self, written: &Value) -> Option<Value> {
        let mut closed = json!({ "port": written.get("port")? });
        if let Some(tls) = written.get("tls") {
            closed["tls"] = self.tls(tls);
        } else if asks_for_tls(written) {
            closed["tls"] = mutual();
        }
        let policy = json!({ "portLevelSettings": [closed] });
        self.takes("trafficPolicy", &policy).then_some(closed)
    }

    /// `None`: nobody reaches a subset that is not there.
    fn subset(&self, written: &Value) -> Option<Value> {
        if self.extent != Extent::Whole {
            return None;
        }
        let mut closed = written.clone();
        if let Some(policy) = written.get("trafficPolicy") {
            closed["trafficPolicy"] = self.policy(policy);
        }
        self.takes("subsets", &json!([closed])).then_some(closed)
    }
}

/// Those fields of a spec, one after the other, with which it is accepted.
fn taken<'v>(
    kind: Kind,
    fields: impl IntoIterator<Item = (&'v String, &'v Value)>,
) -> Map<String, Value> {
    let mut kept = Map::new();
    for (key, value) in fields {
        kept.insert(key.clone(), value.clone());
        if !is_taken(kind, &kept) {
            kept.remove(key);
        }
    }
    kept
}

fn is_taken(kind: Kind, spec: &Map<String, Value>) -> bool {
    let object = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind_name(),
        "metadata": { "name": "default" }, "spec": spec,
    });
    parse_value(object).is_ok()
}

fn knows(schema: &ObjectSchema, key: &str) -> bool {
    schema.fields.iter().any(|field| field.name == key)
}

#[cfg(test)]
mod tests {
    use super::{super::closed, *};
    use crate::dialect::stand_in::of_fragment;

    fn id(kind: Kind) -> ObjectId {
        let (namespace, name) = match kind.namespaced() {
            true => ("shop", "p"),
            false => ("", "default"),
        };
        ObjectId { kind, namespace: namespace.into(), name: name.into() }
    }

    /// What stands in, as its spec.
    fn spec(object: Option<Object>) -> Option<Value> {
        object.map(|object| object.raw()["spec"].clone())
    }

    fn check(kind: Kind, table: &[(Value, Option<Value>)]) {
        for (written, expected) in table {
            let found = spec(closed(&id(kind), &json!({ "spec": written })));
            assert_eq!(found, *expected, "{written}");
        }
    }

    #[test]
    fn what_can_be_read_of_the_settings_of_a_mesh_stays_and_guards_are_closed() {
        let normal = json!({ "normalization": "DECODE_AND_MERGE_SLASHES" });
        let tls = json!({ "minProtocolVersion": "TLSV1_3" });
        let all = |trust_domain: Value| json!({ "trustDomain": trust_domain, "outboundTrafficPolicy": registry_only(), "pathNormalization": normal, "meshMTLS": tls });
        check(
            Kind::MESH_CONFIG,
            &[
                (
                    json!({ "trustDomain": "corp", "outboundTrafficPolicy": { "mode": "REGISTRY_ON" } }),
                    Some(
                        json!({ "trustDomain": "corp", "outboundTrafficPolicy": registry_only() }),
                    ),
                ),
                (
                    json!({ "accessLogFile": 7, "outboundTrafficPolicy": { "mode": "ALLOW_ANY" } }),
                    Some(json!({ "outboundTrafficPolicy": { "mode": "ALLOW_ANY" } })),
                ),
                (
                    json!({ "trustDomain": "corp", "outboundTraficPolicy": 1 }),
                    Some(all(json!("corp"))),
                ),
                (
                    json!({ "proxyListenPort": 15006, "proxyInboundListenPort": 15006 }),
                    Some(json!({ "proxyInboundListenPort": 15006 })),
                ),
            ],
        );
        let map = |text: &str| json!({ "kind": "ConfigMap", "data": { "mesh": text } });
        let of_map = |text: &str| spec(closed(&id(Kind::MESH_CONFIG), &map(text)));
        assert_eq!(of_map("trustDomain: corp\na: ["), Some(all(json!("corp"))));
        assert_eq!(
            of_map("trustDomain: corp\ndnsRefreshRate: [1]"),
            Some(json!({ "trustDomain": "corp" }))
        );
        assert_eq!(spec(closed(&id(Kind::MESH_CONFIG), &json!({ "data": {} }))), None);
        let fragment = Fragment::of_mesh_text("trustDomain: corp\na: [");
        assert_eq!(spec(of_fragment(&fragment)), Some(all(json!("corp"))));
    }

    #[test]
    fn a_sidecar_that_says_where_traffic_may_go_stands_in_closed() {
        let selector = json!({ "labels": { "app": "a" } });
        let egress = json!([{ "hosts": ["./*"] }]);
        let closed = json!({ "workloadSelector": selector, "egress": egress, "outboundTrafficPolicy": registry_only() });
        let with = |key: &str, value: Value| {
            let mut spec = closed.clone();
            spec[key] = value;
            spec
        };
        check(
            Kind::SIDECAR,
            &[
                (
                    with("outboundTrafficPolicy", json!({ "mode": "REGISTRY" })),
                    Some(closed.clone()),
                ),
                (with("ingres", json!([])), Some(closed.clone())),
                (
                    json!({ "outboundTrafic": 1 }),
                    Some(json!({ "outboundTrafficPolicy": registry_only() })),
                ),
                (with("workloadSelector", json!(7)), None),
                (json!({ "egress": egress, "ingress": 7 }), None),
                (json!({ "outboundTrafficPolicy": { "mode": "ALLOW_ANY" }, "ingress": 7 }), None),
            ],
        );
    }

    #[test]
    fn servers_with_tls_keep_their_hosts_and_serve_nobody() {
        let server = |protocol: &str, host: Value, tls: Value| {
            let port = json!({ "number": 443, "name": "a", "protocol": protocol });
            json!({ "port": port, "hosts": [host], "tls": tls })
        };
        let closed = |number: usize, host: &str| {
            let port =
                json!({ "number": 443, "name": format!("refused-{number}"), "protocol": "TLS" });
            json!({ "port": port, "hosts": [host], "tls": { "mode": "PASSTHROUGH" } })
        };
        let mutual = json!({ "mode": "MUTUAL", "credentialName": "c" });
        let selector = json!({ "app": "edge" });
        check(
            Kind::GATEWAY,
            &[
                (
                    json!({ "selector": selector, "servers": [
                    server("HTTP", json!("a.test"), json!({ "httpsRedirect": true })),
                    server("HTTPS", json!("a.test"), mutual.clone()),
                    server("HTTPS", json!(7), mutual.clone()),
                    server("TLS", json!("b.test"), json!({ "mod": "MUTUAL" })),
                ] }),
                    Some(
                        json!({ "selector": selector, "servers": [closed(1, "a.test"), closed(3, "b.test")] }),
                    ),
                ),
                (
                    json!({ "selector": 7, "servers": [server("HTTPS", json!("a.test"), mutual)] }),
                    Some(json!({ "servers": [closed(0, "a.test")] })),
                ),
                (json!({ "servers": [server("HTTP", json!("a.test"), json!({}))] }), None),
                (json!({ "servers": 7 }), None),
            ],
        );
    }

    #[test]
    fn a_rule_that_asks_for_tls_stands_in_without_plaintext() {
        let simple = json!({ "mode": "SIMPLE", "sni": "a.test" });
        let rule = |policy: Value| json!({ "host": "a.test", "trafficPolicy": policy });
        let closed = rule(json!({ "tls": mutual() }));
        let port = |port: Value, tls: &Value| json!({ "port": port, "tls": tls });
        let (number, odd) = (json!({ "number": 443 }), json!({ "number": "https" }));
        check(
            Kind::DESTINATION_RULE,
            &[
                (
                    rule(json!({ "tls": simple, "conectionPool": {} })),
                    Some(rule(json!({ "tls": simple }))),
                ),
                (rule(json!({ "tls": { "mode": "SIMPL" } })), Some(closed.clone())),
                (rule(json!({ "tls": { "mod": "SIMPLE" } })), Some(closed.clone())),
                (rule(json!({ "tsl": simple })), Some(closed.clone())),
                (
                    json!({ "host": "a.test", "traficPolicy": { "tls": simple } }),
                    Some(closed.clone()),
                ),
                (
                    rule(json!({ "portLevelSettings": [port(number.clone(), &simple)], "a": 1 })),
                    Some(rule(json!({ "portLevelSettings": [port(number.clone(), &simple)] }))),
                ),
                (rule(json!({ "portLevelSettings": [port(odd, &simple)] })), Some(closed.clone())),
                (
                    json!({ "host": "a.test", "exportTo": 7, "subsets": [
                    { "name": "v1", "trafficPolicy": { "tls": { "mode": "SIMPLE", "sni": 7 } } },
                    { "nam": "v2" },
                ] }),
                    Some(json!({ "host": "a.test", "subsets": [
                    { "name": "v1", "trafficPolicy": { "tls": mutual() } },
                ] })),
                ),
                (rule(json!({ "tls": { "mode": "DISABLE" }, "a": 1 })), None),
                (rule(json!({ "conectionPool": {} })), None),
                (json!({ "trafficPolicy": { "tls": simple } }), None),
            ],
        );
        let part = json!({ "spec": rule(json!({ "tls": simple })) });
        let fragment = Fragment { id: id(Kind::DESTINATION_RULE), value: part, guards: false };
        assert_eq!(spec(of_fragment(&fragment)), Some(closed));
    }
}
